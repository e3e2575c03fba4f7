"""`folder:PATH`: a person's own images.

Sub-folders directly below PATH are classes, unless they are named as splits (train, val, test and the like): then
their sub-folders are the classes. One folder that wraps all of them is looked through. A folder below the memory limit
is decoded once into one tensor; a larger one streams from disk with the same methods and the same pixels.

What the pictures are is known by their content, wherever they lie and whatever they are called; what was passed over,
guessed or doubtful is said in a line each (`ImageData.remarks`).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.core.path_arguments import real_path
from genzoo.core.regular_files import sha256_of
from genzoo.core.showable import showable
from genzoo.data.identity import digest_of_parts
from genzoo.data.image_data import SPLIT_SEED, ImageData, conditional_spec, permutation, protocol
from genzoo.data.layout import SPLITS, Layout, Rules, coverage_remarks, read_layout
from genzoo.data.listing import Listing, expanded, list_pictures
from genzoo.data.pictures import (
    WHITE,
    Header,
    ImageReader,
    parallel,
    read_header,
    unless_bad,
    white_of,
)
from genzoo.data.split import FolderSplit, LazyImages

MEMORY_LIMIT_BYTES = 2**30
"""A folder whose decoded images take more than this streams from disk."""

CAPTION_FILES = ("captions.jsonl", "captions.csv")
"""Where a folder's captions are looked for."""


@final
@dataclass(frozen=True)
class _Found:
    """The readable images of a folder: paths relative to it, and what each header said."""

    root: Path
    files: tuple[Path, ...]
    headers: tuple[Header, ...]
    remarks: list[str] = field(default_factory=list)

    def keep(self, sound: Sequence[bool]) -> "_Found":
        kept = [i for i, good in enumerate(sound) if good]
        files, headers = tuple(self.files[i] for i in kept), tuple(self.headers[i] for i in kept)
        return _Found(self.root, files, headers, self.remarks)

    @property
    def paths(self) -> list[Path]:
        return [self.root / file for file in self.files]


def load_folder(
    path: str | Path,
    *,
    image_size: int | None = None,
    cond: str | None = None,
    skip_bad_images: bool = False,
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
    rules: int = 2,
    classes: Sequence[str] = (),
) -> ImageData:
    """The images below `path` as train, val and test splits of uint8 `[n, c, h, w]`; c = 1 if all are grey, else 3.

    With `image_size` each image becomes its central square, resized to that many pixels with antialiasing;
    without, all must have one size. Headers are read at load. Pixels are decoded at load where all of them take
    at most `memory_limit_bytes`, or with `skip_bad_images`; else a damaged file raises when it is reached.
    `rules` is the version of `genzoo.data.layout.Rules` and `classes` the names of classes in the order that a run
    stored, which is kept.

    Raises `GenzooError` for a missing or empty folder, differing sizes, fewer than three images, and for an
    image that cannot be decoded (with `skip_bad_images` those are left out and counted).
    """
    root, how = expanded(path), Rules(rules)
    listing = _listed(root, how)
    found = _with_headers(root, listing, skip_bad_images)
    if skip_bad_images:
        found = _decodable(found, _reader(found, image_size))
        _tell_skipped(found, listing)
    white, told_depth = (WHITE, []) if how.version == 1 else white_of(found.paths, found.headers)
    reader = _reader(found, image_size, white)
    layout = read_layout(found.files, how, classes)
    members = _members(found, layout)
    content = _content(found, reader, layout, members)
    splits = _splits(reader, root, members, layout.labels, memory_limit_bytes, content)
    if cond is not None and layout.labels is None:
        raise GenzooError(_unlabelled(root, found.files, layout))
    if cond is not None:
        _check_classes(root, listing, layout, classes)
    remarks = [*listing.remarks, *found.remarks, *told_depth, *layout.remarks]
    remarks += coverage_remarks(layout, {name: torch.from_numpy(places) for name, places in members.items()})
    name = showable(f"folder:{path}", 1000)
    more: dict[str, Any] = {
        "resize": _recipe(image_size),
        "image_shape": list(reader.shape),
        "skipped_bad_images": len(listing.files) - len(found.files),
        "classes": list(layout.classes),
        "content": content,
        "former_test_id": _former_id(root, [found.files[i] for i in members["test"]], reader.shape),
        "remarks": remarks,
        **({} if white == WHITE else {"white": white}),
    }
    spec = conditional_spec(name, reader.shape, 256, cond, len(layout.classes))
    test_id = f"folder/test@images={content['test']}"
    return ImageData(name, *splits, spec, protocol(name, splits, test_id, more))


