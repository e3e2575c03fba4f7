"""Names that others chose, at every place where they are shown: terminals, tables, JSON, pages, plots."""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import genzoo
from genzoo.__main__ import main
from genzoo.core.showable import page_text, plot_text, showable, storable
from genzoo.evaluation import read_report
from genzoo.evaluation.comparison.comparing import Comparison
from genzoo.evaluation.comparison.entries import read_entry
from genzoo.evaluation.comparison.page import render
from genzoo.evaluation.embedding_map import save_embedding_map
from genzoo.models.registry import create
from genzoo.training.checkpoint import save_model

NAMES = [
    "$5", "$5 and $6", "[red]b[/red]", "a\nb", "\x1b[31mred", "caf\udce9", "\u202egnp", "<b>&amp;", "x" * 900, "猫 ñ",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_one_line_of_what_can_be_seen(name):
    text = showable(name)
    assert text.isprintable() and len(text) <= 200 and text.encode("utf-8")
    if name.isprintable() and len(name) <= 200:
        assert text == name
    assert json.dumps(storable({name: [name]})).encode() and page_text(f"{name}\n").encode().endswith(b"\n")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_no_formula_in_a_plot(name, tmp_path):
    """Of two dollar signs matplotlib makes a formula, and fails where it is none."""
    vectors = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the font lacks ideographs
        save_embedding_map(
            vectors,
            None,
            tmp_path / "a.png",
            title=f"folder:{name}$_{{",
            generator=torch.Generator(),
            inside=tmp_path,
        )
    assert (tmp_path / "a.png").stat().st_size > 1000 and plot_text("$a$") == r"\$a\$"


@pytest.fixture
def odd(tmp_path):
    """A folder of pictures, its classes and the run beside it, all with odd names."""
    base = os.path.join(os.fsencode(tmp_path), b"p $a$ [red] \x1b[31m caf\xe9")
    for i, name in enumerate((b"caf\xe9", b"a\nb", b"$x$")):
        os.makedirs(os.path.join(base, name))
        for j in range(4):
            with open(os.path.join(base, name, b"%d.png" % j), "wb") as file:
                Image.fromarray(np.full((4, 4), 20 * i + j, dtype=np.uint8)).save(file, format="PNG")
    return Path(os.fsdecode(base)), Path(
        os.fsdecode(os.path.join(os.fsencode(tmp_path), b"run \xe9\n$y$ [b]"))
    )


def test_odd_names_pass_every_command(odd, tmp_path, capsys):
    pictures, run = odd
    argv = ["vae", "--data", f"folder:{pictures}", "--cond", "class", "--size", "tiny", "--steps", "1"]
    assert main(["train", *argv, "--out", str(run), "--no-progress"]) == 0
    assert main(["sample", str(run), "--cond", r"caf\xe9,$x$", "--n", "2"]) == 0
    page = tmp_path / "page.html"
    assert main(["compare", str(run), "--html", str(page)]) == 0
    out, err = capsys.readouterr()
    for line in (*out.splitlines(), *err.splitlines()):
        assert line.isprintable() and line.encode("utf-8")
    assert r"1: a\nb, 2: caf\xe9" in out
    assert page.read_bytes().decode("utf-8")
    stored = read_report(run)
    assert not stored.notes and stored.parts["likelihood"]
    assert main(["compare", str(run), "--json", "--html", str(page)]) == 0
    assert json.loads(capsys.readouterr().out)["runs"]


def test_a_page_holds_nothing_that_cannot_be_seen(tmp_path):
    run = tmp_path / "run"
    data = genzoo.load_data("digits")
    save_model(create("vae", data.spec, "tiny"), run, facts={"data": data.protocol, "preset": "vae"})
    page = page_text(render(Comparison([read_entry(run, name="\x1b[31m\udce9<b>")])))
    assert page.encode() and "\x1b" not in page and r"\x1b[31m\xe9&lt;b&gt;" in page
