"""What the commands share around a run folder: names, data, pictures, figures and how mistakes are told.

Free of torch until something is computed, so that `--help` is quick.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.parsing import fail

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.contract import DataSpec, GenerativeModel
    from genzoo.data import ImageData, Split
    from genzoo.evaluation.likelihood import LikelihoodReport

REPORT = "report.json"
JUDGED = Path("samples") / "judged.png"
"""Samples that an evaluation has judged."""
BY_CLASS = Path("samples") / "by-class.png"
"""Those of a run that takes no classes, a row for each class that the judge finds in them."""
PER_CLASS, MOST_CLASSES = 8, 40
"""Samples of a class, and classes at most, that pictures of classes show."""
ENCODER = "encoder:"
"""What a --cond begins with that names an encoder's run folder."""


def guarded(work: Callable[[], None]) -> int:
    """Runs `work` and returns the exit code: a `GenzooError` becomes one line on stderr and 2."""
    from genzoo.contract import GenzooError

    try:
        work()
    except GenzooError as error:
        fail(" ".join(str(error).split()))
    except KeyboardInterrupt:
        print("genzoo: interrupted", file=sys.stderr)
        return 130
    return 0


@dataclass(frozen=True)
class DataArguments:
    """What `load_data` was asked for; kept in a run's `config.json`, so that its data can be found again."""

    name: str
    root: str | None = None
    image_size: int | None = None
    cond: str | None = None
    skip_bad_images: bool = False

    def load(self) -> "ImageData":
        """The data. Raises `GenzooError` for what the data room refuses."""
        from genzoo.conditioning import encoded
        from genzoo.data import load_data

        run = self.encoder
        options = {"image_size": self.image_size, "skip_bad_images": self.skip_bad_images}
        data = load_data(self.name, self.root, cond=self.cond if run is None else None, **options)
        return data if run is None else encoded(data, run)

    @property
    def encoder(self) -> Path | None:
        """The run of the encoder whose vectors are the condition; None for another condition."""
        name = (self.cond or "").removeprefix(ENCODER)
        return Path(name) if name != (self.cond or "") else None

    def protocol(self, data: "ImageData") -> dict[str, Any]:
        """What `config.json` records of the data: how they came to be, and these arguments."""
        return {**data.protocol, "arguments": asdict(self)}


def data_of_run(run: Path) -> DataArguments | None:
    """What the run in `run` was trained on; None where it was saved without (by `model.save`).

    Raises `GenzooError` where `run` is no run folder.
    """
    from genzoo.checkpoint import read_config

    stored = read_config(run).get("data") or {}
    arguments = stored.get("arguments") if isinstance(stored, Mapping) else None
    if not isinstance(arguments, Mapping) or "name" not in arguments:
        return None
    known = {field.name for field in fields(DataArguments)}
    return DataArguments(**{key: value for key, value in arguments.items() if key in known})


def fresh_folder(preset: str, data: str, root: Path = Path("runs")) -> Path:
    """`runs/PRESET-DATA`, or the first of `-2`, `-3` ... that is not there yet.

    Raises `GenzooError` where several processes would each choose their own.
    """
    from genzoo.contract import GenzooError

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise GenzooError("several processes cannot agree on a new run folder; name one with --out")
    words = "".join(c if c.isalnum() else " " for c in data.rstrip("/").rpartition("/")[2].lower()).split()
    name = "-".join([preset, *words])
    candidates = (root / (name if n == 1 else f"{name}-{n}") for n in range(1, 1_000_000))
    return next(path for path in candidates if not path.exists())


def is_main_process() -> bool:
    """False in all but the first of several processes started by `accelerate launch`."""
    return os.environ.get("RANK", "0") == "0"


# --- samples -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """A written grid of samples: where it is, and how many images were drawn in a second."""

    path: Path
    images_per_second: float


def draw_grid(
    model: "GenerativeModel", path: Path, *, n: int = 64, cond: "Tensor | None" = None, seed: int = 0
) -> Drawn:
    """Draws `n` images and writes them to `path` as one PNG.

    Raises `GenzooError` for real-valued data, which have no picture, or where `path` cannot be written.
    """
    from genzoo.contract import GenzooError
    from genzoo.pictures import save_grid
    from genzoo.runtime import seeded

    if model.spec.levels is None:
        raise GenzooError("real-valued data have no picture; draw them with model.sample in Python")
    start = time.perf_counter()
    images = model.sample(n, cond, generator=seeded(model.device, "sample", seed))
    seconds = time.perf_counter() - start
    save_grid(images, model.spec, path)
    return Drawn(path, n / seconds)


def draw_pairs(model: "GenerativeModel", split: "Split", path: Path, *, n: int = 32, seed: int = 0) -> Drawn:
    """Writes input, prediction and truth of `n` images of `split`, chosen by `seed`, to `path` as one PNG.

    Four threes stand in a row. Raises `GenzooError` where the split has fewer images, or no input images.
    """
    import torch

    from genzoo.contract import GenzooError
    from genzoo.evaluation.translation import translation_picture
    from genzoo.pictures import save_triples
    from genzoo.runtime import seeded

    if n > len(split):
        raise GenzooError(f"there are only {len(split)} input images: give --n at most {len(split)}")
    chosen = torch.randperm(len(split), generator=seeded("cpu", "pairs", seed))[:n]
    start = time.perf_counter()
    triples = translation_picture(model, split, chosen, generator=seeded(model.device, "sample", seed))
    seconds = time.perf_counter() - start
    save_triples(triples, model.spec, path)
    return Drawn(path, n / seconds)


