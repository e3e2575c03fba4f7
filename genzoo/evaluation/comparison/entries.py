"""A run folder as an `Entry`: what its configuration and its report say, as far as they say it.

Reading computes nothing. What a report lacks stays None, and `Entry.missing` names it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from genzoo.core.errors import GenzooError, NoLikelihood
from genzoo.core.legacy import upgrade_report
from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.core.spec import DataSpec
from genzoo.evaluation.comparison.costs import Cost
from genzoo.evaluation.comparison.recipes import train_command
from genzoo.evaluation.comparison.reported import (
    LikelihoodEstimate,
    Quality,
    Reported,
    baselines_of,
    flat_figures,
    likelihood_of,
    quality_of,
)
from genzoo.evaluation.report.report_file import REPORT
from genzoo.models.base import GenerativeModel
from genzoo.models.registry import build_model
from genzoo.training.checkpoint import WEIGHTS, read_config

MEASURED = ("quality", "memorisation", "cost")
"""Sections of a report that every run can have; `likelihood` comes on top where the family has one."""
COST_KEYS = ("training", "sampling_images_per_second", "network_calls")
"""Any of these marks a section of costs that is not divided by sets of images."""


@dataclass(frozen=True)
class Entry:
    """One run of a comparison. `name` is short and differs from that of the others."""

    run: Path
    name: str
    preset: str
    data: str
    spec: DataSpec
    config: Mapping[str, Any]
    parameters: int
    reason: str | None
    """Why the family has no likelihood; None where it has one."""
    likelihood: LikelihoodEstimate | None
    ais: LikelihoodEstimate | None
    quality: Quality | None
    memorisation: Quality | None
    cost: Cost | None
    baselines: Mapping[str, LikelihoodEstimate]
    """What classical methods and codecs say of the test images."""
    others: Mapping[str, Mapping[str, Reported]] = field(default_factory=dict)
    """Further sections (classification, modes ...) as flat figures."""

    @property
    def missing(self) -> list[str]:
        """The sections that have not been measured."""
        there = {"quality": self.quality, "memorisation": self.memorisation, "cost": self.cost}
        gaps = [name for name in MEASURED if not there[name]]
        return (["likelihood"] if self.likelihood is None and self.reason is None else []) + gaps

    @property
    def command(self) -> str:
        """What trains such a run."""
        return train_command(self.config, self.run)

    @property
    def evaluate_command(self) -> str:
        """What measures what is missing."""
        return f"genzoo evaluate {self.run}"

    @property
    def class_count(self) -> int:
        """Classes that can be asked for; 0 where there are none."""
        return self.spec.cond_size if self.spec.cond == "class" else 0

    def weights_id(self) -> str:
        """The first digits of the SHA-256 of the weights; "-" where there are none."""
        try:
            return hashlib.sha256((self.run / WEIGHTS).read_bytes()).hexdigest()[:12]
        except OSError:
            return "-"


def read_entries(runs: Sequence[Path]) -> list[Entry]:
    """The runs in the order given.

    Raises `GenzooError` where one is no run of a generative model, is named twice, or has other data than the rest.
    """
    twice = [run for i, run in enumerate(runs) if run.resolve() in {r.resolve() for r in runs[:i]}]
    if twice:
        raise GenzooError(f"{twice[0]} is named twice; name each run once")
    names = short_names(runs)
    entries = [read_entry(run, name) for run, name in zip(runs, names, strict=True)]
    check_same_data(entries)
    return entries


def read_entry(run: Path, name: str | None = None) -> Entry:
    """One run. Raises `GenzooError` where it is none, holds an encoder, or its report cannot be read."""
    config = read_config(run)
    with torch.device("meta"):  # shapes only
        model = build_model(config, run)
    if not isinstance(model, GenerativeModel):
        raise GenzooError(f"{run} holds an encoder, which draws nothing: compare runs of generative models")
    report, data = _read_report(run), config.get("data") or {}
    own = data.get("test_id") if isinstance(data, Mapping) else None
    quality, memorisation = _section(report, "quality", own), _section(report, "memorisation", own)
    cost = _section(report, "cost", own, COST_KEYS)[1]
    return Entry(
        run=run,
        name=name or run.name,
        preset=str(config.get("preset") or type(model).__name__),
        data=_data_name(run, data, report),
        spec=model.spec,
        config=config,
        parameters=sum(p.numel() for p in model.parameters()),
        reason=_no_likelihood(model),
        likelihood=likelihood_of(*_section(report, "likelihood", own)),
        ais=likelihood_of(*_section(report, "ais", own)),
        quality=quality_of(*quality),
        memorisation=quality_of(*memorisation),
        cost=Cost.of(cost) if cost else None,
        baselines=baselines_of(*_section(report, "baselines", own)),
        others={
            key: flat_figures(_section(report, key, own)[1])
            for key in ("classes", "modes", "classification", "translation")
            if key in report
        },
    )


def short_names(runs: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell all of them apart.

    >>> short_names([Path("a/vae"), Path("b/vae"), Path("a/gan")])
    ['a/vae', 'b/vae', 'gan']
    """
    parts = [run.resolve().parts for run in runs]

    def name(own: tuple[str, ...]) -> str:
        others = [p for p in parts if p != own]
        lengths = range(1, len(own) + 1)
        return "/".join(own[-next((n for n in lengths if own[-n:] not in [o[-n:] for o in others]), 1) :])

    return [name(own) for own in parts]


