"""`python -m genzoo.compare RUN RUN ...`: which of several trained models is best for these images.

With --data it takes presets instead of runs, trains each on the same terms and compares what comes of it.
"""

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from genzoo.cli import parsing
from genzoo.cli.imports import Imports, imported
from genzoo.cli.shared import device_of, guarded
from genzoo.core.attempts import Attempts
from genzoo.core.bounds import Budgeted, Images, Many, Pixels, Seed
from genzoo.core.showable import showable
from genzoo.models.names import encoder_rows, model_rows
from genzoo.models.run_data import DataArguments

if TYPE_CHECKING:
    from genzoo.evaluation.comparison.bake_off import BakeOff, Terms
    from genzoo.evaluation.comparison.entries import Entry
    from genzoo.evaluation.comparison.page import Comparison

PROG = "genzoo compare"
PAGE = "comparison.html"
RECORD = "comparison.json"
DEFAULT_MINUTES = 10.0
PICTURED = 64  # real images on the page of a bake-off


@dataclass(frozen=True)
class CompareFlags:
    """Compares trained models in a table and on a page. With --data: trains presets on the same terms first, a
    bake-off; the same command goes on where it was stopped."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Run folders; with --data presets such as vae gan flow."""
    html: Path | None = None
    """The page; else comparison.html, in a bake-off OUT/comparison.html."""
    json: bool = False
    """Print everything as JSON in place of the table."""
    evaluate: bool = False
    """First measure what the runs' reports lack (genzoo evaluate)."""
    evaluate_images: Images | None = None
    """Measure on a random subset of this many images; else all, in a bake-off as many as three minutes allow."""
    data: str | None = None
    """A bake-off on these data: digits, mnist, fashion-mnist, cifar10, folder:PATH ..."""
    minutes: Budgeted | None = None
    """Bake-off: the time that each entrant trains; 10 where no budget is given."""
    steps: Many | None = None
    """Bake-off: the steps of each entrant."""
    epochs: Budgeted | None = None
    """Bake-off: the passes over the training images of each entrant."""
    out: Path | None = None
    """Bake-off: the folder of the runs and the page; else bakeoff."""
    seed: Seed | None = None
    """Bake-off: the seed of each entrant; else 0."""
    size: Literal["tiny", "small", "base", "large"] | None = None
    """Bake-off: the size of each model; else small."""
    cond: str | None = None
    """Bake-off: "class" for models that draw a given class; mask, edges ... for input images."""
    data_root: str | None = None
    """Bake-off: where data sets lie; else $GENZOO_DATA, else ./data."""
    image_size: Pixels | None = None
    """Bake-off: images of a folder are resized and cropped to this many pixels."""
    skip_bad_images: bool = False
    """Bake-off: count and leave out images that cannot be read."""
    decode: Literal["draw", "both"] | None = None
    """Bake-off: "both" to evaluate also the means of VAEs and VQ models, a row each; else draws only. The same command
    with it adds means to a bake-off that is done."""
    device: str | None = None
    """Bake-off: such as cpu or cuda; else the fastest there is."""
    import_: Imports = ()
    """A module of your own that registers presets, data sources or metrics (`genzoo.register`); repeatable."""


SHARED = ("import_", "names", "html", "json", "evaluate", "evaluate_images", "data")
"""Fields that a comparison of runs has too."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code, 128 and the signal's number where it was stopped."""
    arguments = list(sys.argv[1:] if argv is None else argv)

    def work() -> int:
        flags = parsing.parse(CompareFlags, imported(arguments), PROG)
        return _compare(flags) if flags.data is None else _bake_off(flags, arguments)

    return guarded(work)


# --- runs ------------------------------------------------------------------------------------------------------


def _compare(flags: CompareFlags) -> int:
    from genzoo.core.errors import GenzooError
    from genzoo.core.files import check_product
    from genzoo.core.path_arguments import check_can_be_made
    from genzoo.evaluation.comparison.comparing import compare

    given = [f.name for f in fields(flags) if f.name not in SHARED and getattr(flags, f.name) != f.default]
    if given:
        raise GenzooError(f"--{given[0].replace('_', '-')} is for a bake-off: add --data, or leave it out")
    if not flags.names:
        raise GenzooError(f"{PROG} takes run folders, or --data and presets; name what to compare")
    _refuse_presets(flags.names)
    check_product(flags.html or Path(PAGE))
    check_can_be_made(flags.html or Path(PAGE))
    runs = [Path(name) for name in flags.names]
    comparison = compare(runs)
    if flags.evaluate:
        for entry in comparison.entries:
            _measure(entry, flags.evaluate_images)
        comparison = compare(runs)
    _show(comparison, flags, flags.html or Path(PAGE))
    return 0


def _refuse_presets(names: Sequence[str]) -> None:
    from genzoo.core.errors import GenzooError

    preset = next((name for name in names if name in model_rows() and not Path(name).exists()), None)
    if preset is not None:
        raise GenzooError(f"{preset} is a preset, not a run folder: for a bake-off of presets add --data")


def _measure(entry: "Entry", images: int | None) -> None:
    """What the report of a run lacks, and its class grid, by the commands that do so; tells what failed and goes on."""
    from genzoo.core.errors import Interrupted
    from genzoo.core.stop_signals import STOPPING
    from genzoo.evaluation.comparison.page_pictures import class_command, class_grid

    few = [] if images is None else ["--max-images", str(images)]
    commands = [[*entry.evaluate_words, *few]] if entry.missing else []
    if entry.run and entry.class_count and not class_grid(entry.run, entry.decode).is_file():
        commands.append(class_command(entry)[1:])
    for words in commands:
        print(f"{entry.name}: genzoo {shlex.join(words)}", file=sys.stderr)
        # stdout belongs to the table or the JSON of this command
        done = subprocess.run(
            [sys.executable, "-m", "genzoo", *words], stdin=subprocess.DEVNULL, stdout=sys.stderr
        )
        stopped = [number for number in STOPPING if done.returncode == 128 + number]
        if stopped:
            raise Interrupted(stopped[0].name)
        if done.returncode:
            print(f"{entry.name}: that failed; what it lacks is shown as not measured", file=sys.stderr)