# --- which files -----------------------------------------------------------------------------------------------


def _listed(root: Path, rules: Rules) -> Listing:
    try:
        kind = "folder" if root.is_dir() else "file" if root.exists() else ""
    except (OSError, ValueError):  # a name that no file can have
        kind = ""
    if not kind:
        raise GenzooError(f"there is no folder {showable(root)}: check the path after folder:")
    if kind == "file":
        raise GenzooError(f"{showable(root)} is a file, not a folder: give folder: a folder of images")
    listing = list_pictures(root, rules.suffixes, CAPTION_FILES)
    if listing.files:
        return listing
    if not any(root.iterdir()):
        raise GenzooError(f"the folder {showable(root)} is empty: put images into it")
    kinds = ", ".join(sorted(s[1:] for s in rules.suffixes))
    passed = "".join(f"; {remark}" for remark in listing.remarks)
    raise GenzooError(
        f"the folder {showable(root)} holds no images (looked for {kinds}, hidden files left out){passed}"
    )


def _with_headers(root: Path, listing: Listing, skip: bool) -> _Found:
    files = listing.files
    full = [root / f for f in files]
    if not skip:
        return _Found(root, files, tuple(parallel(read_header, full)))
    headers = unless_bad(read_header, full)
    good = [(f, h) for f, h in zip(files, headers, strict=True) if h is not None]
    if not good:
        raise _none_readable(root, len(files))
    return _Found(root, tuple(f for f, _ in good), tuple(h for _, h in good))


def _decodable(found: _Found, reader: ImageReader) -> _Found:
    """A truncated file shows only when it is decoded, and it must be out before the splits are drawn."""
    kept = found.keep(
        [ok is not None for ok in unless_bad(lambda f: reader.decode(f) is not None, reader.files)]
    )
    if not kept.files:
        raise _none_readable(found.root, len(found.files))
    return kept


def _none_readable(root: Path, count: int) -> GenzooError:
    return GenzooError(
        f"none of the {count} images in {showable(root)} can be read: check one of them by hand"
    )


def _tell_skipped(found: _Found, listing: Listing) -> None:
    skipped = len(listing.files) - len(found.files)
    if skipped:
        known = set(found.files)
        first = next(file for file in listing.files if file not in known)
        found.remarks.append(
            f"left out {skipped} of {len(listing.files)} images, which cannot be read: {showable(first)}"
            + (" and others" if skipped > 1 else "")
        )


def _reader(found: _Found, image_size: int | None, white: int = WHITE) -> ImageReader:
    channels = 1 if all(h.grey for h in found.headers) else 3
    if image_size is None:
        first = found.headers[0]
        for file, h in zip(found.files, found.headers, strict=True):
            if (h.width, h.height) != (first.width, first.height):
                raise GenzooError(
                    f"images differ in size: {showable(found.files[0])} is {first.width}x{first.height}, "
                    f"{showable(file)} is {h.width}x{h.height}; pass --image-size to resize and crop them all"
                )
        shape = (channels, first.height, first.width)
    elif image_size < 1:
        raise GenzooError(f"--image-size must be at least 1, got {image_size}")
    else:
        shape = (channels, image_size, image_size)
    return ImageReader(tuple(found.paths), shape, image_size is not None, white)


# --- splits ----------------------------------------------------------------------------------------------------


