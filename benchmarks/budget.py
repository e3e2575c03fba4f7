"""Minutes of processor time as steps, so that tables are fair on a busy machine and can be made again step for step."""

import time
from collections.abc import Callable

import torch

from genzoo.core.errors import GenzooError
from genzoo.core.trainable import Trainable
from genzoo.data.split import Split

TRIAL, WARM_UP = 25, 5  # steps that tell the price of one


def steps_for(seconds_of: Callable[[int], float], minutes: float) -> int:
    """Steps that fit into `minutes` of processor time on each of torch's threads, at least 1.

    `seconds_of(steps)` trains anew for so many steps and returns the seconds of processor time of all threads; what it
    costs to begin is not counted. Raises `GenzooError` for a time that is not above 0.
    """
    if not minutes > 0:
        raise GenzooError(f"a budget needs minutes above 0, got {minutes:g}")
    short, long = (seconds_of(steps) for steps in (WARM_UP, WARM_UP + TRIAL))
    return max(1, round(60 * minutes * torch.get_num_threads() * TRIAL / max(long - short, 1e-9)))


def fitted_seconds(model: Trainable, train: Split, steps: int, seed: int) -> float:
    """Trains `model` in place for `steps`; seconds of processor time of all threads that it took."""
    start = time.process_time()
    model.fit(train, steps=steps, seed=seed, progress=False)
    return time.process_time() - start
