"""Fine-tuning: a copy of an encoder's backbone is trained on as a classifier, together with a linear head."""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec, check_images
from genzoo.core.surroundings import in_plain_surroundings
from genzoo.core.trainable import evaluating
from genzoo.objectives.scale import Scale

if TYPE_CHECKING:
    from genzoo.data.split import Split

STANDARDISING = 500  # images that units of vectors are taken from
LEAST_STD = 1e-6  # of the largest number in a vector: below it a dimension is constant


@dataclass(frozen=True)
class FineTuning:
    """How a backbone is trained on as a classifier."""

    steps: int = 500
    """Batches."""
    batch_size: int = 64
    """Images in a batch."""
    learning_rate: float = 1e-3
    """Peak rate of AdamW, after a tenth of the steps; it then falls to 0."""

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size) < 1 or self.learning_rate <= 0:
            raise GenzooError(f"fine-tuning needs positive steps, batch size and learning rate, got {self}")


@final
class FineTuned(nn.Module):
    """A backbone with a linear head on its vectors, in units of how they varied before: images of `spec` to classes."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, width: int, spec: DataSpec, classes: int) -> None:
        super().__init__()
        self.spec, self.backbone = spec, backbone
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.head = nn.Linear(width, classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Integer images `[b, c, h, w]` to logits `[b, classes]`."""
        return self.head((self.vectors(images) - self.mean) / self.std)

    def vectors(self, images: Tensor) -> Tensor:
        """Integer images `[b, c, h, w]` to the backbone's `[b, width]`."""
        return self.backbone(Scale(self.spec).centres(check_images(images, self.spec)))

    def standardise(self, images: Tensor) -> None:
        """Takes the units of the vectors from integer images `[b, c, h, w]`, so that a head learns as fast on any."""
        with evaluating(self):
            vectors = self.vectors(images)
            self.mean.copy_(vectors.mean(0))
            self.std.copy_(vectors.std(0, correction=0).clamp(min=LEAST_STD * vectors.abs().max() + 1e-12))

    def predict(self, images: Tensor, chunk: int = 500) -> Tensor:
        """The likeliest class of integer images `[n, c, h, w]`: long `[n]` on the CPU."""
        device = self.head.weight.device
        with evaluating(self):
            return torch.cat([self(part.to(device)).argmax(1).cpu() for part in images.split(chunk)])


@in_plain_surroundings
def fine_tune(
    backbone: nn.Module,
    width: int,
    train: "Split",
    spec: DataSpec,
    how: FineTuning | None = None,
    *,
    generator: torch.Generator | None = None,
) -> FineTuned:
    """A copy of `backbone` (float `[b, c, h, w]` in [-1, 1] to `[b, width]`) trained on with a linear head.

    `train` are integer images of `spec` with classes; `generator`, on the CPU, decides the batches. The backbone itself
    and the global random state stay as they were. Raises `GenzooError` where there are no classes.
    """
    how, labels = how or FineTuning(), train.labels
    if labels is None or labels.ndim != 1:
        raise GenzooError("fine-tuning needs images with a class each, these have none: use labelled data")
    device = next(backbone.parameters()).device
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))  # for dropout inside of it
        model = FineTuned(copy.deepcopy(backbone), width, spec, int(labels.max()) + 1).to(device)
        some = torch.randint(len(train), (STANDARDISING,), generator=generator)
        model.standardise(train.batch(some).images.to(device))
        optimizer = torch.optim.AdamW(model.requires_grad_().train().parameters(), weight_decay=0.01)
        for step in range(how.steps):
            for group in optimizer.param_groups:
                group["lr"] = how.learning_rate * min(10 * (step + 1) / how.steps, 1 - step / how.steps)
            batch = train.batch(torch.randint(len(train), (how.batch_size,), generator=generator), generator)
            assert batch.cond is not None
            optimizer.zero_grad()
            F.cross_entropy(model(batch.images.to(device)), batch.cond.to(device)).backward()
            optimizer.step()
    return model.eval()
