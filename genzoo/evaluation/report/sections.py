"""The sections of an evaluation: one question each, answered in figures for `report.json`, table rows and pictures.

A section of a model that it does not concern is None.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genzoo.core.errors import GenzooError
from genzoo.core.random import seeded
from genzoo.data.pairs import PairedSplit
from genzoo.evaluation.ais import ais_likelihood
from genzoo.evaluation.baselines import IndependentPixels
from genzoo.evaluation.illustrations import illustrate
from genzoo.evaluation.latents import LatentVariableModel, PicturedLatents, draw_latents, latent_figures
from genzoo.evaluation.likelihood import subset
from genzoo.evaluation.ood import ood_scores, separation, separation_stderr
from genzoo.evaluation.report.measuring import likelihood_rows, measure, set_id, with_error
from genzoo.evaluation.translation import translation_figures
from genzoo.metrics.modes import Coverage, Modes
from genzoo.models.base import counts_modes
from genzoo.models.monitors import count_modes, modes_content
from genzoo.objectives.likelihood.decoder import Annealing, Decoder

if TYPE_CHECKING:
    from genzoo.data.image_data import ImageData
    from genzoo.evaluation.likelihood import LikelihoodReport
    from genzoo.models.base import GenerativeModel

GAP_IMAGES = 1000  # training images, at most, that the generalisation gap is measured on
TRANSLATED = 2000  # images, at most, that predictions are made for
OOD_IMAGES = 500  # images of each kind, at most, that scores of OOD detection are compared on
BACKGROUND_IMAGES = 20_000  # training images, at most, that the background of a likelihood ratio is fitted on


@dataclass(frozen=True)
class Case:
    """A model, the images that it is evaluated on, and how: `max_seconds` is for each measurement of likelihoods."""

    model: "GenerativeModel"
    data: "ImageData"
    split: str
    seed: int = 0
    max_images: int | None = None
    max_seconds: float | None = None

    @property
    def name(self) -> str:
        """What the evaluated images are called in reports."""
        return set_id(self.data, self.split)

    def generator(self, purpose: str) -> torch.Generator:
        """On the model's device, the same for the same seed and purpose."""
        return seeded(self.model.device, purpose, self.seed)


@dataclass(frozen=True)
class Section:
    """An answer: `content` goes into `report.json` below `section` / `key`, `rows` into a table."""

    section: str
    key: str
    content: dict[str, Any]
    rows: dict[str, str]
    pictures: list[Path] = field(default_factory=list)


# --- likelihood ------------------------------------------------------------------------------------------------


def likelihood_section(case: Case) -> tuple[Section, "LikelihoodReport"]:
    """The likelihood of the images and how much better that of training images is.

    Raises `NoLikelihood` where the family has none.
    """
    model, data, split = case.model, case.data, case.split
    report = measure(
        model, data, split, seed=case.seed, max_images=case.max_images, max_seconds=case.max_seconds
    )
    gap = None if split == "train" else generalisation_gap(case, report)
    parameters = sum(p.numel() for p in model.parameters())
    content = {"protocol": data.protocol, "split": split, "seed": case.seed, "parameters": parameters}
    rows = likelihood_rows(report, data, split)
    if gap is not None:
        rows[f"train/{split} gap"] = _gap_text(gap)
    rows |= {"parameters": f"{parameters:,}", "speed": f"{report.images_per_second:.1f} images/s"}
    content |= report.to_json() | {"generalisation_gap": gap}
    return Section("likelihood", case.name, content, rows), report


