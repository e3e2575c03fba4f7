"""What does the adversarial term buy over the pixel loss? `python -m benchmarks.image_to_image --cond mask`.

The same U-Net is trained twice for the same budget, by L1 alone and by L1 plus a conditional adversarial loss, from the
same weights and in the same order of images. Both predict the test images from their inputs. L1 and PSNR tell how near
they come, sharpness and Fréchet distance how much they look like images; for the differences in L1 and PSNR the
standard error is that of the paired differences over images. For comparison, the distance between two sets of as many
true images, test and validation; predictions may come below it, as they are held against the very images whose
inputs they saw.
"""

import argparse
import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from genzoo import create, load_data
from genzoo.data import ImageData
from genzoo.data.image_grid import save_grid
from genzoo.data.split import Split
from genzoo.evaluation.features.feature_space import FeatureSpace, some_images
from genzoo.evaluation.translation import BASIS_IMAGES, l1_distances, psnrs, translation_figures
from genzoo.metrics.frechet import frechet_distance
from genzoo.models.base import GenerativeModel
from genzoo.models.input_pictures import translation_picture
from genzoo.training.trainer import Budget, Trainer

PRESETS = {"L1": "image-to-image-l1", "L1 + adversarial": "image-to-image"}
PICTURED = 16


@dataclass(frozen=True)
class Trained:
    """A model, the CPU seconds it took, and what it made of the test images."""

    model: GenerativeModel
    steps: int
    cpu_seconds: float
    figures: dict[str, Any]
    l1: Tensor
    psnr: Tensor


def trained(preset: str, data: ImageData, args: argparse.Namespace, weight: float | None) -> Trained:
    """Trains one preset and judges it; `weight` in place of its own for the adversarial term."""
    weights = {} if weight is None else {"adversarial_weight": weight}
    model, start = create(preset, data.spec, args.size, seed=args.seed, **weights), time.process_time()
    budget = Budget(minutes=args.minutes, steps=args.steps)
    trainer = Trainer(model, budget, seed=args.seed, progress=args.progress)
    trainer.fit(data.train)
    seconds = time.process_time() - start
    figures = translation_figures(model, data.test, max_images=args.images)
    few = torch.arange(min(args.images, len(data.test)))
    images, cond = data.test.batch(few)
    drawn = model.sample(len(few), cond)
    of_each = l1_distances(drawn, images, data.spec), psnrs(drawn, images, data.spec)
    return Trained(model, trainer.step, seconds, figures, *of_each)


def floor(data: ImageData, n: int) -> dict[str, float]:
    """Fréchet distances between true images of validation and test."""
    count = min(n, len(data.test), len(data.val))
    spaces = FeatureSpace.all_for(data.test, BASIS_IMAGES)
    sets = [some_images(split, count, seed=1) for split in (data.val, data.test)]
    return {space.name: frechet_distance(*map(space, sets)) for space in spaces}


# --- what is shown ---------------------------------------------------------------------------------------------


def with_error(values: Tensor, digits: int) -> str:
    """Mean and standard error."""
    return f"{values.mean():.{digits}f} ± {values.std() / math.sqrt(len(values)):.{digits}f}"


def table(runs: dict[str, Trained], least: dict[str, float], title: str) -> Table:
    """A row per figure: the input itself, both models, what the adversarial term buys, and the floor."""
    result = Table(title=title, title_justify="left")
    for name in ("", "input", *runs, "difference", "true images"):
        result.add_column(name, justify="right" if name else "left")
    plain, adversarial = runs.values()
    doing_nothing = plain.figures.get("input")
    for name, key, digits in (("L1", "l1", 4), ("PSNR, dB", "psnr", 2)):
        before, after = getattr(plain, key), getattr(adversarial, key)
        start = f"{doing_nothing[key]:.{digits}f}" if doing_nothing else ""
        cells = [with_error(before, digits), with_error(after, digits), with_error(after - before, digits)]
        result.add_row(name, start, *cells, "0" if key == "l1" else "")
    rows = [("sharpness", "sharpness", None, 1.0)]
    rows += [(f"Fréchet, {space}", "frechet", space, value) for space, value in least.items()]
    for name, key, space, value in rows:
        of = [f if f is None else f[key] if space is None else f[key][space]
              for f in (doing_nothing, plain.figures, adversarial.figures)]  # fmt: skip
        shown = ["" if v is None else f"{v:.3f}" for v in of]
        change = "" if None in of[1:] else f"{of[2] - of[1]:+.3f}"
        result.add_row(name, *shown, change, f"{value:.3f}")
    for name, key in (("steps", "steps"), ("CPU seconds", "cpu_seconds")):
        result.add_row(name, "", *(f"{getattr(run, key):.0f}" for run in runs.values()), "", "")
    return result


def picture(runs: dict[str, Trained], split: Split) -> Tensor:
    """Input, L1, L1 + adversarial and truth, `[n, 4, c, h, w]`."""
    few = torch.arange(min(PICTURED, len(split)))
    plain, adversarial = (translation_picture(run.model, split, few) for run in runs.values())
    return torch.stack([plain[:, 0], plain[:, 1], adversarial[:, 1], plain[:, 2]], 1)


def main() -> None:
    """Prints the table and, last, one line of JSON; writes the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--image-size", type=int, help="of folder: images")
    parser.add_argument("--cond", default="mask", help="mask, downsample, grey, edges or folder:INPUTS")
    parser.add_argument("--size", choices=["tiny", "small", "base", "large"], default="small")
    parser.add_argument("--minutes", type=float, default=5.0, help="of training per model")
    parser.add_argument("--steps", type=int, help="of training per model, in place of minutes")
    parser.add_argument("--adversarial-weight", type=float, help="in place of the preset's")
    parser.add_argument("--images", type=int, default=2000, help="test images that are evaluated, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--progress", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/image-to-image"), help="folder of the picture")
    args = parser.parse_args()
    args.minutes = None if args.steps else args.minutes
    data = load_data(args.data, cond=args.cond, image_size=args.image_size)
    weights = (None, args.adversarial_weight)
    runs = {
        name: trained(preset, data, args, weight)
        for (name, preset), weight in zip(PRESETS.items(), weights, strict=True)
    }
    budget = f"{args.steps} steps" if args.steps else f"{args.minutes:g} minutes"
    judged = len(next(iter(runs.values())).l1)
    title = (
        f"{args.size}, {args.data} --cond {args.cond}, {budget} each, {judged} test images, seed {args.seed}"
    )
    least = floor(data, args.images)
    Console(width=None if sys.stdout.isatty() else 150).print(table(runs, least, title))
    path = args.out / f"{args.cond.replace(':', '-').replace('/', '-')}-seed{args.seed}.png"
    save_grid(picture(runs, data.test).flatten(0, 1), data.spec, path, columns=16)
    print(f"input | L1 | L1 + adversarial | truth: {path}")
    rows = {
        name: {**run.figures, "steps": run.steps, "cpu_seconds": run.cpu_seconds}
        for name, run in runs.items()
    }
    settings = {"data": args.data, "cond": args.cond, "size": args.size, "budget": budget, "seed": args.seed}
    print(json.dumps({**settings, "torch": torch.__version__, "floor": least, "models": rows}))


if __name__ == "__main__":
    main()
