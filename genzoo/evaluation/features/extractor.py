"""Feature extractors of sample metrics: an encoder trained once on the training images, unless another is named.

The default feature extractor has two parts (`combined_space`): a small encoder trained by SimCLR (Chen et al. 2020),
seen before its projection, and the texture of images. Self-supervised features rank samples of data far from
photographs better than Inception's (Morozov, Voynov & Babenko 2021), but what views differ in an encoder learns not to
see: here they differ by mild crops and turns, and by brightness and contrast, which otherwise outweigh all else. It is
narrow, because the Fréchet distance of n real images from n others grows with width^2 / n. It needs no labels, and its
hash stands in every report: figures of different extractors cannot be compared.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genzoo.core.config import TrainConfig, to_json
from genzoo.core.errors import GenzooError
from genzoo.core.folder_lock import only_writer
from genzoo.core.regular_files import is_regular, sha256_of
from genzoo.core.spec import DataSpec
from genzoo.data.augmentation_presets import ground_of
from genzoo.data.augmentations import ColourJitter, Compose, RandomCrop
from genzoo.data.identity import images_digest, same_pictures
from genzoo.data.image_data import ImageData
from genzoo.evaluation.features.combined_space import combined_space
from genzoo.evaluation.features.feature_space import (
    DIGITS,
    FeatureSpace,
    bytes_hash,
    encoder_space,
    pixel_space,
    random_space,
    some_images,
    weights_hash,
)
from genzoo.evaluation.features.published import dinov2_space, inception_space
from genzoo.evaluation.features.reduction import ReducedSplit, reduced_spec
from genzoo.models.base import Encoder
from genzoo.models.conditioning import load_encoder
from genzoo.models.encoders.views import ViewsConfig
from genzoo.models.loading import load_model
from genzoo.models.preset import build
from genzoo.models.run_data import data_of_run
from genzoo.nn.backbones import ProjectionConfig, ResNetConfig
from genzoo.objectives.contrastive import NTXent
from genzoo.training.checkpoint import WEIGHTS, read_config, save_config, save_weights
from genzoo.training.trainer import Budget, RunOptions, Trainer

if TYPE_CHECKING:
    from genzoo.data.split import Split

STEPS = 400
"""Of the default feature extractor's training: about a minute of one processor core for grey images of 28x28 pixels."""
SEED = 0
CACHE_VARIABLE = "GENZOO_CACHE"
SCALE_IMAGES = 2000  # training images whose features get unit variance
BASIS_IMAGES = 5000  # training images that principal components are those of
ENCODER = "encoder:"
OWN = "own encoder"
_PROJECTION = ProjectionConfig(256, 128)


@dataclass(frozen=True)
class Extractor:
    """Makes the feature space for some data; `run` is the folder of the encoder that it is made of, if any."""

    make: Callable[[ImageData], FeatureSpace]
    run: Path | None = None

    def remark(self, data: ImageData, split: str) -> str | None:
        """What a reader must know of the feature extractor's training images; None where it is all right.

        Raises `GenzooError` where the feature extractor was trained on another cut of the same data, so that evaluated
        images may be among those it was trained on.
        """
        if self.run is None:
            return "the feature extractor was trained on these images" if split == "train" else None
        stored = read_config(self.run).get("data")
        return training_remark(stored if isinstance(stored, Mapping) else {}, data, split)


def extractor_named(text: str | None) -> Extractor:
    """What `--features` names: encoder:RUN, pixels, random, inception or dinov2; None is the default feature extractor.

    Raises `GenzooError` for anything else.
    """
    if text is None:
        return Extractor(default_extractor)
    run = text.removeprefix(ENCODER)
    if run != text and run:
        return Extractor(lambda data: run_extractor(Path(run), data), Path(run))
    makers: dict[str, Callable[[ImageData], FeatureSpace]] = {
        "pixels": lambda data: pixel_space(data.train, BASIS_IMAGES),
        "random": lambda data: random_space(data.train, BASIS_IMAGES),
        "inception": lambda data: inception_space(data.spec.levels or 256),
        "dinov2": lambda data: dinov2_space(data.spec.levels or 256),
    }
    if text not in makers:
        raise GenzooError(f"--features takes encoder:RUN, {', '.join(makers)}, got {text!r}")
    return Extractor(makers[text])


