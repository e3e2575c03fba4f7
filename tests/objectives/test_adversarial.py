"""Losses at their known optima, penalties of critics with known slopes, and what paying lazily changes: nothing."""

import math
from itertools import pairwise

import pytest
import torch
from scipy import stats
from torch import nn

from genzoo.core.errors import GenzooError
from genzoo.objectives.adversarial import (
    R1,
    R2,
    GradientPenalty,
    Hinge,
    Lazy,
    LeastSquares,
    NonSaturating,
    RelativisticPaired,
    Wasserstein,
    penalties_due,
    squared_slope,
)

LOSSES = [NonSaturating(), LeastSquares(), Hinge(), Wasserstein(), RelativisticPaired()]
P = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
"""Of real toys 0 .. 3."""
Q = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
"""Of fake ones."""


def named(parts):
    return pytest.mark.parametrize("loss", parts, ids=lambda loss: type(loss).__name__)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def logits(*values):
    return torch.tensor(values, dtype=torch.float64)


def expected(loss, logit, p=P, q=Q):
    """E over independent real ~ p and fake ~ q of the discriminator's loss of a table of logits, exactly."""
    real, fake = (t.flatten() for t in torch.meshgrid(logit, logit, indexing="ij"))
    return (torch.outer(p, q).flatten() * loss.discriminator(real, fake)).sum()


def fitted(loss):
    """The table of logits with the least expected loss, by BFGS."""
    table = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [table], max_iter=200, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        value = expected(loss, table)
        value.backward()
        return value

    optimizer.step(closure)
    return table.detach()


def kl(p, q):
    return (p * (p / q).log()).sum()


# --- losses at the optimal discriminator ---------------------------------------------------------------------------


def test_non_saturating_at_the_optimum_is_the_jensen_shannon_divergence():
    middle = (P + Q) / 2
    divergence = (kl(P, middle) + kl(Q, middle)) / 2
    best = (P / Q).log()
    assert expected(NonSaturating(), best).item() == pytest.approx(2 * math.log(2) - 2 * divergence.item())
    torch.testing.assert_close(fitted(NonSaturating()), best, atol=1e-5, rtol=0)
    assert expected(NonSaturating(), 0 * best, P, P).item() == pytest.approx(2 * math.log(2))


def test_the_value_function_of_the_game_is_the_jensen_shannon_divergence():
    """E log D(real) + E log(1 - D(fake)) at D = p / (p + q) is 2 JSD - 2 log 2 (Goodfellow et al., theorem 1)."""
    middle, share = (P + Q) / 2, P / (P + Q)
    value = (P * share.log()).sum() + (Q * (1 - share).log()).sum()
    assert value.item() == pytest.approx((kl(P, middle) + kl(Q, middle)).item() - 2 * math.log(2))
    assert expected(NonSaturating(), share.logit()).item() == pytest.approx(-value.item())


def test_least_squares_at_the_optimum_is_chi_squared():
    middle = (P + Q) / 2
    chi_squared = ((P - middle) ** 2 / middle).sum().item()
    best = P / (P + Q)
    assert expected(LeastSquares(), best).item() == pytest.approx(0.5 - 0.5 * chi_squared)
    torch.testing.assert_close(fitted(LeastSquares()), best, atol=1e-8, rtol=0)


def test_hinge_at_the_optimum_is_the_total_variation():
    corners = torch.cartesian_prod(*[torch.linspace(-2, 2, 9, dtype=torch.float64)] * 4)
    values = torch.stack([expected(Hinge(), logit) for logit in corners])
    distance = 0.5 * (P - Q).abs().sum().item()
    assert values.min().item() == pytest.approx(2 - 2 * distance)
    assert torch.equal(corners[values.argmin()], (P - Q).sign())


def test_wasserstein_at_the_optimum_is_the_distance():
    """On the line the best critic of slope 1 rises where more fake than real mass lies to the left, else falls."""
    steps = (Q - P).cumsum(0)[:-1].sign()
    critic = torch.cat([torch.zeros(1, dtype=torch.float64), steps.cumsum(0)])
    distance = stats.wasserstein_distance(range(4), range(4), P.numpy(), Q.numpy())
    assert expected(Wasserstein(), critic).item() == pytest.approx(-distance)


def test_relativistic_at_the_optimum_knows_the_ratio_up_to_a_constant():
    """f = log p/q is stationary: p_i q_j sigmoid(f_j - f_i) is symmetric in i and j."""
    found = fitted(RelativisticPaired())
    best = (P / Q).log()
    torch.testing.assert_close(found - found.mean(), best - best.mean(), atol=1e-5, rtol=0)
    assert expected(RelativisticPaired(), 0 * best, P, P).item() == pytest.approx(math.log(2))


# --- losses by hand ------------------------------------------------------------------------------------------------


