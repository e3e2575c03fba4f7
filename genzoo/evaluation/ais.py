"""The report on "generator plus observation noise", for models without a likelihood of their own.

It is a block of its own, because what it evaluates is another model than the generator: no figure of it is to be ranked
beside those of models that define a likelihood.
"""

import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.evaluation.likelihood import LikelihoodReport, subset, summarise
from genzoo.objectives.likelihood.decoder import Annealing, Decoder, choose_scale, decoder_likelihood

if TYPE_CHECKING:
    from genzoo.data.split import Split

SCALE_IMAGES = 10  # validation images, at most, that the noise's scale is chosen on
SIMULATED = 10  # images, at most, that the gap is measured on


def ais_likelihood(
    model: Decoder,
    split: "Split",
    val: "Split",
    *,
    images: int,
    annealing: Annealing,
    generator: torch.Generator | None = None,
) -> LikelihoodReport:
    """The likelihood of a random `images` of `split` under the generator plus noise whose scale suits `val`.

    `details` hold the scale, the annealing and the gap of bidirectional Monte Carlo in nats. Raises `GenzooError` for
    less than one image.
    """
    if images < 1:
        raise GenzooError(f"the generator plus noise is evaluated on one image or more, got {images}")
    start = time.perf_counter()
    chosen, cond = _some(model, val, min(images, SCALE_IMAGES))
    scale = choose_scale(model, chosen, cond, annealing=annealing, generator=generator)
    chosen, cond = _some(model, split, images)
    answer = decoder_likelihood(
        model, chosen, scale, cond, annealing=annealing, simulated=SIMULATED, generator=generator
    )
    return summarise([answer], time.perf_counter() - start)


def _some(model: Decoder, split: "Split", count: int) -> tuple[Tensor, Tensor | None]:
    """A random part of a split, always the same."""
    chosen = split.batch(subset(len(split), count, torch.Generator().manual_seed(0)))
    return chosen.images, None if model.spec.cond is None else chosen.cond
