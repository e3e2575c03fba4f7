"""Which denoising network is the best default? `python -m benchmarks.networks --data fashion-mnist --minutes 5`.

Every recipe is trained with every network for the same time on the same processor, at about equal parameters, and
evaluated on the validation images that training did not stop by: the loss under common random numbers (so that rows
differ by their networks alone), bits/dim where the recipe is a likelihood model, and the Fréchet distance of samples
in the feature spaces of `benchmarks.solvers`. Losses of different recipes are on different scales. Last comes JSON.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import accelerate  # noqa: F401  the trainer imports it late, which would count against the first network
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from genzoo import DataSpec, load_data
from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.core.spec import Batch
from genzoo.core.trainable import evaluating
from genzoo.data import ImageData
from genzoo.evaluation.features.feature_space import FeatureSpace, some_images
from genzoo.evaluation.likelihood import evaluate_likelihood
from genzoo.metrics.frechet import frechet_distance
from genzoo.models.base import GenerativeModel
from genzoo.models.diffusion.denoising_model import DiffusionConfig
from genzoo.models.preset import build
from genzoo.models.registry import get_preset
from genzoo.nn.denoiser_network import DenoiserConfig
from genzoo.nn.patch_transformer import PatchTransformerConfig
from genzoo.nn.unet import UNetConfig
from genzoo.training.trainer import Budget, Trainer

FAMILIES: dict[str, Callable[[int], DenoiserConfig]] = {
    "diffusers U-Net": lambda n: UNetConfig(channels=(8 * n, 16 * n)),
    "diffusers U-Net, patch 2": lambda n: UNetConfig(channels=(8 * n, 16 * n), patch=2),
    "patch transformer": lambda n: PatchTransformerConfig(width=16 * n),
    "patch transformer, patch 4": lambda n: PatchTransformerConfig(width=16 * n, patch=4),
}
"""Networks of growing width, n = 1, 2 ..., to be compared with the preset's own."""

PRESETS_OWN = "the preset's"


def parameters_of(config: DiffusionConfig, spec: DataSpec) -> int:
    """How many a model of `config` has, without making them."""
    with torch.device("meta"):
        return sum(p.numel() for p in config.build(spec).parameters())


def diffusion_config(preset: str, spec: DataSpec, size: str) -> DiffusionConfig:
    """The preset's configuration; raises `GenzooError` for an unknown one, `TypeError` for another family's."""
    config = get_preset(preset).config(size, spec)
    if not isinstance(config, DiffusionConfig):
        raise TypeError(f"{preset} is no row of the diffusion family's table")
    return config


def same_size(
    config: DiffusionConfig, family: str, spec: DataSpec, *, least: int = 0, widths: int = 48
) -> DiffusionConfig:
    """`config` with the network of `family` whose parameters are nearest to its own; itself for `PRESETS_OWN`.

    Networks of fewer than `least` parameters are passed over.
    """
    if family == PRESETS_OWN:
        return config
    wanted = parameters_of(config, spec)
    best, nearest = config, float("inf")
    for n in range(1, widths + 1):
        candidate = replace(config, network=FAMILIES[family](n))
        count = parameters_of(candidate, spec)
        if count >= least and abs(count - wanted) < nearest:
            best, nearest = candidate, abs(count - wanted)
        if count > max(wanted, least):  # parameters grow with n
            break
    return best


@dataclass(frozen=True)
class Row:
    """What a network made of a recipe in its minutes; `_stderr` are standard errors over images."""

    preset: str
    network: str
    configuration: str
    parameters: int
    images_seen: int
    images_per_second: float
    cpu_minutes: float
    loss: float
    loss_stderr: float
    bits_per_dim: float | None
    bits_per_dim_stderr: float | None
    kind: str
    frechet: dict[str, float]


class Jury:
    """`n` validation images in a fixed random order, and the feature spaces in which samples are held against them."""

    def __init__(self, data: ImageData, n: int) -> None:
        order = torch.randperm(len(data.val), generator=torch.Generator().manual_seed(1))[:n]
        self.batch, self.spaces = data.val.batch(order), FeatureSpace.all_for(data.train)
        self.real = {space.name: space(self.batch.images) for space in self.spaces}

    def distances(self, images: Tensor) -> dict[str, float]:
        """Fréchet distances of `images` to the validation images, by space."""
        return {space.name: frechet_distance(self.real[space.name], space(images)) for space in self.spaces}


