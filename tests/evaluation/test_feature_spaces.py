"""Feature spaces and judges: what they compute, what they are called, what is kept, and what is refused."""

import json
import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import genzoo
import genzoo.evaluation.features.extractor
from genzoo.core.errors import GenzooError, Interrupted
from genzoo.data import TensorSplit
from genzoo.evaluation.features.extractor import (
    cache_folder,
    conditioning_encoders,
    default_extractor,
    extractor_named,
    file_hash,
    refuse_conditioning_encoder,
    run_extractor,
    train_hash,
    training_remark,
)
from genzoo.evaluation.features.feature_space import (
    FeatureSpace,
    encoder_space,
    pixel_space,
    random_space,
    weights_hash,
)
from genzoo.evaluation.features.published import TORCHVISION_WEIGHTS
from genzoo.metrics.frechet import frechet_distance
from genzoo.models.run_data import DataArguments
from genzoo.training.checkpoint import save_model


def images(n=40, c=1, levels=17, seed=0, side=8):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(levels, (n, c, side, side), generator=generator).to(torch.uint8)


@pytest.fixture(scope="module")
def digits():
    return genzoo.load_data("digits")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and a feature extractor that trains for a moment."""
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(genzoo.evaluation.features.extractor, "STEPS", 2)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def encoder_run(tmp_path_factory, digits):
    folder = tmp_path_factory.mktemp("runs") / "encoder"
    genzoo.create_encoder("simclr", digits.spec, "tiny", seed=1).save(folder)
    return folder


def conditioned_on(encoder, out):
    """A run of a model conditioned on the encoder in the folder `encoder`, as `genzoo train --cond` begins one."""
    arguments = DataArguments("digits", cond=f"encoder:{encoder}")
    data = arguments.load()
    model = genzoo.create("vae", data.spec, "tiny")
    save_model(model, out, facts={"data": arguments.protocol(data)})
    return out


@pytest.fixture(scope="module")
def conditioned_run(tmp_path_factory, encoder_run):
    return conditioned_on(encoder_run, tmp_path_factory.mktemp("runs") / "vae")


# --- spaces --------------------------------------------------------------------------------------------------


def test_pixel_components_are_those_of_principal_component_analysis():
    x = images(200)
    space = pixel_space(TensorSplit(x))
    rows = 2 * x.flatten(1).double().numpy() / 16 - 1
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    expected = rows @ vectors[:, ::-1]  # all 64, by falling variance
    expected /= np.sqrt(values.mean())
    found = space(x).numpy()
    assert space.width == 64 and found.shape == (200, 64)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=2e-4)  # components have no sign
    assert space(x).var(0).mean().item() == pytest.approx(1, abs=1e-5)


def test_few_images_have_few_components():
    space = pixel_space(TensorSplit(images(20)))
    assert space.width == 20 and space(images(5, seed=1)).shape == (5, 20)


def test_random_convolutions_leave_the_global_generator_alone():
    before = torch.random.get_rng_state()
    space, again = random_space(TensorSplit(images())), random_space(TensorSplit(images()))
    assert torch.equal(before, torch.random.get_rng_state())
    assert space.identity == again.identity and torch.equal(space(images()), again(images()))
    assert space(images()).var(0).mean().item() == pytest.approx(1, abs=1e-5)


def test_features_do_not_depend_on_how_many_go_through_at_once():
    x = images(1030)
    for space in FeatureSpace.all_for(TensorSplit(x)):
        whole = space.features(x)
        assert whole.dtype == torch.float32 and whole.shape == (1030, space.width)
        torch.testing.assert_close(
            whole, torch.cat([space.features(p) for p in x.split(7)]), rtol=1e-5, atol=1e-5
        )
        assert space.features(x[:0]).shape == (0, space.width)


def test_identities_tell_what_made_a_space():
    x, y = images(), images(seed=1)
    made = [pixel_space(TensorSplit(x)), pixel_space(TensorSplit(y)), random_space(TensorSplit(x))]
    assert len({space.identity for space in made}) == 3
    weights = {"a": torch.ones(2, 3), "b": torch.tensor(True)}
    assert weights_hash(weights) == weights_hash(dict(reversed(weights.items())))
    assert weights_hash(weights) != weights_hash({**weights, "a": torch.ones(3, 2)})
    assert weights_hash(weights) != weights_hash({**weights, "a": torch.ones(2, 3).double()})


def test_features_that_are_not_finite_are_refused():
    space = replace(pixel_space(TensorSplit(images())), scale=float("nan"))
    with pytest.raises(GenzooError, match="NaN or infinite"):
        space.features(images())


def test_an_encoder_is_seen_through_its_representations(digits):
    encoder = genzoo.create_encoder("simclr", digits.spec, "tiny", seed=1)
    space, x = encoder_space(encoder, "mine"), digits.test.images[:50]
    torch.testing.assert_close(space.features(x), encoder.embed(x))
    assert space.width == 64 and space.aliases == (weights_hash(encoder.state_dict()),)
    with pytest.raises(GenzooError, match="shape"):
        space.features(images(4, side=9))


def test_inception_is_the_networks_own_pool_layer(tmp_path, monkeypatch):
    """Of torchvision's network with random weights, through torchvision's own preparation."""
    from torchvision.models import inception_v3
    from torchvision.transforms.v2 import functional as kernels

    torch.manual_seed(0)
    network = inception_v3(weights=None, transform_input=True, init_weights=False).eval()
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(network.state_dict(), tmp_path / "hub" / "checkpoints" / TORCHVISION_WEIGHTS)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    space = extractor_named("inception").make(genzoo.load_data("digits"))
    x = images(2)
    rgb = (x.float() * 255 / 16).round().div(255).repeat(1, 3, 1, 1)
    rgb = F.interpolate(rgb, (299, 299), mode="bicubic", antialias=True).clamp(0, 1)
    rgb = kernels.normalize(rgb, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    seen = []
    network.avgpool.register_forward_hook(lambda module, args, out: seen.append(out.flatten(1)))
    with torch.no_grad():
        network(rgb)
    torch.testing.assert_close(space.features(x), seen[0], rtol=1e-4, atol=1e-5)
    assert space.name == "inception (torchvision)" and space.width == 2048


@pytest.mark.parametrize("name", ["inception", "dinov2"])
def test_networks_that_are_not_here_are_one_clear_line(tmp_path, monkeypatch, digits, name):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(GenzooError, match="on this machine") as error:
        extractor_named(name).make(digits)
    assert "\n" not in str(error.value)


# --- the default feature extractor -----------------------------------------------------------------------------


def lines_of(data):
    said = []
    return default_extractor(data, say=said.append), said


def test_the_default_judge_is_trained_once(cache, digits):
    first, said = lines_of(digits)
    assert len(said) == 1 and "once" in said[0] and str(cache) in said[0]
    files = {p: p.stat().st_mtime_ns for p in cache.rglob("*") if p.is_file()}
    again, nothing = lines_of(digits)
    assert nothing == [] and again.identity == first.identity
    assert torch.equal(again(digits.test.images), first(digits.test.images))
    assert {p: p.stat().st_mtime_ns for p in cache.rglob("*") if p.is_file()} == files
    # what a model is conditioned on does not change its extractor
    for cond in ("class", "mask"):
        other, nothing = lines_of(genzoo.load_data("digits", cond=cond))
        assert nothing == [] and other.identity == first.identity


def test_another_training_set_has_another_judge(cache, digits):
    first, _ = lines_of(digits)
    fewer = replace(digits, train=TensorSplit(digits.train.images[:-1]))
    assert train_hash(fewer) != train_hash(digits)
    other, said = lines_of(fewer)
    assert len(said) == 1 and other.identity != first.identity


def truncated(path):
    path.write_bytes(path.read_bytes()[:1000])


def changed(path):
    content = bytearray(path.read_bytes())
    content[-10] ^= 0xFF
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(("name", "damage"), [
    ("model.safetensors", truncated), ("model.safetensors", changed), ("config.json", truncated),
    ("model.safetensors", lambda path: path.unlink()),
])  # fmt: skip
def test_a_damaged_cache_is_built_anew(cache, digits, name, damage):
    first, _ = lines_of(digits)
    damage(next(cache.rglob(name)))
    again, said = lines_of(digits)
    assert len(said) == 1 and again.identity == first.identity
    assert lines_of(digits)[1] == []


def test_the_cache_is_where_the_user_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.delenv("GENZOO_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "genzoo"


def test_the_default_judge_tells_digits_from_damaged_digits(tmp_path, monkeypatch, digits):
    """With its full training, of which a tenth will do here: worse by far than the floor, and worse the more."""
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(genzoo.evaluation.features.extractor, "STEPS", 40)
    judge, x = default_extractor(digits, say=lambda line: None), digits.test.images
    floor = frechet_distance(judge(digits.train.images[: len(x)]), judge(x))
    shifted = [frechet_distance(judge(x.roll(s, 3)), judge(x)) for s in (1, 2)]
    dimmed = [frechet_distance(judge((x * share).to(torch.uint8)), judge(x)) for share in (0.8, 0.5)]
    assert floor < shifted[0] < shifted[1] and floor < dimmed[0] < dimmed[1]


# --- extractors that are refused -------------------------------------------------------------------------------


def test_the_encoder_of_the_condition_is_refused(tmp_path, digits, encoder_run, conditioned_run):
    refused = "are no evidence"
    with pytest.raises(GenzooError, match=refused):
        refuse_conditioning_encoder(run_extractor(encoder_run, digits), conditioned_run)
    copied = tmp_path / "innocent-name"
    shutil.copytree(encoder_run, copied)
    with pytest.raises(GenzooError, match=refused):
        refuse_conditioning_encoder(run_extractor(copied, digits), conditioned_run)
    with pytest.raises(GenzooError, match=refused):
        refuse_conditioning_encoder(encoder_space(genzoo.load(encoder_run), "in memory"), conditioned_run)


def test_weights_saved_in_another_file_are_still_known(tmp_path, digits):
    """A trained run also keeps its raw weights; saved again without them it is another file with the same network."""
    folder, copy = tmp_path / "encoder", tmp_path / "copy"
    encoder = genzoo.create_encoder("simclr", digits.spec, "tiny", seed=3)
    save_model(encoder, folder, raw=encoder.state_dict())
    genzoo.load(folder).save(copy)
    assert file_hash(copy) != file_hash(folder)
    out = conditioned_on(folder, tmp_path / "vae")
    with pytest.raises(GenzooError, match="are no evidence"):
        refuse_conditioning_encoder(run_extractor(copy, digits), out)


def test_others_are_taken(tmp_path, digits, encoder_run, conditioned_run):
    genzoo.create_encoder("simclr", digits.spec, "tiny", seed=2).save(tmp_path / "other")
    refuse_conditioning_encoder(run_extractor(tmp_path / "other", digits), conditioned_run)
    refuse_conditioning_encoder(pixel_space(digits.train), conditioned_run)
    genzoo.create("vae", digits.spec, "tiny").save(tmp_path / "plain")
    refuse_conditioning_encoder(run_extractor(encoder_run, digits), tmp_path / "plain")
    assert list(conditioning_encoders(tmp_path / "plain")) == []
    assert [name for name, _ in conditioning_encoders(conditioned_run)] == ["encoder"]


def test_what_a_judge_was_trained_on_is_told(digits, encoder_run):
    own = digits.protocol
    assert training_remark(own, digits, "test") is None and training_remark(own, digits, "val") is None
    assert "these images" in (training_remark(own, digits, "train") or "")
    masked = genzoo.load_data("digits", cond="mask")
    assert training_remark(masked.protocol, digits, "test") is None
    assert training_remark(own, masked, "test") is None
    assert "unknown" in (training_remark({}, digits, "test") or "")
    assert "trained on mnist" in (
        training_remark({"name": "mnist", "test_id": "mnist/test"}, digits, "test") or ""
    )
    with pytest.raises(GenzooError, match="another cut"):
        training_remark({**own, "test_id": "digits/test@seed=1"}, digits, "test")
    assert "unknown" in (extractor_named(f"encoder:{encoder_run}").remark(digits, "test") or "")
    assert extractor_named(None).remark(digits, "test") is None
    assert "these images" in (extractor_named(None).remark(digits, "train") or "")


@pytest.mark.parametrize("text", ["incepton", "encoder:", ""])
def test_unknown_judges_are_refused(text):
    with pytest.raises(GenzooError, match="--features takes"):
        extractor_named(text)


def test_judges_that_hold_no_fitting_encoder_are_refused(tmp_path, digits, encoder_run):
    genzoo.create("vae", digits.spec, "tiny").save(tmp_path)
    with pytest.raises(GenzooError, match="holds no encoder"):
        run_extractor(tmp_path, digits)
    with pytest.raises(GenzooError, match="takes images"):
        run_extractor(encoder_run, genzoo.load_data("stacked-digits"))


@pytest.mark.parametrize("other", ["steps", "seed", "data", "configuration", "network"])
def test_a_cached_extractor_of_another_recipe_is_not_taken(cache, digits, other):
    """It lies in the right place, whole and with its own hash."""
    first, _ = lines_of(digits)
    folder = next(cache.rglob("config.json")).parent
    content = json.loads((folder / "config.json").read_text())
    if other == "network":
        shutil.rmtree(folder)
        genzoo.create_encoder("simclr", digits.spec, "tiny").save(folder)
    else:
        change = {
            "steps": {"budget": {"steps": 1}},
            "seed": {"seed": 7},
            "data": {"train_hash": "0" * 16},
            "configuration": {"config": {**content["config"], "objective": None}},
        }[other]
        (folder / "config.json").write_text(json.dumps({**content, **change}))
    again, said = lines_of(digits)
    assert len(said) == 1 and again.identity == first.identity
    assert lines_of(digits)[1] == []


def test_an_interrupted_extractor_is_not_kept(cache, digits, monkeypatch):
    """SIGTERM in its last step, when its network looks finished."""
    from genzoo.models.encoders.views import ViewsEncoder

    real = ViewsEncoder.loss

    def stopped(self, *args, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(self, *args, **options)

    monkeypatch.setattr(ViewsEncoder, "loss", stopped)
    with pytest.raises(Interrupted, match="SIGTERM"):
        lines_of(digits)
    assert not [path for path in cache.rglob("*") if path.is_file()]
