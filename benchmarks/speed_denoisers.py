"""How fast do diffusion models train here and elsewhere? `python -m benchmarks.speed_denoisers`.

Training images per second on 28x28 grey images, every entrant in a process of its own, in rounds: all take their turn
in each round, so that a disturbance meets all alike, and medians over rounds are printed. Threads are torch's default.

- torchcfm and denoising-diffusion-pytorch (`.[bench]`) with their documented MNIST settings, in float32.
- diffusers' `UNet2DModel` with the settings of its course's MNIST example (widths in the proportion 32-64-64, two
  layers, attention at 14x14 and 7x7 with 8-wide heads, noise prediction), in float32, at the parameters and batch size
  of the entrant of ours that it stands beside.
- ours: the preset's own network, and others of its size in its place, as the trainer trains them: precision, optimiser,
  clipping, weight average. Of the peers' trainers only the loss, the gradients and Adam are timed.

At last, what pairing 256 images with noise by optimal transport costs of a training step of `ot-flow`.
"""

import argparse
import json
import math
import multiprocessing
import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from itertools import count, cycle, product
from statistics import median
from typing import NamedTuple

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn

from benchmarks.networks import FAMILIES, PRESETS_OWN, diffusion_config, parameters_of, same_size
from benchmarks.speed import seconds_per_call
from genzoo import DataSpec, load_data
from genzoo.core.passes import runs_in_bf16
from genzoo.core.spec import Batch
from genzoo.models.diffusion.denoising_model import DiffusionConfig
from genzoo.models.preset import build
from genzoo.objectives.denoising.couplings import OptimalTransport
from genzoo.objectives.elbo import normal_noise
from genzoo.training.optim import WeightAverage, clip_gradients, keep_freed_memory, make_optimizer

SPEC = DataSpec((1, 28, 28), 256)
PAIRED = 256
TORCHCFM_BATCH, DDP_BATCH = 128, 32
EQUAL = 0.03
"""By how much "equal" numbers of parameters may differ."""
BARS = {"peer": 5.0, "diffusers": 1.8}
"""How many times the images per second of each kind of entrant ours is to reach."""


class Started(NamedTuple):
    """An entrant ready to train: a call of `step` is one step."""

    model: nn.Module
    batch_size: int
    precision: str
    step: Callable[[], None]


@dataclass(frozen=True)
class Entrant:
    """`start` makes it from images uint8 `[256, 1, 28, 28]`; `package` must be installed for that."""

    name: str
    kind: str
    package: str
    start: Callable[[Tensor], Started]


@dataclass(frozen=True)
class Timed:
    """One turn of one entrant: seconds of a step, and memory of the process in MiB."""

    parameters: int
    batch_size: int
    precision: str
    step_seconds: float
    peak_mib: float
    growth_mib: float
    """Peak above what the process had taken when its libraries were loaded."""


# --- the peers -------------------------------------------------------------------------------------------------


def scaled(images: Tensor, n: int) -> Tensor:
    """`n` images as float32 in [-1, 1]."""
    return images[torch.arange(n) % len(images)].float() / 127.5 - 1


def plain_step(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """Gradients and update, as the peers' examples write it."""

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def start_torchcfm(images: Tensor) -> Started:
    """Class-conditional flow matching as in examples/images/conditional_mnist.ipynb."""
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher
    from torchcfm.models.unet import UNetModel

    model = UNetModel(dim=(1, 28, 28), num_channels=32, num_res_blocks=1, num_classes=10, class_cond=True)
    matcher = ConditionalFlowMatcher(sigma=0.0)
    x_1, labels = scaled(images, TORCHCFM_BATCH), torch.arange(TORCHCFM_BATCH) % 10

    def loss() -> Tensor:
        t, x_t, u_t, *_ = matcher.sample_location_and_conditional_flow(torch.randn_like(x_1), x_1)
        return torch.mean((model(t, x_t, labels) - u_t) ** 2)

    optimizer = torch.optim.Adam(model.parameters())
    return Started(model, TORCHCFM_BATCH, "fp32", plain_step(loss, optimizer))


def start_ddp(images: Tensor) -> Started:
    """The README's model at 28x28 (which three resolutions divide), with its Trainer's Adam and batch of 32."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet

    model = GaussianDiffusion(Unet(dim=32, dim_mults=(1, 2, 4), channels=1), image_size=28, timesteps=1000)
    x = scaled(images, DDP_BATCH) / 2 + 0.5  # it normalises from [0, 1] itself
    optimizer = torch.optim.Adam(model.parameters(), lr=8e-5, betas=(0.9, 0.99))
    return Started(model, DDP_BATCH, "fp32", plain_step(lambda: model(x), optimizer))


def diffusers_unet(widths: tuple[int, int, int]) -> nn.Module:
    """The course's network (class-conditional example of unit 2, without the classes) in other widths."""
    from diffusers.models.unets.unet_2d import UNet2DModel

    return UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        layers_per_block=2,
        block_out_channels=widths,
        norm_num_groups=math.gcd(32, *widths),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    )


