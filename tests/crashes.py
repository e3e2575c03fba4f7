"""Helpers of the tests of exact resume: runs that end where no signal would end them, and what is to be equal after."""

import torch

from genzoo.training.checkpoint import load_state


class Crash(Exception):
    """Ends a run where no signal would."""


def crashing(model, passes):
    """`model`, which raises `Crash` in forward pass number `passes` (None: in none)."""
    seen = 0

    def count(*_):
        nonlocal seen
        seen += 1
        if seen == passes:
            raise Crash

    model.register_forward_hook(count)
    return model


def same(a, b):
    """Whether two states are equal bit for bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def assert_same_runs(first, second):
    """Two run folders hold the same state and weights, bit for bit; only their clocks differ."""
    states = load_state(first), load_state(second)
    assert states[0].pop("seconds") != states[1].pop("seconds")
    assert states[0].keys() == states[1].keys()
    for key in states[0]:
        assert same(states[0][key], states[1][key]), key
    files = [(run / "model.safetensors").read_bytes() for run in (first, second)]
    assert files[0] == files[1]
