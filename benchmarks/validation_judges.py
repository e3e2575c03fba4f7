"""The feature extractor itself: would another seed of it rank alike, and what does it not see? Sections of
`validate_metrics`."""

from dataclasses import replace

from torch import Tensor

from benchmarks.corruptions import BESIDE, CORRUPTIONS
from benchmarks.validation_bench import (
    DEFAULT,
    Bar,
    Bench,
    Found,
    agreement,
    embedded,
    frechets,
    kendall,
    table,
)
from genzoo.core.errors import GenzooError
from genzoo.data.augmentations import Augmentation, Compose, RandomCrop
from genzoo.evaluation.features.extractor import extractor_config
from genzoo.metrics.frechet import frechet_distance
from genzoo.models.encoders.embedding import prepared
from genzoo.objectives.dequantisation import quantise

BAR = 0.95
MODEL_SEVERITIES = (1, 3, 5)
"""Of the corrupted sets that stand in for models."""
BLIND = 2.0
"""Times the floor: what an extractor sees less of it does not see."""


def corrupted(bench: Bench, name: str, severity: int) -> Tensor:
    """The base images so spoilt; places and directions are the same for each severity."""
    corruption = {**CORRUPTIONS, **BESIDE}[name]
    return corruption(bench.base, bench.levels, severity, bench.generator("corruption", name))


def seeds(bench: Bench) -> Found:
    """Agreement of extractors on corrupted sets, which stand in for models of all kinds of faults."""
    if bench.seeds < 2:
        raise GenzooError("judges are compared from two seeds on: raise --seeds")
    sets = {f"{name} {s}": corrupted(bench, name, s) for name in CORRUPTIONS for s in MODEL_SEVERITIES}
    judges = frechets(bench, bench.judges, sets)
    others = {name: space for name, space in bench.spaces.items() if name != DEFAULT}
    found = agreement(judges)
    beside = {
        f"{DEFAULT} / {name}": kendall(judges[DEFAULT], values)
        for name, values in frechets(bench, others, sets).items()
    }
    least = min(found.values())
    bar = Bar(
        f"tau of extractors' rankings of {len(sets)} sets at least {BAR}", f"least {least:.3f}", least >= BAR
    )
    rows = [[name, value] for name, value in {**found, **beside}.items()]
    return Found(table(["judges", "tau"], rows), [bar], {"distances": judges, "tau": {**found, **beside}})


def own_augmentations(whole: Augmentation) -> dict[str, Augmentation]:
    """The feature extractor's augmentation and each of its parts alone; mirrors too, where they are none of it.

    Raises `GenzooError` where it is no crop and shades after it.
    """
    if not isinstance(whole, Compose) or len(whole.parts) != 2:
        raise GenzooError(
            "the feature extractor's views are no longer a crop and shades: tell its parts here"
        )
    crop, shades = whole.parts
    assert isinstance(crop, RandomCrop)
    still = replace(crop, scale=(1.0, 1.0), ratio=(1.0, 1.0), degrees=0.0, flip=0.0)
    return {
        "all": whole,
        "shades": shades,
        "size": replace(still, scale=crop.scale),
        "stretch": replace(still, ratio=crop.ratio),
        "turn": replace(still, degrees=crop.degrees),
        "mirror" if crop.flip else "(mirror)": replace(still, flip=0.5),
    }


def blind(bench: Bench) -> Found:
    """Fréchet distances of augmented training images over those of the same images as they are."""
    views = extractor_config(bench.data.spec).augmentation
    floor = {
        space: frechet_distance(bench.real_features[space], f)
        for space, f in embedded(bench.spaces, bench.base).items()
    }
    x, rows, found = prepared(bench.base, bench.data.spec), [], {}
    for name, part in own_augmentations(views).items():
        images = quantise(part(x, bench.generator("blind", name)), bench.levels).to(bench.base.dtype)
        distances = {
            space: frechet_distance(bench.real_features[space], f)
            for space, f in embedded(bench.spaces, images).items()
        }
        change = (images.float() - bench.base.float()).square().mean().sqrt().item() / (bench.levels - 1)
        ratios = {space: distances[space] / max(floor[space], 1e-12) for space in distances}
        verdict = "sees" if ratios[DEFAULT] >= BLIND else "is blind"
        rows.append([name, change, *ratios.values(), verdict])
        found[name] = {"change": change, "frechet": distances, "floor": floor}
    lines = [
        f"Fréchet distance over that of unchanged images; below {BLIND:g} the default feature extractor "
        "counts as blind",
        *table(["augmentation", "rms change", *bench.spaces, DEFAULT], rows),
    ]
    return Found(lines, [], found)
