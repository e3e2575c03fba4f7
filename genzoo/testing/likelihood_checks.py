"""Checks of likelihoods: what is declared is what is measured, down to sums over all images of small spaces."""

import math
from typing import NamedTuple
from unittest import SkipTest

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError, NoLikelihood
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.spec import DataSpec
from genzoo.models.base import GenerativeModel
from genzoo.testing.probe import example_batch, example_cond, example_images, perturb, require, seeded

TOLERANCE = {LikelihoodKind.EXACT: 1e-4, LikelihoodKind.LOWER_BOUND: 1e-4, LikelihoodKind.ESTIMATE: 1e-3}
"""Largest relative difference of nats that should be equal; an adaptive solver steps for the whole batch."""
BINARY = DataSpec((1, 2, 2), levels=2)
FOUR_LEVELS = DataSpec((1, 2, 2), levels=4)
RGB = DataSpec((3, 2, 1), levels=3)


class Total(NamedTuple):
    """The sum of P over all images, from several noisy likelihoods of each.

    By Jensen's inequality a sum over dequantisation noise lies at `high`, one of bounds at `low`; `noise` is
    four standard errors and the remaining bias.
    """

    low: float
    """Sum of exp(mean nats)."""
    high: float
    """Sum of mean exp(nats)."""
    noise: float


def no_likelihood_raises(model: GenerativeModel) -> None:
    """A model that declares no likelihood raises `NoLikelihood` and says why."""
    try:
        model.log_likelihood(*example_batch(model, 2), generator=seeded(model, 0))
    except NoLikelihood as error:
        require(bool(str(error).strip()), "NoLikelihood is raised without a reason")
    else:
        raise AssertionError("the model declares no likelihood, but log_likelihood returns one")


def likelihood_is_as_declared(model: GenerativeModel) -> None:
    """Kind, type, shape and units of `log_likelihood` are those declared; no stderr means no randomness."""
    batch = example_batch(perturb(model).eval(), 5)
    ll = model.log_likelihood(*batch, generator=seeded(model, 0))
    require(isinstance(ll, LogLikelihood), "log_likelihood gives no genzoo.core.log_likelihood.LogLikelihood")
    declared, found = model.likelihood.name, LikelihoodKind(ll.kind).name
    require(declared == found, f"the model declares {declared}, log_likelihood reports {found}")
    require(ll.nats.dtype == torch.float64, f"nats are {ll.nats.dtype} in place of float64")
    require(tuple(ll.nats.shape) == (5,), f"nats have shape {tuple(ll.nats.shape)} for 5 images")
    require(not bool(ll.nats.isnan().any()), "nats are not a number")
    _require_units(model, ll)
    if ll.stderr is not None:
        require(ll.kind is not LikelihoodKind.EXACT, "an EXACT likelihood has no Monte-Carlo error")
        require(ll.stderr.shape == ll.nats.shape, f"stderr has shape {tuple(ll.stderr.shape)} for 5 images")
        require(bool((ll.stderr >= 0).all()), "stderr is negative or not a number")
        return
    again = model.log_likelihood(*batch, generator=seeded(model, 1)).nats
    require(_close(ll.nats, again, ll.kind), "nats change with the seed although stderr is None")


def likelihood_ignores_neighbours(model: GenerativeModel) -> None:
    """The likelihood of an image does not depend on the others in its batch."""
    images, cond = example_batch(perturb(model).eval(), 4)  # training mode is another check's matter
    ll = model.log_likelihood(images, cond, generator=seeded(model, 0))
    others = torch.cat([images[:1], images[1:] * 0])
    moved = model.log_likelihood(others, cond, generator=seeded(model, 0)).nats
    _require_close(ll.nats[:1], moved[:1], ll.kind, "when the other images of its batch change")
    if ll.stderr is not None:  # noise is drawn for the batch, so a batch of one gets other noise
        return
    for i in range(4):
        one = None if cond is None else cond[i : i + 1]
        alone = model.log_likelihood(images[i : i + 1], one, generator=seeded(model, 0)).nats
        _require_close(ll.nats[i : i + 1], alone, ll.kind, "between a batch of four and of one")


