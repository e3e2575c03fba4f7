"""Some 240 command lines that cannot be: each ends in one line on stderr, no fault of genzoo; nothing is trained.

All run in this process. `{dir}` is a fresh folder with what the lines name: a run, a file, links, pictures.
"""

import os
import sys

import pytest
import torch

import genzoo
from genzoo.cli.dispatch import main
from genzoo.cli.terminal import plain, tolerant_streams
from genzoo.core.spec import DataSpec

LONG, HUGE, NAN = "x" * 300, str(10**30), ("nan", "inf", "-inf", "-1", "0", "x", "")

TRAIN = [
    *(["--minutes", v] for v in NAN),
    *(["--epochs", v] for v in NAN),
    *(["--steps", v] for v in (*NAN, HUGE, "1.5", "1e3")),
    ["--steps", "1", "--epochs", "1"],
    ["--minutes", "1", "--steps", "1"],
    *(["--seed", v] for v in (str(2**70), "-1", "1.5", "nan", "")),
    *(
        ["--device", v]
        for v in ("tpu", "gpu", "cuda:99", "meta", "", "cpu:1", "cpu:cpu", "cuda:-1", "xla", "ü")
    ),
    *(["--image-size", v] for v in ("0", "-1", str(10**9), "x")),
    *(["--save-every", v] for v in ("0", "-1", HUGE, "x")),
    *(
        ["--out", v]
        for v in (
            "",
            " ",
            "a\0b",
            LONG,
            "{dir}/file",
            "{dir}/file/run",
            "{dir}/loop/run",
            "{dir}/" + "y/" * 3000,
            "{dir}/" + "y/" * 1900,
        )
    ),
    *(
        ["--data", v]
        for v in (
            "",
            "folder:",
            "folder:{dir}/none",
            "folder:{dir}/file",
            "folder:{dir}/empty",
            "folder:" + LONG,
            "folder:a\0b",
            "folder:{dir}/loop",
            "folder:{dir}/file/x",
            "toy:",
            "toy:none",
            "mnist:x",
            "digitz",
            "ü",
            "💥",
            "--data",
            LONG,
        )
    ),
    ["--data", "digits", "--image-size", "9"],
    *(
        ["--cond", v]
        for v in (
            "",
            "colour",
            "encoder:",
            "encoder:{dir}/none",
            "encoder:{dir}/file",
            "folder:{dir}/none",
            "a\0",
        )
    ),
    ["--cond", "encoder:{dir}/run"],
    ["--prior"],
    ["--augmentation", "digits"],
    ["--size", "huge"],
    ["--size", ""],
    *(["--training.learning-rate", v] for v in ("inf", "nan", "-1", "0", "1e30", "x")),
    *(["--training.batch-size", v] for v in ("0", "-1", str(10**12), "1.5", "nan")),
    *(["--training.betas", a, b] for a, b in (("1", "1"), ("nan", "0"), ("-1", "0"))),
    ["--training.clip-norm", "0"],
    ["--training.weight-decay", "-1"],
    ["--training.ema-fraction", "nan"],
    ["--training.accumulate", "0"],
    ["--training.warmup-steps", "-1"],
    ["--training.validation-images", "0"],
    ["--training.precision", "fp64"],
    ["--training.optimizer", "sgd"],
    ["--training.batch-size"],
    *(["--width", v] for v in ("0", "-1", str(10**9), "1.5", "x")),
    ["--blocks", str(10**9)],
    ["--reach", "0"],
    ["--dropout", "1"],
    ["--dropout", "nan"],
    ["--head.components", "0"],
    ["--unknown"],
    ["--version"],
    ["x", "y"],
    ["--resume"],
    ["--resume", "--out", "{dir}/none"],
    ["--resume", "--out", "{dir}/file"],
    ["--track", "x"],
    ["--resume", "--out", "{dir}/run"],
    ["--import", "{dir}/broken.py"],
    ["--import", "none.such"],
    ["--import"],
    ["--import", "{dir}/leaves.py"],
    ["--import", LONG + ".py"],
    ["--import", "a\0.py"],
    ["--import", "{dir}/loop.py"],
    ["--data", "folder:{dir}/loop"],
    ["--out", "{dir}/loop"],
    ["--cond", "encoder:{dir}/loop"],
    ["--help", "nothing"],
]
PRESETS = [
    ["vae", "--latent-dim", "0"],
    ["vae", "--output", "x"],
    ["vae", "--importance-samples", "0"],
    ["vae", "--kl.beta", "nan"],
    ["flow", "--sampling.steps", "0"],
    ["flow", "--sampling.guidance", "nan"],
    ["flow", "--t-min", "1"],
    ["flow", "--network.channels", "0"],
    ["gan", "--latent-dim", "0"],
    ["simclr", "--objective.temperature", "0"],
    ["simclr", "--objective.temperature", "inf"],
    ["simclr", "--augmentation", "none-such"],
    ["simclr", "--prior"],
    ["pixel-transformer", "--head-width", "0"],
    ["nothing"],
    ["--nothing"],
    ["image-to-image"],
    ["clip", "--text.length", "0"],
    ["vqvae", "--quantiser.codebook-size", "0"],
]
SAMPLE = [
    [],
    ["{dir}/none"],
    ["{dir}/file"],
    ["{dir}/empty"],
    [LONG],
    ["a\0b"],
    [""],
    ["{dir}/loop"],
    *(["{dir}/run", "--n", v] for v in ("0", "-1", str(10**12), "nan", "1.5", "")),
    *(["{dir}/run", "--seed", v] for v in (str(2**70), "-1")),
    *(["{dir}/run", "--device", v] for v in ("tpu", "cuda:99", "meta")),
    *(["{dir}/run", "--cond", v] for v in ("2", "-1", "x", "0,", ",", "0,1,2", "nan", "")),
    ["{dir}/run", "--n", "1", "--cond", "0,1"],
    ["{dir}/run", "--guidance", "nan"],
    ["{dir}/run", "--guidance", "2"],
    ["{dir}/flow", "--guidance", "nan"],
    ["{dir}/flow", "--guidance", "inf"],
    ["{dir}/flow", "--steps", "0"],
    ["{dir}/flow", "--steps", HUGE],
    ["{dir}/run", "--like", "{dir}/none.png"],
    ["{dir}/run", "--text", ""],
    ["{dir}/run", "--text", "x"],
    ["{dir}/run", "--cond", "0", "--text", "x"],
    ["{dir}/run", "--out", LONG],
    ["{dir}/run", "--out", "{dir}/file/x.png"],
    ["{dir}/run", "--out", "{dir}/empty"],
    ["{dir}/run", "--steps", "3"],
]
EVALUATE = [
    [],
    ["{dir}/none"],
    ["{dir}/loop"],
    ["{dir}/file"],
    ["{dir}/run"],
    ["{dir}/run", "--data", "mnist:"],
    ["{dir}/run", "--data", "digits"],
    *(["{dir}/run", "--max-seconds", v] for v in NAN),
    *(["{dir}/run", "--max-images", v] for v in ("0", "-1", HUGE, "x")),
    *(["{dir}/run", "--samples", v] for v in ("1", "-1", HUGE)),
    ["{dir}/run", "--features", ""],
    ["{dir}/run", "--features", "x", "--data", "digits"],
    ["{dir}/run", "--split", "all"],
    ["{dir}/run", "--seed", "-1"],
    ["{dir}/run", "--ais", "0"],
    ["{dir}/run", "--ais-steps", "0"],
    ["{dir}/run", "--fine-tune", "3"],
    ["{dir}/run", "--device", "gpu"],
    ["{dir}/run", "--ood", "a\0"],
    ["{dir}/run", "--samples", "0", "--samples-only"],
]
COMPARE = [
    [],
    ["{dir}/none"],
    ["{dir}/loop"],
    ["{dir}/loop", "{dir}/run"],
    ["{dir}/file"],
    ["{dir}/run", "{dir}/run"],
    ["vae"],
    ["{dir}/run", "--html", "{dir}/file/x.html"],
    ["{dir}/run", "--minutes", "1"],
    ["--data", "digits"],
    ["vae", "vae", "--data", "digits"],
    ["x", "--data", "digits"],
    *(["vae", "--data", "digits", "--minutes", v] for v in NAN),
    ["vae", "--data", "none", "--out", "{dir}/b"],
    ["vae", "--data", "digits", "--device", "tpu"],
    ["vae", "--data", "digits", "--out", "{dir}/file"],
    ["vae", "--data", "digits", "--out", LONG],
    ["{dir}/run", "--html", LONG],
    [LONG],
    ["simclr", "--data", "digits"],
    ["vae", "--data", "digits", "--steps", "1", "--epochs", "1"],
    ["vae", "--data", "digits", "--seed", str(2**70)],
]
OTHER = [["trian"], ["--versoin"], ["x" * 500], ["list", "models", "x"], ["list", "\0"], [""], ["💥"]]

