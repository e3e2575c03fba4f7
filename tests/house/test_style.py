"""The house rules that a machine can check: imports, names, final classes, lengths, generated texts."""

import ast
import functools
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Protocol

import pytest

import genzoo
from genzoo.core.config import Configurable

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "genzoo"
SOURCES = sorted(PACKAGE.rglob("*.py"))

FLOORS = ["core", "data nn metrics", "objectives", "training", "models", "evaluation testing", "cli"]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}
"""Folder to floor: a folder imports those of lower floors, and itself."""
ENTRIES = {"__init__", "__main__", "train", "sample", "evaluate", "compare"}
FAMILIES = {
    "autoregressive": set(),
    "vae": set(),
    "vq": {"autoregressive"},
    "gan": set(),
    "diffusion": set(),
    "encoders": set(),
    "prior": {"diffusion", "encoders"},
}
"""Folder of a family to those that it is built on."""
WARN, FAIL = (400, 60), (800, 120)
"""Lines of a file and of a function: above the first it is a question to the author, above the second an error."""


# --- imports -----------------------------------------------------------------------------------------------------


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(tree, modules):
    """Every module of `modules` that is imported anywhere: in functions and for type checkers, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (n if n in modules else node.module for n in names if node.module in modules)


@functools.cache
def trees():
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


@functools.cache
def graph():
    modules = {module_name(path): tree for path, tree in trees().items()}
    return {name: set(imports_of(tree, modules)) - {name} for name, tree in modules.items()}


def is_upward(importer, imported):
    """Whether an import breaks the order of the floors; entry files only hand over to the commands."""
    rooms = [name.split(".")[1] if "." in name else "__init__" for name in (importer, imported)]
    if rooms[0] in ENTRIES:
        return not (rooms[1] == "cli" or imported in ("genzoo.core.version", "genzoo.core.lazy"))
    if rooms[0] == rooms[1]:
        return False
    return rooms[1] in ENTRIES or FLOOR[rooms[1]] >= FLOOR[rooms[0]]


def is_foreign(importer, imported):
    """Whether a family imports another that it is not built on, or the base of all families imports one."""
    kinds = [
        name.split(".")[2:3] if name.startswith("genzoo.models.") else [] for name in (importer, imported)
    ]
    own, other = (kind[0] if kind and kind[0] in FAMILIES else None for kind in kinds)
    if other is None or own == other:
        return False
    if own is not None:
        return other not in FAMILIES[own]
    return importer in BELOW_FAMILIES


BELOW_FAMILIES = {
    f"genzoo.models.{name}"
    for name in ("base", "imputation", "input_pictures", "monitors", "names", "preset", "registry")
}
"""Modules of the models' room that families import."""


def circles(edges):
    """The sets of modules that import each other, directly or not (Tarjan 1972)."""
    index, low, stack, found = {}, {}, [], []

    def visit(v):
        index[v] = low[v] = len(index)
        stack.append(v)
        for w in edges[v]:
            if w not in index:
                visit(w)
                low[v] = min(low[v], low[w])
            elif w in stack:
                low[v] = min(low[v], index[w])
        if low[v] == index[v]:
            place = stack.index(v)
            ring = stack[place:]
            del stack[place:]
            if len(ring) > 1:
                found.append(sorted(ring))

    for v in edges:
        if v not in index:
            visit(v)
    return found


def test_imports_run_one_way():
    wrong = [f"{a} imports {b}" for a, others in graph().items() for b in others if is_upward(a, b)]
    assert not wrong


def test_families_import_what_they_are_built_on():
    wrong = [f"{a} imports {b}" for a, others in graph().items() for b in others if is_foreign(a, b)]
    assert not wrong


def test_no_circle():
    assert circles(graph()) == []


def test_the_rules_of_imports_can_fail():
    modules = {"genzoo.nn.a": None, "genzoo.models.b": None}
    text = "def f():\n    from genzoo.nn import a\nif TYPE_CHECKING:\n    from genzoo.models.b import x\n"
    assert set(imports_of(ast.parse(text), modules | {"genzoo.nn": None})) == set(modules)
    assert is_upward("genzoo.nn.a", "genzoo.models.b") and not is_upward("genzoo.models.b", "genzoo.nn.a")
    assert is_upward("genzoo.nn.a", "genzoo.data.c") and is_upward("genzoo.nn.a", "genzoo")
    assert is_foreign("genzoo.models.vae.a", "genzoo.models.gan.b")
    assert is_foreign("genzoo.models.base", "genzoo.models.gan.b")
    assert not is_foreign("genzoo.models.vq.a", "genzoo.models.autoregressive.b")
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def loaded_by(code):
    """The modules of the package that a fresh interpreter has loaded after `code`."""
    code += "\nimport sys\nprint(*sorted(m for m in sys.modules if m.split('.')[0] == 'genzoo'), sep='\\n')"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return run.stdout.split()


def test_one_family_loads_one_family():
    modules = loaded_by("import genzoo\ngenzoo.create('pixelcnn', genzoo.DataSpec((1, 28, 28)))")
    assert len(modules) <= 45, modules
    others = [m for m in modules if re.match(r"genzoo\.models\.(vae|vq|gan|diffusion|encoders)\.", m)]
    assert all(m.endswith("_presets") for m in others), others


# --- names and places ------------------------------------------------------------------------------------------


def test_few_things_lie_at_the_top():
    entries = {path.stem for path in PACKAGE.glob("*.py")}
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert entries == ENTRIES and len(folders) <= 10 and folders == set(FLOOR)


def repeated(names):
    return sorted({name for name in names if names.count(name) > 1})


