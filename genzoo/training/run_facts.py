"""What a `config.json` says beside spec and configuration, checked where it is read: others count on its types."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from genzoo.core.bounds import Positive, Range, check_field
from genzoo.core.checked_json import check_plain
from genzoo.core.errors import GenzooError


@dataclass(frozen=True)
class RunFacts:
    """The facts by name, each of which may be missing; `data` holds what the data say of themselves."""

    preset: str | None = None
    seed: Annotated[int, Range(-(2**63), 2**64)] = 0
    budget: dict[str, Any] = field(default_factory=dict)
    train_images: Annotated[int, Range(0, 2**53)] = 0
    data: dict[str, Any] | None = None


@dataclass(frozen=True)
class BudgetFacts:
    """A budget as it is stored: one of these."""

    minutes: Positive | None = None
    steps: Annotated[int, Range(1, 2**53)] | None = None
    epochs: Positive | None = None


@dataclass(frozen=True)
class DataFacts:
    """What all that read a data protocol look for in it."""

    name: str | None = None
    test_id: str | None = None
    classes: Sequence[str] | Mapping[str, Any] | None = None
    sizes: dict[str, Any] | None = None
    arguments: dict[str, Any] | None = None


def check_facts(content: Mapping[str, Any], source: Path) -> None:
    """Raises `GenzooError` over the first fact in `content`, read from the file `source`, that is of another kind."""
    try:
        check_plain({name: value for name, value in content.items() if name != "data"})
    except ValueError as error:
        raise GenzooError(f"{source}: {error}") from error
    parts = {"": (RunFacts, content), "budget.": (BudgetFacts, content.get("budget"))}
    parts["data."] = (DataFacts, content.get("data"))
    for place, (kind, facts) in parts.items():
        for name in kind.__dataclass_fields__ if isinstance(facts, Mapping) else ():
            if name in facts:
                _check(kind, name, facts[name], f"{source}: {place}")
    budget = content.get("budget")
    if budget and (len(budget) > 1 or not budget.keys() <= BudgetFacts.__dataclass_fields__.keys()):
        raise GenzooError(f"{source}: budget must be minutes, steps or epochs")


def _check(kind: type, name: str, value: Any, place: str) -> None:
    try:
        check_field(kind, name, value)
    except GenzooError as error:
        raise GenzooError(f"{place}{error}") from error
