"""The trainer against hand-computed values."""

import json
import math
import os
import signal
import threading

import pytest
import torch
from accelerate import Accelerator
from tiny_model import Duel, DuelConfig, TinyConfig, TinyModel, tiny_images
from torch import nn

from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError, Interrupted
from genzoo.core.spec import Batch, DataSpec
from genzoo.core.trainable import Loss
from genzoo.data import as_split
from genzoo.data.image_grid import image_grid
from genzoo.training.optim import (
    Budget,
    WeightAverage,
    clip_gradients,
    make_optimizer,
    rate_factor,
)
from genzoo.training.processes import BatchOrder, Feed, Processes
from genzoo.training.step import Stepper
from genzoo.training.trainer import RunOptions, Trainer
from genzoo.training.validation import Best, Validator

SPEC = DataSpec((1, 3, 3), levels=4)
CPU = RunOptions(device="cpu")


def make(seed=0, **fields):
    training = TrainConfig(**{"batch_size": 16, "precision": "fp32", "warmup_steps": 10, **fields})
    torch.manual_seed(seed)
    return TinyConfig(training=training).build(SPEC)


def fit(model, budget, data=None, val=None, **settings):
    trainer = Trainer(model, budget, **{"progress": False, "options": CPU, **settings})
    trainer.fit(tiny_images(100, SPEC) if data is None else data, val)
    return trainer


def rows(out, key="loss"):
    return [r for r in map(json.loads, (out / "metrics.jsonl").read_text().splitlines()) if key in r]


# --- budget, schedule, optimiser, average ------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [{}, {"steps": 1, "minutes": 1}, {"steps": 0}, {"epochs": -1}, {"minutes": math.nan}, {"steps": 1.5}],
)
def test_budget_needs_exactly_one_positive_number(given):
    with pytest.raises(GenzooError) as error:
        Budget(**given)
    assert "\n" not in str(error.value)


def test_budget_fraction():
    assert Budget(steps=10).fraction(4, 99.0, 5) == 0.4
    assert Budget(epochs=2).fraction(4, 99.0, 5) == 0.4
    assert Budget(minutes=2).fraction(4, 30.0, 5) == 0.25
    assert Budget(minutes=2).fraction(4, 30.0, 5, reserve=60) == 0.5
    assert Budget(epochs=0.01).total_steps(5) == 1


def test_rate_by_hand():
    config = TrainConfig(warmup_steps=4, final_lr_fraction=0.2)
    # a long run: four steps of warm-up; the decay goes from 1 to 0.2
    assert rate_factor(0, 0.0, config) == pytest.approx(0.25)
    assert rate_factor(2, 0.005, config) == pytest.approx(0.75 * (1 - 0.8 * 0.005))
    assert rate_factor(500, 0.5, config) == pytest.approx(0.6)
    assert rate_factor(1000, 1.0, config) == pytest.approx(0.2)
    # a short run: a tenth of it
    assert rate_factor(2, 0.05, TrainConfig(warmup_steps=100)) == pytest.approx(0.5 * 0.95)


def test_rates_of_a_run(tmp_path):
    fit(make(warmup_steps=100), Budget(steps=10), out=tmp_path)
    wanted = [1e-3 * 0.01, *(1e-3 * (1 - s / 10) for s in range(1, 10))]
    assert [r["lr"] for r in rows(tmp_path)] == pytest.approx(wanted)


def test_average_follows_the_recurrence_and_its_horizon():
    model = make()
    average = WeightAverage(model, 0.05)
    expected = average.model.gain.clone()
    for step in range(1, 2001):
        with torch.no_grad():
            model.gain.fill_(step)
        model.seen += 1
        average.count(model)
        average.update(model)
        decay = 1 - 1 / (1 + 0.05 * step)
        expected = decay * expected + (1 - decay) * step
        if step <= 3:  # later an early mistake has faded
            torch.testing.assert_close(average.model.gain.detach(), expected)
    torch.testing.assert_close(average.model.gain.detach(), expected, rtol=1e-4, atol=0)
    # of weights that grow linearly the average lags by the share of the run s / (1 + s)
    assert average.model.gain[0].item() == pytest.approx(2000 / 1.05, rel=1e-3)
    assert average.model.seen == 2000


