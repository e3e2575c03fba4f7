"""A run folder as an `Entry`: what its configuration and its report say, as far as they say it.

Reading computes nothing. What a report lacks stays None, and `Entry.missing` names it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from genzoo.core.errors import GenzooError
from genzoo.core.path_arguments import real_path
from genzoo.core.regular_files import UnreadableFile, sha256_of
from genzoo.core.showable import showable
from genzoo.core.spec import DataSpec
from genzoo.evaluation.comparison.recipes import train_command
from genzoo.evaluation.cost import Cost
from genzoo.evaluation.evaluator import no_likelihood
from genzoo.evaluation.report.report_file import StoredReports, read_report
from genzoo.evaluation.report.sample_schema import DecodingName, MemorisationResult, QualityResult
from genzoo.evaluation.report.schema import AISResult, LikelihoodResult, Report, figures_of
from genzoo.metrics.estimate import Estimate
from genzoo.models.base import GenerativeModel
from genzoo.models.loading import build_model
from genzoo.training.checkpoint import WEIGHTS, read_config

OF_SAMPLES = ("quality", "memorisation")
"""Parts of a report that means have as well as draws."""
MEASURED = (*OF_SAMPLES, "cost")
"""Parts of a report that every run can have; `likelihood` comes on top where the family has one."""
MEANS_FLAGS = ("--decode", "mean", "--samples-only")
"""What measures means beside draws that are measured."""
OTHERS = ("classes", "modes", "classification", "translation")
"""Parts that have a table of their own where any run has them."""
MEANS = "means are no draws from the model: the likelihood is that of its draws"
"""Why samples that are means have no likelihood."""
IN_PYTHON = "genzoo.evaluation.evaluate(model, data)"


@dataclass(frozen=True)
class Entry:
    """One model of a comparison. `name` is short and differs from that of the others.

    `run` is its folder, else that of its pictures; None for a model in memory without any.
    """

    run: Path | None
    name: str
    preset: str
    data: str
    spec: DataSpec
    parameters: int
    reason: str | None
    """Why the family has no likelihood; None where it has one."""
    report: Report
    notes: Sequence[str] = ()
    """What of its report could not be read."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Of a run; {} for a model in memory."""
    outdated: frozenset[str] = frozenset()
    """Parts of its report that were measured on other weights than it has now, and are not here."""
    decode: DecodingName = "draw"
    """How the samples that it is about were decoded: draws and means of one run are two entries."""
    has_decoder: bool = False
    """Of a run: whether the model has an output distribution, so that there are means to evaluate."""

    @property
    def likelihood(self) -> LikelihoodResult | None:
        """Of test images."""
        return self.report.likelihood

    @property
    def ais(self) -> AISResult | None:
        """The likelihood of the generator plus noise."""
        return self.report.ais

    @property
    def quality(self) -> QualityResult | None:
        """Of samples."""
        return self.report.quality

    @property
    def memorisation(self) -> MemorisationResult | None:
        """Of samples."""
        return self.report.memorisation

    @property
    def cost(self) -> Cost | None:
        """Of training, drawing and scoring."""
        return None if self.report.cost is None else self.report.cost.cost

    @property
    def baselines(self) -> Mapping[str, LikelihoodResult]:
        """What classical methods and codecs say of the test images."""
        return {} if self.report.baselines is None else self.report.baselines.likelihoods

    @property
    def others(self) -> Mapping[str, Mapping[str, Estimate]]:
        """The figures of further parts."""
        parts = dict(self.report.parts())
        return {name: figures_of(parts[name]) for name in OTHERS if name in parts}

    @property
    def missing(self) -> list[str]:
        """The parts that have not been measured."""
        wanted = MEASURED if self.decode == "draw" else OF_SAMPLES  # the draws' entry tells of the rest
        gaps = [name for name in wanted if getattr(self.report, name) is None]
        gaps = (["likelihood"] if self.likelihood is None and self.reason is None else []) + gaps
        return [name for name in gaps if name not in self.outdated]  # of which a note tells

    @property
    def is_run(self) -> bool:
        """Whether there is a run folder, which commands work on."""
        return self.run is not None and bool(self.config)

    @property
    def command(self) -> str:
        """What trains such a run."""
        return train_command(self.config, self.run) if self.run and self.config else "# trained in Python"

    @property
    def evaluate_command(self) -> str:
        """What measures what is missing."""
        return " ".join(["genzoo", *self.evaluate_words]) if self.is_run else IN_PYTHON

    @property
    def evaluate_words(self) -> list[str]:
        """The words of that command of a run."""
        return ["evaluate", str(self.run), *([] if self.decode == "draw" else MEANS_FLAGS)]

    @property
    def class_count(self) -> int:
        """Classes that can be asked for; 0 where there are none."""
        return self.spec.cond_size if self.spec.cond == "class" else 0

    def weights_id(self) -> str:
        """The first digits of the SHA-256 of the weights; "-" where there are none."""
        try:
            return sha256_of(self.run / WEIGHTS)[:12] if self.run else "-"
        except UnreadableFile:
            return "-"