def run_extractor(run: Path, data: ImageData) -> FeatureSpace:
    """The encoder in the folder `run`, known by the hash of its weights' file.

    Raises `GenzooError` where there is none, or one for other images.
    """
    encoder = load_encoder(run, data.spec)
    return _scaled(encoder_space(encoder, f"{ENCODER}{run.name}", file_hash(run)), data)


def file_hash(run: Path) -> str:
    """Of a run's weights as a file, as `genzoo.models.conditioning` has it: copies elsewhere have the same."""
    return sha256_of(run / WEIGHTS)[:DIGITS]


def _scaled(space: FeatureSpace, data: ImageData) -> FeatureSpace:
    return space.scaled_to(some_images(data.train, SCALE_IMAGES, seed=0))


# --- the default feature extractor -----------------------------------------------------------------------------


def default_extractor(
    data: ImageData, *, seed: int = SEED, say: Callable[[str], None] = print
) -> FeatureSpace:
    """The encoder trained on `data.train`, read from the cache where it lies there whole, else trained and kept.

    `say` is told where training starts. The number of steps is fixed, and so should be the seed but where extractors
    are compared; labels are not used. Raises `GenzooError` for data that are no images of whole numbers, and where the
    cache cannot be written.
    """
    whole = DataSpec(data.spec.shape, data.spec.levels)
    encoder, weights = _default_encoder(data, whole, seed, say)
    return combined_space(encoder, whole, data.train, OWN, weights)


def default_encoder(data: ImageData, *, seed: int = SEED, say: Callable[[str], None] = print) -> Encoder:
    """The encoder in the default feature extractor, of images reduced by `reduction.reduced`; raises as that does."""
    return _default_encoder(data, DataSpec(data.spec.shape, data.spec.levels), seed, say)[0]


def _default_encoder(
    data: ImageData, whole: DataSpec, seed: int, say: Callable[[str], None]
) -> tuple[Encoder, str]:
    """The encoder and the hash of its file."""
    spec = reduced_spec(whole)
    config, images = extractor_config(spec), train_hash(data)
    content = json.dumps([to_json(config), STEPS, seed, images])
    folder = cache_folder() / "extractors" / bytes_hash(content.encode())
    recipe = {"train_hash": images, "budget": {"steps": STEPS}, "seed": seed}
    encoder = _cached_encoder(folder, config, spec, recipe)
    if encoder is None:
        with only_writer(folder, f"{folder} is being written to", wait=True):
            # another process may just have trained it
            encoder = _cached_encoder(folder, config, spec, recipe)
            if encoder is None:
                say(
                    f"training the feature extractor of these images, once ({STEPS} steps); it is kept in {folder}"
                )
                train = data.train if spec == whole else ReducedSplit(data.train, whole)
                encoder = _trained(config, spec, train, seed)
                save_weights(encoder.state_dict(), folder)
                facts = {"data": data.protocol, **recipe, "weights": file_hash(folder)}
                save_config(encoder, folder, facts)
    return encoder, file_hash(folder)


def _trained(config: ViewsConfig, spec: DataSpec, train: "Split", seed: int) -> Encoder:
    """The extractor, trained to the end: one that is interrupted raises, so that nothing of it is kept."""
    encoder = build(config, spec, seed=seed)
    assert isinstance(encoder, Encoder)
    options = RunOptions(device="cpu")
    Trainer(encoder, Budget(steps=STEPS), seed=seed, progress=False, options=options).fit(train)
    return encoder


def extractor_config(spec: DataSpec) -> ViewsConfig:
    """The recipe for images of `spec`; colour images are mirrored, grey ones may be writing.

    SimCLR with three stages. Views differ in brightness and contrast (colour images in saturation and hue, too), so
    that shades count as much as other things and not thirty times as much.
    """
    colour = spec.shape[0] == 3
    crop = RandomCrop(scale=(0.6, 1.2), flip=0.5 if colour else 0.0, degrees=10.0, ground=ground_of(spec))
    jitter = ColourJitter(0.4, 0.4, saturation=0.4, hue=0.05) if colour else ColourJitter(0.4, 0.4)
    training = TrainConfig(
        batch_size=128, learning_rate=3e-3, optimizer="muon", precision="fp32", validations=0
    )  # fp32: on every machine the same up to rounding
    return ViewsConfig(
        ResNetConfig((32, 64, 128)), _PROJECTION, Compose((crop, jitter)), NTXent(0.2), training
    )


def cache_folder() -> Path:
    """$GENZOO_CACHE, else ~/.cache/genzoo."""
    return Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/genzoo").expanduser()


