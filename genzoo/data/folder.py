"""`folder:PATH`: a person's own images.

Sub-folders directly below PATH are classes, unless they are named train, val and test: then they are the
splits and their sub-folders are the classes. A folder below the memory limit is decoded once into one tensor;
a larger one streams from disk with the same methods and the same pixels.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.data.image_data import SPLIT_SEED, ImageData, conditional_spec, permutation, protocol
from genzoo.data.pictures import SUFFIXES, Header, ImageReader, image_files, parallel, read_header, unless_bad
from genzoo.data.split import FolderSplit, LazyImages

MEMORY_LIMIT_BYTES = 2**30
"""A folder whose decoded images take more than this streams from disk."""

_SPLITS = ("train", "val", "test")
_RESERVED = frozenset({*_SPLITS, "valid", "validation"})  # "valid" beside "train" is no class, either


@final
@dataclass(frozen=True)
class _Found:
    """The readable images of a folder: paths relative to it, and what each header said."""

    root: Path
    files: tuple[Path, ...]
    headers: tuple[Header, ...]

    def keep(self, sound: Sequence[bool]) -> "_Found":
        kept = [i for i, good in enumerate(sound) if good]
        return _Found(self.root, tuple(self.files[i] for i in kept), tuple(self.headers[i] for i in kept))


def load_folder(
    path: str | Path,
    *,
    image_size: int | None = None,
    cond: str | None = None,
    skip_bad_images: bool = False,
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
) -> ImageData:
    """The images below `path` as train, val and test splits of uint8 `[n, c, h, w]`; c = 1 if all are grey, else 3.

    With `image_size` each image becomes its central square, resized to that many pixels with antialiasing;
    without, all must have one size. Headers are read at load. Pixels are decoded at load where all of them take
    at most `memory_limit_bytes`, or with `skip_bad_images`; else a damaged file raises when it is reached.

    Raises `GenzooError` for a missing or empty folder, differing sizes, fewer than three images, and for an
    image that cannot be decoded (with `skip_bad_images` those are left out and counted).
    """
    root = Path(path).expanduser()
    listed = _listed(root)
    found = _with_headers(root, listed, skip_bad_images)
    reader = _reader(found, image_size)
    if skip_bad_images:
        # A truncated file shows only when it is decoded, and it must be out before the splits are drawn.
        found = found.keep(
            [ok is not None for ok in unless_bad(lambda f: reader.decode(f) is not None, reader.files)]
        )
        reader = _reader(found, image_size)
    classes, labels = _classes(found.files)
    members = _members(found)
    splits = _splits(reader, members, labels, memory_limit_bytes)
    name = f"folder:{path}"
    if cond is not None and labels is None:
        raise GenzooError(_unlabelled(root, found.files))
    more = {
        "resize": _recipe(image_size),
        "image_shape": list(reader.shape),
        "skipped_bad_images": len(listed) - len(found.files),
        "classes": classes,
    }
    spec = conditional_spec(name, reader.shape, 256, cond, len(classes))
    test_id = _test_id(root, [found.files[i] for i in members["test"]], reader.shape)
    return ImageData(name, *splits, spec, protocol(name, splits, test_id, more))


def _listed(root: Path) -> tuple[Path, ...]:
    if not root.exists():
        raise GenzooError(f"there is no folder {root}: check the path after folder:")
    if not root.is_dir():
        raise GenzooError(f"{root} is a file, not a folder: give folder: a folder of images")
    files = tuple(sorted(image_files(root)))
    if files:
        return files
    if not any(root.iterdir()):
        raise GenzooError(f"the folder {root} is empty: put images into it")
    kinds = ", ".join(sorted(s[1:] for s in SUFFIXES))
    raise GenzooError(f"the folder {root} holds no images (looked for {kinds}, hidden files left out)")


def _with_headers(root: Path, files: tuple[Path, ...], skip: bool) -> _Found:
    full = [root / f for f in files]
    if not skip:
        return _Found(root, files, tuple(parallel(read_header, full)))
    headers = unless_bad(read_header, full)
    good = [(f, h) for f, h in zip(files, headers, strict=True) if h is not None]
    if not good:
        raise GenzooError(f"none of the {len(files)} images in {root} can be read")
    return _Found(root, tuple(f for f, _ in good), tuple(h for _, h in good))


def _reader(found: _Found, image_size: int | None) -> ImageReader:
    channels = 1 if all(h.grey for h in found.headers) else 3
    if image_size is None:
        first = found.headers[0]
        for file, h in zip(found.files, found.headers, strict=True):
            if (h.width, h.height) != (first.width, first.height):
                raise GenzooError(
                    f"images differ in size: {found.files[0]} is {first.width}x{first.height}, "
                    f"{file} is {h.width}x{h.height}; pass --image-size to resize and crop them all"
                )
        shape = (channels, first.height, first.width)
    elif image_size < 1:
        raise GenzooError(f"--image-size must be at least 1, got {image_size}")
    else:
        shape = (channels, image_size, image_size)
    return ImageReader(tuple(found.root / f for f in found.files), shape, image_size is not None)


def _split_name(file: Path) -> str | None:
    """The top folder of a relative path, None for a file that lies at the top."""
    return file.parts[0] if len(file.parts) > 1 else None


def _has_split_folders(files: Sequence[Path]) -> bool:
    tops = {_split_name(f) for f in files}
    if tops <= {*_SPLITS}:
        if "train" not in tops:
            raise GenzooError(
                f"the folder has no images in train, only in {', '.join(sorted(map(str, tops)))}"
            )
        return True
    reserved = sorted(t for t in tops if t in _RESERVED)
    if len(reserved) >= 2:
        odd = sorted(str(t) if t else "loose images" for t in tops - {*_SPLITS})[0]
        raise GenzooError(
            f"{' and '.join(reserved)} look like splits, but {odd!r} lies beside them: "
            "have only train, val and test there, or only classes"
        )
    return False


def _classes(files: Sequence[Path]) -> tuple[list[str], Tensor | None]:
    """Sorted class names and labels long `[n]`; none at all where an image lies outside of class folders."""
    below = [f.relative_to(f.parts[0]) for f in files] if _has_split_folders(files) else list(files)
    names = [_split_name(f) for f in below]
    classes = sorted({n for n in names if n is not None})
    if None in names:
        return [], None
    number = {name: i for i, name in enumerate(classes)}
    return classes, torch.tensor([number[str(n)] for n in names])


def _members(found: _Found) -> dict[str, np.ndarray]:
    """Sorted positions of each split's files; a val or test split that has no folder is cut off train."""
    given: dict[str, np.ndarray] = {}
    train = np.arange(len(found.files))
    if _has_split_folders(found.files):
        tops = np.array([_split_name(f) for f in found.files])
        given = {s: np.flatnonzero(tops == s) for s in ("val", "test") if (tops == s).any()}
        train = np.flatnonzero(tops == "train")
    wanted = [s for s in ("test", "val") if s not in given]
    if len(train) < 1 + len(wanted):
        raise GenzooError(
            f"{found.root} has {len(train)} images to train on, at least {1 + len(wanted)} are needed "
            f"so that {', '.join(['train', *wanted])} each get one"
        )
    order = train[permutation(len(train))]
    size = max(1, round(0.1 * len(train)))
    for split in wanted:
        given[split], order = np.sort(order[:size]), order[size:]
    return {"train": np.sort(order), **given}


