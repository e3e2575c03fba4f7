"""A report as rows of a table, and the pictures that go with it."""

from collections.abc import Mapping, Sequence

from genzoo.evaluation.report.all_sections import SECTIONS
from genzoo.evaluation.report.schema import Report
from genzoo.evaluation.report.section import Section

NONE_ROWS = {"quality": "sample quality"}
"""Parts whose rows have another name where there is no answer."""


def report_rows(report: Report, sections: Sequence[Section] = SECTIONS) -> dict[str, str]:
    """The rows of the main table; first, for what there is no answer to, the reason."""
    rows = {
        NONE_ROWS.get(name, name.replace("_", " ")): f"none: {reason}"
        for name, reason in report.missing.items()
    }
    return rows | _rows(report, [section for section in sections if not section.table])


def other_tables_of(report: Report, sections: Sequence[Section] = SECTIONS) -> Mapping[str, dict[str, str]]:
    """The rows of tables of their own, by their titles."""
    own = {section.table: _rows(report, [section]) for section in sections if section.table}
    return {title: rows for title, rows in own.items() if rows}


def report_pictures(report: Report, sections: Sequence[Section] = SECTIONS) -> list[str]:
    """The files of pictures."""
    parts = dict(report.parts())
    return [
        path
        for section in sections
        if section.name in parts
        for path in section.pictures(parts[section.name])
    ]


def _rows(report: Report, sections: Sequence[Section]) -> dict[str, str]:
    parts = dict(report.parts())
    return {
        name: value
        for section in sections
        if section.name in parts
        for name, value in section.rows(parts[section.name]).items()
    }
