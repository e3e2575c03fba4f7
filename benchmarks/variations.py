"""Does a vector say which image? `python -m benchmarks.variations [--preset flow,vae] [--minutes 6 | --steps N]`.

An encoder learns from the training images, then a preset is trained on the same images with the encoder's vectors as
its condition and draws variations of test images. A feature extractor, an encoder of another recipe and seed that had
no part in either, says how alike they are: the figure is the probability (AUC) that the feature extractor finds an
image more like one of its own variations than like one of another image's. It is printed over all other images and,
which is harder, over those of the same class, for the feature extractor's cosines and for squared distances of pixels;
the error is that over images. The target is 0.9 over all images of Fashion-MNIST.

Two rows tell what the figures mean: other images of the same class in the place of variations (what knowing the class
alone would give), and the first preset's variations dealt out to the wrong images (1/2). The encoder and the feature
extractor learn from the same images and, as presets, to be blind to the same changes of an image: what both leave out
this cannot see, pixels can. The table of the encoders says how well 20 nearest neighbours among training images tell
the class.

Minutes are those of processor time per core, turned into steps by a trial of a few; `--split val` is for trying things.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import genzoo
from benchmarks.budget import fitted_seconds, steps_for
from genzoo.core.errors import GenzooError
from genzoo.core.random import seeded
from genzoo.data.augmentation_presets import KINDS
from genzoo.data.image_data import ImageData
from genzoo.data.image_grid import save_grid
from genzoo.data.split import Split
from genzoo.metrics.conditioning_metrics import Nearness, closeness, variation_auc
from genzoo.metrics.probes import Labelled, knn_accuracy
from genzoo.models.base import Encoder, GenerativeModel
from genzoo.models.conditioning import encoded
from genzoo.models.registry import get_preset

BAR = 0.9
BANK = 10_000  # training images whose classes the encoders' neighbours know
PICTURED = 10  # images in the picture


@dataclass(frozen=True)
class Case:
    """The images that are evaluated `[n, c, h, w]`, their classes long `[n]` or None, and the feature extractor."""

    images: Tensor
    classes: Tensor | None
    judge: Encoder

    def figures(self, variations: Tensor) -> list[Nearness | None]:
        """Of integer `variations` `[n, k, c, h, w]`: to the feature extractor and in pixels, over all images and within
        classes."""
        n, k = variations.shape[:2]
        flat = variations.flatten(0, 1)
        vectors = self.judge.embed(self.images), self.judge.embed(flat).view(n, k, -1)
        pixels = self.images.flatten(1), flat.view(n, k, -1)
        found: list[Nearness | None] = [variation_auc(*vectors)]
        found.append(None if self.classes is None else variation_auc(*vectors, groups=self.classes))
        found.append(variation_auc(*pixels, similarity=closeness))
        found.append(
            None
            if self.classes is None
            else variation_auc(*pixels, groups=self.classes, similarity=closeness)
        )
        return found


# --- encoders --------------------------------------------------------------------------------------------------


def encoder_of(name: str, data: ImageData, args: argparse.Namespace, seed: int) -> Encoder:
    """An encoder of a preset after `--encoder-steps` on the training images; prints its row."""
    encoder = genzoo.create_encoder(name, data.spec, args.encoder_size, kind=KINDS.get(data.name), seed=seed)
    seconds = fitted_seconds(encoder, data.train, args.encoder_steps, seed)
    share = ""
    if data.train.labels is not None:
        found = knn_accuracy(labelled(encoder, data.train, BANK), labelled(encoder, data.split(args.split)))
        share = f"{100 * found.value:.2f} ± {100 * found.stderr:.2f}"
    print(f"{name:26}{share:16}{args.encoder_steps:8d} {seconds:7.0f}", flush=True)
    return encoder


def labelled(encoder: Encoder, split: Split, most: int | None = None) -> Labelled:
    """The vectors and classes of the first `most` images of `split`."""
    assert split.labels is not None
    return Labelled(encoder.embed(split.images[:most]), split.labels[:most])


# --- variations ------------------------------------------------------------------------------------------------


def trained(name: str, data: ImageData, args: argparse.Namespace) -> tuple[GenerativeModel, int, float]:
    """A preset conditioned on vectors, its steps, and the seconds of processor time that they took."""

    def fresh() -> GenerativeModel:
        return genzoo.create(name, data.spec, args.size, seed=args.seed)

    model = fresh()
    steps = args.steps or steps_for(lambda n: fitted_seconds(fresh(), data.train, n, args.seed), args.minutes)
    return model, steps, fitted_seconds(model, data.train, steps, args.seed)


def drawn(model: GenerativeModel, vectors: Tensor, k: int, seed: int) -> Tensor:
    """`k` variations for each of `vectors` `[n, d]`: `[n, k, c, h, w]`."""
    generator = seeded(model.device, "variations", seed)
    samples = model.sample(k * len(vectors), vectors.repeat_interleave(k, 0), generator=generator)
    return samples.cpu().unflatten(0, (len(vectors), k))


def of_class(split: Split, chosen: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """`k` images of `split` of the class of each of the images at `chosen` `[n]`, drawn from all others of it.

    `[n, k, c, h, w]`. Raises `GenzooError` where a class has no further images.
    """
    assert split.labels is not None
    free = torch.ones(len(split), dtype=torch.bool)
    free[chosen] = (
        False  # those that are evaluated stay out, so that no image is its own variation or a rival's
    )
    parts = []
    for label in split.labels[chosen]:
        candidates = (free & (split.labels == label)).nonzero()[:, 0]
        if len(candidates) == 0:
            raise GenzooError(f"class {int(label)} has no images beside those evaluated: give fewer --images")
        parts.append(candidates[torch.randint(len(candidates), (k,), generator=generator)])
    return split.images[torch.cat(parts)].unflatten(0, (len(chosen), k))


# --- the table -------------------------------------------------------------------------------------------------


def row(
    name: str, found: list[Nearness | None], steps: int = 0, seconds: float = 0.0, bar: float = 0.0
) -> str:
    """A line of the table."""
    cells = ["" if f is None else f"{f.value:.4f} ± {f.stderr:.4f}" for f in found]
    mark = "  below the target" if found[0] is not None and found[0].value < bar else ""
    return f"{name:26}{''.join(f'{cell:18}' for cell in cells)}{steps:6d} {seconds:7.0f}{mark}"


def picture(path: Path, name: str, several: bool, case: Case, variations: Tensor, data: ImageData) -> None:
    """Writes rows of an image and its variations; of several presets each gets a file with its name."""
    shown = torch.cat([case.images[:PICTURED, None], variations[:PICTURED]], 1)
    path = path.with_stem(f"{path.stem}-{name}") if several else path
    path.parent.mkdir(parents=True, exist_ok=True)
    save_grid(shown.flatten(0, 1), data.spec, path, columns=shown.shape[1])


def chosen(presets: str) -> list[str]:
    """The generators that `--preset` names. Raises `GenzooError` for one that is unknown or takes no vectors."""
    names = presets.split(",")
    if wrong := [name for name in names if get_preset(name).needs_input]:
        raise GenzooError(
            f"{wrong[0]} predicts from an input image and takes no encoder's vectors: leave it out"
        )
    return names


def run(args: argparse.Namespace) -> None:
    """Prints both tables. Raises `GenzooError` for mistakes in the arguments."""
    if args.encoder == args.features:
        raise GenzooError(
            f"a feature extractor of the encoder's own recipe is not independent: --features is {args.features}, too"
        )
    names, data = chosen(args.preset), genzoo.load_data(args.data)
    split, generator = data.split(args.split), seeded("cpu", "judged images", args.seed)
    places = torch.randperm(len(split), generator=generator)[: args.images]
    classes = None if split.labels is None else split.labels[places]
    controls = None if classes is None else of_class(split, places, args.each, generator)
    print(f"{'':26}{'neighbours':16}{'steps':>8} {'cpu s':>7}")
    encoder = encoder_of(args.encoder, data, args, args.seed)
    case = Case(split.images[places], classes, encoder_of(args.features, data, args, args.seed + 1))
    with tempfile.TemporaryDirectory() as folder:
        encoder.save(folder)
        with_vectors = encoded(data, folder)
    heads = ("judge", "judge, class", "pixels", "pixels, class")
    print(f"\n{'':26}{''.join(f'{head:18}' for head in heads)}{'steps':>6} {'cpu s':>7}")
    if controls is not None:
        print(row("others of its class", case.figures(controls)), flush=True)
    vectors = with_vectors.split(args.split).labels
    assert vectors is not None
    for name in names:
        model, steps, seconds = trained(name, with_vectors, args)
        variations = drawn(model, vectors[places], args.each, args.seed)
        if args.picture:
            picture(args.picture, name, len(names) > 1, case, variations, data)
        if name == names[0]:
            dealt = torch.randperm(len(places), generator=generator)
            print(row(f"{name}, dealt out wrongly", case.figures(variations[dealt])))
        print(row(name, case.figures(variations), steps, seconds, BAR), flush=True)


def main() -> None:
    """Prints a row for each encoder, for the two controls and for each preset."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--preset", default="flow", help="generators, separated by commas")
    parser.add_argument("--size", default="small", help="of the generators")
    parser.add_argument("--minutes", type=float, default=6.0, help="of training per generator")
    parser.add_argument("--steps", type=int, help="of training per generator, in place of minutes")
    parser.add_argument("--encoder", default="simclr", help="whose vectors the generators are given")
    parser.add_argument("--features", default="barlow", help="the encoder that judges")
    parser.add_argument("--encoder-steps", type=int, default=400, help="of training for either encoder")
    parser.add_argument("--encoder-size", default="small", help="of either encoder")
    parser.add_argument("--split", choices=["test", "val"], default="test", help="of the images varied")
    parser.add_argument("--images", type=int, default=500, help="that variations are drawn of")
    parser.add_argument("--each", type=int, default=4, help="variations of an image")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the encoder and the generators; the feature extractor has the next",
    )
    parser.add_argument("--picture", type=Path, help="PNG file of some images with their variations")
    try:
        run(parser.parse_args())
    except GenzooError as mistake:
        parser.error(str(mistake))


if __name__ == "__main__":
    main()
