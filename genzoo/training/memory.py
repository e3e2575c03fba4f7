"""How much memory a training run will take, known before it starts: a run that cannot fit is refused in one line.

What a step holds at its peak is found by running it once on tensors that have a shape and no numbers (PyTorch's fake
tensors), while counting the bytes of all that are alive at the same time: activations that wait for the backward pass,
gradients, and what operations need in between. That takes a fraction of a second, whatever the size of the images, and
leaves random states alone. Losses that look at numbers, as optimal transport does, and families from outside are run in
earnest on a copy, for two and four images, and the rest is extrapolated. To that come the optimiser's moments, the
averaged weights and the best ones. Small runs are not looked at: `PER_OUTPUT` bounds them.

Estimated / measured (the peak of resident memory in two steps over that before `fit`), in MiB, for batches of 64 grey
images, presets of size small, on a processor with bf16; some 80 of what is measured are modules that training loads:

                28x28           64x64
    pixelcnn    293 / 301      1441 / 1343
    flow        179 / 297       677 / 1274
    ot-flow      98 / 265       675 / 1315      run in earnest
    vae         394 / 147      1969 / 610       estimated for the end of a run, where its loss takes several samples
    gan          56 / 244       223 / 899
    simclr       52 / 79        122 / 283       run in earnest

So it may be half of what is taken, of a GAN a quarter: what cannot fit is refused, what barely fits may not fit.
"""

import copy
import math
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from genzoo.core.errors import GenzooError
from genzoo.core.free_memory import available_memory
from genzoo.core.passes import runs_in_bf16
from genzoo.core.random import private_rng, seeded
from genzoo.core.spec import Batch
from genzoo.core.trainable import Trainable
from genzoo.training.processes import BatchOrder, Feed, Processes