# --- bake-off --------------------------------------------------------------------------------------------------


def _bake_off(flags: CompareFlags, argv: Sequence[str]) -> int:
    from genzoo.core.errors import Interrupted
    from genzoo.core.files import check_product
    from genzoo.core.path_arguments import check_can_be_made
    from genzoo.evaluation.comparison.bake_off import BakeOff

    terms = _terms(flags)
    presets = _entrants(flags.names)
    out = flags.out or Path("bakeoff")
    stream = sys.stderr if flags.json else sys.stdout  # which belongs to the JSON
    contest = BakeOff(
        out, terms, flags.evaluate_images, lambda text: print(text, file=stream, flush=True),
        means=flags.decode == "both",
    )  # fmt: skip
    try:
        contest.check(presets)
        if flags.html is not None:
            check_product(flags.html)
            check_can_be_made(flags.html)
        comparison = contest.run(presets, _reference(terms, contest))
    except Interrupted as stop:
        print(f"stopped; go on with: {PROG} {shlex.join(argv)}", file=sys.stderr)
        return stop.exit_code
    _show(comparison, flags, flags.html or out / PAGE)
    _keep_record(comparison, out / RECORD)
    return _exit_code(comparison)


def _exit_code(comparison: "Comparison") -> int:
    """The exit code; raises `GenzooError` where no entrant is left."""
    from genzoo.core.errors import GenzooError

    if not comparison.entries:
        failure = comparison.failures[0]
        raise GenzooError(f"all entrants failed; {failure.name}: {failure.message}")
    return 0


def _terms(flags: CompareFlags) -> "Terms":
    from genzoo.core.errors import GenzooError
    from genzoo.evaluation.comparison.bake_off import Terms

    budget = {
        kind: amount
        for kind in ("minutes", "steps", "epochs")
        if (amount := getattr(flags, kind)) is not None
    }
    device_of(flags.device)
    if len(budget) > 1:
        raise GenzooError(f"give one budget: --{' or --'.join(budget)}")
    if flags.evaluate:
        raise GenzooError("--evaluate is for runs, a bake-off evaluates anyway; leave it out")
    assert flags.data is not None
    return Terms(
        flags.data, budget or {"minutes": DEFAULT_MINUTES}, flags.seed or 0, flags.data_root, flags.image_size,
        flags.skip_bad_images, flags.cond, flags.size or "small", flags.device,
    )  # fmt: skip


def _entrants(names: Sequence[str]) -> list[str]:
    """Raises `GenzooError` for none, a repeated one, an encoder, a run folder or an unknown name."""
    from genzoo.core.errors import GenzooError
    from genzoo.models.registry import get_preset

    if not names:
        raise GenzooError(
            f"a bake-off needs entrants: name presets, such as {PROG} --data digits vae gan flow"
        )
    for i, name in enumerate(names):
        if name in names[:i]:
            raise GenzooError(f"{name} is named twice; name each preset once")
        if name in encoder_rows():
            raise GenzooError(f"{name} is an encoder, which draws nothing: name presets of generative models")
        if name not in model_rows() and (Path(name) / "config.json").is_file():
            raise GenzooError(
                f"{name} is a run folder: a bake-off trains presets; leave --data out to compare runs"
            )
        get_preset(name)
    return list(names)


def _reference(terms: "Terms", contest: "BakeOff") -> Callable[[], None]:
    """What writes real test images for the page.

    Raises `GenzooError` where the data cannot be had, before anything is trained or written.
    """
    import torch

    from genzoo.core.random import seeded
    from genzoo.data.image_grid import save_grid
    from genzoo.evaluation.likelihood import subset

    data = DataArguments(
        terms.data, terms.data_root, terms.image_size, terms.cond, terms.skip_bad_images
    ).load()
    chosen = subset(len(data.test), PICTURED, seeded("cpu", "reference", terms.seed))
    with torch.no_grad():
        images = data.test.batch(chosen).images
    return lambda: save_grid(images, data.spec, contest.reference, inside=contest.out)


# --- what is shown ---------------------------------------------------------------------------------------------


def _show(comparison: "Comparison", flags: CompareFlags, path: Path) -> None:
    from genzoo.core.errors import GenzooError
    from genzoo.evaluation.comparison.overview import remarks
    from genzoo.evaluation.comparison.page import record, write_page
    from genzoo.evaluation.comparison.text_table import WIDTH, overview_text

    attempts = Attempts()
    attempts("page", lambda: write_page(comparison, path))
    if flags.json:
        print(json.dumps(record(comparison), indent=2))
    else:
        if comparison.entries:
            wide = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
            print(overview_text(comparison.entries, comparison.data, wide))
        for line in remarks(comparison.entries):
            print(f"note: {showable(line, 1000)}")
        for failure in comparison.failures:
            print(f"failed: {failure.name} in {failure.stage}: {failure.message}")
    if attempts.missing:
        raise GenzooError(f"there is no page: {attempts.missing['page']}")
    print(f"page: {showable(path, 1000)}", file=sys.stderr if flags.json else sys.stdout)


def _keep_record(comparison: "Comparison", path: Path) -> None:
    from genzoo.core.files import write_atomically
    from genzoo.evaluation.comparison.page import record

    write_atomically(path, (json.dumps(record(comparison), indent=2) + "\n").encode(), inside=path.parent)
