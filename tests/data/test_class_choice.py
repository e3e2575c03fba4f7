"""Classes by their names: what is meant, what is told, and grids that say which row is which."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import genzoo
from genzoo.__main__ import main
from genzoo.core.errors import GenzooError
from genzoo.data.class_choice import choose_classes, joined, numbering
from genzoo.data.class_rows import class_rows, name_strip, strip_width
from genzoo.data.image_grid import image_grid
from genzoo.data.layout import natural_key
from genzoo.evaluation.comparison.entries import read_entry
from genzoo.evaluation.comparison.page_pictures import class_command
from genzoo.models.registry import create
from genzoo.models.run_data import DataArguments, class_names_of_run
from genzoo.training.checkpoint import save_model

NAMES = ("cat", "Große Hunde", "red, big", "2", 'a "b"', "x_y")


def fill(folder, grey, n=6):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.fromarray(np.full((4, 4), grey * 5 + i, dtype=np.uint8)).save(folder / f"{i}.png")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("cat", (0,)), ("cat,cat", (0, 0)), ("große hunde", (1,)), ('"red, big",cat', (2, 0)), ("2", (3,)), ("5", (5,)),
        ('"a ""b"""', (4,)), ("x y, 0", (5, 0)), (("cat", 1), (0, 1)),
    ],
)  # fmt: skip
def test_what_is_meant(text, numbers):
    assert choose_classes(text, NAMES, 6).numbers == numbers


@pytest.mark.parametrize(
    "text", ["", "dog", "6", "-1", "red", "red, big", '"cat', "99999999999", "²", "1.0", "\x00"]
)
def test_what_is_no_class_is_refused_with_the_numbering(text):
    with pytest.raises(GenzooError) as error:
        choose_classes(text, NAMES, 6)
    said = str(error.value)
    assert "\n" not in said and ("1: Große Hunde" in said or "cannot be read" in said or not text)


def test_a_name_goes_before_a_number_and_that_is_said():
    found = choose_classes("1", ("10", "2", "1"), 3)
    assert found.numbers == (2,) and found.remarks == ("class 1 is the one called 1, which is number 2",)
    assert choose_classes("0", ("10", "2", "1"), 3).remarks == ("class 0 is 10",)
    assert choose_classes("2", ("0", "1", "2"), 3).remarks == ()  # number and name agree
    assert choose_classes("3", (), 10).numbers == (3,) and numbering((), 10) == "0 .. 9"


def test_joined_names_come_apart_again():
    assert choose_classes(joined(NAMES), NAMES, 6).numbers == tuple(range(6))


def test_folders_are_counted_as_people_count(tmp_path):
    for i in range(12):
        fill(tmp_path / str(i), i)
    data = genzoo.load_data(f"folder:{tmp_path}", cond="class")
    assert data.class_names == tuple(map(str, range(12)))
    assert choose_classes("2", data.class_names, 12) == choose_classes([2], data.class_names, 12)
    assert sorted(["b1", "B10", "b2", "", "é"], key=natural_key) == ["", "b1", "b2", "B10", "é"]


def test_a_run_keeps_the_order_of_its_classes(tmp_path):
    """Runs of former versions had theirs in the order of characters: 0, 1, 10, 11, 2 ..."""
    for i in range(12):
        fill(tmp_path / "pics" / str(i), i)
    old = DataArguments(f"folder:{tmp_path / 'pics'}", cond="class", rules=1)
    data = old.load()
    assert data.class_names[2] == "10"
    facts = old.protocol(data)
    del facts["arguments"]["rules"], facts["content"]
    save_model(create("vae", data.spec, "tiny"), tmp_path / "run", facts={"data": facts})
    again = genzoo.models.run_data.data_of_run(tmp_path / "run").load()
    assert again.class_names == data.class_names == class_names_of_run(tmp_path / "run")
    assert torch.equal(again.test.labels, data.test.labels)
    # and in another folder, which has some of the classes
    fill(tmp_path / "more" / "10", 10)
    moved = (
        genzoo.models.run_data.data_of_run(tmp_path / "run").moved(name=f"folder:{tmp_path / 'more'}").load()
    )
    assert moved.spec == data.spec and set(moved.train.labels.tolist()) == {2}
    fill(tmp_path / "more" / "strange", 3)
    with pytest.raises(GenzooError, match="class strange, which the run does not know"):
        genzoo.models.run_data.data_of_run(tmp_path / "run").moved(name=f"folder:{tmp_path / 'more'}").load()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model of three classes, one of them called as another one's number."""
    root = tmp_path_factory.mktemp("named")
    for i, name in enumerate(("1", "cats", "dogs")):
        fill(root / "pics" / name, i)
    arguments = DataArguments(f"folder:{root / 'pics'}", cond="class")
    data = arguments.load()
    save_model(create("vae", data.spec, "tiny"), root / "run", facts={"data": arguments.protocol(data)})
    return root / "run"