LINES = [
    *(["train", *line] for line in (*TRAIN, *PRESETS)),
    *(["sample", *line] for line in SAMPLE),
    *(["evaluate", *line] for line in EVALUATE),
    *(["compare", *line] for line in COMPARE),
    *OTHER,
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run of no known data, a flow, a file, a circle of links, modules that fail."""
    folder = tmp_path_factory.mktemp("bad")
    genzoo.create("vae", DataSpec((1, 4, 4), 4, "class", 2), "tiny", channels=(4,), blocks=0).save(
        folder / "run"
    )
    genzoo.create("flow", DataSpec((1, 4, 4), 4, "class", 2), "tiny").save(folder / "flow")
    (folder / "file").write_text("")
    (folder / "empty").mkdir()
    for name in ("loop", "loop.py"):
        (folder / name).symlink_to(folder / name)
    (folder / "broken.py").write_text("raise ValueError('a\\nb')")
    (folder / "leaves.py").write_text("import sys; sys.exit(3)")
    return folder


@pytest.fixture
def no_training(monkeypatch):
    def fit(self, *args):
        raise AssertionError("it came to training")

    monkeypatch.setattr("genzoo.training.trainer.Trainer.fit", fit)
    monkeypatch.setattr("genzoo.evaluation.comparison.bake_off.BakeOff.run", fit)


def ended(argv):
    try:
        return main(argv)
    except SystemExit as stop:
        return stop.code


@pytest.mark.parametrize(
    "line", LINES, ids=lambda line: " ".join(line)[:60].encode("unicode_escape").decode()
)
def test_it_is_told_in_one_line(line, place, no_training, capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENZOO_IMPORT", raising=False)
    code = ended([word.replace("{dir}", str(place)) for word in line])
    told = capfd.readouterr()
    assert code == 2, (code, told.err)
    lines = [text for text in told.err.splitlines() if not text.startswith("note: ")]
    assert len(lines) == 1 and lines[0].startswith("genzoo: error: ") and "Traceback" not in told.err, (
        told.err
    )
    assert len(lines[0]) < 1500
    assert not list(tmp_path.rglob("config.json"))


# --- what escapes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ValueError("a\nb"), 70, "a fault of genzoo, not of yours: ValueError: a b"),
        (RecursionError(), 70, "RecursionError"),
        (UnicodeEncodeError("ascii", "é", 0, 1, "no"), 70, "UnicodeEncodeError"),
        (AssertionError(), 70, "AssertionError"),
        (MemoryError(), 2, "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "memory"),
        (PermissionError(13, "Permission denied", "/x"), 2, "/x: Permission denied"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (BrokenPipeError(), 141, ""),
        (genzoo.GenzooError("a\nb"), 2, "error: a b"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
@pytest.mark.parametrize("command", ["train", "sample", "evaluate", "compare", "list"])
def test_what_escapes_is_one_line(command, error, code, words, monkeypatch, capsys):
    def fails(*args, **kwargs):
        raise error

    monkeypatch.setattr("genzoo.cli.terminal.forget_output", lambda: None)
    monkeypatch.setattr("genzoo.cli.shared.forget_output", lambda: None)
    monkeypatch.setattr(f"genzoo.cli.{command}_command.imported", fails)
    assert ended([command, "x"]) == code
    told = capsys.readouterr().err
    assert words in told and told.count("\n") <= 1 and "Traceback" not in told
    monkeypatch.setenv("GENZOO_TRACEBACK", "1")
    ended([command, "x"])
    if code == 70:
        assert "Traceback" in capsys.readouterr().err


def test_terminals_without_characters(monkeypatch, capsys):
    import io

    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding="ascii"))
    from genzoo.cli.shared import print_table

    with tolerant_streams():
        print_table("Fréchet", {"bits/dim": "≤ 3.1 ± 0.2", "name": os.fsdecode(b"\xff.png")})
        sys.stdout.flush()
    shown = buffer.getvalue().decode("ascii")
    assert "<= 3.1 +/- 0.2" in shown and "|" in shown
    assert len({len(line) for line in shown.splitlines()[1:]}) == 1, "columns stay in line"
    assert plain("│─┌", "ascii") == "|-+"


@pytest.mark.parametrize("value", ["1e30", "----"])
def test_a_mistake_is_told_alike_on_every_terminal(value, monkeypatch, capsys):
    """tyro frames its messages with other characters where the terminal has none for frames."""
    import io

    assert ended(["train", "vae", "--steps", value]) == 2
    told = capsys.readouterr().err
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert ended(["train", "vae", "--steps", value]) == 2
    assert capsys.readouterr().err == told and "--steps" in told and value in told


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"RANK": "1"}, True),
        ({"RANK": "1", "WORLD_SIZE": "2"}, False),
        ({"WORLD_SIZE": "x", "RANK": "1"}, True),
    ],
)
def test_which_process_prints(environment, first, monkeypatch):
    from genzoo.cli.shared import is_main_process

    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_main_process() is first


def test_suggestions_are_near_or_none(capsys):
    assert ended(["--versoin"]) == 2 and "did you mean" not in capsys.readouterr().err
    assert ended(["trian"]) == 2 and "did you mean 'train'?" in capsys.readouterr().err
    assert ended(["--version"]) == 0 and capsys.readouterr().out == f"genzoo {genzoo.__version__}\n"
    for kind, name in (("models", "vae"), ("encoders", "simclr"), ("data", "digits"), ("metrics", "frechet")):
        assert ended(["list", kind]) == 0 and name in capsys.readouterr().out
    assert torch.get_default_dtype() == torch.float32
