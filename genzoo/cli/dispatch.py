"""`genzoo COMMAND ...`: hands over to the command, each of which is also `python -m genzoo.NAME`."""

import sys
from collections.abc import Sequence
from importlib import import_module

from genzoo.cli.parsing import fail
from genzoo.cli.shared import guarded
from genzoo.core.bounds import shown
from genzoo.core.suggestions import suggestion
from genzoo.core.version import __version__

COMMANDS = {
    "train": "train a preset on images",
    "sample": "draw images from a trained model",
    "evaluate": "measure the likelihood of images under a trained model",
    "compare": "tell which of several models is best, on a page; or train several and compare them",
    "list": "the names of models, encoders, data and metrics",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Hands over to the command that the first argument names; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _handed_over(arguments))


def _handed_over(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        rows = "\n".join(f"  {name:10}{text}" for name, text in COMMANDS.items())
        print(f"usage: genzoo COMMAND ...\n\ncommands (each has its own --help):\n{rows}")
        return 0
    name, *rest = arguments
    if name == "--version":
        print(f"genzoo {__version__}")
        return 0
    if name not in COMMANDS:
        fail(f"unknown command {shown(name)}: {suggestion(name, COMMANDS)}")
    return import_module(f"genzoo.cli.{name}_command").main(rest)
