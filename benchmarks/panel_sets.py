"""The panel: sets of images of which nobody disputes which is the better one, and the pairs with the reason for each.

All sets have equally many images, made from the same training images or drawn by models that learned from them. Chains
run from good to bad; each image set of a chain is better than all that follow. Beside them mild faults, which one must
look for, are set against gross ones, which one sees from afar. Whether a decoder's blurred means or its speckled draws
of the same images are better is a matter of taste, and no pair.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.corruptions import CORRUPTIONS
from benchmarks.panel_models import (
    CODEBOOKS,
    DRAWN,
    MINUTES,
    UNFINISHED,
    Workshop,
    drawn_reconstructions,
    generator,
    unfinished,
)
from genzoo.core.errors import GenzooError
from genzoo.evaluation.features.feature_space import some_images
from genzoo.models.base import GenerativeModel

WINDOW = 3
SALTED = (0.005, 0.02, 0.08)
"""Shares of pixels that are black or white."""
SHUFFLED = (0.25, 1.0)
"""Shares of the windows whose pixels are shuffled."""
LEFT_OUT = (0.1, 1 / 3, 2 / 3)
"""Shares of the classes."""
SKEWS = (3.0, 10.0)
"""How many times as frequent the favoured half of the classes is made."""
COPIED = (200, 50, 10)
"""Distinct images among copies."""
GRADES = (1, 3, 5)
"""Severities of corruptions that make a chain."""
REAL = "real"


@dataclass(frozen=True)
class Pair:
    """Two sets by name, and why everybody would call the first one better."""

    better: str
    worse: str
    reason: str


@dataclass(frozen=True)
class Panel:
    """Image sets `[n, c, h, w]` by name, all of one size, and the pairs of them."""

    sets: Mapping[str, Tensor]
    pairs: Sequence[Pair]


CHAINS: Sequence[tuple[str, Sequence[str]]] = (
    ("blur hides what pictures show", (REAL, *(f"blur {s}" for s in GRADES))),
    ("noise covers what pictures show", (REAL, *(f"noise {s}" for s in GRADES))),
    ("stray pixels are seen at once", (REAL, *(f"salt {s:g}" for s in SALTED))),
    ("edges dissolve where neighbours change places", (REAL, *(f"shuffled {s:g}" for s in SHUFFLED))),
    ("a decoder draws each pixel on its own, and latents of the prior are no images' latents",
     (REAL, "vae draw", "vae sample")),
    ("a decoder's mean is smooth", (REAL, "vae mean")),
    ("fewer codes keep less of a picture", (REAL, *(f"codes {c}" for c in CODEBOOKS))),
    ("half-finished denoising leaves noise",
     (REAL, f"flow {MINUTES[0]:g}", *(f"unfinished {t:g}" for t in UNFINISHED))),
    ("a model that learned longer draws better", (REAL, *(f"flow {m:g}" for m in MINUTES))),
    ("classes are missing", (REAL, *(f"left out {s:.2f}" for s in LEFT_OUT))),
    ("classes come in wrong shares", (REAL, *(f"skewed {s:g}" for s in SKEWS))),
    ("a few images come again and again", (REAL, *(f"copies {c}" for c in COPIED))),
)  # fmt: skip
"""Reasons, and sets from the best to the worst."""

MILD: Sequence[str] = tuple(
    f"{name} 1" for name in ("noise", "brightness", "contrast", "occlusion", "shift", "jpeg")
)
GROSS: Sequence[str] = (
    f"salt {SALTED[-1]:g}", f"shuffled {SHUFFLED[-1]:g}", f"codes {CODEBOOKS[-1]}", f"flow {MINUTES[-1]:g}",
    f"unfinished {UNFINISHED[-1]:g}", "blur 5",
)  # fmt: skip
ACROSS = "a fault that one must look for, against one that is seen from afar"


def pairs(names: Sequence[str]) -> list[Pair]:
    """All pairs of the sets `names`: each two of a chain, and each mild fault with each gross one."""
    of_chains = (Pair(a, b, reason) for reason, chain in CHAINS for a, b in combinations(chain, 2))
    across = (Pair(a, b, ACROSS) for a, b in product(MILD, GROSS))
    found = {(p.better, p.worse): p for p in (*of_chains, *across)}  # some lie in two chains
    return [p for p in found.values() if p.better in names and p.worse in names]


def panel_of(workshop: Workshop, n: int, *, drawn: bool = True) -> Panel:
    """The panel of the workshop's data with `n` images a set; sets that need classes are left out where there are none.

    Without `drawn` it has only the sets that no model draws.

    Raises `GenzooError` where there are too few training images.
    """
    data, levels = workshop.data, workshop.data.spec.levels
    if levels is None or len(data.train) < 2 * n:
        raise GenzooError(f"a panel of {n} images a set needs {2 * n} training images of whole numbers")
    base = some_images(data.train, n, workshop.seed)
    sets = dict(_spoilt(base, levels, workshop.seed)) | (dict(_drawn(workshop, base)) if drawn else {})
    if data.train.labels is not None and data.train.labels.ndim == 1:
        sets |= dict(_classes(workshop, n))
    return Panel(sets, pairs(list(sets)))


# --- images that are spoilt --------------------------------------------------------------------------------------


def _spoilt(base: Tensor, levels: int, seed: int) -> Iterator[tuple[str, Tensor]]:
    yield REAL, base
    for name in ("blur", "noise", "brightness", "contrast", "occlusion", "shift", "jpeg"):
        for severity in GRADES if name in ("blur", "noise") else (1,):
            rng = generator(f"corruption {name}", seed)
            yield f"{name} {severity}", CORRUPTIONS[name](base, levels, severity, rng)
    for share in SALTED:
        yield f"salt {share:g}", salted(base, levels, share, generator("salt", seed))
    for share in SHUFFLED:
        yield f"shuffled {share:g}", shuffled(base, share, generator("windows", seed))
    for count in COPIED:
        yield f"copies {count}", base[torch.arange(len(base)) % count]


def salted(images: Tensor, levels: int, share: float, rng: torch.Generator) -> Tensor:
    """Integer images `[n, c, h, w]` with this share of their pixels black or white, all channels alike."""
    n, _, height, width = images.shape
    hit = torch.rand(n, 1, height, width, generator=rng) < share
    value = torch.randint(2, (n, 1, height, width), generator=rng) * (levels - 1)
    return torch.where(hit, value.to(images.dtype), images)


def shuffled(images: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Images `[n, c, h, w]` with the pixels of this share of their windows of 3 x 3 in another order.

    Windows lie on a grid from the upper left corner; a rest at the right and below stays. Channels move together.
    """
    n, channels, height, width = images.shape
    rows, columns = height // WINDOW * WINDOW, width // WINDOW * WINDOW
    inner = images[..., :rows, :columns].float()
    windows = F.unfold(inner, WINDOW, stride=WINDOW).view(n, channels, WINDOW**2, -1)
    order = torch.rand(n, WINDOW**2, windows.shape[-1], generator=rng).argsort(1)
    stay = torch.rand(n, 1, windows.shape[-1], generator=rng) >= share
    order = torch.where(stay, torch.arange(WINDOW**2)[None, :, None], order)
    moved = windows.gather(2, order[:, None].expand(-1, channels, -1, -1)).flatten(1, 2)
    found = images.clone()
    found[..., :rows, :columns] = F.fold(moved, (rows, columns), WINDOW, stride=WINDOW).to(images.dtype)
    return found