def likelihood_ignores_mode(model: GenerativeModel) -> None:
    """Training and evaluation mode give the same likelihood."""
    batch = example_batch(perturb(model), 4)
    results = [model.train(mode).log_likelihood(*batch, generator=seeded(model, 0)) for mode in (True, False)]
    _require_close(results[0].nats, results[1].nats, results[0].kind, "between training and evaluation mode")


def integer_types_agree(model: GenerativeModel) -> None:
    """Images as uint8 and as long have the same likelihood: no arithmetic wraps around at 256."""
    images, cond = example_batch(perturb(model).eval(), 4)
    nats = [model.log_likelihood(x, cond, generator=seeded(model, 0)).nats for x in (images, images.long())]
    _require_close(nats[0], nats[1], model.likelihood, "between uint8 and long images")


def class_likelihoods_average(model: GenerativeModel) -> None:
    """Without cond, P(x) is the mean of P(x | class) over all classes."""
    images, classes = example_images(perturb(model).eval(), 3), model.spec.cond_size
    each = [
        model.log_likelihood(
            images, torch.full((3,), c, device=model.device), generator=seeded(model, 0)
        ).nats
        for c in range(classes)
    ]
    mixture = torch.logsumexp(torch.stack(each), dim=0) - math.log(classes)
    marginal = model.log_likelihood(images, generator=seeded(model, 0)).nats
    _require_close(marginal, mixture, LikelihoodKind.EXACT, "from the mean over the classes, without cond")


def enumeration_binary(model: GenerativeModel) -> None:
    """P sums to 1 (EXACT) or to no more than 1 over all binary 2x2 images, at random weights."""
    _require_total(model, BINARY)


def enumeration_levels(model: GenerativeModel) -> None:
    """P sums to 1 (EXACT) or to no more than 1 over all 2x2 images of four levels, at random weights."""
    _require_total(model, FOUR_LEVELS)


def enumeration_rgb(model: GenerativeModel) -> None:
    """P sums to 1 (EXACT) or to no more than 1 over all RGB images of two pixels and three levels."""
    _require_total(model, RGB)


def estimate_sums_to_one(model: GenerativeModel) -> None:
    """The estimates of P sum to 1 within 5% over all binary 2x2 images.

    A continuous model, which says so by naming its `dequantisation` among the details, may leave mass outside the
    range of the images, and bounds what it has inside: of it the sum says no more than the checks by enumeration.
    """
    sibling = _sibling(model, BINARY)
    probe = sibling.log_likelihood(*example_batch(sibling, 1), generator=seeded(sibling, 0))
    if "dequantisation" in probe.details:
        raise SkipTest("a continuous model may put mass outside of the images' range")
    total = _total(sibling, _all_images(BINARY), _fixed_cond(sibling, 0))
    near = total.low - total.noise <= 1.05 and total.high + total.noise >= 0.95
    require(
        near, f"the estimates sum to {total.low:.4g}..{total.high:.4g} over all images, not to 1 within 5%"
    )


def samples_follow_likelihood(model: GenerativeModel) -> None:
    """Samples of binary 2x2 images are as frequent as the EXACT likelihood says (chi-square)."""
    sibling, n = _sibling(model, BINARY), 4096
    images = _all_images(BINARY).to(sibling.device)
    cond = _fixed_cond(sibling, 0)
    nats = sibling.log_likelihood(images, _repeat(cond, len(images)), generator=seeded(sibling, 0)).nats
    expected = nats.softmax(0) * n  # that P sums to 1 is another check's matter
    samples = sibling.sample(n, _repeat(cond, n), generator=seeded(sibling, 1)).long().flatten(1)
    codes = (samples * (2 ** torch.arange(3, -1, -1, device=samples.device))).sum(1)
    counts = torch.bincount(codes, minlength=16).to(expected)
    # mean 15 and variance about 30; cells of less than one expected sample must not blow it up
    chi_square = ((counts - expected) ** 2 / expected.clamp_min(1.0)).sum().item()
    require(
        chi_square < 60,
        f"frequencies of {n} samples miss the likelihood: chi-square {chi_square:.0f} for 15 df",
    )


