"""What surrounds a training step: seeds, data order, processes, and signals.

All randomness of a step is derived anew from (seed, step), as in EDM2's training loop (Karras et al. 2024),
so that a resumed run needs no generator states and the data order does not depend on the number of processes.
"""

import gc
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from typing_extensions import Self

from genzoo.core.spec import Batch

if TYPE_CHECKING:
    from accelerate import Accelerator

from genzoo.core.random import seeded
from genzoo.core.stop_signals import not_ignored
from genzoo.core.trainable import Trainable
from genzoo.data.split import LazyImages, Split


class BatchOrder:
    """Which images each step sees: whole batches of a permutation seeded by (seed, epoch).

    The images left over at the end of an epoch are another few in the next one. A batch holds at most all
    `n` images.
    """

    def __init__(self, n: int, batch_size: int, seed: int) -> None:
        self.n, self.batch_size, self.seed = n, min(batch_size, n), seed
        self.steps_per_epoch = n // self.batch_size
        self._epoch, self._permutation = -1, torch.empty(0, dtype=torch.long)

    def indices(self, step: int) -> Tensor:
        """The global batch of step `step` (from 0): long `[batch_size]`."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = seeded("cpu", "order", self.seed, epoch)
            self._epoch, self._permutation = epoch, torch.randperm(self.n, generator=generator)
        return self._permutation[position * self.batch_size : (position + 1) * self.batch_size]


class Processes:
    """The processes that train together, as far as the trainer must know of them."""

    def __init__(self, accelerator: "Accelerator", device: torch.device) -> None:
        self.accelerator, self.device = accelerator, device
        self.rank, self.count = accelerator.process_index, accelerator.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes."""
        return self.rank == 0

    def shard(self, n: int) -> slice:
        """This process's contiguous share of `n` items; shares differ by at most one.

        They are in the order of the ranks and make up all of 0 .. n-1.
        """
        return slice(self.rank * n // self.count, (self.rank + 1) * n // self.count)

    def sum(self, values: list[float]) -> list[float]:
        """Sums of `values` over the processes; every process must call it."""
        if self.count == 1:
            return values
        # float64 keeps seconds and sums exact; on devices without it accelerate would need float32
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        return self.accelerator.reduce(tensor, reduction="sum").tolist()  # pyright: ignore

    def share_buffers(self, model: nn.Module) -> None:
        """Gives `model` the buffers of the first process; every process must call it.

        Statistics that each gathers over its own images (of a codebook, say) differ by then.
        """
        if self.count > 1:
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, src=0)


@contextmanager
def own_accelerate_state() -> Iterator[None]:
    """Inside, Accelerate knows nothing of what the caller made of it, which is as it was afterwards.

    It keeps one precision for the whole process otherwise: whoever made an `Accelerator` could not train, or the other
    way round. The connection between processes, `PartialState`, is shared.
    """
    from accelerate.state import AcceleratorState, GradientState

    kept = [(kind._shared_state, dict(kind._shared_state)) for kind in (AcceleratorState, GradientState)]
    for shared, _ in kept:
        shared.clear()
    try:
        yield
    finally:
        for shared, former in kept:
            shared.clear()
            shared.update(former)


def leave_processes() -> None:
    """Ends the connection between processes, all at once; for the end of a program, and harmless with just one.

    Without it the first process to exit can pull the connection from under the others.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()  # wrapped models hold on to the connection's threads
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


class Feed:
    """Batches of `split` for `model`, each process's share of them on its device.

    Labels are left out for a generative model that is not conditioned on anything.
    """

    def __init__(self, split: Split, model: Trainable, processes: Processes) -> None:
        self.split, self.processes = split, processes
        self._unlabelled = not model.takes_labels

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        """This process's share of the global batch at long `indices` `[b]`.

        What is random in the data is drawn for the global batch, so that it does not depend on the number
        of processes. Of a split that streams only the own images are read; nothing in it is random.
        """
        own = self.processes.shard(len(indices))
        if self.processes.count > 1 and isinstance(self.split.images, LazyImages):
            indices, own = indices[own], slice(None)
        images, cond = self.split.batch(indices, generator)
        device = self.processes.device
        if cond is None or self._unlabelled:
            return Batch(images[own].to(device))
        return Batch(images[own].to(device), cond[own].to(device))


class StopSignals:
    """Within it SIGINT, SIGTERM and SIGHUP only set `name`, so that a step can be finished and saved.

    A second SIGINT interrupts at once. SIGHUP stays ignored where it was, as under nohup. Outside the main thread,
    where Python allows no handlers, it does nothing. The former handlers come back at the end.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._former: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in not_ignored():
                self._former[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            # None stands for a handler that Python did not install and cannot give back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # pyright: ignore

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