def test_average_counts_the_steps_of_each_turn_alone():
    """Of a player that starts late no more than of an early one is left of the weights it started with."""

    class Late(Duel):
        def span_of(self, turn):
            return {"critic": (0.0, 0.5), "actor": (0.5, 1.0)}[turn]

    model = Late(SPEC, DuelConfig())
    average, expected = WeightAverage(model, 0.2), {"critic": 1.0, "actor": 2.0}
    for step in range(40):
        model.progress = step / 40
        turn, own = ("critic", step + 1) if step < 20 else ("actor", step - 19)
        with torch.no_grad():
            getattr(model, turn).fill_(own)
        average.count(model)
        average.update(model)
        weight = 1 / (1 + 0.2 * own)
        expected[turn] += weight * (own - expected[turn])
        if step >= 20:  # the critic's goes on towards the weights that it ended with
            expected["critic"] += 1 / (1 + 0.2 * 20) * (20 - expected["critic"])
    assert average.steps == {"critic": 20, "actor": 20}
    for turn, value in expected.items():
        assert getattr(average.model, turn).item() == pytest.approx(value, rel=1e-5)


def test_average_of_share_zero_is_the_weights():
    model = make(ema_fraction=0.0)
    fit(model, Budget(steps=3))
    other = make(ema_fraction=0.5)
    fit(other, Budget(steps=3))
    reference = make(ema_fraction=0.0)
    optimizer = make_optimizer(reference.parameters(), reference.config.training)
    order = BatchOrder(100, 16, 0)
    for step in range(3):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * rate_factor(step, step / 3, reference.config.training)
        reference.loss(Batch(tiny_images(100, SPEC)[order.indices(step)])).total.mean().backward()
        nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    torch.testing.assert_close(model.bias, reference.bias, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(other.bias, reference.bias, rtol=1e-5, atol=1e-7)


def test_weight_decay_spares_vectors():
    matrix, vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    optimizer = make_optimizer([matrix, vector], TrainConfig(learning_rate=0.1, weight_decay=0.5))
    matrix.grad, vector.grad = torch.zeros(2, 2), torch.zeros(2)
    optimizer.step()
    torch.testing.assert_close(matrix.detach(), torch.full((2, 2), 0.95))
    torch.testing.assert_close(vector.detach(), torch.ones(2))


def test_clipping_by_hand():
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    a.grad, b.grad = torch.tensor([3.0]), torch.tensor([4.0])
    assert clip_gradients([a, b], 1.0).item() == pytest.approx(5)
    assert (a.grad.item(), b.grad.item()) == pytest.approx((0.6, 0.8), rel=1e-5)
    assert clip_gradients([a, b], 10.0).item() == pytest.approx(1)
    assert a.grad.item() == pytest.approx(0.6, rel=1e-5)


@pytest.mark.parametrize(
    "field", ["batch_size", "learning_rate", "accumulate", "clip_norm", "validation_images"]
)
def test_bad_training_values_are_named(field):
    with pytest.raises(GenzooError, match=field):
        TrainConfig(**{field: 0})


# --- order of the data --------------------------------------------------------------------------------------


def test_an_epoch_sees_no_image_twice():
    order = BatchOrder(35, 8, seed=3)
    assert order.steps_per_epoch == 4
    first = torch.cat([order.indices(s) for s in range(4)])
    second = torch.cat([order.indices(s) for s in range(4, 8)])
    assert len(set(first.tolist())) == len(set(second.tolist())) == 32
    assert first.tolist() != second.tolist()
    assert BatchOrder(35, 8, seed=3).indices(6).tolist() == order.indices(6).tolist()
    assert BatchOrder(35, 8, seed=4).indices(6).tolist() != order.indices(6).tolist()
    assert len(BatchOrder(5, 8, seed=0).indices(7)) == 5


def test_epochs_become_steps():
    assert fit(make(), Budget(epochs=2.5)).step == 15  # 100 // 16 = 6 steps each


# --- turns ---------------------------------------------------------------------------------------------------


def stepper_of(model):
    return Stepper(
        model, model.config.training, Processes(Accelerator(mixed_precision="no"), torch.device("cpu"))
    )


def test_two_turns_by_hand():
    """Each turn has only its own gradient, and the second sees the first one's update."""
    config = TrainConfig(precision="fp32", clip_norm=100.0)
    model = DuelConfig(training=config).build(SPEC)
    images = tiny_images(16, SPEC)
    seen = []
    model.critic.register_hook(lambda g: seen.append(("critic", g.item())))
    model.actor.register_hook(lambda g: seen.append(("actor", g.item())))
    stepper = stepper_of(model)
    result = stepper.step(Batch(images), 16, 0.5, torch.Generator())
    m, critic, actor = images.float().mean().item(), 1.0, 2.0
    gradient = actor - m
    assert seen[0] == ("critic", pytest.approx(gradient, rel=1e-5))
    critic -= 0.5 * gradient / (abs(gradient) + 1e-8)  # the first step of Adam
    assert seen[1:] == [("actor", pytest.approx(critic * m + 2 * actor, rel=1e-5))]
    assert model.critic.item() == pytest.approx(critic)
    assert result.parts["actor"].item() == pytest.approx(critic * actor * m + actor**2, rel=1e-5)
    assert result.loss == result.parts["actor"].item()
    assert result.parts["critic/value"].item() == pytest.approx(actor - m, rel=1e-5)


def test_two_turns_train_and_validate(tmp_path):
    model = DuelConfig().build(SPEC)
    trainer = fit(model, Budget(steps=20), val=tiny_images(30, SPEC, seed=1), out=tmp_path)
    assert trainer.best_loss is None  # losses of players say nothing of quality
    assert rows(tmp_path, "val_loss")[-1]["val_parts"].keys() == {
        "critic", "critic/value", "actor", "actor/value"
    }  # fmt: skip
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("count", [2, 3, 13])
def test_accumulation_changes_nothing(count):
    whole, parts = make(), make(accumulate=count)
    batch = Batch(tiny_images(13, SPEC))
    results = [stepper_of(m).step(batch, 13, 1e-3, torch.Generator()) for m in (whole, parts)]
    assert results[0].norm == pytest.approx(results[1].norm, rel=1e-5)
    assert results[0].loss == pytest.approx(results[1].loss, rel=1e-5)
    torch.testing.assert_close(whole.gain, parts.gain)


def test_frozen_parameters_stay_frozen():
    model = make()
    model.gain.requires_grad_(False)
    fit(model, Budget(steps=3))
    assert not model.gain.requires_grad and model.bias.requires_grad
    torch.testing.assert_close(model.gain, torch.ones(9), rtol=0, atol=0)


# --- steps that go wrong ---------------------------------------------------------------------------------------


class Poisoned(TinyModel):
    """Breaks in the training steps (from 1) that `bad` names: its part "penalty" is infinite, or its gradient."""

    def __init__(self, spec, config, bad, how="penalty"):
        super().__init__(spec, config)
        self.bad, self.how, self.calls = bad, how, 0

    def loss(self, batch, turn="model", *, generator=None):
        loss = super().loss(batch, turn, generator=generator)
        self.calls += self.training
        penalty = torch.zeros_like(loss.total)
        if self.training and self.bad(self.calls):
            self.seen.fill_(-1000)
            penalty = penalty + (math.inf if self.how == "penalty" else (self.gain.sum() * 0).sqrt())
        return Loss(loss.total + penalty, {**loss.parts, "penalty": penalty})


def poisoned(bad, how="penalty"):
    torch.manual_seed(0)
    return Poisoned(SPEC, make().config, bad, how)


@pytest.mark.parametrize("how", ["penalty", "gradient"])
def test_bad_steps_are_skipped_and_counted(tmp_path, how):
    model = poisoned(lambda call: call in (3, 4), how)
    fit(model, Budget(steps=12), out=tmp_path)
    skipped = rows(tmp_path, "skipped_step")
    assert [(r["step"], r["skipped_step"]) for r in skipped] == [(3, how), (4, how)]
    assert rows(tmp_path)[-1]["skipped"] == 2 and rows(tmp_path)[-1]["step"] == 12
    assert all(p.isfinite().all() for p in model.parameters())
    assert model.seen == 10  # buffers of skipped steps are taken back


def test_a_skipped_step_leaves_weights_and_optimiser():
    model = poisoned(lambda call: call == 2)
    stepper = stepper_of(model)
    stepper.model.train()
    batch = Batch(tiny_images(8, SPEC))
    stepper.step(batch, 8, 1e-2, torch.Generator())
    weights = model.bias.detach().clone()
    moments = {k: v.clone() for k, v in stepper.turns[0].optimizer.state[model.bias].items()}
    assert stepper.step(batch, 8, 1e-2, torch.Generator()).culprit == "penalty"
    assert torch.equal(model.bias, weights)
    assert all(torch.equal(v, moments[k]) for k, v in stepper.turns[0].optimizer.state[model.bias].items())
    assert stepper.step(batch, 8, 1e-2, torch.Generator()).culprit is None
    assert not torch.equal(model.bias, weights)


@pytest.mark.parametrize("how", ["penalty", "gradient"])
def test_ten_bad_steps_in_a_row_stop_the_run(tmp_path, how):
    from genzoo.training.checkpoint import load_state

    model = poisoned(lambda call: call > 5, how)
    options = RunOptions(device="cpu", save_every=5)
    with pytest.raises(GenzooError, match=rf"step 15: {how} .*lower the learning rate") as error:
        fit(model, Budget(steps=100), out=tmp_path, options=options)
    assert "\n" not in str(error.value)
    state = load_state(tmp_path)
    assert state["step"] == 10 and all(v.isfinite().all() for v in state["model"].values())


def test_nine_bad_steps_do_not():
    assert fit(poisoned(lambda call: call % 10 > 0), Budget(steps=35)).step == 35


# --- signals ---------------------------------------------------------------------------------------------------


class Signalled(TinyModel):
    """Sends its own process `signals[step]` in training step `step` (from 1)."""

    def loss(self, batch, turn="model", *, generator=None):
        if self.training:
            self.calls += 1
            for number in self.signals.get(self.calls, ()):
                os.kill(os.getpid(), number)
        return super().loss(batch, turn, generator=generator)


def signalled(signals):
    torch.manual_seed(0)
    model = Signalled(SPEC, make().config)
    model.signals, model.calls = signals, 0
    return model


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_ends_the_run(tmp_path, number):
    from genzoo.training.checkpoint import load_state

    before = signal.getsignal(number)
    if before is signal.SIG_IGN:
        pytest.skip("the tests run under nohup, which training heeds")
    with pytest.raises(Interrupted) as stop:
        fit(signalled({4: [number]}), Budget(steps=20), out=tmp_path)
    assert stop.value.name == signal.Signals(number).name and stop.value.exit_code == 128 + number
    assert load_state(tmp_path)["step"] == 4
    assert signal.getsignal(number) is before
    resumed = fit(make(), Budget(steps=20), out=tmp_path, options=RunOptions(device="cpu", resume=True))
    assert resumed.stopped_by is None and resumed.step == 20
    assert [r["step"] for r in rows(tmp_path)] == list(range(1, 21))


def test_a_second_interrupt_is_immediate():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(signalled({4: [signal.SIGINT, signal.SIGINT]}), Budget(steps=20))
    assert signal.getsignal(signal.SIGINT) is before


def test_training_outside_the_main_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(fit(make(), Budget(steps=3)).step))
    thread.start()
    thread.join()
    assert found == [3]