def train_hash(data: ImageData) -> str:
    """Of the training images; of those that stream, of the files that they are read from and how."""
    images = data.train.images
    if not isinstance(images, torch.Tensor):
        return images_digest(data.train)
    return weights_hash({"images": images}, f"{len(images)}")


def _cached_encoder(
    folder: Path, config: ViewsConfig, spec: DataSpec, recipe: Mapping[str, Any]
) -> Encoder | None:
    """The extractor that the cache holds; None where there is none, one that is damaged, or one of another recipe."""
    wanted = json.loads(json.dumps({"config": to_json(config), "spec": to_json(spec), **recipe}))
    try:
        stored = read_config(folder)
        if any(stored.get(key) != value for key, value in wanted.items()):
            return None
        if stored.get("weights") != file_hash(folder):
            return None
        encoder = load_model(folder)
    except (GenzooError, OSError):  # not there, cut short, or written by another version
        return None
    return encoder if isinstance(encoder, Encoder) else None


# --- extractors that are refused -------------------------------------------------------------------------------


def refuse_conditioning_encoder(space: FeatureSpace, run: Path | None, data: ImageData | None = None) -> None:
    """Raises `GenzooError` where the model in the folder `run` was made with the network behind `space`.

    An encoder whose vectors a model was conditioned on, or that was part of its loss, sees in samples what the model
    learned to show it: its figures are no evidence (Kynkäänniemi et al. 2023 of ImageNet's networks and FID). Networks
    are known by their weights, wherever copies of them lie. Of a model without a folder `data`, which it is evaluated
    on, tell what conditions them.
    """
    known = {space.identity, *space.aliases}
    helpers = (
        weights_named(data.protocol if data is not None else None)
        if run is None
        else conditioning_encoders(run)
    )
    for name, hashes in helpers:
        if known & hashes:
            raise GenzooError(
                f"{space.name} cannot evaluate {run or 'this model'}: the model was conditioned on it ({name}), so "
                "figures in its features are no evidence; name another --features, or leave it out"
            )


def weights_named(protocol: Any) -> Iterator[tuple[str, set[str]]]:
    """Names and hashes of the trained networks that a description of data names."""
    for entry in _weights_in(protocol):
        yield str(entry.get("run", "an encoder")), {str(entry["weights"])}


def conditioning_encoders(run: Path) -> Iterator[tuple[str, set[str]]]:
    """Names and hashes of the trained networks that the run in the folder `run` was made with."""
    for entry in _weights_in(read_config(run).get("data")):
        hashes = {str(entry["weights"])}
        own = data_of_run(run)
        source = None if own is None else own.encoder
        if source is not None and is_regular(source / WEIGHTS) and file_hash(source) in hashes:
            hashes.add(weights_hash(load_model(source).state_dict()))
        yield str(entry.get("run", "an encoder")), hashes


def _weights_in(content: Any) -> Iterator[Mapping[str, Any]]:
    """The mappings below `content` that name weights."""
    if isinstance(content, Mapping):
        if "weights" in content:
            yield content
        for value in content.values():
            yield from _weights_in(value)


def training_remark(trained_on: Mapping[str, Any], data: ImageData, split: str) -> str | None:
    """As `Extractor.remark`, of an encoder with the data protocol `trained_on` (empty: unknown)."""
    if "test_id" not in trained_on:
        return "what the feature extractor was trained on is unknown: the evaluated images may be among it"
    test_set = _test_set(str(trained_on["test_id"]))
    ids = [data.protocol.get(key, "") for key in ("test_id", "former_test_id")]
    # None: one of them is of a version that did not know the content of data
    if same_pictures(trained_on, data.protocol) is not False and test_set in map(_test_set, ids):
        return "the feature extractor was trained on these images" if split == "train" else None
    if trained_on.get("name") == data.protocol.get("name", data.name):
        raise GenzooError(
            f"this feature extractor was trained on another cut of {data.name} (its test set is {test_set}): "
            "the evaluated images may be among its training images; name another --features"
        )
    return f"the feature extractor was trained on {trained_on.get('name')}"


def _test_set(test_id: str) -> str:
    """A test set without what models are conditioned on.

    >>> _test_set("digits/test@seed=0,encoder=12ab"), _test_set("mnist/test@input=mask")
    ('digits/test@seed=0', 'mnist/test')
    """
    return re.split(r"[,@](?:input|encoder)=", test_id)[0]