REAL, FAKE = logits(2.0, 0.5, -1.0), logits(-3.0, 0.5, 1.0)


@pytest.mark.parametrize(
    ("loss", "discriminator", "generator", "accuracy"),
    [
        (
            NonSaturating(),
            [math.log1p(math.exp(-2)) + math.log1p(math.exp(-3)), None, 2 * math.log1p(math.e)],
            [math.log1p(math.exp(3)), math.log1p(math.exp(-0.5)), math.log1p(math.exp(-1))],
            [1.0, 0.5, 0.0],
        ),
        (LeastSquares(), [10.0, 0.5, 5.0], [16.0, 0.25, 0.0], [1.0, 0.5, 0.0]),
        (Hinge(), [0.0, 2.0, 4.0], [3.0, -0.5, -1.0], [1.0, 0.5, 0.0]),
        (Wasserstein(), [-5.0, 0.0, 2.0], [3.0, -0.5, -1.0], [1.0, 0.5, 0.0]),
        (
            RelativisticPaired(),
            [math.log1p(math.exp(-5)), math.log(2), math.log1p(math.exp(2))],
            [math.log1p(math.exp(5)), math.log(2), math.log1p(math.exp(-2))],
            [1.0, 0.5, 0.0],
        ),
    ],
    ids=lambda x: type(x).__name__ if not isinstance(x, list) else "",
)
def test_losses_by_hand(loss, discriminator, generator, accuracy):
    for found, by_hand in (
        (loss.discriminator(REAL, FAKE), discriminator),
        (loss.generator(REAL, FAKE), generator),
        (loss.accuracy(REAL, FAKE), accuracy),
    ):
        pairs = [(f, h) for f, h in zip(found.tolist(), by_hand, strict=True) if h is not None]
        assert [f for f, _ in pairs] == pytest.approx([h for _, h in pairs])


@named(LOSSES)
def test_players_pull_apart(loss):
    """The discriminator raises real logits and lowers fake ones; the generator raises its own."""
    real, fake = torch.zeros(2, dtype=torch.float64, requires_grad=True).unbind()
    gradients = torch.autograd.grad(loss.discriminator(real, fake), (real, fake), materialize_grads=True)
    assert gradients[0] < 0 <= gradients[1]
    assert torch.autograd.grad(loss.generator(real.detach(), fake), fake)[0] < 0


@named([NonSaturating(), RelativisticPaired()])
def test_large_logits_do_not_overflow(loss):
    big = torch.tensor([500.0])
    assert loss.discriminator(-big, big).isfinite().all() and loss.generator(big, -big).isfinite().all()


@named([Wasserstein(), RelativisticPaired()])
def test_losses_of_pairs_ignore_a_constant(loss):
    for name in ("discriminator", "accuracy"):
        player = getattr(loss, name)
        torch.testing.assert_close(player(REAL + 7, FAKE + 7), player(REAL, FAKE))


@named([NonSaturating(), LeastSquares(), Hinge()])
def test_accuracy_around_a_threshold(loss):
    assert loss.accuracy(logits(3.0, 3.0), logits(2.0, -2.0)).tolist() == [0.5, 1.0]


# --- penalties -----------------------------------------------------------------------------------------------------


