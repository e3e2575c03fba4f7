"""Data are known by what they hold: not by names, places and spellings, and not any longer once they have changed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genzoo.core.errors import GenzooError
from genzoo.core.spec import Batch, DataSpec
from genzoo.data import as_split, from_images, load_data, load_folder, paired
from genzoo.data.captions import captioned
from genzoo.data.identity import difference, images_digest, split_id
from genzoo.data.split import LazyImages, Split
from genzoo.evaluation.features.extractor import train_hash
from genzoo.models.conditioning import encoded
from genzoo.models.registry import create_encoder
from genzoo.models.run_data import DataArguments, change_since, data_of_run
from genzoo.training.checkpoint import save_model


def fill(folder: Path, n=12, seed=0, name="{:03}.png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for i in range(n):
        Image.fromarray(random.integers(0, 256, (4, 4), dtype=np.uint8)).save(folder / name.format(i))
    return folder


def as_json(content):
    return json.loads(json.dumps(content))


def change_pixels(file: Path) -> None:
    """Another picture under the same name, of the same size."""
    with Image.open(file) as image:
        pixels = 255 - np.array(image)
    Image.fromarray(pixels).save(file)


# --- the same pictures elsewhere -------------------------------------------------------------------------------


def test_names_and_places_of_a_folder_do_not_matter(tmp_path, monkeypatch):
    first = load_folder(fill(tmp_path / "a" / "pics"))
    shutil.copytree(tmp_path / "a" / "pics", tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "a")
    for path in ("pics", "./pics", tmp_path / "elsewhere"):
        again = load_folder(path)
        assert again.protocol["test_id"] == first.protocol["test_id"]
        assert difference(as_json(first.protocol), again.protocol) is None


@pytest.mark.parametrize("limit", [0, 2**30])
@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_replaced_picture_is_noticed(tmp_path, part, limit):
    before = load_folder(fill(tmp_path), memory_limit_bytes=limit)
    change_pixels(before.split(part).paths[0])
    after = load_folder(tmp_path, memory_limit_bytes=limit)
    assert f"the {part} images have changed" in difference(before.protocol, after.protocol)
    assert (before.protocol["test_id"] == after.protocol["test_id"]) == (part != "test")
    assert split_id(before.protocol, before.name, part) != split_id(after.protocol, after.name, part)
    assert images_digest(before.split(part)) != images_digest(after.split(part))
    if part == "train":
        assert train_hash(before) != train_hash(after)


def test_folders_of_the_same_names_are_told_apart(tmp_path):
    one, other = load_folder(fill(tmp_path / "a" / "p")), load_folder(fill(tmp_path / "b" / "p", seed=1))
    assert one.protocol["former_test_id"] == other.protocol["former_test_id"]
    assert one.protocol["test_id"] != other.protocol["test_id"]
    assert difference(one.protocol, other.protocol)


def test_classes_belong_to_the_identity(tmp_path):
    for name in ("a", "b"):
        fill(tmp_path / name, seed=ord(name), name=name + "{:03}.png")
    before = load_folder(tmp_path)
    (tmp_path / "a").rename(tmp_path / "x")
    (tmp_path / "b").rename(tmp_path / "a")
    (tmp_path / "x").rename(tmp_path / "b")
    after = load_folder(tmp_path)
    assert difference(before.protocol, after.protocol)


def test_inputs_captions_and_size_belong_to_it(tmp_path):
    targets, inputs = fill(tmp_path / "t"), fill(tmp_path / "i", seed=3)
    plain = load_folder(targets)
    before = paired(plain, f"folder:{inputs}")
    shutil.move(inputs, tmp_path / "moved")
    moved = paired(plain, f"folder:{tmp_path / 'moved'}")
    assert difference(as_json(before.protocol), moved.protocol) is None
    assert before.protocol["test_id"] == moved.protocol["test_id"] != plain.protocol["test_id"]
    change_pixels(tmp_path / "moved" / plain.test.paths[0].name)
    changed = paired(plain, f"folder:{tmp_path / 'moved'}")
    assert "input" in difference(before.protocol, changed.protocol)
    assert changed.protocol["test_id"] != before.protocol["test_id"]
    assert "input is new" in difference(plain.protocol, before.protocol)
    assert difference(plain.protocol, load_folder(targets, image_size=3).protocol)

    lines = [json.dumps({"file": f.name, "text": "a cat"}) for f in sorted(targets.iterdir())]
    (targets / "captions.jsonl").write_text("\n".join(lines))
    told = captioned(load_folder(targets))
    (targets / "captions.jsonl").write_text("\n".join(lines).replace("cat", "dog"))
    assert "captions" in difference(told.protocol, captioned(load_folder(targets)).protocol)


def test_vectors_of_a_streamed_folder_follow_its_pictures(tmp_path):
    """Vectors are kept beside the encoder; a picture that is replaced must not get those of the former one."""
    pictures = fill(tmp_path / "pics")
    run = tmp_path / "encoder"
    save_model(create_encoder("simclr", DataSpec((1, 4, 4)), "tiny"), run)

    def vectors():
        data = encoded(load_folder(pictures, memory_limit_bytes=0), run)
        return data, data.test.vectors

    data, before = vectors()
    assert torch.equal(vectors()[1], before)
    change_pixels(data.test.split.paths[0])
    changed, after = vectors()
    assert not torch.equal(before[0], after[0])
    assert changed.protocol["test_id"] != data.protocol["test_id"]
    shutil.copytree(run, tmp_path / "copied")
    copied = encoded(load_folder(pictures), tmp_path / "copied")
    assert difference(as_json(changed.protocol), copied.protocol) is None


# --- data with names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits", "toy:gaussian", "toy:bernoulli-templates"])
def test_named_sources_are_the_same_each_time(name):
    one, two = load_data(name), load_data(name)
    assert difference(as_json(one.protocol), two.protocol) is None
    assert "images=" not in one.protocol["test_id"]  # the name says what it is


def test_a_known_name_does_not_hide_other_images(monkeypatch):
    from sklearn import datasets

    genuine = load_data("digits")
    bunch = datasets.load_digits()
    bunch.images = bunch.images[:, ::-1]
    monkeypatch.setattr(datasets, "load_digits", lambda: bunch)
    other = load_data("digits")
    assert other.protocol["test_id"].startswith(f"{genuine.protocol['test_id']},images=")
    assert difference(genuine.protocol, other.protocol)


def test_every_image_in_memory_counts():
    """In former versions a thousand of them stood for all."""
    images = torch.zeros(3, 2500, 1, 2, 2, dtype=torch.uint8)
    data = from_images("mine", tuple(images))
    changed = images.clone()
    changed[2, 1] = 7
    other = from_images("mine", tuple(changed))
    assert data.protocol["former_test_id"] == other.protocol["former_test_id"]
    assert data.protocol["test_id"] != other.protocol["test_id"]


def test_streamed_images_without_a_source_are_read():
    pixels = torch.arange(600, dtype=torch.uint8).view(600, 1, 1, 1)

    class Streamed(Split):
        """As somebody's own split has it."""

        images = LazyImages(lambda places: pixels[places], pixels.shape)
        labels = None

        def batch(self, indices, generator=None):
            return Batch(self.images[indices])

    before = images_digest(Streamed())
    pixels[599] = 1
    assert images_digest(Streamed()) != before and images_digest(as_split(pixels))


