"""Pairs: images with the inputs that they are to be predicted from, made by a named corruption or from a second folder.

    mask        the middle half of each side hidden: inpainting
    downsample  means over blocks of 4x4 pixels: super-resolution
    grey        luma: colouring
    edges       outlines: drawing to picture
    folder:DIR  whatever lies in DIR under the same name

An input is the `cond` of its image: float `[c' h w]`, flattened, on the scale [-1, 1] of the bins' centres, with the
image's own h and w. Every model that takes vectors can be trained on pairs; `image-to-image` sees them as images.
Nothing here is random: an image has one input, in training as well as in evaluation.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from genzoo.core.errors import GenzooError
from genzoo.core.regular_files import sha256_of
from genzoo.core.showable import showable
from genzoo.core.spec import Batch, DataSpec
from genzoo.data.folder import CAPTION_FILES
from genzoo.data.identity import SPLITS, digest_of_parts, extended
from genzoo.data.image_data import ImageData, with_remarks
from genzoo.data.layout import Rules
from genzoo.data.listing import Listing, expanded, list_pictures, told
from genzoo.data.pictures import WHITE, ImageReader, parallel, read_header, white_of
from genzoo.data.split import FolderSplit, LazyImages, Split

LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in brightness (ITU-R BT.601)."""

_STRIDE = 1024  # images whose inputs are made at a time, when those of a whole split are asked for


def centred(images: Tensor, levels: int) -> Tensor:
    """Integers `[n, ...]` as the centres of their bins in [-1, 1], float32: the scale on which models see images.

    >>> centred(torch.tensor([0, 1]), levels=2)
    tensor([-0.5000,  0.5000])
    """
    return (2 * images.float() + 1) / levels - 1


# --- corruptions -----------------------------------------------------------------------------------------------


class Corruption(ABC):
    """Images to what is left of them: integers `[n, c, h, w]` in 0 .. levels-1 to float `[n, c', h, w]` in [-1, 1]."""

    @property
    @abstractmethod
    def recipe(self) -> str:
        """What is done, for reports."""

    @abstractmethod
    def __call__(self, images: Tensor, levels: int) -> Tensor:
        """Raises `GenzooError` for images that cannot be corrupted so."""


