"""The checks that every encoder of the zoo passes: `check_encoder(encoder)`.

They work on copies and leave the encoder and the global random state as they were. Batches have labels, which encoders
that need none must not mind.
"""

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from genzoo.core.spec import Batch
from genzoo.models.base import Encoder
from genzoo.models.loading import load_model
from genzoo.testing.learning_checks import types_of
from genzoo.testing.probe import (
    example_batch,
    example_images,
    perturb,
    random_state,
    require,
    require_refusal,
    seeded,
    train,
)
from genzoo.testing.suite import Check, CheckResult, run_checks
from genzoo.testing.turn_checks import (
    gradients_stay_in_their_turn,
    loss_is_finite_per_image,
    turns_partition_parameters,
)

CLOSE = 1e-4
"""How far float32 embeddings may lie apart by the order of sums alone, as a share of their size."""


def check_encoder(encoder: Encoder) -> list[CheckResult]:
    """Runs all checks on `encoder`, which stays as it was, and returns their results.

    Raises `ConformanceError` naming every failing check.
    """
    return run_checks(encoder, list(yield_encoder_checks(encoder)))


def yield_encoder_checks(encoder: Encoder) -> Iterator[Check]:
    """The checks, to be called or run one by one."""
    for function in (
        loss_is_finite_per_image,
        gradients_stay_in_their_turn,
        turns_partition_parameters,
        losses_stay_finite,
        same_generator_same_loss,
        global_rng_untouched,
        evaluation_leaves_no_trace,
        embeddings_are_float_vectors,
        embeddings_ignore_neighbours,
        embeddings_ignore_mode,
        embeddings_differ,
        save_and_load,
        wrong_images_raise,
    ):
        yield Check(function.__name__, (function.__doc__ or "").strip().splitlines()[0], function, encoder)


# --- losses ----------------------------------------------------------------------------------------------------


def losses_stay_finite(encoder: Encoder) -> None:
    """The loss of every turn stays finite over a few Adam steps."""
    for losses in train(encoder, example_batch(encoder, 8), steps=5, rate=1e-3):
        require(bool(losses.isfinite().all()), f"losses are {losses.tolist()} after a few steps")


def same_generator_same_loss(encoder: Encoder) -> None:
    """Equal generators give equal losses, in training mode (on copies) and in evaluation mode."""
    perturb(encoder)
    batch = example_batch(encoder, 6)
    for mode in (True, False):
        twins = [copy.deepcopy(encoder).train(mode) for _ in range(2)]
        for turn in encoder.turns:
            losses = [twin.loss(batch, turn, generator=seeded(twin, 1)).total for twin in twins]
            name = "training" if mode else "evaluation"
            require(torch.equal(*losses), f"in {name} mode losses differ although generators are equal")


def global_rng_untouched(encoder: Encoder) -> None:
    """Neither `loss` with a generator nor `embed` draws from a global generator."""
    batch, before = example_batch(encoder, 4), random_state()
    encoder.eval()
    for turn in encoder.turns:
        encoder.loss(batch, turn, generator=seeded(encoder, 0))
    encoder.embed(batch.images)
    changed = before.changed(random_state())
    require(not changed, f"the global generator of {', '.join(changed)} moved")


def evaluation_leaves_no_trace(encoder: Encoder) -> None:
    """A loss in evaluation mode, and `embed` in any mode, change no parameter, no buffer and no mode."""
    list(train(encoder, example_batch(encoder, 6), steps=2, rate=1e-3))
    for mode in (False, True):
        encoder.train(mode)
        modes = [module.training for module in encoder.modules()]
        before = {name: value.clone() for name, value in encoder.state_dict().items()}
        for turn in () if mode else encoder.turns:
            encoder.loss(example_batch(encoder, 4, seed=1), turn, generator=seeded(encoder, 0))
        encoder.embed(example_images(encoder, 4))
        changed = [
            name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])
        ]
        require(not changed, f"{', '.join(changed[:3])} changed without training")
        require(modes == [module.training for module in encoder.modules()], "a module's mode changed")


# --- embeddings ------------------------------------------------------------------------------------------------