def generalisation_gap(case: Case, held_out: "LikelihoodReport") -> dict[str, Any]:
    """How many bits/dim worse the held-out images are than training images: what was learnt by heart.

    No more training images are measured than held-out ones, so that it takes no longer than these did. `stderr` is
    that of the difference; the two sets of images are independent.
    """
    most = min(GAP_IMAGES, held_out.images)
    train = measure(case.model, case.data, "train", seed=case.seed, max_images=most)
    errors = (train.bits_per_dim_stderr, held_out.bits_per_dim_stderr)
    stderr = None if None in errors else sum(e**2 for e in errors if e is not None) ** 0.5
    gap = held_out.bits_per_dim - train.bits_per_dim
    return {"bits_per_dim": gap, "stderr": stderr, "train_images": train.images, "train": train.to_json()}


def _gap_text(gap: dict[str, Any]) -> str:
    return (
        f"{with_error(gap['bits_per_dim'], gap['stderr'], 4)} bits/dim ({gap['train_images']} train images)"
    )


def ais_section(case: Case, *, images: int, annealing: Annealing) -> Section:
    """The likelihood of `images` of the split under "generator plus observation noise", and the noise chosen for it.

    Raises `GenzooError` for a model that is no generator from latents.
    """
    if not isinstance(case.model, Decoder):
        raise GenzooError("--ais is for models that generate from latents, such as gan; leave it out")
    report = ais_likelihood(
        case.model, case.data.split(case.split), case.data.val, images=images, annealing=annealing,
        generator=case.generator("noised"),
    )  # fmt: skip
    return Section("ais", case.name, report.to_json(), ais_rows(report))


def ais_rows(report: "LikelihoodReport") -> dict[str, str]:
    """The rows of a table of its own."""
    details = report.details
    return {
        "bits/dim": f"{report.kind.symbol} {with_error(report.bits_per_dim, report.bits_per_dim_stderr, 3)}",
        "nats/image": f"{report.kind.symbol} {with_error(-report.nats, report.nats_stderr, 2)}",
        "what is evaluated": "the generator plus discretised noise, which is another model than the generator",
        "noise": f"standard deviation {details['scale']:g} where images range over 2, chosen on validation images",
        "gap (BDMC)": f"{details['bdmc_gap']:.2f} nats on simulated images",
        "images": f"{report.images}",
    }


# --- samples ---------------------------------------------------------------------------------------------------


def modes_section(case: Case) -> Section | None:
    """Which modes of the data samples hit, of models that say nothing of the images they leave out."""
    if not counts_modes(case.model):
        return None
    found = count_modes(case.model, Modes.of(case.data.train, seed=case.seed), case.generator("modes"))
    return Section("modes", case.data.name, modes_content(found), modes_rows(found))


def modes_rows(found: Coverage) -> dict[str, str]:
    """For a table; a collapse is called one."""
    covered = (
        f"{found.covered} of {found.modes} covered, KL {found.divergence:.3f} nats from the data's shares"
    )
    rows = {"modes": covered, "dispersion of samples": f"{found.dispersion:.2f} of that of the data"}
    return rows | (
        {"health": "COLLAPSED: the samples are alike or miss most modes"} if found.collapsed else {}
    )


def translation_section(case: Case) -> Section | None:
    """How near predictions from input images come to the truth and how sharp they are; None without input images."""
    split = case.data.split(case.split)
    if not isinstance(split, PairedSplit):
        return None
    figures = translation_figures(
        case.model, split, max_images=case.max_images or TRANSLATED, generator=case.generator("translation")
    )
    return Section("translation", case.name, figures, translation_rows(figures))


def translation_rows(figures: dict[str, Any]) -> dict[str, str]:
    """For a table; in brackets what the inputs themselves would give."""
    doing_nothing = figures.get("input", {})

    def row(key: str, digits: int, unit: str = "") -> str:
        text = with_error(figures[key], figures.get(f"{key}_stderr"), digits) + unit
        return text + (f" (the inputs: {doing_nothing[key]:.{digits}f})" if doing_nothing.get(key) else "")

    rows = {"L1": row("l1", 4), "PSNR": row("psnr", 2, " dB")}
    if figures["sharpness"] is not None:
        rows["sharpness"] = row("sharpness", 2, " of that of the truth")
    rows |= {f"Fréchet, {space}": f"{value:.3f}" for space, value in figures["frechet"].items()}
    return rows | {"predictions": f"{figures['images']} images"}


