"""Images and captions in one space: CLIP and SigLIP, small enough for a processor.

    i = image_projection(backbone(image))      t = text_projection(text(bytes of the caption))
    loss = objective(i, t)                     pairs against all other combinations of the batch

(Radford et al. 2021, figure 3; Zhai et al. 2023, algorithm 1; the formulas are in `genzoo.objectives.image_text`.)

There are two kinds of vectors:
    `embed`                                the *backbone's*, as of every encoder: for probes, distances, conditioning
    `embed_images_shared`, `embed_text`    the *shared* space: unit vectors, an image near to what is said of it

Captions come with the batch, as codes of bytes (`genzoo.data.captions.CaptionedSplit`), or are made in the loss of
class labels: the name of the class in a template drawn anew for each image. Captions that are equal, or made of one
class, are right for each other's images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from typing_extensions import override

from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError
from genzoo.core.spec import Batch, DataSpec
from genzoo.core.text import byte_codes
from genzoo.core.trainable import Loss, evaluating
from genzoo.data.augmentations import Augmentation
from genzoo.data.captions import TEMPLATES, caption, captioned, class_names, has_captions, number_name
from genzoo.data.image_data import ImageData
from genzoo.models.base import Encoder, EncoderConfig
from genzoo.models.encoders.embedding import check_discrete, embedded, prepared
from genzoo.nn.backbones import Backbone, BackboneConfig, ProjectionConfig, ResNetConfig
from genzoo.nn.text_tower import TextTowerConfig
from genzoo.objectives.contrastive import cosines, directions
from genzoo.objectives.image_text import Clip, TwoTowers


@dataclass(frozen=True)
class ClipConfig(EncoderConfig):
    """Two towers, what their embeddings minimise, and how classes are talked about."""

    augmentation: Augmentation
    """Of the images; it must not undo what captions say of them."""
    backbone: BackboneConfig = field(default_factory=ResNetConfig)
    """Images to representations."""
    text: TextTowerConfig = field(default_factory=TextTowerConfig)
    """Captions to vectors."""
    projection: ProjectionConfig = field(default_factory=lambda: ProjectionConfig(out=128, layers=1))
    """From either tower into the shared space; linear ones as in the paper (section 2.3)."""
    objective: TwoTowers = field(default_factory=Clip)
    """What goes with what."""
    class_names: tuple[str, ...] = ()
    """Names of the classes, see `genzoo.data.captions.class_names`; without them class 7 is called "seven"."""
    templates: tuple[str, ...] = TEMPLATES
    """Captions of classes, `{}` standing for the name; the first without randomness."""
    training: TrainConfig = field(default_factory=TrainConfig)

    def build(self, spec: DataSpec) -> "ClipEncoder":
        """Raises `GenzooError` where the network does not take the data, or names do not fit its classes."""
        check_discrete(spec)
        if not self.templates or any("{}" not in template for template in self.templates):
            raise GenzooError('clip needs templates, each with {} for the name of the class, such as "a {}"')
        if spec.cond == "class" and len(self.class_names) not in (0, spec.cond_size):
            raise GenzooError(
                f"{spec.cond_size} classes need as many class_names, got {len(self.class_names)}"
            )
        return ClipEncoder(spec, self, self.backbone.build(spec.shape))

    @override
    def adapted(self, data: ImageData) -> "tuple[ClipConfig, ImageData]":
        """The data get the captions that lie in their folder; without any, the configuration gets names of classes.

        Raises `GenzooError` where there are neither, and for captions that do not fit.
        """
        if has_captions(data):
            return self, captioned(data, length=self.text.length)
        return (self if self.class_names else replace(self, class_names=class_names(data))), data


class ClipEncoder(Encoder):
    """A backbone that learns from what is said about images."""

    watched = ("accuracy",)
    config: ClipConfig

    def __init__(self, spec: DataSpec, config: ClipConfig, backbone: Backbone) -> None:
        super().__init__()
        self.spec, self.config, self.backbone, self.width = spec, config, backbone, backbone.width
        self.shared_width = config.projection.out
        """Numbers in a vector of the shared space."""
        self.text = config.text.build()
        self.image_projection = config.projection.build(self.width)
        self.text_projection = config.projection.build(self.text.width)
        self.logits = config.objective.logits()

    # --- loss ----------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, turn: str = "model", *, generator: torch.Generator | None = None) -> Loss:
        """The objective `[b]`; the part is the share of images whose nearest caption is a right one.

        `batch.cond` is long `[b]` classes, or long `[b, length]` codes of captions; raises `GenzooError` otherwise.
        """
        self.parameters_of(turn)
        x = self.config.augmentation(prepared(batch.images, self.spec), generator)
        codes, groups = self.captions(batch.cond, generator)
        a = self.image_projection(self.backbone(x))
        b = self.text_projection(self.text(codes.to(x.device)))
        nearest = cosines(a.detach(), b.detach()).argmax(1)
        accuracy = (groups[nearest] == groups).float()
        return Loss(self.config.objective(a, b, self.logits, groups), {"accuracy": accuracy})

    def captions(
        self, cond: Tensor | None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Codes of captions, long `[b, length]`, and long `[b]` numbers, equal where captions say the same.

        Of classes they are made, and drawn with `generator`; without one the first template is taken.
        """
        if cond is None or cond.is_floating_point():
            raise GenzooError(
                "clip learns from captions or classes, and the data has none: give (images, labels), or captioned data"
            )
        if cond.ndim == 2:
            return cond, cond.unique(dim=0, return_inverse=True)[1]
        chosen = torch.zeros(len(cond), dtype=torch.long)
        if generator is not None:
            count = len(self.config.templates)
            chosen = torch.randint(count, (len(cond),), generator=generator, device=generator.device)
        pairs = zip(chosen.tolist(), cond.tolist(), strict=True)
        texts = [caption(self.config.templates[number], self.name_of(k)) for number, k in pairs]
        return byte_codes(texts, self.text.length), cond

    def name_of(self, k: int) -> str:
        """What class k is called; raises `GenzooError` where there are names, but none for it."""
        names = self.config.class_names
        if names and not 0 <= k < len(names):
            raise GenzooError(f"class {k} has no name: class_names has {len(names)}")
        return names[k] if names else number_name(k)

    # --- vectors -------------------------------------------------------------------------------------------

    def embed(self, images: Tensor) -> Tensor:
        """The backbone's representations, float32 `[n, width]`; they are *not* in the space of texts."""
        return embedded(self, self.backbone, images)

    def embed_images_shared(self, images: Tensor) -> Tensor:
        """Images in the shared space: unit vectors, float32 `[n, shared_width]`."""
        features = self.embed(images)
        with evaluating(self):
            return directions(self.image_projection(features))

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Texts in the shared space: unit vectors, float32 `[n, shared_width]`; they are read up to the 48th byte.

        Raises `GenzooError` for anything but a list of texts.
        """
        codes = byte_codes(texts, self.text.length).to(self.device)
        with evaluating(self):
            return directions(self.text_projection(self.text(codes)))

    def embed_names(self, names: Sequence[str]) -> Tensor:
        """Names of classes in the shared space, unit vectors `[n, shared_width]`: each the mean over all templates.

        Images are then told apart without examples by the largest `embed_images_shared(x) @ embed_names(names).T`
        (Radford et al. 2021, section 3.1.4).
        """
        texts = [caption(template, name) for name in names for template in self.config.templates]
        vectors = self.embed_text(texts).unflatten(0, (len(names), len(self.config.templates)))
        return directions(vectors.mean(1))