def read_entries(runs: Sequence[Path]) -> list[Entry]:
    """The runs in the order given.

    Raises `GenzooError` where one is no run of a generative model, is named twice, or has other data than the rest.
    """
    twice = [run for i, run in enumerate(runs) if real_path(run) in map(real_path, runs[:i])]
    if twice:
        raise GenzooError(f"{twice[0]} is named twice; name each run once")
    names = short_names(runs)
    entries = [entry for run, name in zip(runs, names, strict=True) for entry in entries_of_run(run, name)]
    check_same_data(entries)
    return entries


def entries_of_run(run: Path, name: str | None = None) -> list[Entry]:
    """One run, as `read_entry`; and once more where means of its output distribution were evaluated."""
    entry, stored = _read(run, name)
    if not stored.has_means:
        return [entry]
    return [entry, _of_means(entry, stored.report(_own_test_id(entry.config), "mean"))]


def _of_means(entry: Entry, report: Report) -> Entry:
    """The same model with another report, on means: without what is about its draws, or not about samples at all."""
    kept = {
        name: part for name, part in report.parts() if hasattr(part, "decode") or name in ("about", "cost")
    }
    return replace(
        entry, name=f"{entry.name} (mean)", report=Report(report.test_id, **kept), reason=MEANS, notes=(),
        outdated=frozenset(), decode="mean",
    )  # fmt: skip


def read_entry(run: Path, name: str | None = None) -> Entry:
    """One run and its draws. Raises `GenzooError` where it is none, holds an encoder, or its report cannot be read."""
    return _read(run, name)[0]


def _read(run: Path, name: str | None) -> tuple[Entry, StoredReports]:
    config = read_config(run)
    with torch.device("meta"):  # shapes only
        model = build_model(config, run)
    if not isinstance(model, GenerativeModel):
        raise GenzooError(f"{run} holds an encoder, which draws nothing: compare runs of generative models")
    data = config.get("data") or {}
    stored = read_report(run)
    report = stored.report(_own_test_id(config))
    entry = Entry(
        run=run,
        name=showable(name or run.name),
        preset=str(config.get("preset") or type(model).__name__),
        data=_data_name(run, data, report),
        spec=model.spec,
        parameters=sum(p.numel() for p in model.parameters()),
        reason=no_likelihood(model),
        report=report,
        notes=stored.notes,
        config=config,
        outdated=stored.outdated,
        has_decoder=model.decoder_part is not None,
    )
    return entry, stored


def entry_of(report: Report, name: str | None = None) -> Entry:
    """A model in memory by its report. Raises `GenzooError` for an encoder's, and where it names no model."""
    about = report.about
    if about is None:
        raise GenzooError(
            "this report does not say which model it is about: make one with genzoo.evaluation.evaluate"
        )
    if report.space is not None:
        raise GenzooError(f"{about.name} is an encoder, which draws nothing: compare generative models")
    entry = Entry(
        run=None if about.folder is None else Path(about.folder),
        name=showable(name or about.name),
        preset=about.name,
        data=showable(about.data),
        spec=DataSpec(about.shape, about.levels, about.cond, about.cond_size),  # pyright: ignore[reportArgumentType]
        parameters=about.parameters,
        reason=about.no_likelihood,
        report=report,
    )
    return entry if report.decode == "draw" else _of_means(entry, report)


