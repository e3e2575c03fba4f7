"""Reports as they were written before their format had a number, turned into those of today.

All names of that time stand here and nowhere else. Content comes from a file that anybody may have edited: what is
missing raises `LookupError`, and types are checked by whoever reads what comes of it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from genzoo.evaluation.cost import Cost, NetworkCalls, TrainingCost
from genzoo.evaluation.report.encoder_schema import FineTuningResult, MapResult, ProbesResult, SpaceResult
from genzoo.evaluation.report.sample_schema import (
    ClassesResult,
    ExtractorFacts,
    InputDistances,
    MemorisationResult,
    ModesResult,
    QualityResult,
    TranslationResult,
)
from genzoo.evaluation.report.schema import (
    AISResult,
    BaselinesResult,
    ClassificationResult,
    CostResult,
    GeneralisationGap,
    IllustrationsResult,
    LatentsResult,
    LikelihoodResult,
    OODResult,
)
from genzoo.metrics.estimate import Estimate
from genzoo.metrics.probes import NEIGHBOURS

Content = Mapping[str, Any]


def upgrade(name: str, key: str, content: Any) -> tuple[str, Any]:
    """A part of an old report, on the set of images `key`, as plain JSON of today, with its name of today.

    Raises `LookupError`, `TypeError`, `ValueError` or `GenzooError` where it is none.
    """
    if name not in _UPGRADES:
        raise ValueError(f"{name} is unknown")
    if not isinstance(content, Mapping):
        raise TypeError("it is no object")
    own_name, of = _UPGRADES[name]
    return own_name, msgspec.to_builtins(of(key, content))


# --- figures ---------------------------------------------------------------------------------------------------


def _figure(content: Content, better: bool | None = False) -> Estimate:
    """One that was written as a figure."""
    return Estimate(
        content["value"], content["samples"], content["references"], content.get("low"), content.get("high"),
        content.get("interval"), content.get("floor"), content.get("higher_is_better", better),
    )  # fmt: skip


def _figures(content: Content) -> dict[str, Estimate]:
    return {name: _figure(own) for name, own in content.items()}


def _number(
    content: Content, name: str, images: int, better: bool | None = False, *, samples: int = 0
) -> Estimate:
    """One that was written as a number, with its standard error beside it where it had one."""
    stderr = content.get(f"{name}_stderr")
    return Estimate.from_stderr(content[name], stderr, images, samples=samples, higher_is_better=better)


def _optional(content: Content, name: str, images: int, better: bool | None = False) -> Estimate | None:
    return None if content.get(name) is None else _number(content, name, images, better)


# --- likelihoods -----------------------------------------------------------------------------------------------


def _likelihood(key: str, content: Content) -> LikelihoodResult:
    images, gap = content["images"], content.get("generalisation_gap")
    return LikelihoodResult(
        key, _number(content, "bits_per_dim", images), _number(content, "nats", images, True), content["kind"],
        images, content.get("images_per_second"), _details(content), content.get("split"),
        content.get("seed"), content.get("parameters"), content.get("protocol", {}),
        None if gap is None else _gap(gap),
    )  # fmt: skip


def _details(content: Content) -> dict[str, Any]:
    """How a likelihood was measured; figures are ranked together where this is the same, so names must be."""
    return {"t_min" if key == "first" else key: value for key, value in content.get("details", {}).items()}


def _gap(content: Content) -> GeneralisationGap:
    images = content["train_images"]
    figure = Estimate.from_stderr(
        content["bits_per_dim"], content.get("stderr"), images, higher_is_better=None
    )
    return GeneralisationGap(figure, images, content["train"]["bits_per_dim"])


def _baselines(key: str, content: Content) -> BaselinesResult:
    found = {name: _likelihood(key, own) for name, own in content["figures"].items()}
    return BaselinesResult(key, found, content.get("split"), content.get("seed"))


def _classification(key: str, content: Content) -> ClassificationResult:
    images = content["images"]
    return ClassificationResult(
        key, _number(content, "accuracy", images, True), _number(content, "nll", images),
        _number(content, "calibration_error", images), _number(content, "confidence", images, None), images,
        content["classes"], content["kind"], content.get("details", {}), content.get("split"), content.get("seed"),
    )  # fmt: skip


def _ais(key: str, content: Content) -> AISResult:
    images, details = content["images"], content["details"]
    return AISResult(
        key, _number(content, "bits_per_dim", images), _number(content, "nats", images, True), content["kind"],
        images, details["scale"], details["bdmc_gap"], details,
    )  # fmt: skip


def _ood(key: str, content: Content) -> OODResult:
    test_id, _, against = key.rpartition(" against ")
    counts, errors = content["images"], content.get("auroc_stderr", {})
    auroc = {
        name: Estimate.from_stderr(value, errors.get(name), sum(counts), higher_is_better=True)
        for name, value in content["auroc"].items()
    }
    return OODResult(test_id, against, auroc, content["entropy"], tuple(counts), content["kind"])


# --- samples ---------------------------------------------------------------------------------------------------


def _extractor(content: Content) -> ExtractorFacts:
    judge = content["judge"]
    return ExtractorFacts(judge["name"], judge["identity"], judge["width"], judge.get("scale", 1.0))


def _quality(key: str, content: Content) -> QualityResult:
    figures = _figures(content["figures"])
    references = next((f.references for f in figures.values()), None)
    return QualityResult(
        key, _extractor(content), figures, content.get("missing", {}), content["samples"],
        content.get("asked", content["samples"]), references, content.get("conditions", "none"), content.get("seed"),
        content.get("sampling_seconds"), content.get("remark"), content.get("seconds"),
    )  # fmt: skip


def _memorisation(key: str, content: Content) -> MemorisationResult:
    return MemorisationResult(
        key, _extractor(content), _figures(content["figures"]), content.get("missing", {}), content["samples"],
        content.get("asked", content["samples"]), content.get("training_images", 0),
        content.get("conditions", "none"), content.get("seed"), content.get("sampling_seconds"),
        content.get("remark"), content.get("picture"),
    )  # fmt: skip


def _classes(key: str, content: Content) -> ClassesResult:
    shares = {name: _figure(own, None) for name, own in content["share_of"].items()}
    return ClassesResult(key, _figure(content["shift"]), shares, content.get("seed"), content.get("picture"))


def _modes(key: str, content: Content) -> ModesResult:
    samples, divergence = content["samples"], content["divergence"]

    def figure(name: str, better: bool | None) -> Estimate:
        return _number(content, name, 0, better, samples=samples)

    return ModesResult(
        key, figure("covered", True), None if divergence is None else figure("divergence", False),
        figure("spread", None), content["modes"], samples, content["collapsed"],
    )  # fmt: skip


def _translation(key: str, content: Content) -> TranslationResult:
    images, inputs = content["images"], content.get("input")
    frechet = {name: Estimate(value, images, images) for name, value in content["frechet"].items()}
    return TranslationResult(
        key, _number(content, "l1", images), _number(content, "psnr", images, True),
        _optional(content, "sharpness", images, None), frechet, images,
        None if inputs is None
        else InputDistances(inputs["l1"], inputs["psnr"], inputs.get("sharpness"), inputs.get("frechet", {})),
    )  # fmt: skip


# --- what a model is like --------------------------------------------------------------------------------------


def _latents(key: str, content: Content) -> LatentsResult:
    images = content["images"]
    known = (
        "images", "rate", "distortion", "codebook_usage", "codebook_perplexity", "kl_per_group", "active_units",
        "active_units_per_group", "latents", "codes", "pictures",
    )  # fmt: skip
    each, active = content.get("kl_per_group"), content.get("active_units_per_group")
    return LatentsResult(
        key, images, _optional(content, "rate", images, None), _optional(content, "distortion", images),
        _optional(content, "codebook_usage", images, None), _optional(content, "codebook_perplexity", images, None),
        None if each is None else tuple(each), content.get("active_units"),
        None if active is None else tuple(active), content.get("latents"), content.get("codes"),
        {name: value for name, value in content.items() if name not in known}, tuple(content.get("pictures", ())),
    )  # fmt: skip


def _cost(key: str, content: Content) -> CostResult:
    training, calls = content["training"], content["network_calls"]
    spent = None if training is None else msgspec.convert(training, TrainingCost)
    cost = Cost(
        content["parameters"], spent, NetworkCalls(calls["most"], calls.get("by_part", {})),
        content["sampling_images_per_second"], content["sampled_images"],
        content.get("likelihood_images_per_second"), content.get("likelihood_images"),
        content.get("peak_memory_mib"), content["machine"],
    )  # fmt: skip
    return CostResult(key, cost, content.get("seed"))


# --- encoders --------------------------------------------------------------------------------------------------


def _share(content: Content, images: int) -> Estimate:
    return Estimate.from_stderr(content["value"], content.get("stderr"), images, higher_is_better=True)


def _probes(key: str, content: Content) -> ProbesResult:
    images, few, linear = content["images"], content["few_shot"], content["linear"]
    return ProbesResult(
        key, _share(content["knn"], images), _share(few, images), _share(linear, images),
        content["knn"].get("k", NEIGHBOURS), few["examples"], few["draws"], linear["C"], linear["validation"],
        images, content["train_images"], content["held_out_images"], content.get("split"), content.get("seed"),
        content.get("protocol", {}),
    )  # fmt: skip


def _fine_tuning(key: str, content: Content) -> FineTuningResult:
    images = content["images"]
    return FineTuningResult(
        key,
        _share(content, images),
        images,
        content["steps"],
        content["batch_size"],
        content["learning_rate"],
    )


def _space(key: str, content: Content) -> SpaceResult:
    images = content["images"]
    return SpaceResult(
        key, _number(content, "effective_rank", images, None), _number(content, "spread", images, None),
        _number(content, "uniformity", images), _optional(content, "alignment", images),
        _optional(content, "class_alignment", images), content["std"], content["least_std"], content["width"],
        images, content["collapsed"],
    )  # fmt: skip


_UPGRADES: Mapping[str, tuple[str, Callable[[str, Content], Any]]] = {
    "likelihood": ("likelihood", _likelihood),
    "baselines": ("baselines", _baselines),
    "classification": ("classification", _classification),
    "noised_generator": ("ais", _ais),
    "outliers": ("ood", _ood),
    "quality": ("quality", _quality),
    "memorisation": ("memorisation", _memorisation),
    "classes": ("classes", _classes),
    "modes": ("modes", _modes),
    "translation": ("translation", _translation),
    "latents": ("latents", _latents),
    "illustrations": ("illustrations", lambda key, c: IllustrationsResult(key, tuple(c["pictures"]))),
    "cost": ("cost", _cost),
    "probes": ("probes", _probes),
    "fine_tuning": ("fine_tuning", _fine_tuning),
    "space": ("space", _space),
    "map": ("map", lambda key, c: MapResult(key, c["picture"])),
}
"""Name of a part then: its name today, and what makes the one of the other."""
