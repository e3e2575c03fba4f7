"""What lies in a folder: which files are pictures, which folders splits or classes, and what is said of the rest."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from genzoo.core.errors import GenzooError
from genzoo.data import layout, listing, load_data, load_folder
from genzoo.data.captions import captioned, read_captions
from genzoo.data.listing import list_pictures
from genzoo.data.pictures import suffixes


def fill(folder, n=6, start=0, suffix="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(start, start + n):
        Image.fromarray(np.full((3, 3), i % 256, dtype=np.uint8)).save(folder / f"{i:03}.{suffix}")
    return folder


def remarks(folder, **options) -> str:
    found = load_folder(folder, **options).remarks
    assert all("\n" not in line for line in found)
    return "\n".join(found)


def refusal(call) -> str:
    with pytest.raises(GenzooError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


# --- what is no picture ----------------------------------------------------------------------------------------


def test_only_regular_files_are_opened(tmp_path):
    """A pipe would hang whoever reads it."""
    fill(tmp_path, 30)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "lost.png").symlink_to("nowhere")
    (tmp_path / "ring.png").symlink_to("ring.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    data = load_folder(tmp_path)
    assert sum(data.protocol["sizes"].values()) == 30
    said = "\n".join(data.remarks)
    assert "no regular file: pipe.png, zero.png" in said and "lead nowhere: lost.png, ring.png" in said


def test_links_are_followed_within_limits(tmp_path, monkeypatch):
    outside = fill(tmp_path / "outside" / "pics", 12)
    (tmp_path / "outside" / "pics" / "back").symlink_to(tmp_path)
    root = fill(tmp_path / "root", 10, start=50)
    for name, target in {"up": "..", "self": ".", "disk": "/", "system": "/proc", "more": outside}.items():
        (root / name).symlink_to(target)
    found = list_pictures(root, suffixes())
    assert len(found.files) == 22 and any("more" in str(file) for file in found.files)
    said = "\n".join(found.remarks)
    assert "holds this one" in said and all(name in said for name in ("up", "self", "disk", "system"))

    for i in range(4):
        (outside / f"deep{i}").mkdir()
    monkeypatch.setattr(listing, "MOST_LINKED_FOLDERS", 3)
    assert "more leads to more than 3 folders" in refusal(lambda: list_pictures(root, suffixes()))
    monkeypatch.undo()
    for i in range(4):
        (outside / f"{i}.txt").touch()
    monkeypatch.setattr(listing, "MOST_LINKED_OTHERS", 3)
    assert "more than 3 files" in refusal(lambda: list_pictures(root, suffixes()))
    monkeypatch.setattr(listing, "MOST_FOLDERS", 2)
    assert "more than 2 folders" in refusal(lambda: list_pictures(outside, suffixes()))


def test_kinds_are_read_or_counted(tmp_path):
    """In former versions nine pictures out of ten could vanish without a word."""
    for i, suffix in enumerate(sorted(suffixes() - {".apng", ".jfif", ".jpe"})):
        fill(tmp_path, 2, start=10 * i, suffix=suffix[1:])
    fill(tmp_path, 1, start=250, suffix="jpg")
    (tmp_path / "250.jpg").rename(tmp_path / "250.JFIF")
    for name in ("a.heic", "b.heic", "c.svg", "LICENSE", "captions.csv", ".hidden"):
        (tmp_path / name).write_bytes(b"x")
    data = load_folder(tmp_path)
    assert sum(data.protocol["sizes"].values()) == 2 * (len(suffixes()) - 3) + 1
    (line,) = [line for line in data.remarks if "not read as pictures" in line]
    assert "2 .heic" in line and "1 .svg" in line and "1 without suffix" in line and "csv" not in line
    for file in tmp_path.iterdir():
        if file.suffix != ".heic":
            file.unlink()
    assert "2 .heic" in refusal(lambda: load_folder(tmp_path))


def test_runs_of_former_versions_read_what_they_read(tmp_path):
    fill(tmp_path / "Train" / "10")
    fill(tmp_path / "Train" / "9", start=20, suffix="tif")
    fill(tmp_path / "Test" / "9", start=40)
    old, new = load_folder(tmp_path, rules=1), load_folder(tmp_path)
    assert old.protocol["classes"] == ["Test", "Train"] and sum(old.protocol["sizes"].values()) == 12
    assert new.protocol["classes"] == ["9", "10"] and len(new.test) == 6


# --- splits and classes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train", "test"), "train test"), (("Train", "Test"), "train test"), (("training", "testing"), "train test"),
        (("TRAIN", "DEV"), "train val"), (("train", "eval"), "train val"),
        (("train", "valid", "eval"), "train val test"),
        (("train", "validation", "test"), "train val test"), (("train", "evaluation", "test"), "train val test"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("wrapped", [False, True])
def test_splits_are_known_by_many_names(tmp_path, names, splits, wrapped):
    sizes = {}
    for i, (name, split) in enumerate(zip(names, splits.split(), strict=True)):
        sizes[split] = 2 * (6 + 4 * i)
        for j, of_class in enumerate(("cat", "dog")):
            fill(tmp_path / ("data" if wrapped else ".") / name / of_class, 6 + 4 * i, start=100 * i + 50 * j)
    data = load_folder(tmp_path, cond="class")
    assert data.class_names == ("cat", "dog")
    assert {s: n for s, n in data.protocol["sizes"].items() if s in splits.split()[1:]} == {
        s: n for s, n in sizes.items() if s != "train"
    }
    said = "\n".join(data.remarks)
    assert ("took folders for splits" in said) == (
        names[1:] != tuple(splits.split())[1:] or names[0] != "train"
    )
    assert ("looked through the folder data" in said) == wrapped


def test_what_looks_like_one_split_twice_is_refused(tmp_path):
    for name in ("train", "Training", "test"):
        fill(tmp_path / name)
    assert "both look like the train split" in refusal(lambda: load_folder(tmp_path))


def test_wrapping_folders_are_looked_through(tmp_path):
    for i, name in enumerate(("cat", "dog")):
        fill(tmp_path / "a" / "b" / name, start=20 * i)
    data = load_folder(tmp_path)
    assert data.class_names == ("cat", "dog") and "looked through the folder a/b" in "\n".join(data.remarks)
    fill(tmp_path / "a", 1, start=90)  # now a is a class with sub-folders of its own
    assert load_folder(tmp_path).class_names == ("a",)
    assert load_folder(fill(tmp_path / "only" / "cat").parent).class_names == ("cat",)


def test_two_classes_in_one_place_are_no_classes(tmp_path):
    store = fill(tmp_path / "store")
    fill(tmp_path / "root" / "cat", start=30)
    for name in ("dog", "wolf"):
        (tmp_path / "root" / name).symlink_to(store)
    said = refusal(lambda: load_folder(tmp_path / "root", cond="class"))
    assert "dog and wolf lead to the same pictures" in said
    assert "wolf (the same as dog)" in remarks(tmp_path / "root")


def test_classes_that_lie_in_one_split_are_told(tmp_path):
    for name in ("train/cat", "train/dog", "test/cat", "test/owl"):
        fill(tmp_path / name, 6)
    said = remarks(tmp_path, cond="class")
    assert "trained on of class owl" in said and "tested on of class dog" in said


def test_a_test_split_of_one_is_told(tmp_path):
    assert "only 1 image:" in remarks(fill(tmp_path, 3))
    fill(tmp_path, 60)
    assert remarks(tmp_path) == ""


def test_remarks_are_kept_and_printed_once(tmp_path, capsys):
    from genzoo.cli.shared import tell
    from genzoo.cli.train_command import make_plan

    data = load_data(f"folder:{fill(tmp_path, 3)}")
    assert data.protocol["remarks"] == list(data.remarks) != []
    plan = make_plan(
        ["vae", "--data", f"folder:{tmp_path}", "--size", "tiny", "--out", str(tmp_path / "run")]
    )
    assert plan.arguments.protocol(plan.data)["remarks"] == list(data.remarks)
    tell(plan.data.remarks)
    assert capsys.readouterr().err == f"note: {data.remarks[0]}\n"


def test_names_that_are_no_text(tmp_path):
    """Class folders may have bytes for names that are no UTF-8, line ends, and codes for terminals."""
    for i, name in enumerate((b"caf\xe9", b"a\nb", b"$x$", b"\x1b[31mred")):
        folder = os.path.join(os.fsencode(tmp_path), name)
        os.mkdir(folder)
        for j in range(3):
            picture = Image.fromarray(np.full((3, 3), 10 * i + j, dtype=np.uint8))
            with open(os.path.join(folder, b"%d.png" % j), "wb") as file:
                picture.save(file, format="PNG")
    data = load_folder(tmp_path, cond="class")
    assert sorted(data.class_names) == ["$x$", "\\x1b[31mred", "a\\nb", "caf\\xe9"]
    for line in (*data.class_names, *data.remarks):
        line.encode("utf-8")
        assert line.isprintable()


# --- captions --------------------------------------------------------------------------------------------------


def test_a_comma_needs_no_quotes_in_the_last_of_two_columns(tmp_path):
    file = tmp_path / "captions.csv"
    file.write_text('file,text\na.png,a cat, not a dog\nb.png,"red, big"\nc.png,plain\n')
    assert read_captions(file) == {"a.png": ["a cat, not a dog"], "b.png": ["red, big"], "c.png": ["plain"]}
    file.write_text("file,text,author\na.png,a cat,me\nb.png,a cat, not a dog,me\n")
    said = refusal(lambda: read_captions(file))
    assert "line 3" in said and "4 fields" in said and "quotes" in said
    file.write_text("text,file\na cat, not a dog,a.png\n")
    assert "line 2" in refusal(lambda: read_captions(file))


def test_captions_without_pictures_are_told(tmp_path):
    fill(tmp_path, 4)
    rows = [f"{i:03}.png,a picture" for i in range(4)]
    (tmp_path / "captions.csv").write_text("\n".join(["file,text", *rows, "gone.png,x", "old.png,y"]))
    data = captioned(load_folder(tmp_path))
    assert "2 captions in captions.csv name no picture that was read: gone.png, old.png" in data.remarks


def test_natural_key_and_split_names_agree():
    """Every name of a split is its own lower case, by which it is looked up."""
    assert all(name == name.casefold() for name in layout._SPLIT_NAMES)


def test_inputs_are_read_and_told_as_pictures_are(tmp_path):
    """12 bits in files of 16 keep their levels, files of other kinds and inputs without a picture are told."""
    pictures, inputs = fill(tmp_path / "p", 12), tmp_path / "i"
    inputs.mkdir()
    for i in range(13):
        values = np.roll(np.linspace(0, 4095, 9), i).round().astype(np.uint16).reshape(3, 3)
        Image.fromarray(values).save(inputs / f"{i:03}.png")
    (inputs / "notes.txt").touch()
    data = load_data(f"folder:{pictures}", cond=f"folder:{inputs}")
    assert data.train.batch(torch.arange(1)).cond.max() > 0.99
    said = "\n".join(data.remarks)
    assert "inputs: passed over files" in said and "inputs: pictures with 16 bits" in said
    assert "1 inputs belong to no picture that was read: 012.png" in said
    former = load_data(f"folder:{pictures}", cond=f"folder:{inputs}", rules=1)
    assert former.train.batch(torch.arange(1)).cond.max() < -0.8


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "a\0b", "x" * 5000, "\n", "caf\udce9"])
def test_folders_that_cannot_be_are_refused_in_one_line(path):
    assert "there is no folder" in refusal(lambda: load_folder(path))
