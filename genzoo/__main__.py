"""The console script: `genzoo train|sample|evaluate|compare`, each also `python -m genzoo.NAME`."""

import sys
from collections.abc import Sequence
from importlib import import_module

from genzoo.cli.parsing import fail, nearest

COMMANDS = {
    "train": "train a preset on images",
    "sample": "draw images from a trained model",
    "evaluate": "measure the likelihood of images under a trained model",
    "compare": "tell which of several models is best, on a page; or train several and compare them",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Hands over to the command that the first argument names; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        rows = "\n".join(f"  {name:10}{text}" for name, text in COMMANDS.items())
        print(f"usage: genzoo COMMAND ...\n\ncommands (each has its own --help):\n{rows}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        fail(f"unknown command {name!r}: did you mean {nearest(name, list(COMMANDS))!r}?")
    return import_module(f"genzoo.cli.{name}_command").main(rest)


if __name__ == "__main__":
    sys.exit(main())