def start_diffusers(images: Tensor, *, widths: tuple[int, int, int], batch_size: int) -> Started:
    """Noise prediction with the cosine schedule, as in the course."""
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    model = diffusers_unet(widths)
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    x = scaled(images, batch_size)

    def loss() -> Tensor:
        noise, t = torch.randn_like(x), torch.randint(0, 999, (batch_size,))
        predicted = model(scheduler.add_noise(x, noise, t), t).sample  # pyright: ignore
        return nn.functional.mse_loss(predicted, noise)

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    return Started(model, batch_size, "fp32", plain_step(loss, optimizer))


def widths_for(parameters: int) -> tuple[int, int, int]:
    """Widths nearest to the proportion 32-64-64 whose network has `parameters` but for `EQUAL`."""
    unit = 32 * (parameters / counted(diffusers_unet, (32, 64, 64))) ** 0.5
    near = range(max(8, int(unit // 8 - 1) * 8), int(unit // 8 + 3) * 8, 8)  # heads are 8 wide
    wide = range(max(8, int(unit // 4 - 2) * 8), int(unit // 4 + 4) * 8, 8)

    def disproportion(widths: tuple[int, int, int]) -> float:
        return sum(
            abs(math.log(w / part)) for w, part in zip(widths, (unit, 2 * unit, 2 * unit), strict=True)
        )

    for widths in sorted(product(near, wide, wide), key=disproportion):
        if abs(counted(diffusers_unet, widths) / parameters - 1) <= EQUAL:
            return widths
    raise ValueError(f"no widths near {unit:.0f} give {parameters} parameters")


def counted(network: Callable[..., nn.Module], *arguments: object) -> int:
    """Parameters of a network, without making them."""
    with torch.device("meta"):
        return sum(p.numel() for p in network(*arguments).parameters())


# --- ours ------------------------------------------------------------------------------------------------------


def start_ours(images: Tensor, *, config: DiffusionConfig, batch_size: int | None = None) -> Started:
    """What the trainer does with a batch, without its bookkeeping."""
    keep_freed_memory()
    batch_size = batch_size or config.training.batch_size
    model = build(config, SPEC)
    bf16 = runs_in_bf16(config.training.precision, torch.device("cpu"))
    batch = Batch(images[torch.arange(batch_size) % len(images)])
    optimizer = make_optimizer(model.parameters(), config.training)
    average = WeightAverage(model, config.training.ema_fraction)
    steps = count(1)

    def step() -> None:
        generator = torch.Generator().manual_seed(next(steps))
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(batch, "model", generator).total.mean()
        loss.backward()
        clip_gradients(model.parameters(), config.training.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.count(model)
        average.update(model)

    return Started(model.train(), batch_size, "bf16" if bf16 else "fp32", step)


def entrants(preset: str, size: str, families: list[str]) -> list[Entrant]:
    """Peers, ours, and beside each of ours diffusers' network of its size."""
    result = [
        Entrant("torchcfm", "peer", "torchcfm", start_torchcfm),
        Entrant("denoising-diffusion-pytorch", "peer", "denoising_diffusion_pytorch", start_ddp),
    ]
    starts = [e.start for e in result if find_spec(e.package)]
    # on no data: only to count
    largest = max(
        [sum(p.numel() for p in s(torch.zeros(1, 1, 28, 28)).model.parameters()) for s in starts] or [0]
    )
    plain = diffusion_config(preset, SPEC, size)
    stood: list[tuple[int, str]] = []
    for family in families:
        config = same_size(plain, family, SPEC, least=largest)
        kind = type(config.network).__name__ + f", {family}" * (family != PRESETS_OWN)
        ours = Entrant(f"{preset}: {kind}", "ours", "genzoo", partial(start_ours, config=config))
        result.append(ours)
        parameters = parameters_of(config, SPEC)
        peer = next((name for n, name in stood if abs(n / parameters - 1) <= EQUAL), None)
        if peer is None:
            widths = widths_for(parameters)
            peer = f"diffusers UNet2DModel {'-'.join(map(str, widths))}"
            start = partial(start_diffusers, widths=widths, batch_size=config.training.batch_size)
            result.append(Entrant(peer, "diffusers", "diffusers", start))
            stood.append((counted(diffusers_unet, widths), peer))
    return result


# --- measuring -------------------------------------------------------------------------------------------------


def peak_mib() -> float:
    """Peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def take_turn(entrant: Entrant, images: Tensor, seconds: float) -> Timed:
    """One turn; runs in a fresh process."""
    __import__(entrant.package)
    from diffusers.models.unets.unet_2d import UNet2DModel  # noqa: F401  of several entrants: loaded by all

    loaded = peak_mib()
    started = entrant.start(images)
    step_seconds = seconds_per_call(started.step, seconds)
    parameters = sum(p.numel() for p in started.model.parameters())
    return Timed(
        parameters, started.batch_size, started.precision, step_seconds, peak_mib(), peak_mib() - loaded
    )


def transport_share(images: Tensor, config: DiffusionConfig, seconds: float) -> tuple[float, float]:
    """Seconds of pairing `PAIRED` images with noise, and of a whole training step of as many."""
    started = start_ours(images, config=config, batch_size=PAIRED)
    x, coupling = scaled(images, PAIRED), OptimalTransport()
    draws = cycle([normal_noise(x, torch.Generator().manual_seed(n)) for n in range(64)])
    pairing = seconds_per_call(lambda: coupling.pair(x, next(draws)), min(seconds, 2.0))
    return pairing, seconds_per_call(started.step, seconds)


def in_fresh_process(call: Callable[..., object], *arguments: object) -> object:
    """So that its peak memory, its allocator's settings and its global random numbers are its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(call, arguments)


def rate(turns: list[Timed]) -> float:
    """Images per second: the median over rounds."""
    return median(t.batch_size / t.step_seconds for t in turns)


# --- figures ---------------------------------------------------------------------------------------------------


def table(timed: dict[Entrant, list[Timed]], rounds: int) -> Table:
    """A row per entrant; ratios are our first entrant's images per second over the row's."""
    ours = next(rate(turns) for e, turns in timed.items() if e.kind == "ours" and turns)
    result = Table(title=f"training on 28x28 grey images, median (lowest - highest) of {rounds} rounds")
    for name in ["entrant", "parameters", "batch", "precision", "images/s", "step", "peak memory", "ours /"]:
        result.add_column(name, justify="left" if name == "entrant" else "right")
    for e, turns in timed.items():
        if not turns:
            result.add_row(e.name, *["-"] * 3, escape("not installed (.[bench])"), *["-"] * 3)
            continue
        rates, t = [t.batch_size / t.step_seconds for t in turns], turns[0]
        memory = median(t.peak_mib for t in turns), median(t.growth_mib for t in turns)
        result.add_row(
            e.name,
            f"{t.parameters / 1e6:.2f} M",
            str(t.batch_size),
            t.precision,
            f"{rate(turns):.1f} ({min(rates):.1f} - {max(rates):.1f})",
            f"{median(t.step_seconds for t in turns):.3f} s",
            f"{memory[0]:.0f} MiB ({memory[1]:.0f} of training)",
            f"{ours / rate(turns):.2f}",
        )
    return result


def verdicts(timed: dict[Entrant, list[Timed]]) -> list[str]:
    """For each of ours and each it is held against: the ratio, the bar, and whether the comparison is fair."""
    lines = []
    for ours, other in product(
        [e for e in timed if e.kind == "ours"], [e for e in timed if e.kind != "ours"]
    ):
        mine, theirs = timed[ours], timed[other]
        if not mine or not theirs:
            continue
        sizes = mine[0].parameters, theirs[0].parameters
        if other.kind == "diffusers" and abs(sizes[1] / sizes[0] - 1) > EQUAL:
            continue
        ratio, bar = rate(mine) / rate(theirs), BARS[other.kind]
        line = (
            f"{ours.name} / {other.name}: {ratio:.2f} (target {bar}, {'met' if ratio >= bar else 'not met'})"
        )
        if other.kind == "peer" and sizes[0] < sizes[1]:
            line += f" UNFAIR: ours has fewer parameters, {sizes[0]:,} against {sizes[1]:,}"
        lines.append(line)
    return lines


def main() -> None:
    """Measures all entrants and prints a table, what it says of the bars and, last, one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="flow")
    parser.add_argument("--size", default="small")
    families = [PRESETS_OWN, *FAMILIES]
    parser.add_argument("--networks", nargs="+", choices=families, default=families)
    parser.add_argument(
        "--data", default="fashion-mnist", help="whose first 256 training images all train on"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="at least so long per entrant and round")
    args = parser.parse_args()
    images = load_data(args.data).train.batch(torch.arange(PAIRED)).images
    timed: dict[Entrant, list[Timed]] = {e: [] for e in entrants(args.preset, args.size, args.networks)}
    start = time.perf_counter()
    for number in range(args.rounds):
        for entrant, turns in timed.items():
            if find_spec(entrant.package):
                turns.append(in_fresh_process(take_turn, entrant, images, args.seconds))  # pyright: ignore
        print(f"round {number + 1} of {args.rounds}: {time.perf_counter() - start:.0f} s", flush=True)
    Console(width=None if sys.stdout.isatty() else 170).print(table(timed, args.rounds))
    print("\n".join(verdicts(timed)))
    transport = diffusion_config("ot-flow", SPEC, args.size)
    pairs = [in_fresh_process(transport_share, images, transport, args.seconds) for _ in range(args.rounds)]
    pairing, step = (median(each) for each in zip(*pairs, strict=True))  # pyright: ignore
    share = pairing / step
    print(
        f"optimal transport of {PAIRED} images: {1000 * pairing:.1f} ms, {share:.1%} of a training step of "
        f"{step:.2f} s (bar 10%, {'met' if share < 0.1 else 'not met'})"
    )
    machine = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    rows = [{"entrant": e.name, "kind": e.kind, "turns": [asdict(t) for t in ts]} for e, ts in timed.items()]
    print(json.dumps({**machine, "torch": torch.__version__, "rows": rows, "transport": pairs}))


if __name__ == "__main__":
    main()
