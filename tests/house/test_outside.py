"""A family, a data source and a metric from outside of the package, `docs/realnvp.py`, as good as genzoo's own."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import genzoo
from genzoo import GenzooError
from genzoo.__main__ import main
from genzoo.cli.imports import VARIABLE, imported
from genzoo.core.config import Configurable
from genzoo.testing import yield_checks

ROOT = Path(__file__).parents[2]
OUTSIDE = ROOT / "docs" / "realnvp.py"
SMALL = ["--couplings", "2", "--width", "16"]


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch):
    """`--import` tells commands that a command starts what to import, by the environment."""
    monkeypatch.setenv(VARIABLE, "")


@pytest.fixture
def module(nothing_stays):
    """The module as `--import` loads it; the tests of this process share it."""
    assert imported(["--import", str(OUTSIDE), "rest"]) == ["rest"]
    return sys.modules["realnvp"]


def run(*argv):
    """The exit code of a command."""
    try:
        return main([str(a) for a in argv])
    except SystemExit as stop:
        return stop.code


def test_it_passes_the_conformance_checks(module):
    model = genzoo.create("realnvp", genzoo.DataSpec((1, 2, 2), levels=2), couplings=2, width=8)
    assert [check.name for check in yield_checks(model) if not check.run().ok] == []


def test_from_training_to_comparison(module, tmp_path, capsys, monkeypatch):
    """Trained, killed, resumed, sampled, evaluated and compared, all by the command line."""
    monkeypatch.chdir(tmp_path)
    train = ["train", "realnvp", "--import", OUTSIDE, "--data", "rings", *SMALL, "--no-progress"]
    command = [sys.executable, "-m", "genzoo", *map(str, train), "--save-every", "5"]
    killed = subprocess.Popen(
        [*command, "--steps", "100000", "--out", "run"], stdout=subprocess.DEVNULL, env=_environment()
    )
    for _ in range(600):
        if (tmp_path / "run" / "state" / "state.pt").exists() and _steps(tmp_path / "run") >= 5:
            break
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = _steps(tmp_path / "run")
    assert before >= 5
    # the types are found again by the same flag; the run goes on to a budget that is used up
    resume = [
        "train",
        "--import",
        OUTSIDE,
        "--resume",
        "--out",
        "run",
        "--steps",
        before + 3,
        "--no-progress",
    ]
    assert run(*resume) == 0 and _steps(tmp_path / "run") >= before
    assert run("sample", "run", "--import", OUTSIDE, "--n", "4", "--out", "grid.png") == 0
    assert (tmp_path / "grid.png").exists()
    quick = ["--max-images", "40", "--samples", "40", "--features", "pixels"]
    assert run("evaluate", "run", "--import", OUTSIDE, *quick) == 0
    report = (tmp_path / "run" / "report.json").read_text()
    assert "mean distance" in report and "mean distance" in capsys.readouterr().out
    assert run("compare", "run", "--import", OUTSIDE, "--html", "page.html") == 0
    page = (tmp_path / "page.html").read_text()
    assert "realnvp" in page and "mean distance" in page


def _environment():
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT)}


def _steps(run):
    """The step of the last checkpoint."""
    try:
        return int(torch.load(run / "state" / "state.pt", weights_only=True)["step"])
    except (OSError, RuntimeError, EOFError):
        return 0


def test_help_and_mistakes_know_it(module, capsys):
    assert run("train", "--import", OUTSIDE, "--help") == 0
    assert "RealNVP" in capsys.readouterr().out
    assert run("train", "realnvp", "--import", OUTSIDE, "--help") == 0
    assert "--couplings" in capsys.readouterr().out
    assert run("train", "realnpv", "--import", OUTSIDE) == 2
    assert "did you mean 'realnvp'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--import"], "--import needs a module"),
        (["--import", "--help"], "--import needs a module"),
        (["--import", "no_such_module"], "--import no_such_module: ModuleNotFoundError"),
        (["--import", "no/such/file.py"], "--import no/such/file.py: there is no such file"),
        (["--import", "broken.py"], "--import broken.py: ZeroDivisionError: division by zero"),
    ],
)
@pytest.mark.parametrize("command", ["train", "sample", "evaluate", "compare"])
def test_a_module_that_cannot_be_imported(argv, message, command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    assert run(command, *argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("genzoo: error: ") and message in error and error.count("\n") == 1


@pytest.mark.slow
def test_without_the_flag_a_run_folder_brings_no_types(tmp_path):
    """The folder names a type that nobody has loaded: nothing is imported for it."""
    config = {"type": "RealNVPConfig", "couplings": 2, "width": 8}
    spec = {"type": "DataSpec", "shape": [1, 2, 2], "levels": 2, "cond": None, "cond_size": 0}
    (tmp_path / "config.json").write_text(json.dumps({"format": 1, "spec": spec, "config": config}))
    code = f"import genzoo\ntry:\n    genzoo.load({str(tmp_path)!r})\nexcept genzoo.GenzooError as e:\n    print(e)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_environment())
    assert "unknown configuration type 'RealNVPConfig'" in done.stdout and "--import MODULE" in done.stdout


# --- what may be registered ----------------------------------------------------------------------------------------


def test_names_of_genzoos_own_are_kept(module):
    with pytest.raises(GenzooError, match="'vae' is a preset of genzoo's own"):
        genzoo.register("vae", module.RealNVPConfig())
    with pytest.raises(GenzooError, match="a dataclass of ModelConfig or EncoderConfig"):
        genzoo.register("mine", genzoo.TrainConfig())
    for name in ("digits", "folder:x", ""):
        with pytest.raises(GenzooError, match="data cannot be called"):
            genzoo.register_data(name, module.rings)


def test_a_type_of_another_name_is_refused(module):
    """Run folders tell types by their bare names: one that is genzoo's own would be built in its place."""
    from dataclasses import dataclass, field

    @dataclass(frozen=True)
    class VAEConfig(genzoo.ModelConfig):
        training: genzoo.TrainConfig = field(default_factory=genzoo.TrainConfig)

        def build(self, spec):
            return genzoo.create("vae", spec, "tiny")

    genzoo.create("vae", genzoo.DataSpec((1, 4, 4), levels=2), "tiny")  # loads the other
    with pytest.raises(GenzooError, match="has the name of genzoo"):
        genzoo.register("another-vae", VAEConfig())
    assert Configurable.types()["VAEConfig"] is not VAEConfig


