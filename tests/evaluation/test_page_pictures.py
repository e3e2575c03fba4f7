"""Whatever lies where a page looks for pictures costs its own place and nothing else, and no page shows other files."""

import hostile_pictures
import pytest
from hand_written_runs import SPEC, hand_written
from PIL import Image

from genzoo.core.spec import DataSpec
from genzoo.evaluation.comparison.entries import read_entries
from genzoo.evaluation.comparison.page import Comparison, render

CLASSES = DataSpec((1, 8, 8), 17, "class", 10)
PLACES = {
    "samples/final.png": SPEC,
    "samples/by-class.png": SPEC,
    "samples/classes.png": CLASSES,
    "samples/nearest-neighbours.png": SPEC,
    "reconstructions.png": SPEC,
    "denoising.png": SPEC,
}
"""Where pictures of a run lie, and a spec of runs that have them."""
BAD = ["empty", "cut", "huge", "short", "postscript", "a-JPEG", "a-folder", "a-pipe", "to-a-device"]


def put(name, path, zoo):
    """The hostile thing called `name` in place of the file `path`."""
    path.unlink(missing_ok=True)
    if name in hostile_pictures.BAD:
        path.write_bytes(hostile_pictures.BAD[name])
    else:
        (zoo / name).rename(path)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_costs_its_place_and_not_the_page(tmp_path, name):
    sound = hand_written(tmp_path / "sound", samples=64)
    runs = [hand_written(tmp_path / "bad"), hand_written(tmp_path / "classes", spec=CLASSES)]
    for number, (place, spec) in enumerate(PLACES.items()):
        (zoo := tmp_path / f"zoo{number}").mkdir()
        hostile_pictures.not_files(zoo)
        put(name, runs[spec is CLASSES] / place, zoo)
    page = render(Comparison(read_entries([sound, *runs])))
    assert page.count("data:image/png;base64,") == 2
    for place, spec in PLACES.items():
        assert page.count(f'class="empty">{runs[spec is CLASSES] / place} cannot be read') == 1


@pytest.mark.parametrize("place", PLACES)
def test_a_page_shows_no_picture_from_outside_of_a_run(tmp_path, place):
    private = tmp_path / "private"
    private.mkdir()
    for name in ("secret.png", "final.png", "by-class.png", "classes.png", "nearest-neighbours.png"):
        Image.new("RGB", (131, 131), "red").save(private / name)
    run = hand_written(tmp_path / "run", spec=PLACES[place], samples=0)
    (run / place).parent.mkdir(exist_ok=True)
    (run / place).symlink_to(private / "secret.png")
    linked = hand_written(tmp_path / "linked", spec=PLACES[place], samples=0)
    (linked / "samples").symlink_to(private)
    page = render(Comparison(read_entries([run, linked])))
    assert "data:image/png" not in page and "leads out of the run folder" in page


def test_bombs_beside_the_pixels_of_a_picture_do_no_harm(tmp_path):
    for name, content in hostile_pictures.SOUND.items():
        run = hand_written(tmp_path / name)
        (run / "samples" / "final.png").write_bytes(content)
        assert "data:image/png;base64," in render(Comparison(read_entries([run])))


def test_a_folder_may_not_fill_the_page(tmp_path):
    run = hand_written(tmp_path / "run", samples=0)
    for number in range(40):
        (run / f"{number}-neighbour.png").write_bytes(hostile_pictures.png())
    assert render(Comparison(read_entries([run]))).count("data:image/png;base64,") == 8