@dataclass(frozen=True)
class Mask(Corruption):
    """The middle half of each side is hidden (0, middle grey); c' = c, as the hole is in the same place everywhere."""

    @property
    @override
    def recipe(self) -> str:
        return "middle half of each side hidden"

    def __call__(self, images: Tensor, levels: int) -> Tensor:
        """A side of n pixels hides (n + 1) // 2 of them."""
        left = centred(images, levels)
        sides = [(side, (side + 1) // 2) for side in images.shape[2:]]
        rows, columns = (slice((side - hole) // 2, (side - hole) // 2 + hole) for side, hole in sides)
        left[..., rows, columns] = 0.0
        return left


@dataclass(frozen=True)
class Downsample(Corruption):
    """Each block of `factor` x `factor` pixels becomes its mean; c' = c, and h and w stay."""

    factor: int = 4

    @property
    @override
    def recipe(self) -> str:
        return f"means over {self.factor}x{self.factor} blocks"

    def __call__(self, images: Tensor, levels: int) -> Tensor:
        """Blocks at the right and lower edge may be smaller."""
        h, w = images.shape[2:]
        small = F.avg_pool2d(centred(images, levels), self.factor, ceil_mode=True)
        return small.repeat_interleave(self.factor, 2).repeat_interleave(self.factor, 3)[..., :h, :w]


@dataclass(frozen=True)
class Grey(Corruption):
    """Brightness of RGB images; c' = 1."""

    @property
    @override
    def recipe(self) -> str:
        return "luma (BT.601)"

    def __call__(self, images: Tensor, levels: int) -> Tensor:
        """The weighted mean of the channels."""
        if images.shape[1] != 3:
            raise GenzooError(
                f"cond=grey is for RGB images, these have {images.shape[1]} channel(s) and nothing to colour: "
                "use mask, downsample or edges"
            )
        return luma(centred(images, levels))


@dataclass(frozen=True)
class Edges(Corruption):
    """1 where the Sobel gradient of the brightness is steep, -1 elsewhere; c' = 1."""

    threshold: float = 0.2
    """As a share of the step from the darkest to the brightest level."""

    @property
    @override
    def recipe(self) -> str:
        return f"Sobel gradient above {self.threshold:g} of a full step"

    def __call__(self, images: Tensor, levels: int) -> Tensor:
        """Beyond its edge an image goes on as it ends."""
        bright = luma(images.float() / max(1, levels - 1))
        slope = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=images.device) / 4
        kernels = torch.stack([slope, slope.T])[:, None]
        gradient = F.conv2d(F.pad(bright, (1, 1, 1, 1), mode="replicate"), kernels)
        steep = gradient.square().sum(1, keepdim=True).sqrt() > self.threshold
        return 2 * steep.float() - 1


def luma(x: Tensor) -> Tensor:
    """Brightness `[n, 1, h, w]` of `[n, c, h, w]`: BT.601 of three channels, else their mean."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return (x * torch.tensor(LUMA, device=x.device)[:, None, None]).sum(1, keepdim=True)


CORRUPTIONS: dict[str, Corruption] = {
    "mask": Mask(),
    "downsample": Downsample(),
    "grey": Grey(),
    "edges": Edges(),
}
"""What `cond` may name."""


# --- splits ----------------------------------------------------------------------------------------------------

Inputs = Callable[[Tensor, Tensor], Tensor]
"""Images `[n, c, h, w]` and their indices in the split, long `[n]`, to float `[n, c', h, w]` in [-1, 1]."""


@final
@dataclass(frozen=True)
class Corrupted:
    """Inputs made of the images."""

    corruption: Corruption
    levels: int

    def __call__(self, images: Tensor, indices: Tensor) -> Tensor:
        """`[n, c', h, w]`."""
        return self.corruption(images, self.levels)


@final
@dataclass(frozen=True)
class Stored:
    """Inputs that are images of their own, uint8 `[n, c', h, w]` of 256 levels, in the order of the split."""

    images: Tensor | LazyImages
    files: tuple[Path, ...] = ()

    def __call__(self, images: Tensor, indices: Tensor) -> Tensor:
        """`[n, c', h, w]`, read from disk where they stream."""
        return centred(self.images[indices], 256)


@final
class PairedSplit(Split):
    """Another split's images, conditioned on their inputs; labels are `[n, c' h w]`, made at first asking."""

    def __init__(self, split: Split, inputs: Inputs) -> None:
        self.split, self.inputs = split, inputs

    @property
    def images(self) -> Tensor | LazyImages:
        """All images `[n, c, h, w]`."""
        return self.split.images

    @cached_property
    def labels(self) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """All inputs, float `[n, c' h w]`: four bytes a sub-pixel. `batch` makes but those that it is asked for."""
        everything = torch.arange(len(self)).split(_STRIDE)
        return torch.cat([self._inputs(self.images[indices], indices) for indices in everything])

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        """Images and inputs at `indices` `[b]`; the input is that of the image drawn, where it is drawn."""
        images = self.split.batch(indices, generator).images
        return Batch(images, self._inputs(images, indices))

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, int | Tensor]:
        """Image `[c, h, w]` and input `[c' h w]`."""
        image, number = self.images[index], torch.arange(len(self))[index]
        return image, self._inputs(image[None], number[None])[0]

    def _inputs(self, images: Tensor, indices: Tensor) -> Tensor:
        return self.inputs(images, indices).flatten(1)


# --- whole data sets -------------------------------------------------------------------------------------------


def paired(data: ImageData, cond: str, rules: int = 2) -> ImageData:
    """Unconditional `data` with inputs as `cond` names them; the spec's `cond` is "vector", its size c' h w.

    The protocol tells under "input" what the inputs are; `rules` are those of `genzoo.data.layout.Rules`. Raises
    `GenzooError` for an unknown name, for data that are no images of discrete levels, and where inputs are missing.
    """
    levels, content, remarks = data.spec.levels, None, ()
    kind, _, rest = cond.partition(":")
    if cond not in CORRUPTIONS and not (kind == "folder" and rest):
        raise GenzooError(
            'cond must be None or "class", or name what images are predicted from '
            f"({', '.join(CORRUPTIONS)} or folder:INPUTS), got {cond!r}"
        )
    if levels is None:
        raise GenzooError(f"{data.name} are no images, so cond={cond} is impossible: leave cond out")
    parts = (data.train, data.val, data.test)
    if cond in CORRUPTIONS:
        inputs: Sequence[Inputs] = [Corrupted(CORRUPTIONS[cond], levels)] * 3
        recipe = CORRUPTIONS[cond].recipe
    else:
        found = _from_folder(data, rest, Rules(rules))
        inputs, recipe, remarks = found.parts, "image of the same name, resized as the images", found.remarks
        content = {
            part: digest_of_parts([str(of_part.images.shape), *found.depth, *map(sha256_of, of_part.files)])
            for part, of_part in zip(SPLITS, found.parts, strict=True)
        }
    splits = [PairedSplit(part, of_part) for part, of_part in zip(parts, inputs, strict=True)]
    spec = _paired_spec(data.spec, splits[0])
    channels = spec.cond_size // (spec.shape[1] * spec.shape[2])
    about = {
        "cond": cond,
        "recipe": recipe,
        "channels": channels,
        **({"content": content} if content else {}),
    }
    protocol = _paired_protocol(data.protocol, about)
    found_pairs = replace(data, train=splits[0], val=splits[1], test=splits[2], spec=spec, protocol=protocol)
    return with_remarks(found_pairs, remarks) if remarks else found_pairs


def _paired_spec(spec: DataSpec, split: PairedSplit) -> DataSpec:
    first = split.batch(torch.arange(1)).cond
    assert first is not None
    return DataSpec(spec.shape, spec.levels, "vector", first.shape[1])


def _paired_protocol(protocol: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """P(image | input) is another quantity than P(image): the test set's id says so."""
    known = about["content"]["test"] if "content" in about else None
    named = about["cond"] if known is None else f"folder:{known}"
    found = {**protocol, "test_id": extended(protocol["test_id"], f"input={named}"), "input": dict(about)}
    if "former_test_id" in protocol:
        found["former_test_id"] = extended(protocol["former_test_id"], f"input={about['cond']}")
    return found


@final
@dataclass(frozen=True)
class _FolderInputs:
    """Inputs of train, val and test, the depth of their files where it is not 16 bits, and remarks on their folder."""

    parts: "list[Stored]"
    depth: tuple[str, ...]
    remarks: tuple[str, ...]


def _from_folder(data: ImageData, path: str, rules: Rules) -> _FolderInputs:
    """Those of every split: the image in the folder `path` with the same relative path, whatever its suffix."""
    parts = (data.train, data.val, data.test)
    targets = data.root
    if targets is None:
        raise GenzooError(
            f"cond=folder:{path} goes with data from a folder: too, {data.name} has no file names"
        )
    listing = _listed(expanded(path), rules)
    found = _by_stem(expanded(path), listing.files)
    files = [[_partner(p, targets, found, path) for p in part.paths]
             for part in parts if isinstance(part, FolderSplit)]  # fmt: skip
    headers = parallel(read_header, [file for of_part in files for file in of_part])
    h, w = data.spec.shape[1:]
    shape = (1 if all(header.grey for header in headers) else 3, h, w)
    everything = [file for of_part in files for file in of_part]
    white, told_depth = (WHITE, []) if rules.version == 1 else white_of(everything, headers)
    readers = [ImageReader(tuple(of_part), shape, resize=True, white=white) for of_part in files]
    in_memory = isinstance(data.train.images, Tensor)
    lazy = [LazyImages(reader.read, (len(reader.files), *shape)) for reader in readers]
    parts = [
        Stored(images[:] if in_memory else images, tuple(of_part))
        for images, of_part in zip(lazy, files, strict=True)
    ]
    unused = [file for file in found.values() if file not in set(everything)]
    remarks = [f"inputs: {line}" for line in (*listing.remarks, *told_depth)]
    if unused:
        remarks.append(
            f"{len(unused)} inputs belong to no picture that was read: {told([f.name for f in unused])}"
        )
    return _FolderInputs(parts, () if white == WHITE else (str(white),), tuple(remarks))


def _listed(root: Path, rules: Rules) -> Listing:
    if not root.is_dir():
        raise GenzooError(
            f"there is no folder {showable(root)} of inputs: check the path after --cond folder:"
        )
    return list_pictures(root, rules.suffixes, CAPTION_FILES)


def _by_stem(root: Path, files: Sequence[Path]) -> dict[str, Path]:
    """Relative paths without suffix to files. Raises `GenzooError` where a name is twice."""
    found: dict[str, Path] = {}
    for file in files:
        stem = _stem(file)
        if stem in found:
            raise GenzooError(
                f"{root} holds two inputs of one name, {found[stem].name} and {file.name}: remove one"
            )
        found[stem] = root / file
    return found


def _partner(file: Path, root: Path, found: Mapping[str, Path], path: str) -> Path:
    stem = _stem(file.relative_to(root))
    if stem not in found:
        raise GenzooError(f"{path} holds no input for {file.relative_to(root)}: add {stem} with any suffix")
    return found[stem]


def _stem(file: Path) -> str:
    return file.with_suffix("").as_posix()
