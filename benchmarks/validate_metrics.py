"""Do the metrics see what they should? `python -m benchmarks.validate_metrics [--data fashion-mnist] [--only modes]`.

The validation of the evaluator itself, one section after the other (`--only` takes their names, with commas). Real
images are those of the validation split; what stands for samples is made of training images. No test image is used.
Columns are judges: the default one, principal components of pixels, random convolutions.

    corruptions     eight corruptions at five severities and at none: Kendall's tau of each score with severity,
                    whose bar is about the five; that with none at all is shown beside it
    modes           more and more classes removed, in three random orders: do the scores rise?
    contamination   a rising share of noise, of another source's images, or of copies of one image
    seeds           do judges that differ by their seed alone rank the same sets alike?
    blind           real images under the feature extractor's own augmentations: what does it not see, and how much
    changed?
    truth           models whose KL divergence from the data is known (Betzalel et al. 2022): are they ranked so?

Scores are printed so that higher is worse. A bar that is missed is printed as failing, and a section that the data
do not allow as left out; the exit code stays 0, since this is a measurement. `--json PATH` writes all figures.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

import genzoo
from benchmarks.corruptions import BESIDE, CORRUPTIONS, SEVERITIES
from benchmarks.validation_bench import (
    DEFAULT,
    FRECHET,
    SCORES,
    Bar,
    Bench,
    Found,
    columns,
    distance_alone,
    embedded,
    kendall,
    rises,
    scores,
    table,
)
from benchmarks.validation_judges import blind, corrupted, seeds
from benchmarks.validation_truth import truth
from genzoo.core.errors import GenzooError
from genzoo.evaluation.features.feature_space import some_images

BAR = 0.9
SEEN_OF_EIGHT = 7
DROPPED = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8)  # shares of the classes
ORDERS = 3
SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)  # of foreign images


# --- corruptions -------------------------------------------------------------------------------------------------


def corruptions(bench: Bench) -> Found:
    """Kendall's tau of scores with the severity, the images as they are being severity 0."""
    found, measures = {}, {space: scores if space == DEFAULT else distance_alone for space in bench.spaces}
    for name in (*CORRUPTIONS, *BESIDE):
        sets = [embedded(bench.spaces, corrupted(bench, name, severity)) for severity in SEVERITIES]
        found[name] = {
            space: columns([measure(bench.real_features[space], features[space]) for features in sets])
            for space, measure in measures.items()
        }
        bench.say(f"corruptions: {name}")
    bars = [
        _corruption_bar(found, 1, "the five severities"),
        _corruption_bar(found, 0, "these and none at all"),
    ]
    return Found(_corruption_lines(found), bars, found)


def _corruption_bar(
    found: Mapping[str, Mapping[str, Mapping[str, list[float]]]], first: int, over: str
) -> Bar:
    """Of Kendall's tau over severities from `first` on. From 0 is stricter: the mildest must show at all."""
    taus = {name: kendall(SEVERITIES[first:], found[name][DEFAULT][FRECHET][first:]) for name in CORRUPTIONS}
    missed = ", ".join(f"{name} ({tau:.2f})" for name, tau in taus.items() if tau < BAR)
    seen = sum(tau >= BAR for tau in taus.values())
    count = f"{seen} of {len(taus)}" + (f", not by {missed}" if missed else "")
    text = (
        f"tau of the default Fréchet distance over {over} at least {BAR} by {SEEN_OF_EIGHT} of 8 corruptions"
    )
    return Bar(text, count, seen >= SEEN_OF_EIGHT)