# --- validation, randomness, reports ---------------------------------------------------------------------------


def test_validation_is_the_mean_loss_and_the_best_weights_are_kept(tmp_path):
    data, val = tiny_images(64, SPEC), tiny_images(40, SPEC, seed=5)  # other frequencies: training will hurt
    model = make(learning_rate=0.1, validations=4, ema_fraction=0.0)
    with torch.no_grad():
        model.bias.copy_(
            torch.stack([(val.flatten(1) == k).float().mean(0) + 0.01 for k in range(4)], 1).log()
        )
    trainer = fit(model, Budget(steps=40), data, val, out=tmp_path)
    found = rows(tmp_path, "val_loss")
    assert [r["step"] for r in found] == [10, 20, 30, 40]
    losses = [r["val_loss"] for r in found]
    assert losses[0] == min(losses) < losses[-1]
    kept = model.log_likelihood(val)
    assert -kept.nats.mean().item() == pytest.approx(losses[0], rel=1e-6) == pytest.approx(trainer.best_loss)
    assert kept.bits_per_dim.mean().item() == pytest.approx(found[0]["val_bits_per_dim"], rel=1e-6)


def test_validation_out_of_time_is_the_mean_of_what_was_seen():
    model, val = make(), as_split(tiny_images(40, SPEC, seed=5))
    processes = Processes(Accelerator(cpu=True), torch.device("cpu"))
    feed = Feed(val, model, processes)
    hurried = Validator(feed, 40, images=40, batch_size=10, seed=0, allowed_seconds=0.0)
    first = -model.log_likelihood(val.images[hurried.order[:10]]).nats.mean().item()
    for _ in range(2):  # the second time over the same images
        assert hurried.measure(model.eval()).loss == pytest.approx(first, rel=1e-6)
        assert hurried.images == 10
    whole = Validator(feed, 40, images=40, batch_size=16, seed=0).measure(model)
    assert whole.loss == pytest.approx(-model.log_likelihood(val.images).nats.mean().item(), rel=1e-6)


