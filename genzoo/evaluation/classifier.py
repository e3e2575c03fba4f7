"""A small convolutional classifier: which class a drawn image shows, and how surely.

It judges samplers (which of ten digits they draw), so it is small enough to be trained where it is needed, on the
training split alone, and good enough that its own mistakes do not count.
"""

import math
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.core.errors import GenzooError
from genzoo.core.random import private_rng, seeded
from genzoo.core.spec import DataSpec, check_images
from genzoo.core.trainable import evaluating
from genzoo.training.processes import BatchOrder

if TYPE_CHECKING:
    from genzoo.data.split import Split

STEPS = 800
BATCH = 64
RATE = 2e-3
WARMUP = 50
SMALLEST = 4  # pixels a side that the convolutions end at
MOST_SHIFT = 1 / 28  # of a side, rounded up: one pixel on digits of 28
PASS = 500  # images at once outside of training: bounds memory


@final
class Classifier:
    """A trained network with what it was made for: images of `spec` and `classes` of them."""

    def __init__(self, network: nn.Module, spec: DataSpec, classes: int) -> None:
        self.network, self.spec, self.classes = network, spec, classes

    def probabilities(self, images: Tensor) -> Tensor:
        """P(class | image), float32 `[n, classes]` on the CPU, of integer images `[n, c, h, w]`.

        Raises `GenzooError` for images that do not fit the spec.
        """
        images = check_images(images, self.spec)
        found = [torch.empty(0, self.classes)]
        with evaluating(self.network):
            for part in images.split(PASS):
                found.append(self.network(_scaled(part, self.spec)).softmax(1).cpu())
        return torch.cat(found)

    def accuracy(self, split: "Split") -> float:
        """The share of the images of `split` that are given to their own class.

        Raises `GenzooError` where they have none.
        """
        labels = _class_labels(split)
        return (self.probabilities(split.images[:]).argmax(1) == labels.cpu()).double().mean().item()


def fit_classifier(train: "Split", spec: DataSpec, *, steps: int = STEPS, seed: int = 0) -> Classifier:
    """Learns the classes of `train`, integer images of `spec` with labels long `[n]`, in `steps` batches.

    Images are shifted by a pixel or so. The global random state stays as it was; equal seeds give
    equal classifiers. Raises `GenzooError` where there are no classes or the data are no images.
    """
    labels = _class_labels(train)
    if spec.levels is None:
        raise GenzooError(
            "a classifier needs integer images, these data are real-valued: use a source of images"
        )
    classes, device = int(labels.max()) + 1, torch.device("cpu")
    with private_rng(device):
        torch.manual_seed(seed)
        network = ConvClassifier(spec.shape, classes)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=0.02)
    order, generator = BatchOrder(len(train), BATCH, seed), seeded(device, "classifier", seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min((step + 1) / WARMUP, 1 - step / steps)
        batch = train.batch(order.indices(step), generator)
        images = _shifted(_scaled(check_images(batch.images, spec), spec), generator)
        assert batch.cond is not None
        optimizer.zero_grad()
        F.cross_entropy(network(images), batch.cond).backward()
        optimizer.step()
    return Classifier(network, spec, classes)


class ConvClassifier(nn.Module):
    """Convolutions with halvings down to about 4x4, then two dense layers; some 100,000 parameters, not normalised."""

    def __init__(self, shape: tuple[int, ...], classes: int, width: int = 32) -> None:
        super().__init__()
        channels, *size = shape
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        inside, halvings = width, max(1, round(math.log2(max(size) / SMALLEST)))
        for _ in range(halvings):
            layers += [nn.Conv2d(inside, 2 * width, 3, stride=2, padding=1), nn.ReLU()]
            inside = 2 * width
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(SMALLEST), nn.Flatten())
        self.head = nn.Sequential(
            nn.Linear(inside * SMALLEST**2, 2 * width), nn.ReLU(), nn.Linear(2 * width, classes)
        )
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):  # torch's own start shrinks signals layer by layer
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(self.head[-1].weight)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        """Images float `[b, c, h, w]` in -1..1 to logits `[b, classes]`."""
        return self.head(self.body(x))


def _class_labels(split: "Split") -> Tensor:
    labels = split.labels
    if labels is None or labels.ndim != 1:
        raise GenzooError("a classifier needs images with a class each, these have none: use labelled data")
    return labels


def _scaled(images: Tensor, spec: DataSpec) -> Tensor:
    """Levels to -1..1, float32."""
    assert spec.levels is not None
    return images.float() * (2 / (spec.levels - 1)) - 1


def _shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """`images` `[b, c, h, w]`, each moved by a few pixels of its own; pixels at the edge are repeated."""
    b, c, h, w = images.shape
    rows, columns = (_positions(b, side, generator) for side in (h, w))
    index = torch.arange(b)[:, None, None, None], torch.arange(c)[None, :, None, None]
    return images[(*index, rows[:, None, :, None], columns[:, None, None, :])]


def _positions(b: int, side: int, generator: torch.Generator) -> Tensor:
    """Where each of `side` pixels comes from, `[b, side]`."""
    most = math.ceil(side * MOST_SHIFT)
    shift = torch.randint(-most, most + 1, (b, 1), generator=generator)
    return (torch.arange(side) + shift).clamp(0, side - 1)