def _require_total(model: GenerativeModel, spec: DataSpec) -> None:
    sibling, images = _sibling(model, spec), _all_images(spec)
    for seed in (0, 1) if spec.levels == 2 else (0,):
        total = _total(sibling, images, _fixed_cond(sibling, seed))
        if sibling.likelihood is LikelihoodKind.EXACT:
            require(
                abs(total.low - 1) <= 1e-5, f"P sums to {total.low:.6f} over all {len(images)} images, not 1"
            )
            continue
        slack = total.noise + (0.05 if sibling.likelihood is LikelihoodKind.ESTIMATE else 1e-4)
        what = "estimates" if sibling.likelihood is LikelihoodKind.ESTIMATE else "lower bounds"
        message = (
            f"the {what} of P sum to {total.low:.4g} over all {len(images)} images, above 1 + {slack:.2g}"
        )
        require(total.low <= 1 + slack, message)


def _sibling(model: GenerativeModel, spec: DataSpec) -> GenerativeModel:
    """A model of the same recipe for another spec, at perturbed weights; skips where there is none."""
    spec = DataSpec(spec.shape, spec.levels, model.spec.cond, model.spec.cond_size)
    try:
        sibling = model.config.build(spec)
    except (GenzooError, ValueError):
        try:  # a head that is made for 256 levels, say, may have a counterpart for two
            sibling = model.config.build(spec)
        except (GenzooError, ValueError) as error:
            raise SkipTest(f"cannot be built for {spec.shape} and {spec.levels} levels: {error}") from error
    return perturb(sibling.to(model.device)).eval()


def _total(model: GenerativeModel, images: Tensor, cond: Tensor | None, most: int = 16) -> Total:
    """The sum of P over `images`, likelihoods averaged over up to `most` seeds until the noise is small."""
    images, cond = images.to(model.device), _repeat(cond, len(images))
    rows: list[Tensor] = []
    total = Total(math.inf, math.inf, math.inf)
    while len(rows) < most and total.noise > 0.02:
        for _ in range(1 if model.likelihood is LikelihoodKind.EXACT else 4):
            rows.append(model.log_likelihood(images, cond, generator=seeded(model, len(rows))).nats)
        total = _summed(torch.stack(rows))
    return total


def _summed(nats: Tensor) -> Total:
    """`[repeats, images]` -> their total; errors may be correlated between images of a repeat."""
    repeats, mean = len(nats), nats.mean(0)
    p = mean.exp()
    if repeats == 1:
        return Total(p.sum().item(), p.sum().item(), 0.0)
    stderr = ((nats - mean) * p).sum(1).std().item() / repeats**0.5  # of the sum of p, to first order
    bias = (p * nats.var(0)).sum().item() / (2 * repeats)
    return Total(p.sum().item(), nats.exp().mean(0).sum().item(), 4 * stderr + bias)


def _all_images(spec: DataSpec) -> Tensor:
    """Every image there is, `[levels ** dims, *shape]`, the first sub-pixel the slowest."""
    values = torch.arange(spec.levels or 0, dtype=torch.uint8)
    return torch.cartesian_prod(*[values] * spec.dims).reshape(-1, *spec.shape)


def _fixed_cond(model: GenerativeModel, seed: int) -> Tensor | None:
    return example_cond(model, 1, seed)


def _repeat(cond: Tensor | None, n: int) -> Tensor | None:
    return None if cond is None else cond.expand(n, *cond.shape[1:])


def _require_units(model: GenerativeModel, ll: LogLikelihood) -> None:
    dims = math.prod(model.spec.shape)
    require(ll.spec == model.spec, f"the likelihood is that of {ll.spec}, the model has {model.spec}")
    bits = -ll.nats / (dims * math.log(2))
    require(torch.allclose(ll.bits_per_dim, bits), f"bits_per_dim is not -nats / ({dims} ln 2)")


def _close(a: Tensor, b: Tensor, kind: LikelihoodKind) -> bool:
    return bool(((a - b).abs() <= TOLERANCE[kind] * a.abs().clamp_min(1.0)).all())


def _require_close(a: Tensor, b: Tensor, kind: LikelihoodKind, when: str) -> None:
    gap = (a - b).abs().max().item()
    require(_close(a, b, kind), f"the likelihood of an image differs by {gap:.3g} nats {when}")
