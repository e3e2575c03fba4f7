"""The README and docs/: links lead somewhere, code compiles and names what exists, commands have their flags."""

import ast
import contextlib
import dataclasses
import importlib
import io
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

import genzoo
from benchmarks.readme_pictures import LABELS, SAMPLES, families
from genzoo.__main__ import main

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(text, language):
    """The fenced blocks of a Markdown text in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def anchors(text):
    """The anchors that GitHub gives to the headings of a Markdown text."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_readme_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 180, f"{len(lines)} lines: move what is read once to docs/"


def broken_links(text, folder):
    """Relative links and pictures of `text`, a page in `folder`, that lead nowhere; targets may be a page's heading."""
    wrong = []
    for link in re.findall(
        r"\]\((?!https?:)([^)\s]+)\)", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    ):
        file, _, heading = link.partition("#")
        target = folder / file
        if file and not target.exists():
            wrong.append(link)
            continue
        there = target.read_text(encoding="utf-8") if file.endswith(".md") else text
        wrong += [link] if heading and heading not in anchors(there) else []
    return wrong


@pages
def test_links_lead_somewhere(page):
    assert broken_links(page.read_text(encoding="utf-8"), page.parent) == []


def test_the_rule_of_links_can_fail():
    text = "# One heading\n[a](no.md) ![b](README.md) [c](README.md#nowhere) [d](#one-heading) [e](#two)"
    assert broken_links(text, ROOT) == ["no.md", "README.md#nowhere", "#two"]


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert pages == set(re.findall(r"\]\((\w+\.md)\)", index))


def test_the_picture_of_families_shows_the_recorded_grids():
    """Left of the tiles are letters, which another version of Pillow may draw in another way."""
    with Image.open(SAMPLES / "families.png") as shown:
        made = families()
        assert shown.size == made.size
        box = (LABELS, 0, *made.size)
        assert shown.convert("RGB").crop(box).tobytes() == made.crop(box).tobytes()


# --- Python ----------------------------------------------------------------------------------------------------


def unknown_names(code):
    """What the code takes from genzoo that is not there: imported names, `genzoo.a.b`, fields given to `create`."""
    wrong = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "genzoo":
            try:
                module = importlib.import_module(node.module)
            except ModuleNotFoundError:
                module = None
            wrong += [f"{node.module}.{a.name}" for a in node.names if not hasattr(module, a.name)]
        elif isinstance(node, ast.Attribute) and re.fullmatch(r"genzoo(\.\w+)+", ast.unparse(node)):
            value = genzoo
            for name in ast.unparse(node).split(".")[1:]:
                value = getattr(value, name, None)
            wrong += [ast.unparse(node)] if value is None else []
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "genzoo.create",
            "genzoo.create_encoder",
        ):
            wrong += unknown_fields(node)
    return wrong


def unknown_fields(call):
    """Keywords of a call of `create` or `create_encoder` that are no fields of the preset's configuration."""
    preset = ast.literal_eval(call.args[0]) if isinstance(call.args[0], ast.Constant) else None
    given = {keyword.arg for keyword in call.keywords} - {"seed", "size", "kind"}
    if preset is None or not given:
        return []
    make = genzoo.create if ast.unparse(call.func) == "genzoo.create" else genzoo.create_encoder
    config = make(preset, genzoo.DataSpec((1, 8, 8), levels=17), "tiny").config
    return sorted(given - {field.name for field in dataclasses.fields(config)})


@pages
def test_python_names_what_exists(page):
    code = blocks(page.read_text(encoding="utf-8"), "python")
    assert [name for block in code for name in unknown_names(block)] == []


def test_the_rule_of_names_can_fail():
    code = "from genzoo.data import no\ngenzoo.nothing.at(1)\ngenzoo.create('vae', spec, wdith=3, seed=1)"
    assert sorted(unknown_names(code)) == ["genzoo.data.no", "genzoo.nothing", "genzoo.nothing.at", "wdith"]


def test_the_family_of_the_page_on_extending_keeps_the_contract(tmp_path):
    """In an interpreter of its own: what it registers is nobody else's business."""
    code = blocks((ROOT / "docs" / "extending.md").read_text(encoding="utf-8"), "python")[0]
    (tmp_path / "histogram.py").write_text(code, encoding="utf-8")
    check = "genzoo.testing.check_model(genzoo.create('histogram', genzoo.DataSpec((1, 2, 3), levels=4)))"
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); import genzoo, histogram; {check}"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr


# --- commands --------------------------------------------------------------------------------------------------


@cache
def flags_in_help(*words):
    """Every flag that `genzoo WORDS --help` shows."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return set(re.findall(r"--[a-z][a-z0-9.-]*", shown.getvalue()))


def commands(text):
    """The words of each `genzoo ...` and `python -m genzoo...` in a page's shell blocks, or after a prompt."""
    typed = re.findall(r"^\$ (.*)$", "".join(blocks(text, "console")), re.M)
    for line in [*"".join(blocks(text, "sh")).replace("\\\n", " ").splitlines(), *typed]:
        words = shlex.split(line, comments=True)
        starts = [i for i, word in enumerate(words) if word == "genzoo" or word.startswith("genzoo.")]
        if starts:
            name = words[starts[0]].removeprefix("genzoo").lstrip(".")
            rest = words[starts[0] + 1 :]
            yield [name, *rest] if name else rest


def unknown_flags(words):
    """Flags of a command that its help does not show; that of `train PRESET` shows the preset's, too."""
    ours = {*genzoo.list_models(), *genzoo.list_encoders()}
    presets = [word for word in words[1:2] if words[0] == "train" and word in ours]
    known = flags_in_help(words[0], *presets) | {"--help"}
    given = [word.split("=")[0] for word in words[1:] if word.startswith("--")]
    return [flag for flag in given if flag not in known]


@pages
def test_commands_have_these_flags(page):
    found = list(commands(page.read_text(encoding="utf-8")))
    assert [(" ".join(words), wrong) for words in found if (wrong := unknown_flags(words))] == []


def test_the_rule_of_flags_can_fail():
    text = "```sh\npython -m genzoo.train vae --latnets 3 --minutes 1  # --no\n```\n"
    text += "```console\n$ genzoo sample run --nn 3\n64 images --n\n```\n"
    assert [unknown_flags(words) for words in commands(text)] == [["--latnets"], ["--nn"]]
