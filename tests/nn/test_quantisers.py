"""Quantisers against brute force, hand-computed updates and the counting of codes."""

import itertools
import math

import pytest
import torch

from genzoo.core.errors import GenzooError
from genzoo.nn.quantisers import FSQ, Codebook, QuantiserConfig
from genzoo.objectives.quantisation import code_shares, nearby_codes, perplexity, sum_over_codes, usage


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def settled(codebook_size, **options):
    """A codebook on given vectors, each with a count of one."""
    book = Codebook(len(codebook_size), codebook_size.shape[1], normalise=False, **options)
    book.embedding.copy_(codebook_size)
    book.sums.copy_(codebook_size)
    book.counts.fill_(1.0)
    return book


def line(*values):
    """Features of one image, one row, one feature: `[1, 1, 1, n]`."""
    return torch.tensor(values).view(1, 1, 1, -1)


# --- codebook ------------------------------------------------------------------------------------------------


def test_nearest_code_by_brute_force():
    book = Codebook(13, 5, normalise=False).double().eval()
    features = torch.randn(4, 5, 3, 2, dtype=torch.float64, generator=seeded(0))
    distances, codes = book.distances(features), book.encode(features)
    for b, i, j in itertools.product(range(4), range(3), range(2)):
        each = [((features[b, :, i, j] - e) ** 2).sum().item() for e in book.embedding]
        assert distances[b, i, j].tolist() == pytest.approx(each, rel=1e-9)
        assert codes[b, i, j] == min(range(13), key=each.__getitem__)
    assert torch.equal(book(features).indices, codes)
    assert torch.equal(book.embed(codes)[2, :, 1, 0], book.embedding[codes[2, 1, 0]])


def test_running_averages_by_hand():
    """N <- 0.9 N + 0.1 n, m <- 0.9 m + 0.1 s, e = m / N (van den Oord et al. 2017, equations 6-8)."""
    book = settled(torch.tensor([[0.0], [10.0], [-50.0]]), decay=0.9, revive_below=0.0)
    quantised = book.train()(line(1.0, 2.0, 9.0))
    assert quantised.indices.tolist() == [[[0, 0, 1]]]
    assert quantised.values.flatten().tolist() == pytest.approx([0.0, 0.0, 10.0])  # before the codes move
    assert book.counts.tolist() == pytest.approx([1.1, 1.0, 0.9])
    assert book.sums.flatten().tolist() == pytest.approx([0.3, 9.9, -45.0])
    assert book.embedding.flatten().tolist() == pytest.approx([0.3 / 1.1, 9.9, -50.0])  # an unused code stays


def test_codes_converge_to_the_means_of_their_clusters():
    book = settled(torch.tensor([[-0.5], [0.5]]), decay=0.5)
    for _ in range(40):
        book.train()(line(-3.0, -1.0, 4.0, 5.0, 6.0))
    assert book.embedding.flatten().tolist() == pytest.approx([-2.0, 5.0], abs=1e-4)


def test_straight_through_gradient_and_commitment_by_hand():
    """d total / d z = d f / d e(z) + 2 beta (z - e): the quantiser is the identity on the way back."""
    book = settled(torch.tensor([[0.0], [10.0]]), commitment=0.25).eval()
    z = line(1.0, 7.0).requires_grad_()
    quantised = book(z)
    assert quantised.loss.tolist() == pytest.approx([0.25 * (1.0 + 9.0)])
    ((quantised.values * line(3.0, -5.0)).sum() + quantised.loss.sum()).backward()
    assert z.grad.flatten().tolist() == pytest.approx([3.0 + 0.5 * 1.0, -5.0 + 0.5 * (7.0 - 10.0)])
    assert list(book.parameters()) == []


def test_dead_codes_are_set_on_features_of_the_batch():
    features = torch.randn(8, 2, 3, 3, generator=seeded(1))
    rows = {tuple(row) for row in features.permute(0, 2, 3, 1).reshape(-1, 2).tolist()}
    book = settled(torch.tensor([[0.0, 0.0], [99.0, 99.0], [-99.0, 99.0]]), revive_below=0.5)
    book.counts.copy_(torch.tensor([30.0, 1.0, 2.0]))  # of a mean use of 24, so two are dead
    book._revive(features.permute(0, 2, 3, 1).reshape(-1, 2), seeded(5))
    assert book.embedding[0].tolist() == [0.0, 0.0]
    revived = [tuple(row) for row in book.embedding[1:].tolist()]
    assert set(revived) <= rows and len(set(revived)) == 2
    assert book.counts.tolist() == [30.0, 24.0, 24.0]
    torch.testing.assert_close(book.sums[1:], 24 * book.embedding[1:])


