"""`genzoo list [models|encoders|data|metrics]`: every name that the commands take, with a line on each."""

import sys
from collections.abc import Callable, Mapping, Sequence

from genzoo.cli import parsing
from genzoo.cli.imports import imported
from genzoo.cli.shared import guarded
from genzoo.core.bounds import shown
from genzoo.core.suggestions import suggestion
from genzoo.models.names import encoder_rows, model_rows

PROG = "genzoo list"


def _models() -> dict[str, str]:
    return {name: row.description for name, row in model_rows().items()}


def _encoders() -> dict[str, str]:
    return {name: row.description for name, row in encoder_rows().items()}


def _data() -> dict[str, str]:
    from genzoo.data.sources import source_names

    return dict.fromkeys(source_names(), "")


def _metrics() -> dict[str, str]:
    from genzoo.metrics.estimate import display_name
    from genzoo.metrics.metric_registry import METRICS

    better = {
        "lower": "lower is better",
        "higher": "higher is better",
        "nearest real": "best near what real images get",
        "nearest 0": "best near 0",
        "neither": "neither way is better",
    }
    return {name: f"{display_name(name)}, {better[row.direction]}" for name, row in METRICS.rows.items()}


KINDS: Mapping[str, Callable[[], dict[str, str]]] = {
    "models": _models, "encoders": _encoders, "data": _data, "metrics": _metrics,
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return guarded(lambda: _list(imported(arguments)))


def _list(arguments: Sequence[str]) -> None:
    parsing.check_words(arguments)
    if not {"-h", "--help"}.isdisjoint(arguments):
        print(f"usage: {PROG} [{'|'.join(KINDS)}] [--import MODULE]\n\n{__doc__}")
        return
    unknown = [word for word in arguments if word not in KINDS]
    if unknown:
        parsing.fail(f"{PROG} knows no {shown(unknown[0])}: {suggestion(unknown[0], KINDS)}")
    chosen = list(arguments) or list(KINDS)
    for kind in chosen:
        rows = KINDS[kind]()
        if len(chosen) > 1:
            print(f"{kind}:")
        for name, text in rows.items():
            print(f"  {name:20}{text}".rstrip())
