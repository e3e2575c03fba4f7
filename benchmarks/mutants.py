"""Do the tests notice a wrong formula? `python -m benchmarks.mutants [--tier fast|all] [--only NAME ...] [--jobs 2]`.

Each row of `benchmarks.mutant_rows` breaks one formula (a sign, a constant, a missing term) in a temporary copy of the
tree and runs the tests that ought to fail. First the tests of all rows are run once as they are: a test that fails
anyway would kill everything. Tier fast leaves tests marked slow out, as the README's command does; tier all runs those
too where the fast ones let a mutant live. What counts is the share of mutants killed: at least 90% by fast tests, 97%
by all.

A mutant is killed by a test that fails (or takes longer than pytest's timeout), not by a module that cannot be
imported or a test that cannot be found: such a row says nothing of the tests, and is an error.
"""

import argparse
import os
import queue
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path

from benchmarks.mutant_rows import MUTANTS
from benchmarks.mutant_rows.mutant import Mutant

ROOT = Path(__file__).parent.parent
COPIED = ("genzoo", "tests", "benchmarks", "pyproject.toml", "README.md")
FAST_TIER, ALL = "fast", "all"
LEAST = {FAST_TIER: 0.90, ALL: 0.97}
"""Share of the mutants that each tier is to kill."""
FAST, SLOW = "not slow", "slow"
"""Which tests: pytest's marker expressions."""
PASSED, FAILED, NONE_COLLECTED = 0, 1, 5  # pytest's exit codes
MOST_SECONDS = 1800
"""A mutant that keeps its tests busy for longer is dead."""


class BrokenRow(Exception):
    """A row that says nothing of the tests."""


def copy_tree(target: Path, root: Path = ROOT) -> Path:
    """What the tests need of the tree at `root`, copied to the folder `target`."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=ignore)
        elif source.exists():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / name)
    return target


def run_tests(
    tree: Path, tests: Sequence[str], markers: str, most_seconds: float | None = None
) -> tuple[int, str]:
    """Pytest's exit code and output; a run that does not end in time counts as one that failed."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", markers, *tests]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=most_seconds
        )
    except subprocess.TimeoutExpired:
        return FAILED, f"no end after {most_seconds} s"
    return done.returncode, done.stdout + done.stderr


def killed(tree: Path, mutant: Mutant, markers: str) -> bool:
    """Whether the tests of `mutant`, those of `markers`, fail in `tree` with it; `tree` is as before afterwards.

    Raises `BrokenRow` where the tests did not come to run, `ValueError` where the formula is not found.
    """
    path = tree / "genzoo" / mutant.file
    source = path.read_text(encoding="utf-8")
    try:
        _write(path, mutant.applied(source))
        code, output = run_tests(tree, mutant.tests, markers, MOST_SECONDS)
    finally:
        _write(path, source)
    if code not in (PASSED, FAILED, NONE_COLLECTED):
        raise BrokenRow(f"{mutant.name}: pytest ended with {code}\n{output[-2000:]}")
    return code == FAILED


def _write(path: Path, text: str) -> None:
    """Python trusts a compiled file by date (in seconds) and size, which a mutant may well share: it has to go."""
    path.write_text(text, encoding="utf-8")
    Path(cache_from_source(str(path))).unlink(missing_ok=True)


@dataclass(frozen=True)
class Verdict:
    """By which tier a mutant was killed; None for a survivor."""

    mutant: Mutant
    tier: str | None


def check_unbroken(tree: Path, mutants: Sequence[Mutant], markers: str) -> None:
    """Raises `BrokenRow` where tests of the rows fail without any mutant."""
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    code, output = run_tests(tree, tests, markers)
    if code not in (PASSED, NONE_COLLECTED):
        raise BrokenRow(f"the tests fail without any mutant:\n{output[-3000:]}")


