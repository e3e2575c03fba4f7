"""The house rules that a machine can check: import directions, final classes, lengths, generated texts."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "genzoo").rglob("*.py"))

FLOORS = [
    "catalogue contract config data networks betas paths couplings distributions",
    "objectives samplers likelihood imputation",
    "models encoders text_prior",
    "trainer run run_folder checkpoint optim step pictures progress runtime validation evaluation conditioning",
    "presets encoder_presets testing",
    "parsing commands sections encoder_sections quality_sections block_sections judge comparison "
    "train sample evaluate compare __main__",
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}
"""Room to floor: a room imports rooms of its own floor and those below. `genzoo/__init__.py` imports lazily."""


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def room_of(path):
    first = path.relative_to(ROOT / "genzoo").parts[0]
    return first.removesuffix(".py")


def is_type_checking(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports_when_loaded(tree):
    """The genzoo rooms that a module imports when it is loaded: not those for types, nor those in functions."""
    todo = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or is_type_checking(node):
            continue
        if isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("genzoo."))
        elif isinstance(node, ast.ImportFrom) and node.module == "genzoo":
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("genzoo."):
            yield node.module.split(".")[1]
        todo += ast.iter_child_nodes(node)


def wrong_imports(room, tree):
    return [other for other in imports_when_loaded(tree) if FLOOR[other] > FLOOR[room]]


def test_imports_run_one_way():
    wrong = [
        f"{path.relative_to(ROOT)} imports {other}"
        for path in SOURCES
        if room_of(path) != "__init__"
        for other in wrong_imports(room_of(path), parsed(path))
    ]
    assert not wrong


def test_the_rule_of_imports_can_fail():
    tree = ast.parse(
        "class A:\n    from genzoo.models import x\ndef f():\n    from genzoo.models.presets import y\n"
    )
    assert wrong_imports("networks", tree) == ["models"]
    assert wrong_imports("trainer", tree) == []


def concrete_parents(trees):
    """(child, parent) where both are classes of ours and the parent is neither abstract nor an exception."""
    bases = {
        node.name: {ast.unparse(base).split(".")[-1].split("[")[0] for base in node.bases}
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    open_classes = {name for name, of in bases.items() if of & {"ABC", "Protocol", "Exception"}}
    return [(c, p) for c, of in bases.items() for p in of if p in bases and p not in open_classes]


def test_no_concrete_class_has_subclasses():
    assert concrete_parents([parsed(path) for path in SOURCES]) == []


def test_the_rule_of_classes_can_fail():
    tree = ast.parse("class A(ABC): pass\nclass B(A): pass\nclass C(B): pass")
    assert concrete_parents([tree]) == [("C", "B")]


def test_files_and_functions_are_short():
    long = []
    for path in SOURCES:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        long += [f"{path.name}: {lines} lines"] if lines > 400 else []
        for node in ast.walk(parsed(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = node.end_lineno - node.lineno + 1
                long += [f"{path.name}: {node.name} has {length} lines"] if length > 60 else []
    assert not long


def test_readme_shows_the_generated_table():
    from genzoo.models.presets import preset_table

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.split("<!-- presets -->\n")[1].split("\n<!-- /presets -->")[0]
    assert shown == preset_table(), f"put this between the README's preset markers:\n{preset_table()}"


@pytest.mark.parametrize("name", ["main", "test"])
def test_readme_has_the_command_that_ci_runs(name):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(
        rf"^<!-- {name} command -->\n```sh\n(.+)\n```\n<!-- /{name} command -->$", readme, re.M
    )
    assert len(shown) == 1 and "\n" not in shown[0]
    assert f"run_readme_command {name}" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_readme_links_lead_somewhere():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", readme)
    assert links and [link for link in links if not (ROOT / link).exists()] == []


def test_one_version_of_ruff():
    pinned = re.findall(r"ruff==[\d.]+", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    hooked = re.findall(r"ruff==[\d.]+", (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert set(pinned) == set(hooked) and len(set(pinned)) == 1


def test_help_does_not_wait_for_torch():
    code = """
import sys
from genzoo.__main__ import main
import genzoo
for argv in ([], ["train"], ["sample"], ["evaluate"], ["compare"]):
    try:
        main([*argv, "--help"])
    except SystemExit as stop:
        assert not stop.code, stop.code
slow = {"torch", "torchvision", "numpy", "sklearn", "accelerate", "matplotlib"} & set(sys.modules)
assert not slow, slow
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    for words in ("usage: genzoo COMMAND", "pixel-transformer", "--save-every", "--max-images", "--cond"):
        assert words in run.stdout


def test_no_field_of_a_preset_hides_a_flag():
    from genzoo.cli.parsing import flags_of
    from genzoo.cli.train_command import TrainFlags
    from genzoo.models.presets import PRESETS

    for preset in PRESETS.values():
        for config in preset.sizes.values():
            assert not set(flags_of(type(config))) & set(flags_of(TrainFlags))