GIBIBYTE = 2**30
WORTH_A_LINE = GIBIBYTE // 8
"""Bytes from which on a run says what it needs."""
LARGEST_PER_VALUE = 2**18
"""Bytes for a sub-pixel of an image of a batch, more than a family from outside will need."""
PER_OUTPUT = 24
"""Bytes for a sub-pixel and an output of a layer (a row of a weight matrix); presets need 0.1 to 11."""
COPIES = 5
"""Of the weights beside the model's own: gradients, two moments, the average, the best."""
FEW = (2, 4)
"""Images of the two steps that are extrapolated from."""
END = (1.0,)
"""Moments of a run that are looked at, as `Trainable.progress`: no loss of genzoo takes more before its last step."""
MARGIN = 0.9
"""Of what is free, what is offered as fitting."""
ON_CPU = 1.4
"""Processors need that many times the bytes alive in a step: workspaces of convolutions, gaps between tensors."""


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes beyond what the process holds already: `fixed` ones, and `per_image` for each of a micro-batch of `images`.

    `bound`: it is no more than that, and nobody looked closer.
    """

    fixed: int
    per_image: float
    images: int
    bound: bool = False

    @property
    def total(self) -> int:
        """At the peak of a step."""
        return self.fixed + round(self.per_image * self.images)

    def __str__(self) -> str:
        """For people, such as "about 1.2 GiB"."""
        return f"{'less than' if self.bound else 'about'} {self.total / GIBIBYTE:.1f} GiB"

    def fitting_images(self, free: int) -> int:
        """Images of a micro-batch, a power of two, that fit in `free` bytes; 0 where not one does.

        >>> MemoryNeed(fixed=100, per_image=10.0, images=64).fitting_images(300)
        16
        """
        most = int((MARGIN * free - self.fixed) / max(self.per_image, 1.0))
        return 1 << (most.bit_length() - 1) if most >= 1 else 0

    def fitting_side(self, side: int, free: int) -> int:
        """A side of the images, instead of `side`, with which a batch of the same size fits; 0 where none does.

        >>> MemoryNeed(fixed=0, per_image=100.0, images=10).fitting_side(64, 500)
        40
        """
        share = (MARGIN * free - self.fixed) / max(self.per_image * self.images, 1.0)
        found = int(side * max(share, 0.0) ** 0.5)
        return found // 8 * 8 if found > 8 else found


def memory_line(model: Trainable, feed: Feed, order: BatchOrder, processes: Processes) -> str | None:
    """What training needs and what there is, for people; None where that is not worth a line, or nobody can tell.

    Every process must call it. Raises `GenzooError` where there is not enough for one of them.
    """
    config, device = model.config.training, processes.device
    free = available_memory(device)
    if free is None:
        return None
    free //= local_processes(processes.count) if device.type == "cpu" else 1
    sample = feed.batch(torch.arange(processes.count) % order.n, seeded("cpu", "memory", order.seed))
    images = math.ceil(order.batch_size / processes.count / config.accumulate)
    need = memory_need(model, sample, images, bf16=runs_in_bf16(config.precision, device), free=free)
    problem = refusal(need, model.spec.shape, free)
    if any(processes.sum([float(problem is not None)])):  # all or none
        raise GenzooError(problem or "another process has too little memory to train on these images")
    return f"memory: {need} more, {free / GIBIBYTE:.1f} GiB are free" if need.total > WORTH_A_LINE else None


def memory_need(model: Trainable, batch: Batch, images: int, *, bf16: bool = False, free: int) -> MemoryNeed:
    """What training `model` takes with `images` in a micro-batch; `batch` holds one or more such as it will be given.

    A closer look is taken only where a bound on what any model needs is not far below the `free` bytes.
    """
    overhead = ON_CPU if model.device.type == "cpu" else 1.0
    own = type(model).__module__.startswith("genzoo.")  # others may keep tensors in places that a copy shares
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    outputs = sum(len(p) for p in model.parameters() if p.ndim > 1)
    per_value = PER_OUTPUT * outputs if own else LARGEST_PER_VALUE
    bound = MemoryNeed(COPIES * weights, float(per_value * batch.images[0].numel()), images, bound=True)
    if bound.total < free / 2 or COPIES * weights > free:
        return bound
    peak = _peak_without_numbers(model, repeated(batch, images), bf16) if own else None
    if peak is not None:
        return MemoryNeed(COPIES * weights, overhead * peak / images, images)
    moments = END if own else (0.0, *END)
    few, more = (_peak_in_earnest(model, repeated(batch, n), bf16, free, moments) for n in FEW)
    if few is None or more is None:
        return MemoryNeed(COPIES * weights, 0.0, images)
    slope = max(more - few, 0) / (FEW[1] - FEW[0])
    return MemoryNeed(COPIES * weights + max(round(few - FEW[0] * slope), 0), overhead * slope, images)


def refusal(need: MemoryNeed, shape: Sequence[int], free: int) -> str | None:
    """Why images of this shape cannot be trained on with `free` bytes, and what would fit; None where they can be."""
    if need.total <= free:
        return None
    side, images, remedies = (
        need.fitting_side(max(shape), free),
        need.fitting_images(free),
        ["a smaller --size"],
    )
    if images >= 1:
        remedies.insert(0, f"--training.batch-size {images}")
    if len(shape) == 3 and side >= 2:
        remedies.insert(0, f"--image-size {side}")
    return (
        f"training on images {'x'.join(map(str, shape))} in batches of {need.images} needs {need} more, and "
        f"{free / GIBIBYTE:.1f} GiB are free: take {' or '.join(remedies)}"
    )


def repeated(batch: Batch, n: int) -> Batch:
    """`n` images and conditions like those of `batch`, without copying any."""
    return Batch(*(None if t is None else t[:1].expand(n, *t.shape[1:]) for t in batch))


# --- counting ----------------------------------------------------------------------------------------------------


class _TooMuch(Exception):
    """More than what is free is alive."""


class _Living(TorchDispatchMode):
    """Counts the bytes of all tensors that operations within it made and that are alive; `peak` is the most so far."""

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        self.most, self.now, self.peak = most, 0, 0
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.most is None and func is torch.ops.aten._local_scalar_dense.default:
            return _any_number(args[0].dtype)  # of a fake tensor, to get on
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and value.layout == torch.strided:
                self._note(value)
        return result

    def _note(self, value: Tensor) -> None:
        storage = value.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self.now += size
        self.peak = max(self.peak, self.now)
        self._known[key] = weakref.ref(storage, self._forgetting(key, size))
        if self.most is not None and self.now > self.most:
            raise _TooMuch

    def _forgetting(self, key: int, size: int) -> Callable[[Any], None]:
        def forget(_: Any) -> None:
            self.now -= size
            self._known.pop(key, None)

        return forget


def _any_number(dtype: torch.dtype) -> bool | float | int:
    return False if dtype == torch.bool else 0.0 if dtype.is_floating_point else 0


def _peak_without_numbers(
    model: Trainable, batch: Batch, bf16: bool, moments: Sequence[float] = END
) -> int | None:
    """Bytes alive at the peak of a step on fake tensors; None where the model cannot be run on them."""
    try:
        from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

        fake = FakeTensorMode(allow_non_fake_inputs=True)
        with FakeCopyMode(fake):
            twin = copy.deepcopy(model)
        living = _Living()
        with private_rng(model.device), fake:
            shapes = Batch(*(None if t is None else fake.from_tensor(t.to(model.device)) for t in batch))
            with living:
                return _step(twin, shapes, bf16, living, moments)
    except Exception:  # whatever a loss does that cannot be done without numbers
        return None


def _peak_in_earnest(
    model: Trainable, batch: Batch, bf16: bool, free: int, moments: Sequence[float] = END
) -> int | None:
    """Bytes alive at the peak of a step of a copy; what is free where it would be more; None where it fails."""
    living = _Living(free)
    try:
        with private_rng(model.device):
            torch.manual_seed(0)
            twin = copy.deepcopy(model)
            batch = Batch(*(None if t is None else t.to(model.device).contiguous() for t in batch))
            with living:
                return _step(twin, batch, bf16, living, moments)
    except _TooMuch:
        return free
    except Exception:  # training will tell
        return None


def _step(model: Trainable, batch: Batch, bf16: bool, living: _Living, moments: Sequence[float]) -> int:
    """Forward and backward of each turn, at these `moments` of a run (0: its beginning, 1: its end).

    Returns the bytes alive at the peak without gradients, which come one by one as activations go.
    """
    device, peak = model.device, 0
    model.train()
    for progress, turn in product(moments, model.turns):
        model.progress = progress
        with _gradients_of(model, turn):
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = model(batch, turn, seeded(device, "memory"))
            forward, living.peak = living.peak, living.now
            loss.total.float().sum().backward()
            del loss
            gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
            peak = max(peak, forward, living.peak - gradients)
    return peak


@contextmanager
def _gradients_of(model: Trainable, turn: str) -> Iterator[None]:
    own = {id(p) for p in model.parameters_of(turn)}
    trainable = [p for p in model.parameters() if p.requires_grad]
    for p in trainable:
        p.requires_grad_(id(p) in own)
    yield
    for p in trainable:
        p.requires_grad_(True)
        p.grad = None


def local_processes(count: int) -> int:
    """How many of `count` processes share this machine."""
    text = os.environ.get("LOCAL_WORLD_SIZE", "")
    return min(count, int(text)) if text.isdecimal() and int(text) >= 1 else count