def _corruption_lines(found: Mapping[str, Mapping[str, Mapping[str, list[float]]]]) -> list[str]:
    names = [name if name in CORRUPTIONS else f"({name})" for name in found]
    distances = [of[DEFAULT][FRECHET] for of in found.values()]
    spaces = [space for space in next(iter(found.values())) if space != DEFAULT]
    taus = [
        [_tau(of[DEFAULT][score]) for score in SCORES] + [_tau(of[space][FRECHET]) for space in spaces]
        for of in found.values()
    ]
    return [
        "The default feature extractor's Fréchet distance by severity (those in brackets do not count)",
        *table(
            ["", *map(str, SEVERITIES)],
            [[n, *d] for n, d in zip(names, distances, strict=True)],
        ),
        "Kendall's tau with severity: the default feature extractor's scores, and the Fréchet distance of others",
        *table(["", *SCORES, *spaces], [[n, *t] for n, t in zip(names, taus, strict=True)]),
    ]


def _tau(values: list[float]) -> float:
    return kendall(SEVERITIES, values)


# --- modes and contamination -------------------------------------------------------------------------------------


def modes(bench: Bench) -> Found:
    """Scores of equally many images of fewer and fewer classes. Raises `GenzooError` for data without classes."""
    labels = bench.data.train.labels
    if labels is None or labels.ndim != 1:
        raise GenzooError("classes are removed from labelled images only")
    order = torch.randperm(len(labels), generator=bench.generator("modes"))
    order = order[: round(1.2 * bench.images / (1 - DROPPED[-1]))]
    features = embedded(bench.spaces, bench.data.train.batch(order).images)
    found = {f"order {n + 1}": _thinned(bench, features, labels[order], n) for n in range(ORDERS)}
    head = [f"{share:.0%} dropped" for share in DROPPED]
    return _rising("modes", found, head, (FRECHET, "1-coverage"), bars_on=(FRECHET, "1-coverage"))


def _thinned(
    bench: Bench, features: Mapping[str, Tensor], labels: Tensor, order: int
) -> dict[str, dict[str, list[float]]]:
    classes = labels.unique()
    classes = classes[torch.randperm(len(classes), generator=bench.generator("classes", order))]
    kept = [torch.isin(labels, classes[round(share * len(classes)) :]).nonzero()[:, 0] for share in DROPPED]
    n = min(bench.images, *map(len, kept))  # equally many, since scores depend on the number
    bench.say(f"modes: order {order + 1}, {n} images a set")
    return {
        space: columns([scores(bench.real_features[space], rows[chosen[:n]]) for chosen in kept])
        for space, rows in features.items()
    }


def contamination(bench: Bench) -> Found:
    """Scores of training images of which a rising share is replaced by something else."""
    base = embedded(bench.spaces, bench.base)
    most = round(SHARES[-1] * len(bench.base))
    found = {}
    for name, images in foreign(bench, most).items():
        strange = embedded(bench.spaces, images)
        found[name] = {
            space: columns(
                [scores(bench.real_features[space], _mixed(base[space], strange[space], s)) for s in SHARES]
            )
            for space in bench.spaces
        }
        bench.say(f"contamination: {name}")
    return _rising(
        "contamination", found, [f"{s:.0%}" for s in SHARES], (FRECHET, "1-precision"), bars_on=(FRECHET,)
    )


def _mixed(base: Tensor, strange: Tensor, share: float) -> Tensor:
    count = round(share * len(base))
    return torch.cat([strange[:count], base[count:]])


def foreign(bench: Bench, n: int) -> dict[str, Tensor]:
    """`n` images each that have no place among the data's: integers as the data's own.

    Digits come from scikit-learn and are enlarged; where digits are the data, their negatives take the place.
    """
    shape, levels = bench.data.spec.shape, bench.levels
    noise = torch.randint(levels, (n, *shape), generator=bench.generator("noise")).to(bench.base.dtype)
    one = bench.data.train.batch(torch.zeros(1, dtype=torch.long)).images.expand(n, *shape)
    if bench.data.name == "digits":
        return {"noise": noise, "negatives": levels - 1 - bench.base[:n], "copies of one": one}
    digits = genzoo.load_data("digits")
    assert digits.spec.levels is not None
    drawn = some_images(digits.train, n, bench.seed).float() / (digits.spec.levels - 1)
    drawn = drawn[torch.arange(n) % len(drawn)]
    large = F.interpolate(drawn, size=shape[1:], mode="bilinear", align_corners=False).expand(n, *shape)
    return {"noise": noise, "digits": (large * (levels - 1)).round().to(noise.dtype), "copies of one": one}


