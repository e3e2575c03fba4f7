"""The queue against a list, the slow copy against its formula, and that all of it survives a checkpoint."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from genzoo.core.errors import GenzooError
from genzoo.nn.momentum_copy import Centre, MomentumCopy, Queue, momentum_at


def numbered(start, count):
    """Rows (start, -start), (start + 1, ...), ..."""
    values = torch.arange(start, start + count).float()
    return torch.stack([values, -values], 1)


# --- the queue -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[3, 3, 3], [2, 5, 1, 7], [12], [8], [1] * 20, [7, 16, 3, 0, 8], [30, 5]])
def test_queue_is_a_list_of_the_last(sizes):
    queue, wanted, start = Queue(8, 2), [], 0
    assert queue.rows().shape == (0, 2) and len(queue) == 0
    for size in sizes:
        rows = numbered(start, size)
        queue.push(rows)
        wanted = (wanted + rows.tolist())[-8:]
        start += size
        assert queue.rows().tolist() == wanted and len(queue) == len(wanted)


def test_queue_hands_out_copies_without_gradients():
    queue = Queue(4, 2)
    rows = numbered(0, 4).requires_grad_()
    queue.push(rows)
    taken = queue.rows()
    queue.push(numbered(9, 2))
    assert taken.tolist() == numbered(0, 4).tolist() and not taken.requires_grad
    query = torch.ones(2, requires_grad=True)
    loss = (queue.rows() @ query).sum()
    queue.push(numbered(5, 4))  # between a forward and its backward pass
    loss.backward()
    assert query.grad.tolist() == [2 + 3 + 9 + 10, -(2 + 3 + 9 + 10)]


def test_queue_resumes_where_it_was():
    queue, other = Queue(5, 2), Queue(5, 2)
    queue.push(numbered(0, 7))
    other.load_state_dict(copy.deepcopy(queue.state_dict()))
    for q in (queue, other):
        q.push(numbered(7, 3))
    assert other.rows().tolist() == queue.rows().tolist() == numbered(5, 5).tolist()
    assert list(queue.parameters()) == []


def test_queue_of_half_precision_rows():
    queue = Queue(3, 2)
    queue.push(numbered(0, 2).bfloat16())
    assert queue.rows().dtype == torch.float32 and bool(Queue(3, 2))


# --- the slow copy -------------------------------------------------------------------------------------------------


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x).relu())


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x[None], x[None], x[None], need_weights=False)[0][0]


NETWORKS = [
    lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3, bias=False)),
    lambda: nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 1), nn.GroupNorm(3, 3), nn.Flatten()),
    lambda: nn.Sequential(nn.LayerNorm(4), weight_norm(nn.Linear(4, 3))),
    Tied,
    Attention,
]


def made(make, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def images():
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(1))


def moved(network, seed=2):
    """The same network with other weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return network


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("training", [True, False])
def test_copy_is_the_network_at_first(make, training):
    network = made(make)
    slow = MomentumCopy(network).train(training)
    wanted = copy.deepcopy(network).train(training)(images()).detach()
    found = slow(images())
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert not found.requires_grad and list(slow.parameters()) == []
    moved(network)
    assert torch.equal(slow(images()), found)  # nothing is shared


@pytest.mark.parametrize("make", NETWORKS)
def test_copy_follows_by_its_formula(make):
    """Two updates: m^2 start + m (1 - m) first + (1 - m) second."""
    network = made(make)
    slow, reference = MomentumCopy(network), copy.deepcopy(network)
    states = [copy.deepcopy(network)]
    for seed in (2, 3):
        slow.update(moved(network, seed), 0.7)
        states.append(copy.deepcopy(network))
    with torch.no_grad():
        for target, *each in zip(reference.parameters(), *(s.parameters() for s in states), strict=True):
            target.copy_(sum(w * p for w, p in zip((0.49, 0.21, 0.3), each, strict=True)))
    torch.testing.assert_close(slow(images()), reference(images()).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", NETWORKS)
def test_ends_of_momentum(make):
    network = made(make)
    slow = MomentumCopy(network).eval()
    before = slow(images())
    moved(network).eval()
    slow.train().update(network, 1.0)
    assert torch.equal(slow.eval()(images()), before)
    slow.train().update(network, 0.0)
    torch.testing.assert_close(slow.eval()(images()), network(images()).detach(), rtol=1e-5, atol=1e-6)
    for momentum in (-0.1, 1.1, math.nan):
        with pytest.raises(GenzooError, match=r"momentum must lie in 0 \.\. 1"):
            slow.update(network, momentum)


def test_running_statistics_are_the_copy_s_own():
    network = made(NETWORKS[0])
    slow = MomentumCopy(network)
    slow(images())
    assert slow.network[1].num_batches_tracked == 1 and network[1].num_batches_tracked == 0
    network(images() + 5)
    before = slow.network[1].running_mean.clone()
    slow.update(network, 0.5)
    assert torch.equal(slow.network[1].running_mean, before)


@pytest.mark.parametrize("make", NETWORKS)
def test_copy_survives_a_checkpoint(make):
    network = made(make)
    slow = MomentumCopy(network)
    slow.update(moved(network), 0.5)
    other = MomentumCopy(made(make, 9))
    other.load_state_dict(slow.state_dict())
    assert torch.equal(other.eval()(images()), slow.eval()(images()))
    twin = copy.deepcopy(slow)
    assert torch.equal(twin(images()), slow(images()))


# --- the centre ----------------------------------------------------------------------------------------------------


def test_centre_by_its_formula():
    centre = Centre(3, 0.8)
    first, second = torch.randn(2, 4, 6, 3, generator=torch.Generator().manual_seed(0)).unbind()
    centre.update(first)
    centre.update(second[0])
    wanted = 0.8 * 0.2 * first.mean((0, 1)) + 0.2 * second[0].mean(0)
    torch.testing.assert_close(centre.value, wanted)
    assert list(centre.state_dict()) == ["value"] and list(centre.parameters()) == []
    for _ in range(100):
        centre.update(first.bfloat16())
    torch.testing.assert_close(centre.value, first.mean((0, 1)), rtol=0.02, atol=0.01)


# --- all of them ---------------------------------------------------------------------------------------------------


def test_evaluation_changes_nothing():
    network = made(NETWORKS[0])
    parts = nn.ModuleList([Queue(4, 3), MomentumCopy(network), Centre(3)]).eval()
    queue, slow, centre = parts
    before = copy.deepcopy(parts.state_dict())
    queue.push(torch.ones(2, 3))
    slow.update(moved(network), 0.1)
    slow(images())
    centre.update(torch.ones(2, 3))
    assert all(torch.equal(value, before[name]) for name, value in parts.state_dict().items())


def test_momentum_over_a_run():
    values = [momentum_at(i / 10, 0.9) for i in range(11)]
    assert values == sorted(values) and values[0] == pytest.approx(0.9) and values[-1] == 1.0
    assert values[5] == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Queue(0, 3), "room for 1 or more"),
        (lambda: Queue(4, 2).push(torch.ones(3, 3)), r"rows \[n, 2\], got \[3, 3\]"),
        (lambda: Centre(3, 1.0), "centre's momentum"),
        (lambda: Centre(3).update(torch.ones(2, 4)), "3 wide"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(GenzooError, match=message):
        call()
