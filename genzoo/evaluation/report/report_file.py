"""The report of a run on disk, and the pictures beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.core.legacy import upgrade_report

if TYPE_CHECKING:
    pass


REPORT = "report.json"

JUDGED = Path("samples") / "judged.png"
"""Samples of an evaluation."""

BY_CLASS = Path("samples") / "by-class.png"
"""Those of a run that takes no classes, a row for each class that the feature extractor finds in them."""

PER_CLASS, MOST_CLASSES = 8, 40
"""Samples of a class, and classes at most, that pictures of classes show."""


def add_to_report(run: Path, section: str, key: str, content: Mapping[str, Any]) -> Path:
    """Sets `section` / `key` in the run's `report.json`, keeping what other commands wrote there.

    Raises `GenzooError` where the file cannot be written.
    """
    from genzoo.core.files import write_atomically

    path = run / REPORT
    try:
        report = upgrade_report(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):  # there is none yet, or none that anybody could read
        report = {}
    report = report if isinstance(report, dict) else {}
    report[section] = {**report.get(section, {}), key: dict(content)}
    write_atomically(path, (json.dumps(report, indent=2) + "\n").encode())
    return path