W = torch.tensor([3.0, -4.0], dtype=torch.float64)
A = torch.tensor([[2.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
X = torch.tensor([[1.0, 2.0], [-1.0, 0.5], [0.0, 0.0]], dtype=torch.float64)
Y = torch.tensor([[0.5, -1.0], [2.0, 2.0], [1.0, 0.0]], dtype=torch.float64)


def linear(x):
    return x @ W + 7


def quadratic(x):
    return ((x @ A) * x).sum(1)  # slope (A + A^T) x


SLOPES = {
    "real": (X @ (A + A.T)).square().sum(1),
    "fake": (Y @ (A + A.T)).square().sum(1),
}


def assert_close(found, wanted):
    torch.testing.assert_close(found.double(), wanted.double(), rtol=1e-5, atol=1e-6)


def test_penalties_of_a_linear_critic():
    """Its slope is (3, -4) everywhere, of length 5."""
    for penalty, by_hand in ((R1(2.0), 25.0), (R2(0.5), 6.25), (GradientPenalty(10.0), 160.0)):
        assert_close(penalty(linear, X, Y, rng()), torch.full((3,), by_hand, dtype=torch.float64))


def test_penalties_of_a_quadratic_critic():
    assert_close(R1(3.0)(quadratic, X, Y), 1.5 * SLOPES["real"])
    assert_close(R2(3.0)(quadratic, X, Y), 1.5 * SLOPES["fake"])
    u = torch.rand(3, generator=rng(4)).double()[:, None]
    between = u * X + (1 - u) * Y
    lengths = (between @ (A + A.T)).norm(dim=1)
    assert_close(GradientPenalty(10.0)(quadratic, X, Y, rng(4)), 10 * (lengths - 1) ** 2)


def test_points_of_the_gradient_penalty_lie_between():
    """With a critic of slope x the penalty's length tells the point: all of the segment is used, evenly."""
    one, three = torch.full((4000, 1), 1.0), torch.full((4000, 1), 3.0)
    paid = GradientPenalty(1.0)(lambda x: 0.5 * (x**2).sum(1), one, three, rng(1))
    place = paid.detach().sqrt() / 2  # of 0 .. 1
    assert stats.kstest(place.numpy(), "uniform").pvalue > 1e-3


def test_penalties_are_per_image_for_images_too():
    x = torch.randn(5, 2, 3, 3, generator=rng())
    found = squared_slope(lambda v: (v**2).sum((1, 2, 3)), x)
    torch.testing.assert_close(found, 4 * x.square().sum((1, 2, 3)))


def test_a_penalty_trains_the_critic_but_not_the_images():
    """d/dw of gamma/2 |w|^2 is gamma w."""
    weight = torch.tensor([3.0, -4.0], requires_grad=True)
    x = torch.ones(4, 2, requires_grad=True)
    R1(2.0)(lambda v: v @ weight, x, x).mean().backward()
    assert weight.grad.tolist() == [6.0, -8.0] and x.grad is None


def test_penalties_work_where_gradients_are_off():
    with torch.no_grad():
        assert_close(R1(2.0)(linear, X, Y), torch.full((3,), 25.0, dtype=torch.float64))


def test_the_root_of_a_flat_critic_has_a_gradient():
    weight = torch.zeros(2, requires_grad=True)
    GradientPenalty(10.0)(lambda v: v @ weight, X.float(), Y.float(), rng()).sum().backward()
    assert weight.grad.isfinite().all()


# --- lazily --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 2, 4, 16])
@pytest.mark.parametrize("penalty", [R1(0.7), R2(0.3)], ids=["R1", "R2"])
def test_lazy_gradients_average_to_eager_ones(penalty, every):
    """Over whole periods with weights and images standing still, the mean gradient is that of paying each time."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).double()

    def gradient(value):
        return torch.cat(
            [g.flatten() for g in torch.autograd.grad(value, list(net.parameters())[:3])]  # not the last bias
        )

    def critic(x):
        return net(x)[:, 0]

    paid = [penalties_due([Lazy(penalty, every=every)], turn, critic, X, Y) for turn in range(2 * every)]
    paid = [gradient(p.mean()) for p in paid if p.any()]
    assert len(paid) == 2
    eager = gradient(penalty(critic, X, Y).mean())
    assert eager.abs().max() > 1e-3
    torch.testing.assert_close(torch.stack(paid).sum(0) / (2 * every), eager)


def test_penalties_add_up_and_share_a_pass():
    passes = []

    def critic(x):
        passes.append(len(x))
        return quadratic(x)

    penalties = [Lazy(R1(3.0), every=2), Lazy(R2(1.0)), Lazy(GradientPenalty(2.0), every=4)]
    alone = [p.penalty(quadratic, X, Y, rng(1)) for p in penalties]
    for turn, factors in ((0, (2, 1, 4)), (1, (0, 1, 0)), (2, (2, 1, 0)), (None, (1, 1, 1))):
        wanted = sum(f * a for f, a in zip(factors, alone, strict=True))
        assert_close(penalties_due(penalties, turn, critic, X, Y, rng(1)), wanted)
    assert passes == [9, 3, 6, 9]
    assert penalties_due([], 0, critic, X, Y).tolist() == [0.0] * 3 and len(passes) == 4


def test_turns_that_are_due():
    due = [turn for turn in range(13) if Lazy(R1(), every=4).due(turn)]
    assert due[0] == 0 and {b - a for a, b in pairwise(due)} == {4}


@pytest.mark.parametrize("every", [0, -3])
def test_a_penalty_of_no_period_is_refused(every):
    with pytest.raises(GenzooError, match="every 1 or more turns"):
        Lazy(R1(), every=every)


def test_a_price_follows_the_budget_in_its_logarithm():
    penalties = [Lazy(R1(2.0), every=3, final=0.25), Lazy(R2(1.0))]
    r1, r2 = R1(2.0)(quadratic, X, Y), R2(1.0)(quadratic, X, Y)
    for progress, factor in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.25)):
        assert_close(penalties_due(penalties, 0, quadratic, X, Y, progress=progress), 3 * factor * r1 + r2)
        assert_close(penalties_due(penalties, None, quadratic, X, Y, progress=progress), factor * r1 + r2)
    with pytest.raises(GenzooError, match="must be positive"):
        Lazy(R1(), final=0.0)
