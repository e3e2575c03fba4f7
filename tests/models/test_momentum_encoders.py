"""MoCo, SwAV and DINO: losses put together by hand, what they remember from step to step, and exact resume."""

from dataclasses import dataclass, replace

import pytest
import torch
from crashes import Crash, assert_same_runs, crashing

from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError
from genzoo.core.spec import Batch, DataSpec
from genzoo.data.augmentations import Augmentation, MultiCrop, views
from genzoo.models.encoders.moco import MoCoConfig
from genzoo.models.encoders.multi_crop import DINOConfig, SwAVConfig, clusters_in_use
from genzoo.models.registry import create_encoder
from genzoo.nn.backbones import ProjectionConfig, ResNetConfig
from genzoo.objectives.clustering import Centering, CrossViewLoss, KoLeo, Sinkhorn
from genzoo.objectives.contrastive import QueuedInfoNCE
from genzoo.training.checkpoint import load_state
from genzoo.training.trainer import Budget, RunOptions, Trainer

SPEC = DataSpec((1, 8, 8), levels=17)
RESNET, HEAD = ResNetConfig((8, 16)), ProjectionConfig(16, 6)
PLAIN = TrainConfig(batch_size=16, learning_rate=3e-3, precision="fp32")


@dataclass(frozen=True)
class Noise(Augmentation):
    """Noise on a square of the image's corner: as simple as a view can be, and of a size of its own."""

    size: int = 8

    def changed(self, x, generator):
        x = x[..., : self.size, : self.size]
        return x + 0.3 * torch.randn(x.shape, generator=generator)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def built(config, spec=SPEC, seed=0, spread=0.1):
    """An encoder with weights from a seed, noise on what starts at zero."""
    torch.manual_seed(seed)
    encoder = config.build(spec)
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(spread * torch.randn_like(p))
    return encoder.eval()


def images(n, seed=0):
    return torch.randint(17, (n, 1, 8, 8), generator=rng(seed)).to(torch.uint8)


def centres(x):
    return (2 * x.float() + 1) / 17 - 1


def moco(**fields):
    return MoCoConfig(RESNET, HEAD, Noise(), **{"queue": 20, "momentum": 0.9, **fields})


CROPS = MultiCrop(Noise(), Noise(5), small_count=3)


def swav(augmentation=Noise(), **fields):
    return SwAVConfig(RESNET, HEAD, augmentation, **{"prototypes": 5, **fields})


def dino(augmentation=Noise(), **fields):
    return DINOConfig(RESNET, HEAD, augmentation, **{"prototypes": 5, "momentum": 0.8, **fields})


# --- MoCo ----------------------------------------------------------------------------------------------------------


def embedding(encoder, x):
    return encoder.projection(encoder.backbone(x))


def test_moco_tells_its_key_from_the_queue():
    encoder = built(moco(objective=QueuedInfoNCE(0.3)))  # the noise set network and copy apart
    encoder.train().queue.push(torch.randn(9, 6, generator=rng(5)))
    first, second = views(Noise(), centres(images(4)), 2, rng(1))
    q, k = embedding(encoder, first), encoder.copy(second)
    found = encoder.eval().loss(Batch(images(4)), generator=rng(1))
    for i in range(4):
        others = torch.cat([k[i : i + 1], encoder.queue.rows()])
        s = torch.nn.functional.cosine_similarity(q[i], others) / 0.3
        torch.testing.assert_close(found.total[i], -s.log_softmax(0)[0])
        agreement = torch.nn.functional.cosine_similarity(q[i], k[i], dim=0)
        torch.testing.assert_close(found.parts["agreement"][i], agreement)


def test_moco_moves_its_copy_first_and_queues_keys_afterwards():
    encoder = built(moco())
    before = {name: b.clone() for name, b in encoder.copy.network.named_buffers()}
    network = dict(encoder._network().named_parameters())
    encoder.train().loss(Batch(images(4)), generator=rng(1))
    for name, now in encoder.copy.network.named_buffers():
        torch.testing.assert_close(now, 0.9 * before[name] + 0.1 * network[name])
    _, second = views(Noise(), centres(images(4)), 2, rng(1))
    key = torch.nn.functional.normalize(encoder.copy(second))  # by the copy as it is after its move
    torch.testing.assert_close(encoder.queue.rows(), key)
    encoder.loss(Batch(images(18)), generator=rng(2))
    assert len(encoder.queue) == 20
    torch.testing.assert_close(encoder.queue.rows()[:2], key[2:])  # the oldest two left