class Copies:
    """Of the tree at `root`, one for each of `jobs` workers; they are there inside `with`."""

    def __init__(self, jobs: int, root: Path = ROOT) -> None:
        self.jobs, self.root = jobs, root
        self.folder = tempfile.TemporaryDirectory()
        self.trees: queue.Queue[Path] = queue.Queue()

    def __enter__(self) -> "Copies":
        for n in range(self.jobs):
            self.trees.put(copy_tree(Path(self.folder.name) / str(n), self.root))
        return self

    def __exit__(self, *_: object) -> None:
        self.folder.cleanup()

    def killed(self, mutants: Sequence[Mutant], markers: str) -> list[bool]:
        """Of each, whether it is; told as it comes. Raises as `check_unbroken` and `killed` do."""

        def work(mutant: Mutant) -> bool:
            tree, start = self.trees.get(), time.perf_counter()
            try:
                dead = killed(tree, mutant, markers)
            finally:
                self.trees.put(tree)
            seconds = time.perf_counter() - start
            print(f"{'killed' if dead else 'SURVIVES'}  {seconds:5.0f} s  {mutant.name}", flush=True)
            return dead

        tree = self.trees.get()
        check_unbroken(tree, mutants, markers)
        self.trees.put(tree)
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                return list(pool.map(work, mutants))
            except BaseException:
                pool.shutdown(cancel_futures=True)  # else the rest would be run first
                raise


def judge(mutants: Sequence[Mutant], tier: str, copies: Copies) -> list[Verdict]:
    """All verdicts in order: by fast tests and, in tier all, by slow ones of those that these let live."""
    for mutant in mutants:  # before anything is run
        mutant.applied((copies.root / "genzoo" / mutant.file).read_text(encoding="utf-8"))
    with copies:
        tiers: dict[str, str] = {}
        for name, markers in ((FAST_TIER, FAST), (ALL, SLOW)) if tier == ALL else ((FAST_TIER, FAST),):
            alive = [mutant for mutant in mutants if mutant.name not in tiers]
            dead = copies.killed(alive, markers) if alive else []
            tiers |= {mutant.name: name for mutant, is_dead in zip(alive, dead, strict=True) if is_dead}
    return [Verdict(mutant, tiers.get(mutant.name)) for mutant in mutants]


def told(verdicts: Sequence[Verdict], tier: str) -> bool:
    """Prints shares and survivors; returns whether the shares are what they are to be."""
    fine = True
    for name in LEAST if tier == ALL else (FAST_TIER,):
        dead = sum(v.tier in (FAST_TIER, name) for v in verdicts)
        share = dead / len(verdicts)
        fine &= share >= LEAST[name]
        print(f"tier {name}: {dead} of {len(verdicts)} killed, {share:.1%} (target {LEAST[name]:.0%})")
        for verdict in verdicts:
            if verdict.tier not in (FAST_TIER, name):
                print(f"  survives: {verdict.mutant.name} ({verdict.mutant.file}): {verdict.mutant.why}")
    return fine


def chosen(names: Sequence[str] | None) -> list[Mutant]:
    """The rows whose names contain one of `names`; all without. Raises `ValueError` where a name fits none."""
    for name in names or ():
        if not any(name in mutant.name for mutant in MUTANTS):
            raise ValueError(f"no row is called {name!r}")
    return [m for m in MUTANTS if names is None or any(name in m.name for name in names)]


def main() -> int:
    """Returns 0 where the targets are met (or only some rows were asked for), 1 where not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tier", choices=tuple(LEAST), default=FAST_TIER, help="which tests are run")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="only rows whose name contains one of these"
    )
    parser.add_argument("--jobs", type=int, default=2, help="mutants at once")
    args = parser.parse_args()
    mutants = chosen(args.only)
    start = time.perf_counter()
    fine = told(judge(mutants, args.tier, Copies(max(1, args.jobs))), args.tier)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    minutes = (usage.ru_utime + usage.ru_stime) / 60
    print(f"{minutes:.1f} CPU-minutes, {(time.perf_counter() - start) / 60:.1f} by the clock")
    return 0 if fine or args.only else 1


if __name__ == "__main__":
    sys.exit(main())
