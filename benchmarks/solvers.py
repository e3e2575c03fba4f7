"""How few network calls do samples need? `python -m benchmarks.solvers RUN --n 2000`.

A trained model of the diffusion family draws n images from the same start noise by every solver and grid. Printed are
the network's calls per image, the seconds, the Fréchet distance to the validation images, and how far pixels are from
those of a fine solution from the same noise. The distance is in two feature spaces that no model had a part in: the
first 64 principal components of training images, and a convolutional network with random weights from a fixed seed.
Validation images took no part in the choice of solvers (training may have chosen its best weights by them); the floor
is the distance to them of n training images. Figures are means ± standard deviations over seeds of the start noise,
the ratio to the plain method's (Euler with 200 steps) is taken seed by seed.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import genzoo
from genzoo.core.errors import GenzooError
from genzoo.data import ImageData
from genzoo.evaluation.features.feature_space import BASIS_IMAGES, FeatureSpace, some_images
from genzoo.metrics.frechet import frechet_distance
from genzoo.models.diffusion.denoising_model import Diffusion
from genzoo.models.diffusion.samplers.base_sampler import Sampler, is_clean
from genzoo.models.diffusion.samplers.sampling import Sampling
from genzoo.models.diffusion.samplers.solvers import DDIM, AdamsMoulton, DPMSolverPP2M, Euler, Heun
from genzoo.models.diffusion.samplers.time_grids import (
    KarrasGrid,
    LogisticGrid,
    LogSNRGrid,
    TimeGrid,
    UniformGrid,
)
from genzoo.models.run_data import DataArguments, data_of_run

BAR = 1.05
"""Share of the plain method's distance that ten calls are to reach."""
CANDIDATES: list[tuple[Sampler, list[TimeGrid]]] = [
    (Euler(), [UniformGrid()]),
    (Heun(), [UniformGrid(), KarrasGrid()]),
    (DDIM(), [UniformGrid(), LogSNRGrid()]),
    (DPMSolverPP2M(), [UniformGrid(), LogSNRGrid(), LogisticGrid(), KarrasGrid()]),
    (AdamsMoulton(), [UniformGrid(), LogSNRGrid(), LogisticGrid(), KarrasGrid()]),
]


# --- drawing ---------------------------------------------------------------------------------------------------


@contextmanager
def counted_calls(model: Diffusion) -> Iterator[list[int]]:
    """Collects the batch size of every call of the network."""
    sizes: list[int] = []
    handle = model.network.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    try:
        yield sizes
    finally:
        handle.remove()


def steps_for(sampler: Sampler, calls: int, model: Diffusion) -> int:
    """The most steps that stay within `calls`: a path that ends in noise has one more at its end."""
    clean = is_clean(model.path.at(torch.tensor(model.path.t_min, dtype=torch.float64)))
    calls = calls if clean else calls - 1
    return (calls + clean) // 2 if isinstance(sampler, Heun) else calls


def entrants(model: Diffusion, budgets: list[int], plain_steps: int) -> Iterator[Sampling]:
    """The plain method first, then every solver with every grid that suits it for each budget of calls."""
    yield Sampling(Euler(), UniformGrid(), steps=plain_steps)
    for calls in budgets:
        for sampler, grids in CANDIDATES:
            for grid in grids:
                yield Sampling(sampler, grid, steps=steps_for(sampler, calls, model))


@dataclass(frozen=True)
class Drawn:
    """What a solver made of one seed's noise."""

    calls: int
    seconds: float
    distances: list[float]
    pixel_error: float


def draw(
    model: Diffusion, sampling: Sampling, noise: Tensor, cond: Tensor | None
) -> tuple[Tensor, int, float]:
    """Images `[n, ...]`, the network's calls per image, and the seconds."""
    with counted_calls(model) as sizes:
        start = time.perf_counter()
        images = model.decode(noise, cond, sampling=sampling)
        seconds = time.perf_counter() - start
    return images, round(sum(sizes) / len(noise)), seconds


def name_of(sampling: Sampling) -> tuple[str, str, str]:
    """Solver, grid, steps."""
    return type(sampling.sampler).__name__, type(sampling.grid).__name__, str(sampling.steps)


def compare(
    model: Diffusion, data: ImageData, args: argparse.Namespace
) -> tuple[list[Sampling], list[list[Drawn]], list[tuple[str, float]]]:
    """Every entrant, its draws by seed, and the floor per feature space."""
    spaces = FeatureSpace.all_for(data.train)
    judged = some_images(data.val, len(data.val), seed=1)
    real = [space(judged) for space in spaces]
    train = some_images(data.train, BASIS_IMAGES + args.n, seed=0)[BASIS_IMAGES:]  # not those of the basis
    train = train if len(train) > 1 else some_images(data.train, args.n, seed=1)
    floor = [(s.name, frechet_distance(r, s(train))) for s, r in zip(spaces, real, strict=True)]
    samplings = [replace(s, precision=args.precision) for s in entrants(model, args.calls, args.plain_steps)]
    results: list[list[Drawn]] = [[] for _ in samplings]
    for seed in range(args.seeds):
        generator = torch.Generator().manual_seed(seed)
        cond = model.condition.or_drawn(None, args.n, generator)
        noise = model.noise(args.n, generator)
        few = min(args.n, args.reference_images)
        fine = Sampling(AdamsMoulton(), UniformGrid(), steps=args.reference_steps, precision=args.precision)
        reference, _, _ = draw(model, fine, noise[:few], None if cond is None else cond[:few])
        for sampling, drawn in zip(samplings, results, strict=True):
            images, calls, seconds = draw(model, sampling, noise, cond)
            error = (images[:few].float() - reference.float()).abs().mean().item()
            distances = [frechet_distance(r, s(images)) for s, r in zip(spaces, real, strict=True)]
            drawn.append(Drawn(calls, seconds, distances, error))
    return samplings, results, floor