def _rising(
    title: str,
    found: Mapping[str, Mapping[str, Mapping[str, list[float]]]],
    head: list[str],
    shown: tuple[str, ...],
    bars_on: tuple[str, ...],
) -> Found:
    """The table and bars of scores that are to rise from the first set to the last."""
    rows = [
        [name, space, score, *of[score], "rises" if rises(of[score]) else "does not rise"]
        for name, spaces in found.items()
        for space, of in spaces.items()
        for score in shown
    ]
    bars = []
    for score in bars_on:
        failing = [name for name, spaces in found.items() if not rises(spaces[DEFAULT][score])]
        text = f"the default feature extractor's {score} rises with {title}"
        bars.append(Bar(text, "not with " + ", ".join(failing) if failing else "always", not failing))
    return Found(table(["", "judge", "score", *head, ""], rows), bars, dict(found))


# --- command -----------------------------------------------------------------------------------------------------

SECTIONS: Mapping[str, Callable[[Bench], Found]] = {
    "corruptions": corruptions, "modes": modes, "contamination": contamination, "seeds": seeds, "blind": blind,
    "truth": truth,
}  # fmt: skip


def run(bench: Bench, names: list[str]) -> dict[str, Found]:
    """The sections `names` in turn, each printed when it is done, or the reason why the data do not allow it."""
    found = {}
    for name in names:
        start = time.process_time()
        found[name] = _found_or_left_out(SECTIONS[name], bench)
        lines = [f"\n== {name} ({time.process_time() - start:.0f} s of processor time)", *found[name].lines]
        print("\n".join([*lines, *map(str, found[name].bars)]), flush=True)
    return found


def _found_or_left_out(section: Callable[[Bench], Found], bench: Bench) -> Found:
    """What a section finds; of one that the data do not allow, the reason alone."""
    try:
        return section(bench)
    except GenzooError as reason:
        return Found([f"left out: {reason}"], [], {"left out": str(reason)})


def to_json(bench: Bench, found: Mapping[str, Found]) -> dict[str, object]:
    """All figures with what they were measured on."""
    return {
        "data": bench.data.protocol,
        "images": [len(bench.real), len(bench.base)],
        "seed": bench.seed,
        "sections": {name: section.figures for name, section in found.items()},
        "bars": [
            {"text": bar.text, "found": bar.found, "passed": bar.passed}
            for section in found.values()
            for bar in section.bars
        ],
    }


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--images", type=int, default=2000, help="real ones, and in each set")
    parser.add_argument("--seeds", type=int, default=3, help="judges whose rankings are compared")
    parser.add_argument("--seed", type=int, default=0, help="of whatever is drawn")
    parser.add_argument("--only", help=f"some of {','.join(SECTIONS)}")
    parser.add_argument(
        "--truth-steps", type=int, default=400, help="of training the model that is the truth"
    )
    parser.add_argument("--truth-crops", action="store_true", help="the truth is of crops of 16 levels")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    return parser


def main() -> None:
    """Prints a table for each section, and the bars."""
    parser = arguments()
    args = parser.parse_args()
    names = args.only.split(",") if args.only else list(SECTIONS)
    if unknown := [name for name in names if name not in SECTIONS]:
        parser.error(f"unknown section {unknown[0]!r}: choose from {', '.join(SECTIONS)}")
    try:
        data = genzoo.load_data(args.data)
        bench = Bench(
            data, args.images, args.seeds, args.seed, lambda text: print(text, flush=True), args.truth_steps,
            args.truth_crops,
        )  # fmt: skip
        print(
            f"{data.name}: {len(bench.real)} validation images against {len(bench.base)} training images",
            flush=True,
        )
        found = run(bench, names)
    except GenzooError as mistake:
        parser.error(str(mistake))
    if args.json is not None:
        args.json.write_text(json.dumps(to_json(bench, found), indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