def test_a_mocos_negatives_are_keys_of_former_images():
    """In training too: a query's own key is its positive and no negative, so that the first loss is 0."""
    rule = QueuedInfoNCE(0.3)
    encoder = built(moco(objective=rule, momentum=1.0)).train()
    assert encoder.loss(Batch(images(4)), generator=rng(1)).total.tolist() == [0.0] * 4
    former = encoder.queue.rows()
    found = encoder.loss(Batch(images(5)), generator=rng(2)).total
    first, second = views(Noise(), centres(images(5)), 2, rng(2))
    torch.testing.assert_close(found, rule(embedding(encoder, first), encoder.copy(second), former))


def test_a_mocos_gradients_are_the_queries_alone():
    encoder = built(moco())
    encoder.train()
    names = {name for name, _ in encoder.named_parameters()}
    assert all(name.startswith(("backbone.", "projection.")) for name in names)
    encoder.loss(Batch(images(4)), generator=rng()).total.sum().backward()
    assert not any(b.requires_grad for b in encoder.buffers())
    assert {"copy.network.0." + n.removeprefix("backbone.") for n in names if "backbone" in n} <= set(
        dict(encoder.named_buffers())
    )


# --- SwAV ----------------------------------------------------------------------------------------------------------


def test_swav_swaps_the_assignments_of_its_crops():
    rule = CrossViewLoss(Sinkhorn(0.2, 2), 0.3)
    encoder = built(swav(CROPS, objective=rule))
    large, little = CROPS(centres(images(6)), rng(1))
    scores = [encoder.prototypes(embedding(encoder, view)) for view in (*large, *little)]
    found = encoder.loss(Batch(images(6)), generator=rng(1))
    torch.testing.assert_close(found.total, rule(scores, scores[:2]))
    w, z = encoder.prototypes.weight, embedding(encoder, large[0])
    s = torch.nn.functional.cosine_similarity(z[:, None], w[None], dim=2)
    torch.testing.assert_close(scores[0], s)


def test_swavs_queue_takes_part_in_the_assignment():
    encoder = built(swav(queue=16))
    without = built(swav())
    batch = Batch(images(6))
    assert torch.equal(encoder.loss(batch, generator=rng()).total, without.loss(batch, generator=rng()).total)
    encoder.train().loss(batch, generator=rng(3))
    assert len(encoder.queue) == 12  # both large views
    encoder.eval()
    rows = encoder.queue.rows()
    z = [embedding(encoder, view) for view in views(Noise(), centres(images(6)), 2, rng())]
    teacher = [encoder.prototypes(torch.cat([view, rows])) for view in z]
    scores = [encoder.prototypes(view) for view in z]
    found = encoder.loss(batch, generator=rng()).total
    torch.testing.assert_close(found, CrossViewLoss()(scores, teacher))
    assert not torch.allclose(found, without.loss(batch, generator=rng()).total)


def test_swavs_queue_holds_former_images_only():
    """In training the first batch is assigned alone: its own embeddings join afterwards."""
    queued, without = built(swav(queue=16)).train(), built(swav()).train()
    found, expected = (e.loss(Batch(images(6)), generator=rng()).total for e in (queued, without))
    assert torch.equal(found, expected) and len(queued.queue) == 12


def test_prototypes_in_use():
    one = torch.tensor([[9.0, 0, 0], [9, 0, 0]])
    torch.testing.assert_close(clusters_in_use([one, one], 0.1), torch.ones(2))
    two = torch.tensor([[9.0, 0, 0], [0, 9, 0]])
    torch.testing.assert_close(clusters_in_use([two, two], 0.1), torch.full((2,), 2.0))


# --- DINO ----------------------------------------------------------------------------------------------------------


def test_dino_predicts_its_centred_teacher():
    rule = CrossViewLoss(Centering(0.1), 0.3)
    encoder = built(dino(CROPS, objective=rule, koleo=0.5))
    encoder.train().centre.update(torch.randn(8, 5, generator=rng(7)))
    encoder.eval()
    large, little = CROPS(centres(images(6)), rng(1))
    student = [encoder._student()(view) for view in (*large, *little)]
    teacher = [encoder.teacher(view) for view in large]
    spread = sum(KoLeo()(encoder.backbone(view)) for view in large)
    expected = rule(student, teacher, encoder.centre.value) + 0.5 * spread
    torch.testing.assert_close(encoder.loss(Batch(images(6)), generator=rng(1)).total, expected)
    encoder.centre.value.zero_()
    other = encoder.loss(Batch(images(6)), generator=rng(1)).total
    assert not torch.allclose(other, expected)  # the centre matters


