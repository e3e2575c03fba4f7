"""Plain JSON: what goes into a report, and what can be saved of a damaged one."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

_KEY = re.compile(r'\s*,?\s*("(?:[^"\\]|\\.)*")\s*:\s*')
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},]')


def top_level_parts(text: str) -> Iterator[tuple[str, str]]:
    """Keys and values of the outermost object, the values as text; ends where the text does, or makes no sense.

    Values are not parsed, so that damage in one leaves the others.

    >>> list(top_level_parts('{"a": {"x": }, "b": [1, "}"], "c": {"y"'))
    [('a', '{"x": }'), ('b', '[1, "}"]')]
    """
    place = text.find("{") + 1
    while place > 0:
        key = _KEY.match(text, place)
        end = None if key is None else _end_of_value(text, key.end())
        if key is None or end is None:
            return
        try:
            name = json.loads(key.group(1))
        except ValueError:
            name = key.group(1)
        yield name, text[key.end() : end].strip()
        place = end


def _end_of_value(text: str, start: int) -> int | None:
    """Where the value that begins at `start` ends: at a comma or bracket of the object around it; None: nowhere."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        mark = token.group()
        if depth == 0 and mark in ",}":
            return token.start()
        depth += (mark in "[{") - (mark in "]}")
        if depth < 0:
            return None
    return None


def finite(value: Any) -> Any:
    """Plain JSON of what a model tells: numbers that are not finite are null, and what JSON does not know is a text.

    >>> finite({"a": [1.0, float("nan")], 2: (True, "x")})
    {'a': [1.0, None], '2': [True, 'x']}
    """
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return str(value)