def embeddings_are_float_vectors(encoder: Encoder) -> None:
    """`embed` gives finite float32 `[n, width]` without a gradient, for no image too, and under autocast."""
    perturb(encoder)
    for n in (0, 1, 5):
        vectors = encoder.embed(example_images(encoder, n))
        with torch.autocast(encoder.device.type, torch.bfloat16):
            cast = encoder.embed(example_images(encoder, n))
        shape = (n, encoder.width)
        require(vectors.shape == shape, f"{n} images are embedded as {tuple(vectors.shape)}, not {shape}")
        require(vectors.dtype == torch.float32 == cast.dtype, f"embeddings are {vectors.dtype}, not float32")
        require(not vectors.requires_grad, "embeddings carry gradients")
        require(bool(vectors.isfinite().all()), "embeddings are not finite")


def embeddings_ignore_neighbours(encoder: Encoder) -> None:
    """An image's vector does not depend on which others it is embedded with, nor on how many."""
    images = example_images(perturb(encoder), 260)  # more than go through the network at once
    whole = encoder.embed(images)
    parts = torch.cat([encoder.embed(images[:1]), encoder.embed(images[1:4]), encoder.embed(images[4:])])
    _require_close(whole, parts, "vectors differ with the images beside them")
    _require_close(whole, encoder.embed(images.flip(0)).flip(0), "vectors differ with the order of images")
    _require_close(whole[:3], encoder.embed(images[:3].long()), "vectors differ with the type of integers")


def embeddings_ignore_mode(encoder: Encoder) -> None:
    """Training mode, and former losses without a step, make no difference to `embed`."""
    images = example_images(perturb(encoder), 4)
    vectors = encoder.eval().embed(images)
    require(torch.equal(vectors, encoder.train().embed(images)), "vectors differ in training mode")


def embeddings_differ(encoder: Encoder) -> None:
    """Different images get different vectors, at perturbed weights."""
    vectors = perturb(encoder).embed(example_images(encoder, 8))
    require(len(vectors.unique(dim=0)) == 8, "some of 8 different images have the same vector")


# --- storage and mistakes --------------------------------------------------------------------------------------


def save_and_load(encoder: Encoder) -> None:
    """An encoder that is saved and loaded gives identical vectors and losses."""
    list(train(perturb(encoder), example_batch(encoder, 6), steps=3, rate=1e-3))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder"
        encoder.save(path)
        torch.manual_seed(1)  # what is drawn anew when the encoder is built must not come out the same
        loaded = load_model(path, types=types_of(encoder.config)).to(encoder.device)
    require(type(loaded) is type(encoder), f"{type(encoder).__name__} is loaded as {type(loaded).__name__}")
    assert isinstance(loaded, Encoder)
    require(loaded.spec == encoder.spec, f"the spec {encoder.spec} is loaded as {loaded.spec}")
    images = example_images(encoder.eval(), 4, seed=1)
    require(torch.equal(encoder.embed(images), loaded.embed(images)), "vectors differ after loading")
    batch = example_batch(encoder, 4, seed=1)
    for turn in encoder.turns:
        losses = [e.loss(batch, turn, generator=seeded(e, 0)).total for e in (encoder, loaded)]
        require(torch.equal(*losses), f"losses of turn {turn!r} differ after loading: not all state is saved")


def wrong_images_raise(encoder: Encoder) -> None:
    """Images of a wrong shape, type or range raise a clear error."""
    images, cond = example_batch(encoder, 4)
    levels, high = encoder.spec.levels or 0, images.long()
    high[0, 0, 0, 0] = levels
    wrong = {
        "images of twice the width": torch.cat([images, images], dim=-1),
        "images without a batch dimension": images[0],
        "float images in place of integers": images.float(),
        f"a value of {levels} for {levels} levels": high,
    }
    for what, bad in wrong.items():
        require_refusal(lambda b=bad: encoder.embed(b), f"embed with {what}")
        for turn in encoder.turns:
            require_refusal(lambda b=bad, t=turn: encoder.loss(Batch(b, cond), t), f"loss with {what}")


def _require_close(a: Tensor, b: Tensor, message: str) -> None:
    gap, size = (a - b).abs().max().item(), a.abs().max().item()
    require(gap <= CLOSE * max(size, 1e-3), f"{message}: by up to {gap:.3g} of {size:.3g}")
