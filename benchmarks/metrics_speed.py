"""How fast are the metrics of features? `python -m benchmarks.metrics_speed [--n 10000 --d 512]`.

Fréchet distance, KID and precision, recall, density and coverage of two sets of `--n` normal features of `--d`
dimensions, ours and those of the libraries that are installed (`pip install -e ".[bench]"`), each on the same float32
features and in a process of its own, so that no one profits from the memory or the threads of another. Seconds of the
computation alone, by the wall's clock and of the processor; MiB is the peak of the process's resident memory, of which
"imports and features" is what it held before. Torch's and BLAS's threads are their defaults.

A library's row counts for a sum: its Fréchet distance by pytorch-fid (from means and covariances made by NumPy, scipy's
sqrtm), KID by torch-fidelity (100 subsets of 1,000 rows in place of all), and prdc, which computes precision and recall
with the neighbours of density and coverage. The others are alternatives to one of those; torch-fidelity's precision and
recall are. Last come the bars, and one line of JSON.
"""

import argparse
import importlib.util
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from genzoo.metrics.frechet import frechet_distance
from genzoo.metrics.kernels import kid
from genzoo.metrics.neighbours import K_DENSITY, neighbour_metrics

BAR_SECONDS, BAR_MIB = 20.0, 2048.0
SUBSETS, SUBSET = 100, 1000


@dataclass(frozen=True)
class Cost:
    """Seconds of one computation, the process's peak MiB and what it held before, and what came out."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    before_mib: float
    found: dict[str, float]


@dataclass(frozen=True)
class Entrant:
    """A computation on `(real, fake)`; `imports` must be there; `kind` says which of ours it is to be held against."""

    run: Callable[[Tensor, Tensor], dict[str, float]]
    kind: str
    imports: str = "torch"
    in_sum: bool = False


def ours_frechet(real: Tensor, fake: Tensor) -> dict[str, float]:
    return {"frechet": frechet_distance(real, fake)}


def ours_kid(real: Tensor, fake: Tensor) -> dict[str, float]:
    return {"kid": kid(real, fake).value}


def ours_neighbours(real: Tensor, fake: Tensor) -> dict[str, float]:
    found = neighbour_metrics(real, fake)
    return {name: getattr(found, name) for name in ("precision", "recall", "density", "coverage")}


def ours(real: Tensor, fake: Tensor) -> dict[str, float]:
    return {**ours_frechet(real, fake), **ours_kid(real, fake), **ours_neighbours(real, fake)}


def pytorch_fid(real: Tensor, fake: Tensor) -> dict[str, float]:
    import numpy as np
    from pytorch_fid.fid_score import calculate_frechet_distance

    (m1, s1), (m2, s2) = ((np.mean(x.numpy(), 0), np.cov(x.numpy(), rowvar=False)) for x in (real, fake))
    return {"frechet": float(calculate_frechet_distance(m1, s1, m2, s2))}


def torchmetrics_fid(real: Tensor, fake: Tensor) -> dict[str, float]:
    from torchmetrics.image.fid import _compute_fid

    moments = [m for x in (real.double(), fake.double()) for m in (x.mean(0), x.T.cov())]
    return {"frechet": _compute_fid(*moments).item()}


def fidelity_fid(real: Tensor, fake: Tensor) -> dict[str, float]:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    found = fid_statistics_to_metric(
        fid_features_to_statistics(real), fid_features_to_statistics(fake), False
    )
    return {"frechet": float(next(iter(found.values())))}


def fidelity_kid(real: Tensor, fake: Tensor) -> dict[str, float]:
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    options = {"kid_subsets": SUBSETS, "kid_subset_size": min(SUBSET, len(real)), "rng_seed": 0}
    found = kid_features_to_metric(real.double(), fake.double(), **options, verbose=False)
    return {"kid": float(found[KEY_METRIC_KID_MEAN])}


def torchmetrics_kid(real: Tensor, fake: Tensor) -> dict[str, float]:
    from torchmetrics.image.kid import poly_mmd

    generator, size = torch.Generator().manual_seed(0), min(SUBSET, len(real))
    means = []
    for _ in range(SUBSETS):
        a, b = (x[torch.randperm(len(x), generator=generator)[:size]].double() for x in (real, fake))
        means.append(poly_mmd(a, b).item())
    return {"kid": sum(means) / SUBSETS}


def prdc(real: Tensor, fake: Tensor) -> dict[str, float]:
    from prdc import compute_prdc

    return {name: float(x) for name, x in compute_prdc(real.numpy(), fake.numpy(), K_DENSITY).items()}


def fidelity_prc(real: Tensor, fake: Tensor) -> dict[str, float]:
    from torch_fidelity.metric_prc import calculate_precision_recall_part

    return dict(zip(("precision", "recall"), calculate_precision_recall_part(fake, real), strict=True))


ENTRANTS = {
    "genzoo: all": Entrant(ours, "all"),
    "genzoo: Fréchet": Entrant(ours_frechet, "Fréchet"),
    "genzoo: KID": Entrant(ours_kid, "KID"),
    "genzoo: P, R, D, C": Entrant(ours_neighbours, "P, R, D, C"),
    "pytorch-fid": Entrant(pytorch_fid, "Fréchet", "pytorch_fid", in_sum=True),
    "torchmetrics FID": Entrant(torchmetrics_fid, "Fréchet", "torchmetrics"),
    "torch-fidelity FID": Entrant(fidelity_fid, "Fréchet", "torch_fidelity"),
    "torch-fidelity KID": Entrant(fidelity_kid, "KID", "torch_fidelity", in_sum=True),
    "torchmetrics KID": Entrant(torchmetrics_kid, "KID", "torchmetrics"),
    "prdc": Entrant(prdc, "P, R, D, C", "prdc", in_sum=True),
    "torch-fidelity P, R": Entrant(fidelity_prc, "P, R, D, C", "torch_fidelity"),
}
MINE = {entrant.kind: name for name, entrant in ENTRANTS.items() if name.startswith("genzoo")}


def peak_mib() -> float:
    """Of this process so far; the system counts KiB, on macOS bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**20 if platform.system() == "Darwin" else 2**10
    )