def test_revival_follows_the_generator_alone():
    features = torch.randn(4, 3, 4, 4, generator=seeded(1))
    start = Codebook(6, 3).state_dict()
    before = torch.get_rng_state()
    books = [revived(start, features, seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(books[0], books[1]) and not torch.equal(books[0], books[2])


def revived(start, features, seed):
    with torch.random.fork_rng():
        book = Codebook(6, 3)
    book.load_state_dict(start)
    book.train()(features, seeded(seed))
    return book.embedding.clone()


def test_the_first_batch_initialises_the_codebook():
    """All of eight well separated clusters get a code of their own soon, from codes far away."""
    centres = 10 * torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)))
    book = Codebook(16, 3, decay=0.8, normalise=False).train()
    book.embedding.add_(1000.0)
    for step in range(30):
        noise = 0.1 * torch.randn(64, 3, generator=seeded(step))
        features = (centres.repeat(8, 1) + noise).view(8, 8, 1, 3).permute(0, 3, 1, 2)
        quantised = book(features, seeded(step))
    assert (quantised.values - features).abs().max() < 0.5


def test_normalised_features_choose_by_direction():
    """The loss and its gradient by hand: on a sphere of radius sqrt(2), a longer vector changes nothing."""
    book = Codebook(2, 2, commitment=1.0).eval()
    book.embedding.copy_(torch.tensor([[1.0, 1.0], [-9.0, 9.0]]))
    results = []
    for scale in (1.0, 7.0):
        z = (scale * torch.tensor([1.0, 0.0])).view(1, 2, 1, 1).requires_grad_()
        quantised = book(z)
        quantised.loss.sum().backward()
        results.append((quantised.indices.item(), quantised.loss.item(), scale * z.grad.flatten()))
    root = 2**0.5
    for code, loss, gradient in results:
        assert code == 0 and loss == pytest.approx((root - 1) ** 2 + 1)
        assert gradient.tolist() == pytest.approx([0.0, -2 * root], abs=1e-5)  # across the ray alone


def test_only_training_moves_the_codebook():
    book = Codebook(4, 2).eval()
    before = {k: v.clone() for k, v in book.state_dict().items()}
    book(torch.randn(3, 2, 2, 2, generator=seeded(0)))
    book.encode(torch.randn(3, 2, 2, 2, generator=seeded(0)))
    assert all(torch.equal(v, before[k]) for k, v in book.state_dict().items())