def losses(model: GenerativeModel, batch: Batch, draws: int = 8) -> Tensor:
    """Each image's loss, the mean over `draws` times and noises, float64 `[n]`; the same for every model."""
    images, cond = batch.images, batch.cond if model.spec.cond else None
    each = torch.zeros(len(images), dtype=torch.float64)
    with evaluating(model):
        for part in torch.arange(len(images)).split(128):
            for draw in range(draws):
                generator = torch.Generator().manual_seed(1000 * draw + int(part[0]))
                few = Batch(images[part], None if cond is None else cond[part])
                each[part] += model.loss(few, generator=generator).total.double() / draws
    return each


def measure(preset: str, family: str, data: ImageData, jury: Jury, args: argparse.Namespace) -> Row:
    """Trains and evaluates one network."""
    config = same_size(diffusion_config(preset, data.spec, args.size), family, data.spec)
    model = build(config, data.spec, seed=args.seed)
    budget = Budget(minutes=None if args.steps else args.minutes, steps=args.steps)
    trainer = Trainer(model, budget, seed=args.seed, progress=False)
    start, cpu_start = time.perf_counter(), time.process_time()
    trainer.fit(data.train)  # without validation: every second of the budget is training
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    loss = losses(model, jury.batch)
    report = None
    if (
        model.likelihood is LikelihoodKind.LOWER_BOUND
    ):  # an ODE's likelihood takes far longer than the training
        generator = torch.Generator().manual_seed(args.seed)
        report = evaluate_likelihood(model, data.val, max_images=args.images, generator=generator)
    seen = trainer.step * config.training.batch_size
    drawn = model.sample(args.images, generator=torch.Generator().manual_seed(2))
    return Row(
        preset=preset,
        network=family,
        configuration=str(config.network),
        parameters=sum(p.numel() for p in model.parameters()),
        images_seen=seen,
        images_per_second=seen / seconds,
        cpu_minutes=cpu_seconds / 60,
        loss=loss.mean().item(),
        loss_stderr=(loss.std() / len(loss) ** 0.5).item(),
        bits_per_dim=report.bits_per_dim if report else None,
        bits_per_dim_stderr=report.bits_per_dim_stderr if report else None,
        kind=report.kind.symbol if report else "-",
        frechet=jury.distances(drawn),
    )


def table(rows: list[Row], title: str) -> Table:
    """The rows for people."""
    result = Table(title=title)
    for n, name in enumerate(["preset", "network", "parameters", "images seen", "images/s", "CPU min"]):
        result.add_column(name, justify="right" if n > 1 else "left")
    for name in ["validation loss", "bits/dim", *(f"Fréchet, {space}" for space in rows[0].frechet)]:
        result.add_column(name, justify="right")
    for r in rows:
        bits = "-"
        if r.bits_per_dim is not None:
            bits = f"{r.kind} {r.bits_per_dim:.3f} ± {r.bits_per_dim_stderr or 0:.3f}"
        result.add_row(
            r.preset,
            r.network,
            f"{r.parameters / 1e6:.2f} M",
            f"{r.images_seen:,}",
            f"{r.images_per_second:.0f}",
            f"{r.cpu_minutes:.1f}",
            f"{r.loss:.5f} ± {r.loss_stderr:.5f}",
            bits,
            *(f"{d:.3f}" for d in r.frechet.values()),
        )
    return result


def main() -> None:
    """Trains every recipe with every network, one after the other, and prints what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--presets", nargs="+", default=["flow", "ddpm-likelihood"])
    parser.add_argument("--networks", nargs="+", choices=[PRESETS_OWN, *FAMILIES], default=None)
    parser.add_argument("--size", default="small")
    parser.add_argument("--minutes", type=float, default=5.0, help="of training for each")
    parser.add_argument("--steps", type=int, default=None, help="so many steps instead of minutes")
    parser.add_argument("--images", type=int, default=1000, help="validation images, and samples")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    data = load_data(args.data)
    jury, rows = Jury(data, args.images), []
    for preset in args.presets:
        for family in args.networks or [PRESETS_OWN, *FAMILIES]:
            rows.append(measure(preset, family, data, jury, args))
            print(f"{preset}, {family}: {rows[-1].configuration}", flush=True)
    budget = f"{args.steps} steps" if args.steps else f"{args.minutes:g} minutes"
    title = (
        f"{args.data}, {budget} each on {torch.get_num_threads()} thread(s), {args.images} validation images"
    )
    Console(width=None if sys.stdout.isatty() else 170).print(table(rows, title))
    floor = jury.distances(some_images(data.train, args.images, seed=3))
    print(
        "Fréchet distances of as many training images: "
        + ", ".join(f"{v:.3f} ({k})" for k, v in floor.items())
    )
    machine = {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "data": args.data,
        "floor": floor,
    }
    print(json.dumps({**machine, "seed": args.seed, "rows": [asdict(r) for r in rows]}))


if __name__ == "__main__":
    main()
