"""How fast are contrastive encoders made here? `python -m benchmarks.speed_encoders --seconds 10`.

Per kind of data and backbone: views per second of the augmentation alone; of a training step (forward, NT-Xent through
the default projection, backward, AdamW) without and with augmentation, in bf16 autocast where that pays and in
float32; augmentation's share of a step; and images per second embedded. Medians over calls of wall-clock time; the
column "per CPU second" counts processor time instead, which other work on the machine disturbs less. Random images
stand in for the data, which changes no figure. Threads are torch's default. Last comes one line of JSON.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from genzoo import DataSpec
from genzoo.core.passes import runs_in_bf16
from genzoo.core.trainable import evaluating
from genzoo.data.augmentation_presets import augmentation_for
from genzoo.data.augmentations import Augmentation, views
from genzoo.nn.backbones import Backbone, BackboneConfig, ProjectionConfig, ResNetConfig, ViTConfig
from genzoo.objectives.contrastive import NTXent
from genzoo.training.optim import keep_freed_memory

DATA = {
    "small-digits": DataSpec((1, 8, 8), 17),
    "digits": DataSpec((1, 28, 28)),
    "garments": DataSpec((1, 28, 28)),
    "photographs": DataSpec((3, 32, 32)),
}
"""Kinds of data, by the names of their augmentations."""
BACKBONES: dict[str, BackboneConfig] = {"ResNet": ResNetConfig(), "ViT": ViTConfig()}


@dataclass(frozen=True)
class Cost:
    """Seconds of a call: the median by the wall's clock, and the mean of processor time."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Row:
    """Views (of `embedding`: images) per second of wall-clock time, unless a name says otherwise."""

    data: str
    backbone: str
    parameters: int
    precision: str
    augmentation: float
    training: float
    training_per_cpu_second: float
    with_augmentation: float
    share_of_augmentation: float
    embedding: float


def cost_of(call: Callable[[], object], at_least: float) -> Cost:
    """Over at least three calls and `at_least` seconds, after one warm-up."""
    call()
    durations: list[float] = []
    cpu = time.process_time()
    while len(durations) < 3 or sum(durations) < at_least:
        start = time.perf_counter()
        call()
        durations.append(time.perf_counter() - start)
    return Cost(sorted(durations)[len(durations) // 2], (time.process_time() - cpu) / len(durations))


def training_step(backbone: Backbone, both: Tensor, *, bf16: bool) -> Callable[[], None]:
    """A step on two views `[2 b, c, h, w]` of b images, the first views first."""
    projection, objective = ProjectionConfig().build(backbone.width), NTXent()
    parameters = [*backbone.parameters(), *projection.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, foreach=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            a, b = projection(backbone(both)).chunk(2)
            loss = objective(a, b).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def embedding_pass(backbone: Backbone, images: Tensor, *, bf16: bool) -> Callable[[], None]:
    """What it takes to embed `images` `[b, c, h, w]`."""

    def embed() -> None:
        with evaluating(backbone), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            backbone(images)

    return embed


def measure(data: str, name: str, augmentation: Augmentation, n: int, seconds: float, *, bf16: bool) -> Row:
    """One row, on `n` images per step."""
    spec, generator = DATA[data], torch.Generator().manual_seed(0)
    backbone = BACKBONES[name].build(spec.shape)
    x = 2 * torch.rand(n, *spec.shape, generator=generator) - 1
    augmenting = cost_of(lambda: views(augmentation, x, 2, generator), seconds)
    training = cost_of(
        training_step(backbone, views(augmentation, x, 2, generator).flatten(0, 1), bf16=bf16), seconds
    )
    embedding = cost_of(embedding_pass(backbone, x, bf16=bf16), seconds)
    return Row(
        data=data,
        backbone=name,
        parameters=sum(p.numel() for p in backbone.parameters()),
        precision="bf16" if bf16 else "fp32",
        augmentation=2 * n / augmenting.wall,
        training=2 * n / training.wall,
        training_per_cpu_second=2 * n / training.cpu,
        with_augmentation=2 * n / (training.wall + augmenting.wall),
        share_of_augmentation=augmenting.cpu / (augmenting.cpu + training.cpu),
        embedding=n / embedding.wall,
    )


def table(rows: list[Row]) -> Table:
    """The rows for people."""
    result = Table(title="views per second; of embedding, images")
    columns = ["data", "backbone", "parameters", "precision", "augmentation", "training", "per CPU second"]
    for name in [*columns, "with augmentation", "its share", "embedding"]:
        result.add_column(name, justify="left" if name in columns[:2] else "right")
    for r in rows:
        rates = (r.augmentation, r.training, r.training_per_cpu_second, r.with_augmentation)
        result.add_row(
            r.data,
            r.backbone,
            f"{r.parameters / 1e6:.2f} M",
            r.precision,
            *(f"{rate:.0f}" for rate in rates),
            f"{r.share_of_augmentation:.1%}",
            f"{r.embedding:.0f}",
        )
    return result


def chosen(parser: argparse.ArgumentParser, words: list[str], known: Collection[str]) -> list[str]:
    """The names in `words`, separated by spaces or commas; ends the program where one is not `known`."""
    names = [name for word in words for name in word.split(",") if name]
    if unknown := [name for name in names if name not in known]:
        parser.error(f"unknown {unknown[0]!r}: choose from {', '.join(known)}")
    return names


def main() -> None:
    """Measures the kinds of data, backbones and precisions asked for, by default all of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", default=list(DATA), help=f"out of {', '.join(DATA)}")
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), help="ResNet, ViT or both")
    parser.add_argument("--batch", type=int, default=256, help="images per step, each seen twice")
    parser.add_argument("--seconds", type=float, default=10.0, help="at least so long per figure")
    args = parser.parse_args()
    kinds, backbones = chosen(parser, args.data, DATA), chosen(parser, args.backbones, BACKBONES)
    keep_freed_memory()
    torch.manual_seed(0)  # weights
    precisions = [True, False] if runs_in_bf16("auto", torch.device("cpu")) else [False]
    rows = [
        measure(data, name, augmentation_for(DATA[data], data), args.batch, args.seconds, bf16=bf16)
        for data in kinds
        for name in backbones
        for bf16 in precisions
    ]
    Console(width=None if sys.stdout.isatty() else 140).print(table(rows))
    machine = {"threads": torch.get_num_threads(), "torch": torch.__version__, "batch": args.batch}
    print(json.dumps({**machine, "rows": [asdict(r) for r in rows]}))


if __name__ == "__main__":
    main()
