"""Captions: names of all classes, bytes there and back, files of captions and every mistake in them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genzoo.core.errors import GenzooError
from genzoo.core.text import TEXT_LENGTH, byte_codes
from genzoo.data import load_data, validate
from genzoo.data.captions import (
    TEMPLATES,
    CaptionedSplit,
    caption,
    captioned,
    class_names,
    has_captions,
    number_name,
    read_captions,
)
from genzoo.data.sources import class_names_of, source_names
from genzoo.data.split import TensorSplit
from genzoo.data.stacked_channels import stack_classes

NAMED = {name: class_names_of(name) for name in source_names() if class_names_of(name)}


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def text_of(codes):
    """The bytes behind a row of codes."""
    return bytes(int(c) - 1 for c in codes if c).decode()


# --- names of classes ----------------------------------------------------------------------------------------------


def test_names_are_torchvisions_in_their_order():
    from torchvision.datasets import MNIST, FashionMNIST

    assert [name.lower() for name in FashionMNIST.classes] == [
        n.lower() for n in class_names_of("fashion-mnist")
    ]
    assert [name.partition(" - ")[2] for name in MNIST.classes] == list(class_names_of("mnist"))


def test_names_of_cifar10_are_those_of_its_own_files(genzoo_data):
    tar = genzoo_data / "cifar10-jpeg" / "test.tar"
    if not tar.exists():
        pytest.skip("no CIFAR-10 as JPEG")
    import tarfile

    with tarfile.open(tar) as archive:
        folders = {Path(name).parts[-2] for name in archive.getnames() if name.endswith((".jpg", ".jpeg"))}
    assert tuple(sorted(folders)) == class_names_of("cifar10")


def test_every_class_of_a_source_has_one_name():
    data = load_data("digits")
    names = class_names(data)
    assert len(set(names)) == len(names) == 1 + int(data.train.labels.max())
    assert [number_name(k) for k in range(10)] == list(names)
    for source, of_source in NAMED.items():
        assert len(set(of_source)) == (1000 if source == "stacked-digits" else 10)


def test_stacked_digits_are_called_by_their_channels():
    label = int(stack_classes(torch.tensor([[4, 0, 7]]), 10))
    assert class_names_of("stacked-digits")[label] == "four zero seven"


def test_data_without_classes_have_no_names():
    with pytest.raises(GenzooError, match="toy:gaussian has no classes with names: give images in class"):
        class_names(load_data("toy:gaussian"))


@pytest.mark.parametrize(
    ("template", "name", "said"),
    [
        ("a {}", "automobile", "an automobile"),
        ("this is a {}", "dog", "this is a dog"),
        ("an image of a {}", "ankle boot", "an image of an ankle boot"),
        ("the {} again", "ankle boot", "the ankle boot again"),
        ("{}", "eight", "eight"),
    ],
)
def test_captions_of_names(template, name, said):
    assert caption(template, name) == said


def test_every_template_says_the_name_and_no_caption_is_cut():
    for source, names in NAMED.items():
        texts = [caption(template, name) for template in TEMPLATES for name in names]
        assert len(set(texts)) == len(texts)
        if source != "stacked-digits":
            assert max(len(text.encode()) for text in texts) <= TEXT_LENGTH


# --- bytes ---------------------------------------------------------------------------------------------------------


def test_codes_are_bytes_and_padding():
    codes = byte_codes(["a cat", "", "Été"], 8)
    assert codes.dtype == torch.long and codes.shape == (3, 8)
    assert codes[0].tolist() == [98, 33, 100, 98, 117, 0, 0, 0]
    assert codes[1].tolist() == [0] * 8
    assert text_of(codes[2]) == "été"


def test_case_and_blanks_make_no_difference():
    a, b = byte_codes(["T-Shirt/Top ", " t-shirt/top"])
    assert torch.equal(a, b)
    assert torch.equal(*byte_codes(["a \n cat", "a cat"]))


def test_texts_are_cut_at_whole_characters():
    codes = byte_codes(["x" * 60, "abé", "ab€"], 3)
    assert text_of(byte_codes(["x" * 60])[0]) == "x" * TEXT_LENGTH
    assert [text_of(row) for row in codes] == ["xxx", "ab", "ab"]


@pytest.mark.parametrize("texts", ["a sneaker", [3], [b"a"]])
def test_only_lists_of_texts(texts):
    with pytest.raises(GenzooError, match="a list of strings"):
        byte_codes(texts)


# --- captioned splits ----------------------------------------------------------------------------------------------


def images(n):
    return torch.arange(n * 4, dtype=torch.uint8).view(n, 1, 2, 2)


def test_each_caption_of_an_image_is_drawn_and_no_other():
    texts = [["a"], ["b", "c", "d"], ["e", "f"]]
    split = CaptionedSplit(TensorSplit(images(3), torch.tensor([2, 0, 1])), texts, 4)
    found = [set(), set(), set()]
    generator = rng()
    for _ in range(60):
        batch = split.batch(torch.tensor([2, 0, 1]), generator)
        assert torch.equal(batch.images, images(3)[[2, 0, 1]])
        for which, codes in zip((2, 0, 1), batch.cond, strict=True):
            found[which].add(text_of(codes))
    assert found == [set(of) for of in texts]
    assert [text_of(codes) for codes in split.batch(torch.tensor([1, 2])).cond] == ["b", "e"]
    assert split.labels.tolist() == [2, 0, 1] and len(split) == 3 and split[1][1] == 0


def test_split_wants_a_caption_for_each_image():
    with pytest.raises(GenzooError, match="every image needs a caption: got 1 for 2"):
        CaptionedSplit(TensorSplit(images(2)), [["a"], []])
    with pytest.raises(GenzooError, match="got 1 for 2"):
        CaptionedSplit(TensorSplit(images(2)), [["a"]])


# --- files ---------------------------------------------------------------------------------------------------------


def folder_of(path, n=12):
    """A folder of two classes; pictures are told apart by their first pixel."""
    for i in range(n):
        file = path / ("cats" if i % 2 else "big_dogs") / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((4, 4), 7 * i, np.uint8)
        Image.fromarray(pixels).save(file)
    return sorted(p.relative_to(path).as_posix() for p in path.rglob("*.png"))


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_captions_of_a_folder_stay_with_their_images(tmp_path):
    files = folder_of(tmp_path)
    rows = [{"file": file, "text": f"number {Path(file).stem}"} for file in files]
    write_lines(tmp_path / "captions.jsonl", [*rows, {"file": files[0], "text": "again"}])
    plain = load_data(f"folder:{tmp_path}", cond="class")
    assert has_captions(plain) and class_names(plain) == ("big dogs", "cats")
    data = captioned(plain)
    assert data.protocol["captions"] == "captions.jsonl" and "captions" not in plain.protocol
    for split, before in ((data.train, plain.train), (data.val, plain.val), (data.test, plain.test)):
        validate(split, data.spec)
        batch = split.batch(torch.arange(len(split)))
        assert torch.equal(split.labels, before.labels)
        for image, codes in zip(batch.images, batch.cond, strict=True):
            assert text_of(codes) == f"number {int(image[0, 0, 0]) // 7}"


def test_csv_says_the_same_as_json(tmp_path):
    write_lines(
        tmp_path / "a.jsonl",
        [{"file": "x/1.png", "text": 'a "big", red\ncat'}, {"file": "2.png", "text": "b"}],
    )
    (tmp_path / "a.csv").write_text('text,file\n"a ""big"", red\ncat",x/1.png\nb,2.png\n', encoding="utf-8")
    found = read_captions(tmp_path / "a.csv")
    assert found == read_captions(tmp_path / "a.jsonl") == {"x/1.png": ['a "big", red\ncat'], "2.png": ["b"]}


def refusal(call):
    with pytest.raises(GenzooError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"file": "1.png", "text": "a"}\n{"file": "2.png"}\n', "line 2"),
        ("a.jsonl", b'{"file": "1.png", "text": " "}\n', "line 1"),
        ("a.jsonl", b"[1]\n", "line 1"),
        ("a.jsonl", b"{file: 1}\n", "cannot be read"),
        ("a.jsonl", b"\xff\xfe\n", "cannot be read"),
        ("a.csv", b"image,caption\n1.png,a\n", "line 2"),
        ("a.txt", b"", "a .jsonl or .csv file"),
    ],
)
def test_mistakes_in_files(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    assert said in refusal(lambda: read_captions(tmp_path / name))


def test_mistakes_with_folders(tmp_path):
    files = folder_of(tmp_path)
    data = load_data(f"folder:{tmp_path}")
    assert not has_captions(data)
    assert "holds no captions: put captions.jsonl" in refusal(lambda: captioned(data))
    assert "there is no file" in refusal(lambda: captioned(data, tmp_path / "other.csv"))
    write_lines(tmp_path / "captions.jsonl", [{"file": file, "text": "a"} for file in files[:1]])
    assert "images have no caption in captions.jsonl, such as" in refusal(lambda: captioned(data))
    assert "go with folder: data, not with digits" in refusal(lambda: captioned(load_data("digits")))