# --- latents ---------------------------------------------------------------------------------------------------


def latents_section(case: Case, report: "LikelihoodReport", folder: Path) -> Section | None:
    """Figures of the latents, and pictures drawn of them into `folder`; None for a model without."""
    model, split, generator = case.model, case.data.split(case.split), case.generator("latents")
    if not isinstance(model, LatentVariableModel):
        return None
    figures = latent_figures(model, split, report, generator=generator)
    shown = isinstance(model, PicturedLatents)
    pictures = draw_latents(model, split, folder, generator=generator) if shown else []
    content = {**figures, "pictures": [str(path) for path in pictures]}
    return Section("latents", case.name, content, latent_rows(figures), pictures)


def latent_rows(figures: dict[str, Any]) -> dict[str, str]:
    """The rows of a table that tell what the latents hold."""
    rows = {}
    if "rate" in figures:
        rows["rate + distortion"] = f"{figures['rate']:.2f} + {figures['distortion']:.2f} nats (ELBO)"
    if "active_units" in figures:
        rows["active latents"] = f"{figures['active_units']} of {figures['latents']}"
    if "kl_per_group" in figures:
        rows["KL per group"] = ", ".join(f"{kl:.2f}" for kl in figures["kl_per_group"]) + " nats"
    if "codebook_usage" in figures:
        share, effective = figures["codebook_usage"], figures["codebook_perplexity"]
        rows["codes in use"] = f"{share:.1%} of {figures['codes']} (perplexity {effective:.0f})"
    return rows


# --- pictures --------------------------------------------------------------------------------------------------


def illustrations_section(case: Case, folder: Path) -> Section | None:
    """Pictures of the model at work, drawn into `folder`; None for a model that has none to show."""
    split, generator = case.data.split(case.split), case.generator("illustrations")
    pictures = illustrate(case.model, split, folder, generator=generator)
    content = {"pictures": [str(path) for path in pictures]}
    return Section("illustrations", case.name, content, {}, pictures) if pictures else None


# --- out-of-distribution detection -----------------------------------------------------------------------------


def ood_section(case: Case, strange: "ImageData", name: str) -> Section:
    """How well each OOD score tells images of `strange`, called `name`, from those of the model's own data.

    Typicality is measured from the validation split's mean. Class-conditional models sum over their classes.
    """
    most = case.max_images or OOD_IMAGES
    entropy = measure(case.model, case.data, "val", seed=case.seed, max_images=most).bits_per_dim
    generator, scores = case.generator("outliers"), []
    background = independent_pixels(case)
    for images in (case.data.split(case.split), strange.split(case.split)):
        chosen = images.batch(subset(len(images), most, seeded("cpu", "outliers", case.seed))).images
        scores.append(
            ood_scores(case.model, chosen, entropy=entropy, background=background, generator=generator)
        )
    auroc, errors = separation(*scores), separation_stderr(*scores)
    counts = [len(score.likelihood) for score in scores]
    content = {
        "auroc": auroc,
        "auroc_stderr": errors,
        "entropy": entropy,
        "images": counts,
        "kind": scores[0].kind.name,
    }
    rows = {f"AUROC by {score}": with_error(value, errors[score], 3) for score, value in auroc.items()}
    return Section("ood", f"{case.name} against {name}", content, rows)


def independent_pixels(case: Case) -> IndependentPixels | None:
    """A histogram of each sub-pixel of training images, as the background of a ratio; None for real-valued data."""
    train, spec = case.data.train, case.model.spec
    if spec.levels is None:
        return None
    chosen = subset(len(train), BACKGROUND_IMAGES, seeded("cpu", "background", case.seed))
    return IndependentPixels.fit(train.batch(chosen).images, spec)