def draw_variations(model: "GenerativeModel", split: "Split", path: Path, *, seed: int = 0) -> Drawn:
    """Writes eight images of `split`, each with seven samples under its vector beside it, to `path` as one PNG."""
    import torch

    from genzoo.pictures import save_grid
    from genzoo.runtime import seeded

    images, cond = split.batch(torch.arange(min(8, len(split))))
    assert cond is not None
    vectors = cond.repeat_interleave(7, 0).to(model.device)
    start = time.perf_counter()
    drawn = model.sample(len(vectors), vectors, generator=seeded(model.device, "sample", seed)).cpu()
    seconds = time.perf_counter() - start
    rows = torch.cat([images[:, None].to(drawn), drawn.unflatten(0, (len(images), 7))], 1)
    save_grid(rows.flatten(0, 1), model.spec, path, columns=8)
    return Drawn(path, len(vectors) / seconds)


def class_condition(text: str, n: int, spec: "DataSpec") -> "Tensor":
    """Classes such as "3" or "0,1,2" as long `[n]`, in blocks of equal size.

    Raises `GenzooError` where the model has no classes, or not these.
    """
    import torch

    from genzoo.contract import GenzooError

    if spec.cond != "class":
        what = "no classes" if spec.cond is None else "vectors instead of classes"
        raise GenzooError(f"this model was trained with {what}; leave --cond out, or train with --cond class")
    try:
        classes = [int(part) for part in text.split(",")]
    except ValueError:
        raise GenzooError(f"--cond takes classes such as 3 or 0,1,2, got {text!r}") from None
    for number in classes:
        if not 0 <= number < spec.cond_size:
            raise GenzooError(f"--cond {number} is no class of this model: choose 0 .. {spec.cond_size - 1}")
    return torch.tensor(classes)[torch.arange(n) * len(classes) // max(n, 1)]


# --- figures ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere; yields the function that advances it."""
    if not sys.stdout.isatty():
        yield lambda images: None
        return
    from rich.progress import Progress

    with Progress(transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda images: bar.advance(task, images)


def with_error(value: float, stderr: float | None, digits: int) -> str:
    """A figure and its standard error.

    >>> with_error(1.23456, 0.012, 3), with_error(1.0, None, 1)
    ('1.235 ± 0.012', '1.0')
    """
    return f"{value:.{digits}f}" + ("" if stderr is None else f" ± {stderr:.{digits}f}")


def set_id(data: "ImageData", split: str) -> str:
    """What names a set of images in reports: figures can be compared where it is the same."""
    return data.protocol["test_id"] if split == "test" else f"{data.name}/{split}"


def measure(
    model: "GenerativeModel",
    data: "ImageData",
    split: str,
    *,
    seed: int = 0,
    max_images: int | None = None,
    max_seconds: float | None = None,
) -> "LikelihoodReport":
    """The likelihood of one split of `data`, with a progress bar; what came in time with `max_seconds`.

    Raises `NoLikelihood` where the family has none, `GenzooError` where there are no images.
    """
    from genzoo.evaluation.likelihood import evaluate_likelihood
    from genzoo.runtime import seeded

    images = data.split(split)
    generator = seeded(model.device, "evaluate", seed, split)
    with progress_bar(f"{split} likelihood", min(len(images), max_images or len(images))) as progress:
        return evaluate_likelihood(
            model,
            images,
            max_images=max_images,
            max_seconds=max_seconds,
            generator=generator,
            progress=progress,
        )


def likelihood_rows(report: "LikelihoodReport", data: "ImageData", split: str) -> dict[str, str]:
    """The rows of a table that tell a likelihood with its relation to the truth and its standard error."""
    size, symbol = data.protocol["sizes"][split], report.kind.symbol
    part = "" if report.images == size else f" of {size}"
    bits = with_error(report.bits_per_dim, report.bits_per_dim_stderr, 4)
    nats = with_error(-report.nats, report.nats_stderr, 2)
    return {
        f"{split} bits/dim": f"{symbol} {bits}",
        f"{split} nats/image": f"{symbol} {nats}",
        "kind": report.kind.name.lower().replace("_", " "),
        f"{split} set": f"{set_id(data, split)} ({report.images}{part} images)",
    }


def print_table(title: str, rows: Mapping[str, str]) -> None:
    """A table of names and values."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in rows.items():
        table.add_row(name, value)
    Console(highlight=False, markup=False).print(table)


def add_to_report(run: Path, section: str, key: str, content: Mapping[str, Any]) -> Path:
    """Sets `section` / `key` in the run's `report.json`, keeping what other commands wrote there.

    Raises `GenzooError` where the file cannot be written.
    """
    from genzoo.checkpoint import write_atomically

    path = run / REPORT
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there is none yet, or none that anybody could read
        report = {}
    report = report if isinstance(report, dict) else {}
    report[section] = {**report.get(section, {}), key: dict(content)}
    write_atomically(path, (json.dumps(report, indent=2) + "\n").encode())
    return path
