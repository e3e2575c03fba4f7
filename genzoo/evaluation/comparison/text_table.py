"""The overview of a comparison as text."""

import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as TextTable

from genzoo.evaluation.comparison.entries import Entry
from genzoo.evaluation.comparison.overview import overview
from genzoo.evaluation.comparison.tables import table_rows

WIDTH = 140
"""Characters in a line, where the screen does not say."""


def overview_text(entries: Sequence[Entry], data: str, width: int = WIDTH) -> str:
    """Within groups in the order of the leading column, the best marked by `*`."""
    content = overview(entries)
    columns = [column for column in content.columns if not column.words]
    table = TextTable(title=f"on {data}", title_justify="left")
    table.add_column("run")
    for column in columns:
        table.add_column(column.title, justify="right")
    for words, i in table_rows(content, len(entries)):
        if words is not None:
            table.add_section()
            continue
        cells = [c.cells[i].text + ("*" if c.cells[i].best else "") for c in columns]
        table.add_row(entries[i].name, *(cell or "-" for cell in cells))
    text = io.StringIO()
    Console(file=text, highlight=False, markup=False, emoji=False, width=width).print(table)
    if any(cell.best for column in columns for cell in column.cells):
        text.write("* the best among those measured alike, or not told from it by 95% intervals\n")
    return text.getvalue().rstrip("\n")