def _splits(
    reader: ImageReader, members: dict[str, np.ndarray], labels: Tensor | None, memory_limit_bytes: int
) -> tuple[FolderSplit, FolderSplit, FolderSplit]:
    in_memory = len(reader.files) * int(np.prod(reader.shape)) <= memory_limit_bytes

    def split(name: str) -> FolderSplit:
        chosen = torch.from_numpy(members[name])
        part = ImageReader(tuple(reader.files[i] for i in chosen.tolist()), reader.shape, reader.resize)
        images = LazyImages(part.read, (len(chosen), *reader.shape))
        return FolderSplit(
            images[:] if in_memory else images, None if labels is None else labels[chosen], part.files
        )

    return split("train"), split("val"), split("test")


def _recipe(image_size: int | None) -> str:
    if image_size is None:
        return "none"
    return f"central square to {image_size}x{image_size}, bicubic with antialiasing (Pillow)"


def _test_id(root: Path, files: Sequence[Path], shape: tuple[int, ...]) -> str:
    """Tells test sets of the same folder name apart by a digest of the files' names and the image shape."""
    text = "\n".join(["x".join(map(str, shape)), *(f.as_posix() for f in files)])
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"folder:{root.resolve().name}/test@seed={SPLIT_SEED},files={digest}"


def _unlabelled(root: Path, files: Sequence[Path]) -> str:
    loose = next(f for f in files if len(f.parts) == 1 or (f.parts[0] in _SPLITS and len(f.parts) == 2))
    return (
        f'cond="class" needs one sub-folder per class, but {loose} lies outside of any class folder in {root}'
    )