def test_no_name_twice():
    assert repeated([path.name for path in SOURCES if path.name != "__init__.py"]) == []
    classes = [node.name for tree in trees().values() for node in tree.body if isinstance(node, ast.ClassDef)]
    assert repeated([name for name in classes if not name.startswith("_")]) == []
    assert repeated(["a", "b", "a"]) == ["a"]


# --- classes and lengths -----------------------------------------------------------------------------------------


def classes_of(package):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if module.name != "genzoo.__main__":
            loaded = importlib.import_module(module.name)
            for value in vars(loaded).values():
                if inspect.isclass(value) and value.__module__ == module.name:
                    yield value


def is_open(cls):
    """Whether a class may have subclasses: one that is abstract, a protocol, an exception or a mere mark."""
    return bool({ABC, Protocol} & set(cls.__bases__)) or issubclass(cls, Exception) or cls is Configurable


def concrete_parents(classes):
    """(child, parent) where the parent is one of ours and final; by the classes themselves and not by their names."""
    ours = lambda cls: cls.__module__.split(".")[0] in ("genzoo", __name__)  # noqa: E731
    return [(c.__name__, p.__name__) for c in classes for p in c.__bases__ if ours(p) and not is_open(p)]


def test_no_concrete_class_has_subclasses():
    assert concrete_parents(list(classes_of(genzoo))) == []


def test_the_rule_of_classes_can_fail():
    class Abstract(ABC):
        @abstractmethod
        def f(self): ...

    class Final(Abstract):
        pass

    class Child(Final):
        pass

    class Coupling:  # as an abstract class of genzoo is called
        pass

    class Another(Coupling):
        pass

    assert concrete_parents([Final, Child]) == [("Child", "Final")]
    assert concrete_parents([Another]) == [("Another", "Coupling")]


def too_long(limits, path, text):
    lines, of_functions = limits
    found = [f"{path.name}: {n} lines"] if (n := len(text.splitlines())) > lines else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            found += [f"{path.name}: {node.name} has {length} lines"] if length > of_functions else []
    return found


def test_files_and_functions_are_short():
    texts = {path: path.read_text(encoding="utf-8") for path in SOURCES}
    for path, text in texts.items():
        for long in too_long(WARN, path, text):
            warnings.warn(f"{long}: two ideas?", stacklevel=1)
    assert [long for path, text in texts.items() for long in too_long(FAIL, path, text)] == []
    assert too_long((1, 60), Path("a.py"), "x = 1\ny = 2\n") == ["a.py: 2 lines"]


# --- generated texts and commands --------------------------------------------------------------------------------


def test_readme_shows_the_generated_table():
    from genzoo.models.preset_table import preset_table

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
    from genzoo.models.registry import every_preset

    for preset in every_preset().values():
        for config in preset.sizes.values():
            assert not set(flags_of(type(config))) & set(flags_of(TrainFlags))


# --- who writes --------------------------------------------------------------------------------------------------

WRITERS = {"core/files.py", "core/folder_lock.py", "core/regular_files.py"}
"""Where files are opened by the system's own call, made, moved or removed; all others call these."""

_WRITING = {
    "write_text", "write_bytes", "mkdir", "makedirs", "touch", "rename", "unlink", "rmdir", "rmtree", "symlink_to",
    "copyfile", "copy2", "copytree", "move", "imsave", "save_image", "save_file", "mkstemp", "mkdtemp", "fdopen",
    "tofile", "savez", "save_pretrained",
}  # fmt: skip
"""Functions that write to disk, by their bare names."""
_TAKING_FILES = {"save", "savefig", "dump"}
"""Functions that write to whatever is passed, which is then to be in memory."""
_IN_MEMORY = {"buffer", "stream", "file"}
"""What such things are called."""


def _is_a_librarys(function):
    """Whether a method is none of ours, which write by the rules."""
    owner = function.value if isinstance(function, ast.Attribute) else None
    ours = isinstance(owner, ast.Name) and owner.id in ("self", "model", "encoder", "checkpoint")
    return owner is not None and not ours and not isinstance(owner, ast.Attribute)


def writes(tree):
    """Lines of calls that write to disk."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        method = isinstance(node.func, ast.Attribute)
        name = node.func.attr if method else getattr(node.func, "id", "")
        owner = node.func.value.id if method and isinstance(node.func.value, ast.Name) else ""
        words = [
            a.value for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant)
        ]
        given = {a.id for a in node.args if isinstance(a, ast.Name)}
        modes = [
            w for w in words if isinstance(w, str) and re.fullmatch("[rwaxbt+]+", w) and set(w) & set("wax+")
        ]
        if (
            name in _WRITING
            or (name == "open" and (modes or owner == "os"))
            or (
                name == "replace"
                and (owner == "os" or (method and len(node.args) == 1 and not node.keywords))
            )
            or (name in _TAKING_FILES and node.args and not given & _IN_MEMORY and _is_a_librarys(node.func))
        ):
            yield node.lineno


def test_one_module_writes():
    found = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for path, tree in trees().items()
        if path.relative_to(PACKAGE).as_posix() not in WRITERS
        for line in writes(tree)
    ]
    assert found == [], "write through genzoo.core.files"


def test_the_rule_of_writers_can_fail():
    for line in (
        "open(p, 'w')", "path.open('ab')", "open(p, mode='x')", "path.write_text(t)", "torch.save(x, path)",
        "os.replace(a, b)", "path.replace(b)", "os.open(p, 1)", "figure.savefig(path)", "path.mkdir()",
        "json.dump(x, handle)", "picture.save(path)",
    ):  # fmt: skip
        assert list(writes(ast.parse(line))), line
    for line in (
        "open(p)",
        "path.open('rb')",
        "torch.save(x, buffer)",
        "text.replace('a', 'b')",
        "replace(x, a=1)",
    ):
        assert not list(writes(ast.parse(line))), line