# --- runs ------------------------------------------------------------------------------------------------------


def as_recorded_before(data):
    """The protocol of a version that knew no content."""
    own = {k: v for k, v in data.protocol.items() if k not in ("content", "former_test_id", "remarks")}
    return as_json({**own, "test_id": data.protocol.get("former_test_id", own["test_id"])})


def test_former_runs_are_compared_as_they_were(tmp_path):
    data = load_folder(fill(tmp_path / "a" / "pics"), rules=1)
    assert difference(as_recorded_before(data), data.protocol) is None
    shutil.copytree(tmp_path / "a" / "pics", tmp_path / "renamed")
    assert difference(as_recorded_before(data), load_folder(tmp_path / "renamed", rules=1).protocol) is None
    fill(tmp_path / "renamed", 13)
    assert difference(as_recorded_before(data), load_folder(tmp_path / "renamed", rules=1).protocol)
    digits, masked = load_data("digits"), load_data("digits", cond="mask")
    assert difference(as_recorded_before(digits), digits.protocol) is None
    assert difference(as_recorded_before(masked), masked.protocol) is None
    assert difference(as_recorded_before(digits), masked.protocol)


def recorded(run: Path, data, arguments) -> Path:
    from genzoo.models.registry import create

    save_model(create("vae", data.spec, "tiny"), run, facts={"data": arguments.protocol(data)})
    return run


def test_a_run_finds_its_data_from_anywhere(tmp_path, monkeypatch):
    fill(tmp_path / "here" / "pics")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    arguments = DataArguments("folder:pics")
    run = recorded(tmp_path / "run", arguments.load(), arguments)
    monkeypatch.chdir(tmp_path / "there")
    own = data_of_run(run)
    assert own is not None and change_since(run, own.load()) is None
    shutil.move(tmp_path / "here", tmp_path / "moved")
    with pytest.raises(GenzooError, match="there is no folder"):
        own.load()
    moved = own.moved(name="folder:../moved/pics").load()
    assert change_since(run, moved) is None
    change_pixels(moved.test.paths[0])
    assert "test images have changed" in (
        change_since(run, own.moved(name="folder:../moved/pics").load()) or ""
    )


def test_where_a_condition_is_now_must_be_of_its_kind():
    for cond, named, fits in (
        ("encoder:a", "encoder:b", True), ("folder:a", "folder:b", True), ("folder:a", "encoder:b", False),
        ("class", "class", False), (None, "folder:b", False), ("mask", "folder:b", False),
    ):  # fmt: skip
        own = DataArguments("folder:p", cond=cond)
        if fits:
            assert own.moved(cond=named) == replace(own, cond=named)
        else:
            with pytest.raises(GenzooError, match="leave --cond out"):
                own.moved(cond=named)