def check_same_data(entries: Sequence[Entry]) -> None:
    """Raises `GenzooError` where two runs were trained on different data."""
    for entry in entries[1:]:
        first = entries[0]
        for what, a, b in (
            ("data", first.data, entry.data),
            ("images of the shape", first.spec.shape, entry.spec.shape),
            ("levels", first.spec.levels, entry.spec.levels),
        ):
            if a != b:
                raise GenzooError(
                    f"these runs cannot be compared: {first.run} was trained on {what} {a}, {entry.run} on {b}; "
                    "compare runs of one data set"
                )


# --- parts of a report -----------------------------------------------------------------------------------------


def _read_report(run: Path) -> dict[str, Any]:
    path = run / REPORT
    if not path.is_file():
        return {}
    try:
        report = upgrade_report(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise GenzooError(f"{path} cannot be read as JSON ({error}); run: genzoo evaluate {run}") from error
    if not isinstance(report, dict):
        raise GenzooError(f"{path} is no report; run: genzoo evaluate {run}")
    return report


def _section(
    report: Mapping[str, Any], name: str, own: str | None, marks: Sequence[str] = ()
) -> tuple[str, Mapping[str, Any]]:
    """What a section says of the run's own test set, else of the set that came last: (set id, content).

    A section that holds one of the `marks` itself is not divided by sets.
    """
    section = report.get(name)
    if not isinstance(section, Mapping):
        return "", {}
    if any(mark in section for mark in marks):
        return "", section
    sets = {key: value for key, value in section.items() if isinstance(value, Mapping)}
    if not sets:
        return "", {}
    key = own if own is not None and own in sets else next(reversed(sets))
    return key, sets[key]


def _data_name(run: Path, data: Any, report: Mapping[str, Any]) -> str:
    """Raises `GenzooError` where neither the configuration nor a likelihood says it."""
    protocols = [data, *(c.get("protocol") for c in _contents(report))]
    name = next((p["name"] for p in protocols if isinstance(p, Mapping) and "name" in p), None)
    if name is None:
        raise GenzooError(
            f"{run} does not say what it was trained on; only runs of genzoo train can be compared"
        )
    return str(name)


def _contents(report: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for section in report.values():
        if isinstance(section, Mapping):
            yield from (content for content in section.values() if isinstance(content, Mapping))


def _no_likelihood(model: GenerativeModel) -> str | None:
    """Why the model gives images no probability; None where it does."""
    if model.likelihood is not LikelihoodKind.NONE:
        return None
    image = torch.zeros(1, *model.spec.shape, dtype=torch.uint8)
    try:
        model.log_likelihood(image)
    except NoLikelihood as reason:
        return str(reason)
    except (GenzooError, RuntimeError, ValueError):  # it asks for a condition first
        return "the family defines no probability of an image"
    return None
