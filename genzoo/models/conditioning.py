"""An encoder's vectors as the condition of a generator: computed once, kept beside the encoder.

Any model that takes vectors then draws variations of an image: images whose vectors would be near its own (Bordes et
al. 2022, RCDM; Li et al. 2024, RCG). Vectors are scaled to the length sqrt(width), so that none is loud and an image
that comes later needs nothing of the data. Those of a clip encoder lie in the space that it shares with texts, so that
a text can be drawn for as well (`genzoo.models.prior.text_prior`).
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.core.files import write_atomically
from genzoo.core.regular_files import UnreadableFile, read_regular, sha256_of
from genzoo.core.spec import DataSpec
from genzoo.data.identity import images_digest
from genzoo.data.image_data import ImageData
from genzoo.data.split import LazyImages, Split
from genzoo.data.vectors import VectorSplit
from genzoo.models.base import Encoder, SharesSpaceWithTexts
from genzoo.models.loading import load_model
from genzoo.training.checkpoint import WEIGHTS

SPLITS = ("train", "val", "test")
_CHUNK = 1000
_MOST_HEADER = 2**16  # bytes before the numbers in a file of one tensor


@dataclass(frozen=True)
class Space:
    """Where an encoder's condition vectors live."""

    embed: Callable[[Tensor], Tensor]
    """Integer images `[n, c, h, w]` to vectors `[n, width]` of any length."""
    width: int
    """Numbers in a vector."""
    mark: str = ""
    """What tells its vectors from those of the encoder's own space."""


def space_of(encoder: Encoder) -> Space:
    """The space shared with texts, where an encoder has one; else its own."""
    if isinstance(encoder, SharesSpaceWithTexts):
        return Space(encoder.embed_images_shared, encoder.shared_width, "-shared")
    return Space(encoder.embed, encoder.width)


def encoded(data: ImageData, run: str | Path) -> ImageData:
    """`data` with the vectors of the encoder in the folder `run` as labels, and a spec conditioned on them.

    The protocol names the encoder and the hash of its weights: no encoder may evaluate what it helped to make. Raises
    `GenzooError` where `run` holds no encoder, or one of other images.
    """
    encoder, run = load_encoder(run, data.spec), Path(run)
    weights, space = encoder_hash(run), space_of(encoder)
    source = f"{weights}{space.mark}"
    splits = {
        name: VectorSplit(data.split(name), _cached_vectors(data, name, encoder, run, source))
        for name in SPLITS
    }
    spec = DataSpec(data.spec.shape, data.spec.levels, "vector", space.width)
    about = {**data.protocol, "encoder": {"run": run.name, "weights": weights}}
    # P(x | vector) is no figure to compare with P(x)
    for key in {"test_id", "former_test_id"} & about.keys():
        about[key] = f"{about[key]},encoder={source}"
    return replace(data, **splits, spec=spec, protocol=about)


def encoder_hash(run: Path) -> str:
    """Of the file of an encoder's weights: copies elsewhere have the same."""
    return sha256_of(run / WEIGHTS)[:16]


def load_encoder(run: str | Path, spec: DataSpec | None = None) -> Encoder:
    """The encoder of a run folder; raises `GenzooError` for another model's run, or one for images unlike `spec`'s."""
    encoder = load_model(run)
    if not isinstance(encoder, Encoder):
        raise GenzooError(f"{run} holds no encoder: name the run of one, such as simclr")
    if spec is not None and (encoder.spec.shape, encoder.spec.levels) != (spec.shape, spec.levels):
        raise GenzooError(
            f"the encoder in {run} takes images {encoder.spec.shape} of {encoder.spec.levels} levels, "
            f"not {spec.shape} of {spec.levels}"
        )
    return encoder


def condition_vectors(encoder: Encoder, images: Tensor) -> Tensor:
    """Integer images `[n, c, h, w]` to vectors `[n, width]` of length sqrt(width), on the processor.

    They are those of `space_of(encoder)`.
    """
    space = space_of(encoder)
    vectors = space.embed(images).float().cpu()
    return torch.nn.functional.normalize(vectors, dim=1) * space.width**0.5


def _cached_vectors(data: ImageData, name: str, encoder: Encoder, run: Path, source: str) -> Tensor:
    """The vectors of a split: read where those of the same `source` were computed before, else computed and kept."""
    split = data.split(name)
    path = run / "vectors" / f"{_fingerprint(split)}-{source}.safetensors"
    kept = _kept_vectors(path, len(split), space_of(encoder).width)
    if kept is not None:
        return kept
    order = torch.arange(len(split)).split(_CHUNK)
    vectors = torch.cat([condition_vectors(encoder, split.batch(part).images) for part in order])
    write_atomically(path, save({"vectors": vectors}), inside=run)
    return vectors


def _kept_vectors(path: Path, n: int, width: int) -> Tensor | None:
    """Vectors `[n, width]` that lie in the file `path`; None where it is not there, cut short, or holds others."""
    try:
        content = read_regular(path, n * width * 4 + _MOST_HEADER)
        vectors = load(content)["vectors"]
    except (UnreadableFile, SafetensorError, KeyError, ValueError):
        return None
    fits = vectors.shape == (n, width) and vectors.dtype == torch.float32 and bool(vectors.isfinite().all())
    return vectors if fits else None


def _fingerprint(split: Split) -> str:
    """Of the images themselves; of images that stream, of what they are read from and how."""
    images = split.images
    if isinstance(images, LazyImages):
        return images_digest(split)
    return hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()[:16]
