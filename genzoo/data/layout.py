"""What the sub-folders of a folder of pictures mean: splits, classes, or a wrapping that means nothing."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.core.showable import showable
from genzoo.data.listing import told
from genzoo.data.pictures import FORMER_SUFFIXES, suffixes

SPLITS = ("train", "val", "test")
_SPLIT_NAMES = {
    "train": "train", "training": "train", "trn": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "development": "val",
    "test": "test", "testing": "test", "tst": "test",
    "eval": "eval", "evaluation": "eval",
}  # fmt: skip
_FORMER_RESERVED = frozenset({*SPLITS, "valid", "validation"})


@final
@dataclass(frozen=True)
class Rules:
    """How folders are read. A run keeps the rules that it was trained by, so that its splits and classes stay.

    Version 1 is that of runs which do not say: fewer kinds of files, splits called train, val and test alone, classes
    in the order of their characters, no wrapping folder, and 16 bits where a file has 16 bits. A class folder of theirs
    that leads to where another one does is left out.
    """

    version: int = 2

    @property
    def suffixes(self) -> frozenset[str]:
        """Of files that count as images."""
        return FORMER_SUFFIXES if self.version == 1 else suffixes()


@final
@dataclass(frozen=True)
class Layout:
    """Where each file belongs: the split that its folder names (None: nobody named any), and its class.

    `prefix` is the wrapping folder, "." without one. `labels` long `[n]` number `classes`; None where a file lies
    outside of class folders. `remarks` say what was guessed.
    """

    prefix: Path
    splits: tuple[str, ...] | None
    classes: tuple[str, ...]
    labels: Tensor | None
    remarks: tuple[str, ...] = ()


def read_layout(files: Sequence[Path], rules: Rules, known: Sequence[str] = ()) -> Layout:
    """The layout of picture files by their paths relative to the folder.

    `known` are the classes of a run in its order, which is kept where the folder has no others. Raises `GenzooError`
    where splits cannot be told from classes.
    """
    prefix = Path() if rules.version == 1 else _wrapping(files)
    inner = [file.relative_to(prefix) for file in files]
    remarks = []
    if prefix != Path():
        remarks.append(f"looked through the folder {showable(prefix)}, which holds all of the pictures")
    meaning = _split_folders(inner, rules)
    splits = None
    if meaning is not None:
        splits = tuple(meaning[file.parts[0]] for file in inner)
        if any(name != meant for name, meant in meaning.items()):
            told_as = [f"{showable(name)} as {meant}" for name, meant in meaning.items()]
            remarks.append(f"took folders for splits: {', '.join(told_as)}")
        inner = [file.relative_to(file.parts[0]) for file in inner]
    classes, labels = _classes(inner, rules, known)
    return Layout(prefix, splits, classes, labels, tuple(remarks))


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """For sorting as people count.

    >>> sorted(["10", "b", "2", "a12", "a3"], key=natural_key)
    ['2', '10', 'a3', 'a12', 'b']
    """
    pieces = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(0, int(p), "") if "0" <= p[0] <= "9" else (1, 0, p.casefold()) for p in pieces], name


def coverage_remarks(layout: Layout, members: dict[str, Tensor]) -> list[str]:
    """Classes without a picture to train on, or to test on, and a test split that says little."""
    remarks = []
    if layout.labels is not None:
        found = {split: set(layout.labels[places].tolist()) for split, places in members.items()}
        for split, purpose in (("train", "trained on"), ("test", "tested on")):
            lacking = [name for i, name in enumerate(layout.classes) if i not in found[split]]
            if lacking:
                remarks.append(f"no picture is {purpose} of class {told(lacking)}")
    few = len(members["test"])
    if few < FEW_TEST_IMAGES:
        remarks.append(
            f"the test split has only {few} image{'s' * (few > 1)}: figures on so few say little; "
            "add pictures, or a folder test"
        )
    return remarks


FEW_TEST_IMAGES = 5
"""With fewer than these a remark is made."""


# --- splits ----------------------------------------------------------------------------------------------------


def _top(file: Path) -> str | None:
    """The top folder of a relative path, None for a file that lies at the top."""
    return file.parts[0] if len(file.parts) > 1 else None


def _wrapping(files: Sequence[Path]) -> Path:
    """The folder, or folders in each other, around all class or split folders; "." where there is none."""
    prefix = Path()
    while True:
        tops = {_top(file.relative_to(prefix)) for file in files}
        if len(tops) > 1:
            return prefix if None not in tops else Path()
        (top,) = tops
        if top is None or top.casefold() in _SPLIT_NAMES:  # one class, or one split
            return prefix if top is not None else Path()
        prefix = prefix / top


def _split_folders(files: Sequence[Path], rules: Rules) -> dict[str, str] | None:
    """Top folders to the splits that they are, in the order of the splits; None where they are none."""
    tops = {_top(file) for file in files}
    names = sorted(top for top in tops if top is not None and _meant(top, rules) is not None)
    if rules.version == 1 and not tops <= {*SPLITS}:
        names = [name for name in names if name in _FORMER_RESERVED]
        if len(names) < 2:
            return None
        raise _mixed(names, tops - {*SPLITS})
    if len(names) < len(tops):
        if len(names) >= 2:
            raise _mixed(names, tops - {*names})
        return None
    meaning: dict[str, str] = {}
    for name in sorted(names, key=lambda name: _meant(name, rules) == "eval"):
        meant = _meant(name, rules) or ""
        if meant == "eval":
            meant = "test" if "val" in meaning.values() else "val"
        twin = next((other for other, split in meaning.items() if split == meant), None)
        if twin is not None:
            raise GenzooError(f"{twin} and {name} both look like the {meant} split: put them into one folder")
        meaning[name] = meant
    if "train" not in meaning.values():
        raise GenzooError(f"the folder has no images in train, only in {', '.join(names)}")
    return dict(sorted(meaning.items(), key=lambda item: SPLITS.index(item[1])))


def _meant(name: str, rules: Rules) -> str | None:
    """The split that a folder's name means."""
    if rules.version == 1:
        return name if name in _FORMER_RESERVED else None
    return _SPLIT_NAMES.get(name.casefold())


def _mixed(names: Sequence[str], others: set[str | None]) -> GenzooError:
    odd = sorted("loose images" if other is None else showable(other) for other in others)[0]
    return GenzooError(
        f"{' and '.join(names)} look like splits, but {odd!r} lies beside them: "
        "have only train, val and test there, or only classes"
    )


# --- classes ---------------------------------------------------------------------------------------------------


def _classes(
    files: Sequence[Path], rules: Rules, known: Sequence[str]
) -> tuple[tuple[str, ...], Tensor | None]:
    """Class names, fit to be shown, and labels long `[n]`; none where an image lies outside of class folders."""
    tops = [_top(file) for file in files]
    if None in tops:
        return (), None
    folders = {top for top in tops if top is not None}
    shown = {folder: showable(folder) for folder in folders}
    if len(set(shown.values())) < len(shown):
        raise GenzooError(
            "two class folders have names that look the same once they are shown: rename one of "
            f"{told(sorted(shown.values()))}"
        )
    names = sorted(shown.values()) if rules.version == 1 else sorted(shown.values(), key=natural_key)
    order = tuple(known) if set(names) <= set(known) else tuple(names)
    number = {name: i for i, name in enumerate(order)}
    return order, torch.tensor([number[shown[str(top)]] for top in tops])