def test_dinos_teacher_and_centre_follow():
    encoder = built(dino()).train()
    encoder.progress = 0.5  # the momentum is half-way from 0.8 to 1
    before = {name: b.clone() for name, b in encoder.teacher.network.named_buffers()}
    student = dict(encoder._student().named_parameters())
    encoder.loss(Batch(images(6)), generator=rng(1))
    now = dict(encoder.teacher.network.named_buffers())
    for name, weight in student.items():
        torch.testing.assert_close(now[name], 0.9 * before[name] + 0.1 * weight)
    scores = encoder.teacher(views(Noise(), centres(images(6)), 2, rng(1)).flatten(0, 1))
    torch.testing.assert_close(encoder.centre.value, 0.1 * scores.mean(0))


def test_dinos_centre_is_that_of_former_batches():
    """It moves after the loss: the first batch is not centred by itself."""
    rule = CrossViewLoss(Centering(0.1), 0.3)
    encoder = built(dino(objective=rule, momentum=1.0)).train()
    student, large = encoder._student(), views(Noise(), centres(images(6)), 2, rng(1))
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    expected = rule(student(large.flatten(0, 1)).chunk(2), encoder.teacher(large.flatten(0, 1)).chunk(2))
    encoder.load_state_dict(state)  # running statistics of the projection moved
    torch.testing.assert_close(encoder.loss(Batch(images(6)), generator=rng(1)).total, expected)


# --- configurations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (moco(momentum=1.5), "momentum must lie in 0"),
        (moco(queue=0), "1 or more embeddings"),
        (swav(prototypes=1), "2 prototypes"),
        (swav(queue=-1), "0 or more embeddings"),
        (swav(MultiCrop(Noise(), Noise(5), small_count=0)), "large augmentation alone"),
        (dino(momentum=-0.1), "momentum must lie in 0"),
        (dino(centre_momentum=1.0), "centre's momentum"),
        (dino(koleo=-1.0), "koleo"),
    ],
)
def test_configurations_that_cannot_be(config, words):
    with pytest.raises(GenzooError, match=words):
        config.build(SPEC)


# --- which weights are kept ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kept"), [("simclr", True), ("moco", False), ("swav", False), ("dino", False)]
)
def test_losses_against_what_moves_do_not_choose_weights(name, kept):
    trainer = Trainer(create_encoder(name, SPEC, "tiny"), Budget(steps=4), progress=False)
    trainer.fit(images(50), images(20, seed=1))
    assert (trainer.best_loss is not None) is kept


# --- exact resume --------------------------------------------------------------------------------------------------


def train(name, out, *, crash=None, resume=False):
    """20 steps, saved every 7; `crash` ends the run in so many passes."""
    encoder = create_encoder(name, SPEC, "tiny")
    config = replace(encoder.config, training=PLAIN)
    if hasattr(config, "queue"):
        config = replace(config, queue=100)  # turns over within the run
    encoder = crashing(built(config), crash)
    options = RunOptions(device="cpu", save_every=7, resume=resume)
    trainer = Trainer(encoder, Budget(steps=20), out=out, progress=False, options=options)
    trainer.fit(images(50), images(20, seed=1))
    return encoder


@pytest.mark.parametrize(
    "name",
    ["moco", pytest.param("swav", marks=pytest.mark.slow), pytest.param("dino", marks=pytest.mark.slow)],
)
def test_a_run_that_crashed_resumes_bit_for_bit(name, tmp_path):
    with pytest.raises(Crash):
        train(name, tmp_path / "crashed", crash=17)
    assert load_state(tmp_path / "crashed")["step"] == 14
    train(name, tmp_path / "crashed", resume=True)
    whole = train(name, tmp_path / "whole")
    assert_same_runs(tmp_path / "whole", tmp_path / "crashed")
    remembered = {
        "moco": lambda e: [
            e.queue.stored,
            e.copy.network[1].layers[0].weight - e.projection.layers[0].weight,
        ],
        "swav": lambda e: [e.queue.stored],
        "dino": lambda e: [e.centre.value, e.teacher.network[2].weight - e.prototypes.weight],
    }
    assert all(bool(t.any()) for t in remembered[name](whole))  # there was something to continue with