def test_codes_do_not_change_under_autocast():
    book = Codebook(256, 16).eval()
    features = torch.randn(2, 16, 7, 7, generator=seeded(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(book.encode(features), book.float().encode(features))
        assert book.distances(features).dtype == torch.float32


# --- FSQ -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [(3,), (4,), (8, 6, 5), (3, 4, 5)], ids=str)
def test_fsq_codes_and_grid_are_in_bijection(levels):
    fsq = FSQ(levels)
    codes = torch.arange(fsq.codebook_size).view(1, 1, -1)
    assert fsq.codebook_size == math.prod(levels) and fsq.width == len(levels)
    grid = fsq.embed(codes)[0, :, 0].T
    assert len({tuple(row) for row in grid.tolist()}) == fsq.codebook_size
    for channel, count in zip(grid.T, levels, strict=True):
        wanted = [(k - count // 2) / (count // 2) for k in range(count)]
        assert sorted(set(channel.tolist())) == pytest.approx(wanted)
    # features that the bound maps onto the grid points come back as their codes (inner ones exactly, outer by limit)
    bounded = (grid * fsq.halves).clamp(-fsq.spans - fsq.offsets + 1e-3, fsq.spans - fsq.offsets - 1e-3)
    features = torch.atanh((bounded + fsq.offsets) / fsq.spans) - torch.atanh(fsq.offsets / fsq.spans)
    assert torch.equal(fsq.encode(features.T[None, :, None]), codes)


def test_fsq_reaches_every_level_and_nothing_else():
    """Five levels by hand: the steps lie where 1.998 tanh z crosses +-1/2 and +-3/2; four levels at 0 and far out."""
    fsq = FSQ((5,))
    edges = [math.atanh(e / 1.998) for e in (-1.5, -0.5, 0.5, 1.5)]
    between = [-9.0, *[(a + b) / 2 for a, b in itertools.pairwise(edges)], 9.0]
    assert fsq.encode(line(*between)).flatten().tolist() == [0, 1, 2, 3, 4]
    for k, edge in enumerate(edges):
        assert fsq.encode(line(edge - 1e-3, edge + 1e-3)).flatten().tolist() == [k, k + 1]
    even = FSQ((4,))
    assert even.encode(line(-9.0, 0.0, 9.0)).flatten().tolist() == [0, 2, 3]
    assert even.embed(torch.arange(4).view(1, 1, 4)).flatten().tolist() == [-1.0, -0.5, 0.0, 0.5]


def test_fsq_rounding_is_the_nearest_code():
    fsq = FSQ((8, 6, 5)).double()
    features = 2 * torch.randn(5, 3, 4, 4, dtype=torch.float64, generator=seeded(0))
    distances = fsq.distances(features)
    assert distances.shape == (5, 4, 4, 240)
    assert torch.equal(distances.argmin(-1), fsq.encode(features))
    quantised = fsq(features)
    assert torch.equal(quantised.indices, fsq.encode(features))
    torch.testing.assert_close(quantised.values, fsq.embed(quantised.indices))
    assert not quantised.loss.any()


def test_fsq_gradient_is_that_of_the_bound():
    """d value / d z = span (1 - tanh^2 z) / floor(L/2) for five levels."""
    z = line(0.3, -1.2).requires_grad_()
    FSQ((5,))(z).values.sum().backward()
    wanted = 1.998 * (1 - torch.tanh(z.detach()) ** 2) / 2
    torch.testing.assert_close(z.grad, wanted)


def test_mistakes_are_named():
    with pytest.raises(GenzooError, match="at least 3 levels"):
        QuantiserConfig(kind="fsq", levels=(2, 5)).build()
    with pytest.raises(GenzooError, match="at least 2 codes"):
        QuantiserConfig(codebook_size=1).build()
    with pytest.raises(GenzooError, match="kind of QuantiserConfig must be 'codebook' or 'fsq', got 'vq'"):
        QuantiserConfig(kind="vq").build()
    assert QuantiserConfig(kind="fsq").build().codebook_size == 240


# --- codes as an objective -----------------------------------------------------------------------------------


def test_shares_usage_and_perplexity():
    codes = torch.tensor([[[0, 1]], [[0, 2]]])
    shares = code_shares(codes, 4)
    assert shares.tolist() == [[[1.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0]]]
    overall = shares.mean((0, 1))
    assert usage(overall).item() == 0.75
    assert perplexity(overall).item() == pytest.approx(2 * 2**0.5)  # entropy 1/2 ln 2 + 2 * 1/4 ln 4


def test_nearby_codes_are_distinct_and_cheapest_first():
    distances = torch.rand(3, 2, 2, 5, generator=seeded(3))
    sets = nearby_codes(distances, 7)
    assert sets.shape == (3, 8, 2, 2)
    for b in range(3):
        best = distances[b].argmin(-1)
        assert torch.equal(sets[b, 0], best)
        cost = {}
        for i, j, k in itertools.product(range(2), range(2), range(5)):
            if k != best[i, j]:
                cost[i, j, k] = (distances[b, i, j, k] - distances[b, i, j, best[i, j]]).item()
        for code, (i, j, k) in zip(sets[b, 1:], sorted(cost, key=cost.__getitem__), strict=False):
            wanted = best.clone()
            wanted[i, j] = k
            assert torch.equal(code, wanted)
    everything = nearby_codes(distances, 10**6)
    assert everything.shape == (3, 1 + 4 * 4, 2, 2)
    assert all(len(codes.flatten(1).unique(dim=0)) == 17 for codes in everything)


def test_sum_over_codes():
    p, q = torch.tensor([[0.5, 0.25]]), torch.tensor([[0.1, 0.4]])
    assert sum_over_codes(p.log(), q.log()).exp().item() == pytest.approx(0.15)
