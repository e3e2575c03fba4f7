"""`python -m genzoo.evaluate RUN [flags]`: how likely a trained model finds images it has not seen."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from genzoo import parsing
from genzoo.commands import (
    DataArguments,
    add_to_report,
    data_of_run,
    guarded,
    likelihood_rows,
    measure,
    print_table,
    set_id,
    with_error,
)

if TYPE_CHECKING:
    from genzoo.contract import GenerativeModel
    from genzoo.data import ImageData
    from genzoo.evaluation.likelihood import LikelihoodReport

PROG = "genzoo evaluate"
GAP_IMAGES = 1000  # training images, at most, that the generalisation gap is measured on


@dataclass(frozen=True)
class EvaluateFlags:
    """Measures the likelihood of images under a trained model; writes RUN/report.json."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder."""
    data: str | None = None
    """Other data than the run's own (digits, mnist, folder:PATH ...)."""
    data_root: str | None = None
    """Where data sets lie; else where the run found them, or $GENZOO_DATA."""
    image_size: int | None = None
    """Images of a folder are resized and cropped to this many pixels."""
    skip_bad_images: bool = False
    """Count and leave out images that cannot be read."""
    split: Literal["test", "val", "train"] = "test"
    """Which images."""
    max_images: int | None = None
    """A random subset of this many images; else all."""
    seed: int = 0
    """Decides the subset, and what is random in a likelihood that is a bound or an estimate."""
    device: str | None = None
    """Such as cpu or cuda; else the CPU."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    flags = parsing.parse(EvaluateFlags, sys.argv[1:] if argv is None else argv, PROG)
    return guarded(lambda: _evaluate(flags))


def _evaluate(flags: EvaluateFlags) -> None:
    from genzoo.checkpoint import load_model

    model = load_model(flags.run).to(flags.device)
    data = load_for(model, flags)
    report = measure(model, data, flags.split, seed=flags.seed, max_images=flags.max_images)
    gap = None if flags.split == "train" else generalisation_gap(model, data, report, flags.seed)
    parameters = sum(p.numel() for p in model.parameters())
    content = {"protocol": data.protocol, "split": flags.split, "seed": flags.seed, "parameters": parameters}
    content |= report.to_json() | {"generalisation_gap": gap}
    path = add_to_report(flags.run, "likelihood", set_id(data, flags.split), content)
    rows = likelihood_rows(report, data, flags.split)
    if gap is not None:
        rows["train/" + flags.split + " gap"] = _gap_text(gap)
    rows |= {"parameters": f"{parameters:,}", "speed": f"{report.images_per_second:.1f} images/s"}
    print_table(f"{flags.run} on {data.name}", rows)
    print(f"report: {path}")


def load_for(model: "GenerativeModel", flags: EvaluateFlags) -> "ImageData":
    """The data to be judged: the run's own unless the flags name others.

    Raises `GenzooError` where neither says which, or where they do not fit the model.
    """
    from genzoo.contract import GenzooError

    own = data_of_run(flags.run)
    if flags.data is None and own is None:
        raise GenzooError(f"{flags.run} does not say what it was trained on; name the data with --data")
    arguments = own if flags.data is None else None
    arguments = arguments or DataArguments(flags.data or "", flags.data_root)
    changes: dict[str, Any] = {
        "root": flags.data_root or arguments.root,
        "image_size": flags.image_size or arguments.image_size,
        "skip_bad_images": flags.skip_bad_images or arguments.skip_bad_images,
        "cond": "class" if model.spec.cond == "class" else None,
    }
    data = replace(arguments, **changes).load()
    if data.spec != model.spec:
        raise GenzooError(f"{data.name} does not fit this model: {_difference(model, data)}")
    return data


def _difference(model: "GenerativeModel", data: "ImageData") -> str:
    wanted, found = vars(model.spec), vars(data.spec)
    key = next(key for key in wanted if wanted[key] != found[key])
    return f"its {key} is {found[key]}, the model was made for {wanted[key]}"


def generalisation_gap(
    model: "GenerativeModel", data: "ImageData", held_out: "LikelihoodReport", seed: int
) -> dict[str, Any]:
    """How many bits/dim worse the held-out images are than training images: what was learnt by heart.

    `stderr` is that of the difference; the two sets of images are independent.
    """
    train = measure(model, data, "train", seed=seed, max_images=GAP_IMAGES)
    errors = (train.bits_per_dim_stderr, held_out.bits_per_dim_stderr)
    stderr = None if None in errors else sum(e**2 for e in errors if e is not None) ** 0.5
    gap = held_out.bits_per_dim - train.bits_per_dim
    return {"bits_per_dim": gap, "stderr": stderr, "train_images": train.images, "train": train.to_json()}


def _gap_text(gap: dict[str, Any]) -> str:
    return (
        f"{with_error(gap['bits_per_dim'], gap['stderr'], 4)} bits/dim ({gap['train_images']} train images)"
    )


if __name__ == "__main__":
    sys.exit(main())
