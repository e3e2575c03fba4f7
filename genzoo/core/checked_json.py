"""JSON that others may have written, read: of limited size and depth, without what no file of the package holds."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genzoo.core.errors import GenzooError
from genzoo.core.regular_files import read_regular

MOST_BYTES = 2**22
"""Of a file of settings: 4 MiB."""
DEEPEST = 64
"""Levels of nesting."""
LARGEST = 2**64
"""Of whole numbers."""


def read_json(
    path: Path, most_bytes: int = MOST_BYTES, *, any_text: bool = False, any_float: bool = False
) -> Any:
    """What the regular file `path` holds, as `parsed_json` takes it.

    Raises `GenzooError` where there is none of at most `most_bytes` bytes, or one that holds something else.
    """
    content = read_regular(path, most_bytes)
    try:
        return parsed_json(content, any_text=any_text, any_float=any_float)
    except ValueError as error:
        raise GenzooError(f"{path} cannot be read as JSON ({error})") from error


def parsed_json(content: bytes, *, any_text: bool = False, any_float: bool = False) -> Any:
    """JSON in UTF-8, with or without its mark: no name twice in an object, and what `check_plain` allows.

    >>> parsed_json(b'{"a": [1, 2.5, null]}')
    {'a': [1, 2.5, None]}

    Raises `ValueError` with the reason in one short line.
    """
    try:
        value = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_distinct)
    except UnicodeDecodeError as error:
        raise ValueError("it is no text in UTF-8") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:
        raise ValueError(short(error)) from error
    check_plain(value, any_text=any_text, any_float=any_float)
    return value


def check_plain(
    content: Any, deepest: int = DEEPEST, *, any_text: bool = False, any_float: bool = False
) -> None:
    """Refuses numbers that are not finite or too large, deep nesting, and texts that cannot be shown.

    With `any_text` these pass, as names of files need not be texts; with `any_float` infinite numbers and NaN do, which
    Python writes into JSON.

    Raises `ValueError` that names the field. Walks without recursion, so that depth cannot hurt.

    >>> check_plain({"a": [1.0, float("nan")]})
    Traceback (most recent call last):
    ValueError: a[1] is no finite number
    """
    todo: list[tuple[str, Any, int]] = [("", content, 0)]
    while todo:
        path, value, depth = todo.pop()
        if depth > deepest:
            raise ValueError(f"{short(path)} is nested too deeply")
        if isinstance(value, Mapping):
            todo += [(f"{path}.{key}".lstrip("."), inner, depth + 1) for key, inner in value.items()]
            todo += [(path, key, depth) for key in value]
        elif isinstance(value, (list, tuple)):
            todo += [(f"{path}[{i}]", inner, depth + 1) for i, inner in enumerate(value)]
        elif isinstance(value, str) and not (any_text or can_be_shown(value)):
            raise ValueError(f"{short(path)} holds characters that are none")
        elif isinstance(value, float) and not (any_float or math.isfinite(value)):
            raise ValueError(f"{short(path)} is no finite number")
        elif isinstance(value, int) and abs(value) > LARGEST:
            raise ValueError(f"{short(path)} is beyond the range of numbers")


def can_be_shown(text: str) -> bool:
    """Whether a text consists of characters: half of a pair of surrogates is none."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def short(value: Any) -> str:
    """For a message: one line of bounded length, of characters that can be shown."""
    text = " ".join(str(value)[:400].encode("utf-8", errors="replace").decode().split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"{short(next(n for i, n in enumerate(names) if n in names[:i]))} stands there twice"
        )
    return found