def test_the_earliest_of_the_lowest_losses_is_kept():
    best, model = Best(), make()
    taken = [best.offer(loss, step, model) for step, loss in enumerate((2.0, math.nan, 1.0, 1.0, 1.5))]
    assert taken == [True, False, True, False, False] and (best.loss, best.step) == (1.0, 2)


def test_validation_uses_at_most_so_many_images(tmp_path):
    model = make(validations=1, validation_images=7, learning_rate=1e-12)
    val = tiny_images(40, SPEC, seed=5)
    fit(model, Budget(steps=1), val=val, out=tmp_path)
    singles = -model.log_likelihood(val).nats
    found = rows(tmp_path, "val_loss")[-1]["val_loss"] * 7
    from genzoo.core.random import seeded

    chosen = torch.randperm(40, generator=seeded("cpu", "validation", 0))[:7]
    assert found == pytest.approx(singles[chosen].sum().item(), rel=1e-5)


def test_the_global_rng_is_neither_used_nor_changed():
    models = []
    for seed in (1, 2):
        config = TinyConfig(dropout=0.2, noise=0.1, training=make().config.training)
        torch.manual_seed(0)
        models.append(config.build(SPEC))
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        fit(models[-1], Budget(steps=5), val=tiny_images(20, SPEC))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(models[0].bias, models[1].bias)
    torch.manual_seed(0)
    other = config.build(SPEC)
    fit(other, Budget(steps=5), seed=1)
    assert not torch.equal(models[0].bias, other.bias)