def test_sample_takes_names(run, capsys):
    out = run / "a.png"
    assert main(["sample", str(run), "--cond", "cats,dogs", "--n", "6", "--out", str(out)]) == 0
    named = out.read_bytes()
    assert main(["sample", str(run), "--cond", "cats,2", "--n", "6", "--out", str(out)]) == 0
    assert out.read_bytes() == named
    assert "class 2 is dogs" in capsys.readouterr().err
    assert main(["sample", str(run), "--cond", "1", "--n", "2", "--out", str(out)]) == 0
    assert "class 1 is the one called 1, which is number 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["sample", str(run), "--cond", "cows"])
    assert "0: 1, 1: cats, 2: dogs" in capsys.readouterr().err


def test_the_page_asks_for_classes_without_doubt(run):
    words = class_command(read_entry(run))
    names = class_names_of_run(run)
    assert choose_classes(words[words.index("--cond") + 1], names, 3).numbers == (0, 1, 2)


def test_python_takes_names(run):
    assert genzoo.class_numbers("dogs,cats", run).tolist() == [2, 1]
    assert genzoo.class_numbers(["cats"], ["dogs", "cats"]).tolist() == [1]
    assert genzoo.class_numbers("seven", genzoo.load_data("digits")).tolist() == [7]
    with pytest.raises(GenzooError, match="no class"):
        genzoo.class_numbers("cows", run)


def test_named_sources_know_their_names(tmp_path):
    data = genzoo.load_data("digits", cond="class")
    assert data.class_names[7] == "seven" and json.dumps(data.protocol["classes"])


# --- grids -----------------------------------------------------------------------------------------------------


def test_rows_of_a_grid_are_classes():
    classes = torch.tensor([1] * 3 + [0] * 2)
    rows = class_rows(classes, ("dog", "cat"))
    assert (
        rows.columns == 3 and rows.places.tolist() == [0, 1, 2, 3, 4] and rows.names == {0: "cat", 1: "dog"}
    )
    many = class_rows(torch.tensor([5] * 20 + [2] * 3))
    assert many.columns == 5 and many.places.tolist() == [*range(20), 20, 21, 22]
    assert many.names == {0: "class 5", 4: "class 2"}

    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1)
    plain = image_grid(images, 5, 3)
    named = image_grid(images, 5, class_rows=rows)
    strip = strip_width(65)
    assert torch.equal(named[:, strip:], plain) and strip % 65
    writing = named[:, :strip].float().mean(2)
    assert (
        (writing[:65] < 128).any()
        and (writing[65:] < 128).any()
        and not torch.equal(writing[:65], writing[65:130])
    )


@pytest.mark.parametrize("name", ["", "x" * 500, "größe", "猫", "$a$", "[red]", "\n\x1b", "caf\udce9"])
@pytest.mark.parametrize("height", [3, 66])
def test_any_name_can_be_written(name, height):
    rows = class_rows(torch.zeros(2).long(), (name,))
    assert name_strip(rows.names, 1, height, 120).shape == (height + 1, 120, 3)


def test_a_strip_is_never_taken_for_images():
    assert all(strip_width(side) % side for side in range(2, 400))
