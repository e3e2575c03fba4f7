"""Does the figure agree with the eye? `python -m benchmarks.panel [--data fashion-mnist] [--work runs/panel]`.

Some hundred pairs of image sets of which nobody disputes the better one (`benchmarks.panel_sets`), and how many of them
the Fréchet distance from validation images puts in that order, by feature extractor:

    default         the default feature extractor of `genzoo evaluate`
    encoder alone   its encoder, not whitened, by which figures were made until version 0.1
    texture alone   the energies of texture, whitened
    pixels, random  principal components of pixels, random convolutions

Beside that the corruptions of `benchmarks.validate_metrics`: Kendall's tau with severity, and by how much the mildest
level of one outweighs the third of another. What draws the sets learns for some 20 minutes of processor time the first
time, and is kept in `--work`. With `--grids` the ranking of the twelve grids of the recorded bake-off by looking
(`benchmarks.looking`) is compared with the figures of these very pictures, 64 of each entrant: their Fréchet distance
from validation images.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

import genzoo
from benchmarks.corruptions import CORRUPTIONS, SEVERITIES
from benchmarks.looking import mean_ranks, recorded_grids
from benchmarks.panel_models import MINUTES, Workshop, generator
from benchmarks.panel_sets import REAL, Panel, panel_of
from benchmarks.validation_bench import kendall, table
from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.data.image_data import ImageData
from genzoo.evaluation.features.combined_space import ROUGH, WHITENED, whitened
from genzoo.evaluation.features.extractor import BASIS_IMAGES, default_encoder, default_extractor
from genzoo.evaluation.features.feature_space import (
    FeatureSpace,
    encoder_space,
    pixel_space,
    random_space,
    some_images,
)
from genzoo.evaluation.features.reduction import reduced
from genzoo.metrics.frechet import frechet_distance
from genzoo.metrics.intervals import bootstrap
from genzoo.models.encoders.embedding import prepared
from genzoo.nn.texture import TextureEnergies

BAR = 0.95
MOST_RATIO = 10.0
THIRD = 3
INTERVAL_OF = f"flow {MINUTES[0]:g}"
"""Samples of a good model."""
Distance = Callable[[Tensor], float]


def spaces(data: ImageData, seed: int) -> dict[str, FeatureSpace]:
    """The feature extractors that are compared, by name."""
    default = default_extractor(data, seed=seed)
    encoder, spec = default_encoder(data, seed=seed), DataSpec(data.spec.shape, data.spec.levels)
    alone = encoder_space(encoder, "encoder alone")
    embed = alone.embed
    alone = FeatureSpace(
        alone.name, alone.identity, alone.width, lambda x: embed(reduced(x, spec))
    ).scaled_to(some_images(data.train, 2000, seed=0))
    return {
        "default": default,
        "encoder alone": alone,
        "texture alone": texture_space(data),
        "pixels": pixel_space(data.train, BASIS_IMAGES),
        "random": random_space(data.train, BASIS_IMAGES),
    }


def texture_space(data: ImageData) -> FeatureSpace:
    """The energies of texture alone, whitened by training images."""
    energies, spec = TextureEnergies(), DataSpec(data.spec.shape, data.spec.levels)
    train = some_images(data.train, WHITENED, seed=0)
    embed = whitened(lambda images: energies(prepared(images, spec)), train, ROUGH)
    return FeatureSpace("texture alone", "", embed(train[:1]).shape[1], embed)


def panel_lines(panel: Panel, found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Shares of pairs in the right order by extractor, and the pairs that are not, with what was found."""
    rows, wrong = [], []
    for name, distances in found.items():
        right = [distances[p.better] < distances[p.worse] for p in panel.pairs]
        share = sum(right) / len(right)
        verdict = ("met" if share >= BAR else "not met") if name == "default" else ""
        rows.append([name, f"{100 * share:.1f}%", verdict])
        if name == "default":
            wrong = [
                f"  wrong: {p.better} ({distances[p.better]:.3g}), {p.worse} ({distances[p.worse]:.3g}): {p.reason}"
                for p, good in zip(panel.pairs, right, strict=True)
                if not good
            ]
    return [f"pairs in the right order, of {len(panel.pairs)}", *table(["", "share", "95%"], rows), *wrong]