# --- images of other classes -------------------------------------------------------------------------------------


def _classes(workshop: Workshop, n: int) -> Iterator[tuple[str, Tensor]]:
    labels = workshop.data.train.labels
    assert labels is not None
    rng = generator("classes", workshop.seed)
    classes = labels.unique()
    classes = classes[torch.randperm(len(classes), generator=rng)]
    for share in LEFT_OUT:
        kept = torch.isin(labels, classes[max(1, round(share * len(classes))) :])
        yield f"left out {share:.2f}", _images(workshop, kept.double(), n)
    favoured = torch.isin(labels, classes[: len(classes) // 2])
    for skew in SKEWS:
        weights = torch.where(favoured, skew, 1.0).double()
        yield f"skewed {skew:g}", _images(workshop, weights, n)


def _images(workshop: Workshop, weights: Tensor, n: int) -> Tensor:
    """`n` training images, drawn with `weights` and each at most once where there are enough of weight above 0."""
    enough = int((weights > 0).sum()) >= n
    chosen = weights.multinomial(n, replacement=not enough, generator=generator("chosen", workshop.seed))
    return workshop.data.train.batch(chosen).images


# --- images that models draw -------------------------------------------------------------------------------------


def _drawn(workshop: Workshop, base: Tensor) -> Iterator[tuple[str, Tensor]]:
    seed, n, vae = workshop.seed, len(base), workshop.vae()
    yield "vae mean", torch.cat([vae.reconstruct(part) for part in base.split(500)])
    yield "vae draw", drawn_reconstructions(vae, base, generator("vae", seed))
    yield "vae sample", _sampled(vae, n, seed)
    for codebook in CODEBOOKS:
        vqvae = workshop.vqvae(codebook)
        yield f"codes {codebook}", torch.cat([vqvae.reconstruct(part) for part in base.split(500)])
    for minutes in MINUTES:
        model = workshop.flow(minutes)
        if minutes == MINUTES[0]:
            found = unfinished(model, n, generator("flow", seed))
            yield from ((f"unfinished {t:g}", found[t]) for t in UNFINISHED)
            yield f"flow {minutes:g}", found[0.0]
        else:
            yield f"flow {minutes:g}", _sampled(model, n, seed)


def _sampled(model: GenerativeModel, n: int, seed: int) -> Tensor:
    """`n` samples, some at a time so that memory is bounded."""
    rng = generator("samples", seed)
    return torch.cat([model.sample(min(DRAWN, n - i), generator=rng) for i in range(0, n, DRAWN)])