def _members(found: _Found, layout: Layout) -> dict[str, np.ndarray]:
    """Sorted positions of each split's files; a val or test split that has no folder is cut off train."""
    given: dict[str, np.ndarray] = {}
    train = np.arange(len(found.files))
    if layout.splits is not None:
        of_file = np.array(layout.splits)
        given = {s: np.flatnonzero(of_file == s) for s in ("val", "test") if (of_file == s).any()}
        train = np.flatnonzero(of_file == "train")
    wanted = [s for s in ("test", "val") if s not in given]
    if len(train) < 1 + len(wanted):
        raise GenzooError(
            f"{showable(found.root)} has {len(train)} images to train on, at least {1 + len(wanted)} are needed "
            f"so that {', '.join(['train', *wanted])} each get one"
        )
    order = train[permutation(len(train))]
    size = max(1, round(0.1 * len(train)))
    for split in wanted:
        given[split], order = np.sort(order[:size]), order[size:]
    return {"train": np.sort(order), **given}


def _splits(
    reader: ImageReader,
    root: Path,
    members: dict[str, np.ndarray],
    labels: Tensor | None,
    memory_limit_bytes: int,
    content: dict[str, str],
) -> tuple[FolderSplit, FolderSplit, FolderSplit]:
    in_memory = len(reader.files) * int(np.prod(reader.shape)) <= memory_limit_bytes

    def split(name: str) -> FolderSplit:
        chosen = torch.from_numpy(members[name])
        files = tuple(reader.files[i] for i in chosen.tolist())
        part = ImageReader(files, reader.shape, reader.resize, reader.white)
        images = LazyImages(part.read, (len(chosen), *reader.shape))
        own = None if labels is None else labels[chosen]
        return FolderSplit(images[:] if in_memory else images, own, part.files, content[name], root)

    return split("train"), split("val"), split("test")


def _recipe(image_size: int | None) -> str:
    if image_size is None:
        return "none"
    return f"central square to {image_size}x{image_size}, bicubic with antialiasing (Pillow)"


def _check_classes(root: Path, listing: Listing, layout: Layout, known: Sequence[str]) -> None:
    """Raises `GenzooError` where a class of the folder is none of the run's, or is lost behind another's name."""
    if known and not set(layout.classes) <= set(known):
        strange = next(name for name in layout.classes if name not in known)
        raise GenzooError(
            f"{showable(root)} has a class {strange}, which the run does not know: it has {', '.join(known[:10])}"
        )
    for link, folder in listing.repeated:
        depth = len(layout.prefix.parts) + (layout.splits is not None) + 1
        if len(link.parts) <= depth and link.name not in layout.classes:
            raise GenzooError(
                f"the class folders {showable(folder)} and {showable(link)} lead to the same pictures, which cannot "
                "have two classes: remove one of the links"
            )


def _unlabelled(root: Path, files: Sequence[Path], layout: Layout) -> str:
    depth = len(layout.prefix.parts) + (2 if layout.splits is not None else 1)
    loose = next(f for f in files if len(f.parts) <= depth)
    return (
        f'cond="class" needs one sub-folder per class, but {showable(loose)} lies outside of any class folder '
        f"in {showable(root)}"
    )


# --- identity --------------------------------------------------------------------------------------------------


def _content(
    found: _Found, reader: ImageReader, layout: Layout, members: dict[str, np.ndarray]
) -> dict[str, str]:
    """Digests of the splits' files and of how they are read, and of which picture has which class.

    Neither names nor the order of the files matter.
    """
    digests = parallel(sha256_of, found.paths)
    how = f"{reader.shape} {reader.resize} {reader.white}"
    parts = {s: digest_of_parts([how, *sorted(digests[i] for i in members[s])]) for s in SPLITS}
    if layout.labels is None:
        return parts
    pairs = sorted(f"{digest} {label}" for digest, label in zip(digests, layout.labels.tolist(), strict=True))
    return {**parts, "labels": digest_of_parts(pairs)}


def _former_id(root: Path, files: Sequence[Path], shape: tuple[int, ...]) -> str:
    """What called the test set before content did: a digest of the files' names and the image shape."""
    text = "\n".join(["x".join(map(str, shape)), *(f.as_posix() for f in files)])
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"folder:{showable(real_path(root).name)}/test@seed={SPLIT_SEED},files={digest}"
