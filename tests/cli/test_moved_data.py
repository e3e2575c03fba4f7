"""Runs whose pictures, inputs or encoder lie elsewhere by now: resumed, evaluated and sampled where these are."""

import json
import shutil

import numpy as np
import pytest
from commands import run
from PIL import Image


def fill(folder, seed=0, n=14):
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for i in range(n):
        Image.fromarray(random.integers(0, 256, (4, 4), dtype=np.uint8)).save(folder / f"{i:02}.png")
    return folder


def trained(out, *argv):
    assert run("train", *argv, "--size", "tiny", "--steps", 1, "--out", out, "--no-progress") == 0
    return out


def id_of(run_folder):
    return json.loads((run_folder / "config.json").read_text())["data"]["test_id"]


def test_moved_pictures(tmp_path, monkeypatch, capsys):
    fill(tmp_path / "a" / "pics")
    monkeypatch.chdir(tmp_path / "a")
    out = trained(tmp_path / "run", "vae", "--data", "folder:pics")
    before = id_of(out)
    monkeypatch.chdir(tmp_path)
    resume = ["train", "--resume", "--out", out, "--no-progress"]
    assert run(*resume, "--steps", 2) == 0  # from another working directory
    shutil.move(tmp_path / "a", tmp_path / "b")
    capsys.readouterr()
    for command in ([*resume, "--steps", 3], ["evaluate", out, "--samples", 0]):
        assert run(*command) == 2
        error = capsys.readouterr().err
        assert "say where it is now with --data folder:PATH" in error and error.count("\n") == 1
    assert run(*resume, "--steps", 3, "--data", "folder:b/pics") == 0
    assert id_of(out) == before
    assert run(*resume, "--steps", 4) == 0  # the new place is remembered
    assert run("evaluate", out, "--samples", 0, "--max-images", 1) == 0
    capsys.readouterr()

    fill(tmp_path / "b" / "pics", seed=1)  # other pictures under the same names
    assert run(*resume, "--steps", 5) == 2
    assert "the train images have changed" in capsys.readouterr().err
    assert run("evaluate", out, "--samples", 0, "--max-images", 1) == 0
    assert "these are not the data that" in capsys.readouterr().err
    keys = json.loads((out / "report.json").read_text())["likelihood"]
    assert before in keys and len(keys) == 2


def test_moved_inputs(tmp_path, capsys):
    pictures, inputs = fill(tmp_path / "p"), fill(tmp_path / "i", seed=2)
    out = trained(tmp_path / "run", "vae", "--data", f"folder:{pictures}", "--cond", f"folder:{inputs}")
    moved = shutil.move(inputs, tmp_path / "moved")
    capsys.readouterr()
    assert run("sample", out, "--n", 1) == 2
    assert "--cond folder:PATH" in capsys.readouterr().err
    assert run("sample", out, "--n", 1, "--cond", f"folder:{moved}") == 0
    assert run("evaluate", out, "--samples", 0, "--max-images", 1, "--cond", f"folder:{moved}") == 0
    resume = ["train", "--resume", "--out", out, "--no-progress", "--steps", 2]
    assert run(*resume, "--cond", f"folder:{pictures}") == 2
    assert "input" in capsys.readouterr().err
    assert run(*resume, "--cond", f"folder:{moved}") == 0


def test_moved_encoder(tmp_path, capsys):
    pictures = fill(tmp_path / "p")
    encoder = trained(tmp_path / "encoder", "simclr", "--data", f"folder:{pictures}")
    out = trained(tmp_path / "run", "vae", "--data", f"folder:{pictures}", "--cond", f"encoder:{encoder}")
    moved = shutil.move(encoder, tmp_path / "elsewhere")
    like = ["sample", out, "--n", 1, "--like", pictures / "00.png"]
    capsys.readouterr()
    assert run(*like) == 2 and capsys.readouterr().err.count("\n") == 1
    assert run(*like, "--cond", f"encoder:{moved}") == 0
    assert (
        run("train", "--resume", "--out", out, "--steps", 2, "--no-progress", "--cond", f"encoder:{moved}")
        == 0
    )
    assert run(*like) == 0
    other = trained(tmp_path / "other", "simclr", "--data", f"folder:{pictures}", "--seed", 1)
    capsys.readouterr()
    assert run(*like, "--cond", f"encoder:{other}") == 2
    assert "another encoder" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--cond", "encoder:x"], ["--data", "folder:x"]])
def test_what_has_not_moved_cannot_be_elsewhere(tmp_path, argv, capsys):
    out = trained(tmp_path / "run", "vae", "--data", f"folder:{fill(tmp_path / 'p')}")
    capsys.readouterr()
    assert run("evaluate", out, "--samples", 0, *argv) == 2
    assert capsys.readouterr().err.count("\n") == 1