def grey(n, seed=0):
    return torch.randint(
        0, 256, (n, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


class Pairs(torch.utils.data.Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, i):
        return grey(1, i)[0], i % 3


@pytest.mark.parametrize(
    ("content", "sizes", "classes"),
    [
        (grey(40), (32, 4, 4), 0),
        ((grey(40), torch.arange(40) % 3), (32, 4, 4), 3),
        ((grey(20), grey(6), grey(5)), (20, 6, 5), 0),
        ({"train": grey(20), "val": grey(6), "test": (grey(5))}, (20, 6, 5), 0),
        (Pairs(), (32, 4, 4), 3),
    ],
    ids=["one tensor", "with classes", "three", "mapping", "torch dataset"],
)
def test_what_a_data_source_may_return(content, sizes, classes):
    genzoo.register_data("outside", lambda: content)
    data = genzoo.load_data("outside")
    assert tuple(map(len, (data.train, data.val, data.test))) == sizes
    assert data.spec == genzoo.DataSpec((1, 4, 4)) and data.protocol["sizes"]["test"] == sizes[2]
    whole = torch.cat([split.images for split in (data.train, data.val, data.test)])
    assert len(whole.unique(dim=0)) == len(whole) or sizes[0] == 20  # no image is in two splits
    if classes:
        conditional = genzoo.load_data("outside", cond="class")
        assert (conditional.spec.cond, conditional.spec.cond_size) == ("class", classes)
    else:
        with pytest.raises(GenzooError, match="no labels"):
            genzoo.load_data("outside", cond="class")


def test_a_data_source_is_given_what_it_takes(tmp_path):
    seen = []
    genzoo.register_data("outside", lambda root, cond: seen.append((root, cond)) or grey(40))
    genzoo.load_data("outside", tmp_path)
    assert seen == [(tmp_path, None)]
    genzoo.register_data("outside", lambda: 3)
    with pytest.raises(GenzooError, match="outside: a split is a tensor"):
        genzoo.load_data("outside")
    genzoo.register_data("outside", lambda: {"train": grey(4), "test": grey(4)})
    with pytest.raises(GenzooError, match="val is missing"):
        genzoo.load_data("outside")