def test_minutes_end_on_time_with_the_schedule_done(tmp_path):
    fit(make(), Budget(minutes=0.05), val=tiny_images(50, SPEC), out=tmp_path)
    found = rows(tmp_path)
    assert found[-1]["seconds"] < 5  # of 3; a busy machine may stall
    assert found[-1]["lr"] < 4e-4 and len(rows(tmp_path, "val_loss")) <= 9


@pytest.mark.parametrize(
    ("precision", "spec"), [("bf16", SPEC), ("fp32", DataSpec((1, 3, 3), 4, "class", 5))]
)
def test_precision_and_labels(precision, spec):
    noted = set()

    class Watching(TinyModel):
        def loss(self, batch, turn="model", *, generator=None):
            noted.add((self.training, torch.is_autocast_enabled("cpu"), batch.cond is None))
            return super().loss(batch, turn, generator=generator)

    model = Watching(spec, make(precision=precision).config)
    labelled = (tiny_images(20, SPEC), torch.arange(20) % 5)
    fit(model, Budget(steps=2), labelled, labelled)
    assert noted == {(mode, precision == "bf16", spec.cond is None) for mode in (True, False)}


def test_training_reaches_the_frequencies():
    data = tiny_images(400, SPEC)
    model = make(batch_size=100, learning_rate=0.1)
    fit(model, Budget(steps=200), data)
    best = torch.stack([(data.flatten(1) == k).double().mean(0) for k in range(4)], 1)
    entropy = -(best * best.clamp_min(1e-12).log()).sum().item()
    assert -model.log_likelihood(data).nats.mean().item() == pytest.approx(entropy, abs=0.02)