# --- figures ---------------------------------------------------------------------------------------------------


def mean_and_sd(values: list[float], digits: int = 3) -> str:
    """Over seeds."""
    t = torch.tensor(values, dtype=torch.float64)
    return f"{t.mean():.{digits}f}" + (f" ± {t.std():.{digits}f}" if len(t) > 1 else "")


def ratios(drawn: list[Drawn], plain: list[Drawn], space: int) -> list[float]:
    """Of distances, seed by seed."""
    return [d.distances[space] / p.distances[space] for d, p in zip(drawn, plain, strict=True)]


def table(
    samplings: list[Sampling], results: list[list[Drawn]], floor: list[tuple[str, float]], title: str
) -> Table:
    """A row per solver and grid."""
    result = Table(title=title)
    for name in ["solver", "grid", "steps", "calls", "seconds"]:
        result.add_column(name, justify="left" if name in ("solver", "grid") else "right")
    for name, _ in floor:
        result.add_column(f"Fréchet, {name}", justify="right")
        result.add_column("/ plain", justify="right")
    result.add_column("pixel error", justify="right")
    for sampling, drawn in zip(samplings, results, strict=True):
        figures = []
        for space in range(len(floor)):
            figures.append(mean_and_sd([d.distances[space] for d in drawn]))
            figures.append(mean_and_sd(ratios(drawn, results[0], space)))
        seconds = mean_and_sd([d.seconds for d in drawn], 1)
        errors = mean_and_sd([d.pixel_error for d in drawn], 2)
        result.add_row(*name_of(sampling), str(drawn[0].calls), seconds, *figures, errors)
    result.add_section()
    floors = [cell for _, distance in floor for cell in (f"{distance:.3f}", "")]
    result.add_row("training images", "", "", "", "", *floors, "")
    return result


def verdicts(
    samplings: list[Sampling], results: list[list[Drawn]], floor: list[tuple[str, float]], calls: int
) -> list[str]:
    """Of the solvers within `calls`: the default one, chosen beforehand, and the best, chosen by these figures."""
    short = [i for i, drawn in enumerate(results) if i and drawn[0].calls <= calls]
    default = Sampling()
    chosen = [
        i for i in short if (samplings[i].sampler, samplings[i].grid) == (default.sampler, default.grid)
    ]
    lines = []
    for space, (name, _) in enumerate(floor):
        shares = {i: ratios(results[i], results[0], space) for i in short}
        best = min(shares, key=lambda i: sum(shares[i]))
        for what, i in [*(("default", i) for i in chosen), ("best", best)]:
            met = "met" if sum(shares[i]) / len(shares[i]) <= BAR else "not met"
            lines.append(
                f"{name}, {results[i][0].calls} calls: {what} ({', '.join(name_of(samplings[i])[:2])}) at "
                f"{mean_and_sd(shares[i])} of the distance of {' '.join(name_of(samplings[0]))} (target {BAR}, {met})"
            )
    return lines


def load_model(args: argparse.Namespace) -> tuple[Diffusion, ImageData]:
    """The run's model and its data; raises `GenzooError` for another family."""
    model = genzoo.load(args.run)
    if not isinstance(model, Diffusion) or model.spec.levels is None or len(model.spec.shape) != 3:
        raise GenzooError(f"{args.run} holds no diffusion or flow model of images: give a run of that family")
    named = DataArguments(args.data) if args.data else data_of_run(args.run)
    if named is None:
        raise GenzooError(f"{args.run} does not say what it was trained on: give --data")
    return model.eval().requires_grad_(False), named.load()


def main() -> None:
    """Prints the table and, last, one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the run folder of a diffusion or flow model")
    parser.add_argument("--data", default=None, help="its data, where the run does not say")
    parser.add_argument("--n", type=int, default=2000, help="samples per solver and seed")
    parser.add_argument("--seeds", type=int, default=3, help="of the start noise")
    parser.add_argument("--calls", type=int, nargs="+", default=[10, 20], help="budgets of network calls")
    parser.add_argument(
        "--plain-steps", type=int, default=200, help="of Euler, which the others are held against"
    )
    parser.add_argument("--reference-steps", type=int, default=500, help="of the fine solution")
    parser.add_argument("--reference-images", type=int, default=256, help="drawn by it, of each seed")
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto")
    args = parser.parse_args()
    model, data = load_model(args)
    samplings, results, floor = compare(model, data, args)
    title = (
        f"{args.run.name}: {args.n} samples, {args.seeds} seed(s), against {len(data.val)} images of "
        f"{data.name}/val; pixel error in grey levels against {args.reference_steps} steps"
    )
    Console(width=None if sys.stdout.isatty() else 170).print(table(samplings, results, floor, title))
    print("\n".join(verdicts(samplings, results, floor, min(args.calls))))
    rows = [
        {"solver": name_of(s), "calls": d[0].calls, "seconds": [r.seconds for r in d],
         "distances": [r.distances for r in d], "pixel_error": [r.pixel_error for r in d]}
        for s, d in zip(samplings, results, strict=True)
    ]  # fmt: skip
    machine = {"threads": torch.get_num_threads(), "torch": torch.__version__, "n": args.n, "floor": floor}
    print(json.dumps({**machine, "rows": rows}))


if __name__ == "__main__":
    main()