def corruption_lines(base: Tensor, levels: int, distance: Distance) -> list[str]:
    """The default extractor's distance by severity, tau with it, and the ratio of mildest to third levels."""
    found = {}
    for name, corruption in CORRUPTIONS.items():
        found[name] = [
            distance(corruption(base, levels, s, generator(f"corruption {name}", 0))) for s in SEVERITIES
        ]
    rows = [[name, *values, kendall(SEVERITIES, values)] for name, values in found.items()]
    mildest, third = max(v[1] for v in found.values()), min(v[THIRD] for v in found.values())
    ratio = mildest / third
    verdict = "met" if ratio <= MOST_RATIO else "not met"
    return [
        "Fréchet distance by severity, default",
        *table(["", *map(str, SEVERITIES), "tau"], rows),
        f"largest of the mildest over smallest of the third: {ratio:.1f} (at most {MOST_RATIO:g}: {verdict})",
    ]


def interval_lines(images: Tensor, real: Tensor, extractors: Mapping[str, FeatureSpace]) -> list[str]:
    """95% intervals of the Fréchet distance of one set, and their widths over the value."""
    rows = []
    for name in ("default", "encoder alone"):
        a, b = extractors[name](real), extractors[name](images)
        value = frechet_distance(a, b)
        low, high = bootstrap(frechet_distance, a, b, distance=True, generator=generator("halves", 0))
        rows.append([name, value, low, high, (high - low) / value])
    title = f"95% intervals of the Fréchet distance of {INTERVAL_OF}"
    return [title, *table(["", "value", "low", "high", "width / value"], rows)]


def grid_lines(real: Tensor, extractors: Mapping[str, FeatureSpace], page: Path) -> list[str]:
    """Kendall's tau of figures of the recorded grids with their ranking by looking."""
    grids, ranks = recorded_grids(page), mean_ranks()
    rows = []
    for name, space in extractors.items():
        features = space(real)
        distances = {entrant: frechet_distance(features, space(grids[entrant])) for entrant in ranks}
        order = " ".join(sorted(distances, key=distances.__getitem__))
        rows.append([name, kendall(list(ranks.values()), list(distances.values())), order])
    return [
        "the twelve recorded grids, 64 pictures each: tau with the ranking by looking",
        *table(["", "tau", "order"], rows),
    ]


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--images", type=int, default=2000, help="in each set")
    parser.add_argument("--seed", type=int, default=0, help="of the extractor; the sets' is 0")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/panel"), help="where what draws the sets is kept"
    )
    parser.add_argument(
        "--without-models", action="store_true", help="only sets that no model draws: minutes less"
    )
    parser.add_argument("--grids", type=Path, help="the recorded page, samples/bakeoff-fashion-mnist.html")
    args = parser.parse_args()
    try:
        data = genzoo.load_data(args.data)
        extractors = spaces(data, args.seed)
        real = some_images(data.val, max(args.images, 2000), 0)
        print(f"{data.name}: sets of {args.images} against {len(real)} validation images")
        if args.grids is not None:
            print("\n".join(grid_lines(real, extractors, args.grids)), flush=True)
        panel = panel_of(Workshop(data, args.work), args.images, drawn=not args.without_models)
        found = {}
        for name, space in extractors.items():
            features = space(real)
            found[name] = {key: frechet_distance(features, space(x)) for key, x in panel.sets.items()}
        print("\n".join(panel_lines(panel, found)), flush=True)
        if INTERVAL_OF in panel.sets:
            print("\n".join(interval_lines(panel.sets[INTERVAL_OF], real, extractors)), flush=True)
        features, default = extractors["default"](real), extractors["default"]
        levels = data.spec.levels or 0
        lines = corruption_lines(panel.sets[REAL], levels, lambda x: frechet_distance(features, default(x)))
        print("\n".join(lines))
    except GenzooError as mistake:
        parser.error(str(mistake))


if __name__ == "__main__":
    main()