def test_run_folder_contents(tmp_path):
    out = tmp_path / "runs" / "tiny"
    options = RunOptions(device="cpu", preset="tiny", protocol={"name": "made up", "seed": 3})
    fit(make(validations=2), Budget(steps=6), out=out, options=options)
    assert {p.name for p in out.iterdir()} == {
        "config.json", "model.safetensors", "state", "metrics.jsonl", "samples", "loss.png"
    }  # fmt: skip
    config = json.loads((out / "config.json").read_text())
    assert (config["preset"], config["seed"], config["budget"]) == ("tiny", 0, {"steps": 6})
    assert config["data"] == {"name": "made up", "seed": 3} and config["train_images"] == 100
    assert (out / "samples" / "step_0000006.png").read_bytes().startswith(b"\x89PNG")
    row = rows(out)[2]
    assert row["step"] == 3 and row["images"] == 48 and row["skipped"] == 0
    assert row["parts"]["nll"] == pytest.approx(row["loss"])


def test_reports_are_silent_or_plain_lines(capsys):
    fit(make(), Budget(steps=3), val=tiny_images(8, SPEC))
    assert capsys.readouterr().out == ""
    fit(make(), Budget(steps=3), val=tiny_images(8, SPEC), progress=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("step 3: trained in") and "bits/dim" in lines[0]


def test_grid_by_hand():
    images = torch.zeros(3, 1, 32, 32, dtype=torch.uint8)
    images[1] = 3
    grid = image_grid(images, levels=4, columns=2)
    assert grid.shape == (2 * 65 + 1, 2 * 65 + 1, 3)
    assert grid[0, 0, 0] == 128 and grid[1, 1, 0] == 0 and grid[64, 66 + 63, 2] == 255
    assert (grid[66:, 66:] == 128).all()


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    out = tmp_path / "run"
    fit(make(), Budget(steps=3), out=out, options=RunOptions(device="cpu", tracker="tensorboard"))
    assert list(out.rglob("events.out.tfevents.*"))


def test_bad_requests(tmp_path):
    with pytest.raises(GenzooError, match="run folder"):
        Trainer(make(), Budget(steps=1), options=RunOptions(resume=True))
    with pytest.raises(GenzooError, match="tracker"):
        RunOptions(tracker="paper")
    with pytest.raises(GenzooError, match="no images"):
        fit(make(), Budget(steps=1), tiny_images(1, SPEC)[:0])
    with pytest.raises(GenzooError, match="at least 32"):
        fit(make(accumulate=32), Budget(steps=1))
    fit(make(), Budget(steps=1), out=tmp_path)
    with pytest.raises(GenzooError, match="holds another run"):
        fit(make(), Budget(steps=1), out=tmp_path)
