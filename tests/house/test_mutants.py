"""The benchmark that breaks formulas: its rows fit the package as it is, and its runner tells killed from survived."""

import re
from pathlib import Path

import pytest

from benchmarks.mutant_rows import MUTANTS
from benchmarks.mutant_rows.mutant import Mutant
from benchmarks.mutants import FAST, BrokenRow, Copies, Verdict, chosen, judge, killed, told

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_row_fits_its_file(mutant):
    """The old text is there once, what comes of it is Python and different, and the tests exist."""
    source = (ROOT / "genzoo" / mutant.file).read_text(encoding="utf-8")
    broken = mutant.applied(source)
    compile(broken, mutant.file, "exec")
    assert broken != source and mutant.why and mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")
        text = (ROOT / file).read_text(encoding="utf-8")
        assert not name or re.search(rf"^def {re.escape(name.partition('[')[0])}\(", text, re.M), test


def test_rows_are_told_apart_and_reach_all_rooms():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 60
    assert len({mutant.file for mutant in MUTANTS}) >= 40


def test_a_text_that_is_not_there_or_there_twice_is_refused():
    row = Mutant("a", "b.py", "x", "y", ("c.py",), "d")
    assert row.applied("1 + x") == "1 + y"
    for source in ("1", "x + x"):
        with pytest.raises(ValueError, match="occurs"):
            row.applied(source)


@pytest.fixture
def tree(tmp_path):
    """A tree with one formula, a fast test that looks at one point, a slow one that looks at another."""
    root = tmp_path / "root"
    for name, text in {
        "genzoo/__init__.py": "",
        "genzoo/one.py": "def f(x):\n    return x * 2\n",
        "tests/test_one.py": "import pytest\nfrom genzoo.one import f\n\n\ndef test_fast():\n    assert f(2) == 4\n"
        "\n\n@pytest.mark.slow\ndef test_slow():\n    assert f(3) == 6\n",
        "pyproject.toml": '[tool.pytest.ini_options]\npythonpath = ["."]\nmarkers = ["slow: slow"]\n',
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def row(new):
    return Mutant(new, "one.py", "x * 2", new, ("tests/test_one.py",), "twice")


def test_a_mutant_is_killed_by_fast_tests_or_by_slow_ones(tree):
    found = judge([row("x * 3"), row("x + 2")], "all", Copies(1, tree))  # the fast test looks at 2 alone
    assert [verdict.tier for verdict in found] == ["fast", "all"]
    assert (tree / "genzoo" / "one.py").read_text() == "def f(x):\n    return x * 2\n"


def test_what_says_nothing_of_the_tests_is_refused(tree):
    with Copies(1, tree) as copies:
        (copy,) = copies.trees.queue
        assert not killed(copy, row("2 * x"), FAST)
        with pytest.raises(BrokenRow, match="pytest ended with"):
            killed(copy, row("x *"), FAST)
        assert (copy / "genzoo" / "one.py").read_text() == "def f(x):\n    return x * 2\n"
    (tree / "genzoo" / "one.py").write_text("def f(x):\n    return x * 2 + 1\n")
    with pytest.raises(BrokenRow, match="fail without any mutant"):
        judge([row("x * 3")], "fast", Copies(1, tree))


def test_shares_survivors_and_targets(capsys):
    verdicts = [Verdict(row(f"x * {n}"), "fast" if n else "all") for n in range(10)]
    assert told(verdicts, "fast") and told(verdicts, "all")
    shown = capsys.readouterr().out
    assert "tier fast: 9 of 10 killed, 90.0%" in shown and "tier all: 10 of 10 killed" in shown
    assert "survives: x * 0 (one.py): twice" in shown
    assert not told([*verdicts, Verdict(row("y"), None)], "all")


def test_rows_are_chosen_by_part_of_their_names():
    name = MUTANTS[3].name
    assert MUTANTS[3] in chosen([name[2:]]) and len(chosen([name])) < len(MUTANTS) == len(chosen(None))
    with pytest.raises(ValueError, match="no row"):
        chosen(["nothing is called so"])