def distinct(entries: Sequence[Entry]) -> list[Entry]:
    """With numbers behind names that are there already."""
    found: list[Entry] = []
    for entry in entries:
        names = {e.name for e in found}
        candidates = (entry.name if n == 1 else f"{entry.name} {n}" for n in range(1, len(entries) + 2))
        found.append(replace(entry, name=next(name for name in candidates if name not in names)))
    return found


def short_names(runs: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell all of them apart.

    >>> short_names([Path("a/vae"), Path("b/vae"), Path("a/gan")])
    ['a/vae', 'b/vae', 'gan']
    """
    parts = [real_path(run).parts for run in runs]

    def name(own: tuple[str, ...]) -> str:
        others = [p for p in parts if p != own]
        lengths = range(1, len(own) + 1)
        return "/".join(own[-next((n for n in lengths if own[-n:] not in [o[-n:] for o in others]), 1) :])

    return [name(own) for own in parts]


def check_same_data(entries: Sequence[Entry]) -> None:
    """Raises `GenzooError` where two runs were trained on different data: the images count, where both tell them."""
    for entry in entries[1:]:
        first = entries[0]
        same = _same_test_images(first, entry)
        names = (first.data, entry.data)
        if same is False:
            names = (_data_told(first), _data_told(entry))
        for what, a, b in (
            ("data", names[0], names[0] if same else names[1]),
            ("images of the shape", first.spec.shape, entry.spec.shape),
            ("levels", first.spec.levels, entry.spec.levels),
        ):
            if a != b:
                raise GenzooError(
                    f"these runs cannot be compared: {first.run or first.name} was trained on {what} {a}, "
                    f"{entry.run or entry.name} on {b}; "
                    "compare runs of one data set"
                )


def _same_test_images(a: Entry, b: Entry) -> bool | None:
    """Whether two runs are about the same test images, wherever these lay; None where that is not known."""
    known = [_protocol_of(entry) for entry in (a, b)]
    contents = [protocol.get("content") for protocol in known]
    if all(isinstance(content, Mapping) and "test" in content for content in contents):
        return contents[0]["test"] == contents[1]["test"]
    if not any(isinstance(content, Mapping) for content in contents):
        return None
    # one is of a version that did not know the content of data
    ids = [{p[key] for key in ("test_id", "former_test_id") if key in p} for p in known]
    return True if ids[0] & ids[1] else None


def _protocol_of(entry: Entry) -> Mapping[str, Any]:
    """What a run, else the report of a model in memory, says of its data."""
    own = entry.config.get("data")
    if isinstance(own, Mapping) and "test_id" in own:
        return own
    told = {} if entry.likelihood is None else entry.likelihood.protocol
    return told if "test_id" in told and showable(told.get("name")) == entry.data else {}


def _data_told(entry: Entry) -> str:
    return f"{entry.data} (test images {_protocol_of(entry)['content']['test']})"


# --- what a folder says ----------------------------------------------------------------------------------------


def _own_test_id(config: Mapping[str, Any]) -> Any:
    """What the run's own test images are called; None where it does not say."""
    data = config.get("data")
    return data.get("test_id") if isinstance(data, Mapping) else None


def _data_name(run: Path, data: Any, report: Report) -> str:
    """Raises `GenzooError` where neither the configuration nor the report says it."""
    known = [data, *(getattr(part, "protocol", None) for _, part in report.parts())]
    name = next((p["name"] for p in known if isinstance(p, Mapping) and "name" in p), None)
    if name is None and report.about is not None:
        name = report.about.data
    if name is None:
        raise GenzooError(
            f"{run} does not say what it was trained on; only runs of genzoo train can be compared"
        )
    return showable(name)
