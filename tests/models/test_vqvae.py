"""VQ-VAE: bounds below the exact sum over all codes, which is normalised; loss against a reference."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from enumeration import all_images, perturbed

from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.core.spec import Batch, DataSpec
from genzoo.models.vq.vqvae import VQTokenizer, VQVAEConfig
from genzoo.nn.quantisers import QuantiserConfig
from genzoo.testing import check_model

TINY = VQVAEConfig(
    channels=(8, 16), blocks=1, quantiser=QuantiserConfig(codebook_size=4, width=3), neighbours=3
)
FSQ = replace(TINY, quantiser=QuantiserConfig(kind="fsq", levels=(3, 3)))
SIXTEEN = replace(TINY, quantiser=QuantiserConfig(codebook_size=16, width=3), neighbours=5)
CASES = [
    pytest.param(SIXTEEN, DataSpec((1, 2, 2), 2), id="16-codes-1-position"),
    pytest.param(TINY, DataSpec((1, 2, 3), 2), id="4-codes-2-positions"),
    pytest.param(FSQ, DataSpec((1, 2, 2), 4), id="fsq"),
    pytest.param(replace(TINY, neighbours=1), DataSpec((3, 2, 1), 3), id="rgb"),
]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def trained_a_little(config, spec):
    """Random weights, and a prior that is not uniform."""
    model = perturbed(config.build(spec), 0.5).eval()
    noise = torch.rand(model.marginals.shape, generator=seeded(1)) ** 3
    model.marginals.copy_(noise / noise.sum(-1, keepdim=True))
    return model


def every_code(model):
    """All codes there are, long `[K ** (h w), h', w']`."""
    positions = math.prod(model.grid)
    values = list(itertools.product(range(model.quantiser.codebook_size), repeat=positions))
    return torch.tensor(values).view(-1, *model.grid)


def exact_nats(model, images, cond=None):
    """log sum_z P(z) P(x|z) over all codes, in float64, written out anew."""
    codes = every_code(model)
    marginals = model.marginals if cond is None else model.marginals[cond.item()]
    shares = (0.99 * marginals + 0.01 / model.quantiser.codebook_size).double().flatten(0, 1)
    log_prior = sum(shares[i].log()[codes.flatten(1)[:, i]] for i in range(len(shares)))
    with torch.no_grad():
        embedded = None if cond is None else model.condition(cond, len(cond)).expand(len(codes), -1)
        params = model._params(model.quantiser.embed(codes), embedded)
        each = [model.distribution.log_prob(params, x.long().expand(len(codes), -1, -1, -1)) for x in images]
    log_prob = torch.stack([e.double().sum((1, 2, 3)) for e in each])  # [images, codes]
    return (log_prior + log_prob).logsumexp(1)


@pytest.mark.parametrize(("config", "spec"), CASES)
def test_two_part_code_below_set_bound_below_exact_sum(config, spec):
    model, images = trained_a_little(config, spec), all_images(spec)
    exact = exact_nats(model, images)
    assert exact.exp().sum().item() == pytest.approx(1, abs=1e-5)
    two_part = sum(model.two_part_code(images))
    bound = model.log_likelihood(images)
    model.neighbours = 10**6
    widest = model.log_likelihood(images).nats
    assert bound.kind is LikelihoodKind.LOWER_BOUND
    for lower, higher in itertools.pairwise((two_part, bound.nats, widest, exact)):
        assert (lower <= higher + 1e-4).all()  # float32 rounding
    assert two_part.mean() < bound.nats.mean() - 0.01 < exact.mean() - 0.02
    if len(every_code(model)) == model.quantiser.codebook_size:  # one position: single changes are all codes
        torch.testing.assert_close(widest, exact, rtol=1e-5, atol=1e-5)


def test_bound_tightens_with_the_neighbours():
    spec = DataSpec((1, 2, 3), 2)
    model, images = trained_a_little(TINY, spec), all_images(spec)
    means = []
    for count in (0, 1, 3, 6):
        model.neighbours = count
        means.append(model.log_likelihood(images).nats.mean().item())
    assert means == sorted(means) and means[-1] - means[0] > 0.1
    torch.testing.assert_close(
        torch.tensor(means[0]).double(), sum(model.two_part_code(images)).mean(), rtol=1e-6, atol=1e-6
    )


def test_samples_follow_the_exact_sum():
    """4,000 samples over all 16 binary 2x2 images: chi-square at 1e-4."""
    spec = DataSpec((1, 2, 2), 2)
    model = trained_a_little(SIXTEEN, spec)
    p = exact_nats(model, all_images(spec)).exp()
    samples = model.sample(4000, generator=seeded(0)).flatten(1).long()
    counts = torch.bincount(samples @ torch.tensor([8, 4, 2, 1]), minlength=16)
    assert ((counts - 4000 * p) ** 2 / (4000 * p)).sum() < 44.3


def test_class_likelihoods_average():
    spec = DataSpec((1, 2, 2), 2, cond="class", cond_size=3)
    model, images = trained_a_little(SIXTEEN, spec), all_images(spec)
    each = [model.log_likelihood(images, torch.full((16,), c)).nats for c in range(3)]
    assert not torch.allclose(each[0], each[1], rtol=1e-2)
    mean = torch.stack(each).logsumexp(0) - math.log(3)
    torch.testing.assert_close(model.log_likelihood(images).nats, mean)
    assert (each[1] <= exact_nats(model, images, torch.tensor([1])) + 1e-6).all()
    model.neighbours = 10**6  # one position: single changes are all codes
    for c in range(3):
        cond = torch.tensor([c])
        exact = exact_nats(model, images, cond)
        assert exact.exp().sum().item() == pytest.approx(1, abs=1e-5)
        torch.testing.assert_close(
            model.log_likelihood(images, cond.expand(16)).nats, exact, rtol=1e-5, atol=1e-5
        )


def test_loss_against_a_reference():
    """-log P(x|z) + 0.25 |z - e|^2 summed, in float64 with the nearest codes found one by one."""
    spec = DataSpec((1, 5, 6), 4)
    model = trained_a_little(TINY, spec).double()
    images = torch.randint(4, (3, 1, 5, 6), generator=seeded(0), dtype=torch.uint8)
    loss = model.loss(Batch(images))
    z = model.to_code(torch.nn.functional.silu(model.encoder(images.double() * 2 / 3 - 1)))
    z = z / (z**2).sum(1, keepdim=True).sqrt() * 3**0.5
    codes = torch.zeros(3, *model.grid, dtype=torch.long)
    for b, i, j in itertools.product(range(3), *map(range, model.grid)):
        codes[b, i, j] = (model.quantiser.embedding - z[b, :, i, j]).norm(dim=1).argmin()
    e = model.quantiser.embedding[codes].permute(0, 3, 1, 2)
    logits = model.decoder(model.from_code(e)).view(3, 4, 5, 6)
    nll = torch.nn.functional.cross_entropy(logits, images[:, 0].long(), reduction="none").sum((1, 2))
    commitment = 0.25 * ((z - e) ** 2).sum((1, 2, 3))
    torch.testing.assert_close(loss.parts["nll"], nll)
    torch.testing.assert_close(loss.parts["commitment"], commitment)
    torch.testing.assert_close(loss.total, nll + commitment)
    assert loss.parts["usage"].tolist() == [len(codes.unique()) / 4] * 3
    shares = torch.bincount(codes.flatten(), minlength=4) / codes.numel()
    wanted = math.exp(-sum(s * math.log(s) for s in shares.tolist() if s))
    assert loss.parts["perplexity"].tolist() == pytest.approx([wanted] * 3)


def test_prior_learns_the_frequencies_of_codes():
    spec = DataSpec((1, 4, 6), 2)
    model = TINY.build(spec).train()
    model.quantiser.eval()  # the codes shall stay where they are
    images = torch.randint(2, (32, 1, 4, 6), generator=seeded(0), dtype=torch.uint8)
    loss = model.loss(Batch(images), generator=seeded(0))
    codes = model.encode(images)
    seen = torch.nn.functional.one_hot(codes, 4).float().mean(0)
    torch.testing.assert_close(model.marginals, 0.99 * torch.full((*model.grid, 4), 0.25) + 0.01 * seen)
    shares = 0.99 * model.marginals + 0.01 / 4
    by_hand = [
        sum(math.log(shares[i, j, z[i, j]]) for i, j in itertools.product(*map(range, model.grid)))
        for z in codes
    ]
    torch.testing.assert_close(loss.parts["rate"], -torch.tensor(by_hand))


def test_each_class_has_its_own_frequencies():
    """Moved by its own codes, as much as all together are where it is as frequent as others; unseen ones stay."""
    spec = DataSpec((1, 4, 6), 2, cond="class", cond_size=4)
    model = TINY.build(spec).train()
    model.quantiser.eval()
    images = torch.randint(2, (8, 1, 4, 6), generator=seeded(0), dtype=torch.uint8)
    classes = torch.tensor([0, 2, 0, 0, 2, 0, 3, 0])
    loss = model.loss(Batch(images, classes), generator=seeded(0))
    codes, start = model.encode(images, classes), torch.full((*model.grid, 4), 0.25)
    for label, share in ((0, 5 / 8), (1, 0.0), (2, 2 / 8), (3, 1 / 8)):
        kept = 0.99 ** (4 * share)
        seen = torch.nn.functional.one_hot(codes[classes == label], 4).float()
        wanted = kept * start + (1 - kept) * seen.mean(0) if len(seen) else start
        torch.testing.assert_close(model.marginals[label], wanted)
    shares = 0.99 * model.marginals[classes] + 0.01 / 4
    wanted = shares.gather(-1, codes[..., None]).log().sum((1, 2, 3))
    torch.testing.assert_close(loss.parts["rate"], -wanted)
    with pytest.raises(GenzooError, match="give cond"):
        model.log_prior(codes)


def test_samples_of_a_class_follow_its_exact_sum():
    """4,000 samples of one class among others, over all 16 binary 2x2 images: chi-square at 1e-4."""
    spec = DataSpec((1, 2, 2), 2, cond="class", cond_size=3)
    model, asked = trained_a_little(SIXTEEN, spec), torch.arange(8000) % 2
    samples = model.sample(8000, asked, generator=seeded(0)).flatten(1).long()
    for label in (0, 1):
        p = exact_nats(model, all_images(spec), torch.tensor([label])).exp()
        counts = torch.bincount(samples[asked == label] @ torch.tensor([8, 4, 2, 1]), minlength=16)
        assert ((counts - 4000 * p) ** 2 / (4000 * p)).sum() < 44.3


@pytest.mark.parametrize(
    ("size", "grid"),
    [((2, 2), (1, 1)), ((8, 8), (2, 2)), ((28, 28), (7, 7)), ((33, 20), (9, 5)), ((1, 9), (1, 3)),
     ((64, 64), (16, 16))],
)  # fmt: skip
def test_grid_of_codes(size, grid):
    model = VQVAEConfig(channels=(4, 8), blocks=0).build(DataSpec((1, *size), 2))
    images = torch.randint(2, (2, 1, *size), generator=seeded(0), dtype=torch.uint8)
    tokenizer = VQTokenizer(model)
    tokens = tokenizer.encode(images)
    assert tokenizer.spec == DataSpec((1, *grid), levels=256)
    assert tokens.shape == (2, 1, *grid) and tokens.dtype == torch.long
    drawn = tokenizer.decode(tokens, generator=seeded(1))
    assert drawn.shape == images.shape and drawn.dtype == torch.uint8


def test_training_reconstructs_and_uses_its_codes():
    """Four prototypes and eight codes: the decoder learns them, and every image keeps its own code."""
    prototypes = torch.randint(2, (4, 1, 4, 4), generator=seeded(0), dtype=torch.uint8)
    images = prototypes.repeat(16, 1, 1, 1)
    config = VQVAEConfig(channels=(16, 32), blocks=1, quantiser=QuantiserConfig(codebook_size=8, width=4))
    torch.manual_seed(0)
    model = config.build(DataSpec((1, 4, 4), 2)).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(150):
        optimizer.zero_grad()
        loss = model.loss(Batch(images), generator=seeded(step))
        loss.total.mean().backward()
        optimizer.step()
    assert loss.parts["nll"].mean() < 0.5 and loss.parts["perplexity"][0] > 2
    assert len({tuple(z.flatten().tolist()) for z in model.encode(prototypes)}) == 4
    assert torch.equal(model.decode(model.encode(prototypes), generator=seeded(0)), prototypes)


def test_mistakes_are_named():
    with pytest.raises(GenzooError, match="real-valued"):
        TINY.build(DataSpec((3,), None))
    with pytest.raises(GenzooError, match="unconditional autoencoder"):
        VQTokenizer(TINY.build(DataSpec((1, 4, 4), 2, cond="class", cond_size=2)))


@pytest.mark.parametrize(
    "spec", [DataSpec((1, 4, 4), 2), DataSpec((3, 3, 4), 8, cond="class", cond_size=2)], ids=str
)
def test_fsq_passes_the_conformance_suite(spec):
    check_model(replace(FSQ, neighbours=2).build(spec))