def measure_here(entrant: Entrant, n: int, d: int) -> Cost:
    """One computation in this process, after a small one that pays for imports and threads."""
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(n, d, generator=generator) for _ in range(2))
    entrant.run(real[:50, :8], fake[:50, :8])
    before, start, cpu = peak_mib(), time.perf_counter(), time.process_time()
    found = entrant.run(real, fake)
    return Cost(time.perf_counter() - start, time.process_time() - cpu, peak_mib(), before, found)


def measure(name: str, n: int, d: int) -> Cost:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.metrics_speed", "--only", name, "--n", str(n), "--d", str(d)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"{name} failed: {run.stderr}")
    return Cost(**json.loads(run.stdout.splitlines()[-1]))


def table(costs: dict[str, Cost], title: str) -> Table:
    """The costs for people, each beside that of ours of its kind."""
    result = Table(title=title)
    for column in ("", "in the sum", "seconds", "cpu s", "ratio to ours", "peak MiB", "before", "found"):
        result.add_column(column, justify="left" if column in ("", "found") else "right")
    for name, cost in costs.items():
        own, entrant = costs[MINE[ENTRANTS[name].kind]], ENTRANTS[name]
        found = "  ".join(f"{key} {value:.4g}" for key, value in cost.found.items())
        times = f"{cost.seconds:.2f}", f"{cost.cpu_seconds:.2f}", f"{cost.seconds / own.seconds:.2f}"
        memory = f"{cost.peak_mib:.0f}", f"{cost.before_mib:.0f}"
        result.add_row(name, "yes" if entrant.in_sum else "", *times, *memory, found)
    return result


def verdict(costs: dict[str, Cost]) -> str:
    """Ours against the bars and the sum of the libraries, in one line."""
    mine, counted = costs[MINE["all"]], [name for name in costs if ENTRANTS[name].in_sum]
    theirs, cpu = (sum(getattr(costs[name], key) for name in counted) for key in ("seconds", "cpu_seconds"))
    met = mine.seconds < BAR_SECONDS and mine.peak_mib < BAR_MIB and (not counted or mine.seconds < theirs)
    return (
        f"ours {mine.seconds:.1f} s ({mine.cpu_seconds:.1f} cpu s), {mine.peak_mib:.0f} MiB; "
        f"{' + '.join(counted) or 'no library'} {theirs:.1f} s ({cpu:.1f} cpu s); "
        f"bars (< {BAR_SECONDS:.0f} s, < {BAR_MIB:.0f} MiB, faster than the sum): {'met' if met else 'missed'}"
    )


def main() -> None:
    """Measures what is installed and prints it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=10_000, help="features a side, 50 or more")
    parser.add_argument("--d", type=int, default=512, help="dimensions, 8 or more")
    parser.add_argument("--only", choices=ENTRANTS, help="one of them in this process, as a line of JSON")
    args = parser.parse_args()
    if args.n < 50 or args.d < 8:
        parser.error("--n must be 50 or more and --d 8 or more")
    if args.only:
        print(json.dumps(asdict(measure_here(ENTRANTS[args.only], args.n, args.d))))
        return
    there = [name for name, entrant in ENTRANTS.items() if importlib.util.find_spec(entrant.imports)]
    costs = {name: measure(name, args.n, args.d) for name in there}
    title = f"{args.n} x {args.n} features of {args.d} dimensions, {torch.get_num_threads()} threads"
    Console(width=None if sys.stdout.isatty() else 160).print(table(costs, title))
    missing = sorted(
        {entrant.imports for entrant in ENTRANTS.values()} - {ENTRANTS[n].imports for n in there}
    )
    print(verdict(costs) + (f"; not installed: {', '.join(missing)}" if missing else ""))
    facts = {"n": args.n, "d": args.d, "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(json.dumps({**facts, "costs": {name: asdict(cost) for name, cost in costs.items()}}))


if __name__ == "__main__":
    main()
