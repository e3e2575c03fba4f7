"""Lenient parsing of report.json (older versions, missing fields).

What is missing or malformed is None, never an error and never a number.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from genzoo.core.log_likelihood import LikelihoodKind

NO_FIGURES = (
    "seed", "seconds", "samples", "references", "width", "protocol", "details", "judge", "extractor", "missing",
    "asked", "images",
    "classes", "scale", "sampling_seconds", "input",
)  # fmt: skip
"""Keys of a report whose numbers are no figures of the model."""


@dataclass(frozen=True)
class Reported:
    """A measured figure; `low` to `high` is its interval, `reference` what real images get against real images.

    `samples` and `references` count the images it was measured on. `value` is NaN where it was not finite.
    """

    value: float
    low: float | None = None
    high: float | None = None
    interval: str | None = None
    reference: float | None = None
    samples: int | None = None
    references: int | None = None
    higher_is_better: bool | None = None

    @staticmethod
    def of(content: Any) -> "Reported | None":
        """A figure from its JSON, or from a bare number; None for anything else."""
        if isinstance(content, (int, float)):
            return Reported(float(content))
        if not isinstance(content, Mapping) or not isinstance(content.get("value"), (int, float)):
            return None
        numbers = {key: number(content.get(key)) for key in ("low", "high", "reference")}
        counts = {key: count(content.get(key)) for key in ("samples", "references")}
        better, how = content.get("higher_is_better"), content.get("interval")
        return Reported(
            float(content["value"]),
            interval=how if isinstance(how, str) else None,
            higher_is_better=better if isinstance(better, bool) else None,
            **numbers,
            **counts,
        )


@dataclass(frozen=True)
class LikelihoodEstimate:
    """Bits/dim and nats of a set of images (`test_id`), their kind, and how they were computed."""

    test_id: str
    bits: float
    stderr: float | None
    nats: float
    kind: LikelihoodKind
    images: int
    protocol: str
    conditional: bool
    gap: Reported | None
    images_per_second: float | None
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Quality:
    """Figures of samples against the images `set_id`, in the features of one extractor: their quality, or
    memorisation."""

    set_id: str
    extractor: str
    identity: str
    figures: Mapping[str, Reported]
    missing: Mapping[str, str]
    """Figures that could not be measured, and why."""
    remark: str
    """What must be known of the feature extractor; "" for nothing."""
    seed: int | None

    def group(self, figure: Reported) -> str:
        """What two figures must share to be ranked together."""
        sizes = f"{_many(figure.samples)} samples against {_many(figure.references)} images"
        return f"{self.set_id}, features of {self.extractor} {self.identity[:12]}, {sizes}"


def flat_figures(content: Mapping[str, Any], prefix: str = "") -> dict[str, Reported]:
    """All figures in nested JSON by their path; those below a key "figures" keep their own names.

    What ends in "_stderr" becomes the interval of the figure that it belongs to.

    >>> list(flat_figures({"figures": {"ct": {"value": 1.0}}, "auroc": {"typicality": 0.5}, "name": "x", "seed": 0}))
    ['ct', 'auroc typicality']
    """
    found: dict[str, Reported] = {}
    for key, value in content.items():
        if key in NO_FIGURES or (key.endswith("_stderr") and key.removesuffix("_stderr") in content):
            continue
        figure = _with_error(Reported.of(value), content.get(f"{key}_stderr"))
        name = f"{prefix}{key.replace('_', ' ')}"
        if figure is not None:
            found[name] = figure
        elif isinstance(value, Mapping):
            found |= flat_figures(value, prefix if key == "figures" else f"{name} ")
    return found


def _with_error(figure: Reported | None, stderr: Any) -> Reported | None:
    error = number(stderr)
    if figure is None or error is None:
        return figure
    how = "95%: 1.96 standard errors"
    return replace(figure, low=figure.value - 1.96 * error, high=figure.value + 1.96 * error, interval=how)


def likelihood_of(test_id: str, content: Mapping[str, Any]) -> LikelihoodEstimate | None:
    """A likelihood from its section of a report; None where there is none."""
    bits, kind = number(content.get("bits_per_dim")), str(content.get("kind"))
    if bits is None or kind not in LikelihoodKind.__members__:
        return None
    details = content.get("details")
    details = details if isinstance(details, Mapping) else {}
    gap = content.get("generalisation_gap")
    return LikelihoodEstimate(
        test_id, bits, number(content.get("bits_per_dim_stderr")), number(content.get("nats")) or math.nan,
        LikelihoodKind[kind], count(content.get("images")) or 0, protocol_text(details),
        bool(details.get("conditional")), _gap(gap), number(content.get("images_per_second")), details,
    )  # fmt: skip


def baselines_of(test_id: str, content: Mapping[str, Any]) -> dict[str, LikelihoodEstimate]:
    """The baselines of a report by their names."""
    figures = content.get("figures")
    figures = figures if isinstance(figures, Mapping) else {}
    found = {name: likelihood_of(test_id, own) for name, own in figures.items() if isinstance(own, Mapping)}
    return {name: figure for name, figure in found.items() if figure is not None}


def protocol_text(details: Mapping[str, Any]) -> str:
    """The settings among the details of a likelihood; what was measured (floats, lists) is none.

    >>> protocol_text({"K": 64, "elbo": -9.5, "conditional": False, "kl_per_group": [1.0]})
    'K 64'
    """
    settings = {
        key: value
        for key, value in details.items()
        if isinstance(value, (str, int)) and key not in ("conditional", "nfe") and value is not False
    }
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in settings.items())


def _gap(content: Any) -> Reported | None:
    value = number(content.get("bits_per_dim")) if isinstance(content, Mapping) else None
    if value is None:
        return None
    error = number(content.get("stderr"))
    reach = None if error is None else 1.96 * error
    limits = (None, None) if reach is None else (value - reach, value + reach)
    return Reported(value, *limits, samples=count(content.get("train_images")))


def quality_of(set_id: str, content: Mapping[str, Any]) -> Quality | None:
    """The quality of samples from its section of a report; None where there are no figures."""
    raw = content.get("figures")
    named = isinstance(raw, Mapping)
    figures = {key: Reported.of(value) for key, value in raw.items()} if named else flat_figures(content)
    found = {key: figure for key, figure in figures.items() if figure is not None}
    judge = content.get("extractor", content.get("judge"))
    judge = judge if isinstance(judge, Mapping) else {}
    name, identity = str(judge.get("name", "unknown")), str(judge.get("identity", "unknown"))
    missing = content.get("missing")
    missing = {str(k): str(v) for k, v in missing.items()} if isinstance(missing, Mapping) else {}
    remark = content.get("remark")
    remark = remark if isinstance(remark, str) else ""
    return (
        Quality(set_id, name, identity, found, missing, remark, count(content.get("seed"))) if found else None
    )


def number(value: Any) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def count(value: Any) -> int | None:
    """A whole number; None for anything else."""
    found = number(value)
    return None if found is None else int(found)


def _many(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,}"
