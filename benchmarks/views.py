"""What should views leave out? `python -m benchmarks.views --data fashion-mnist [--steps 400] [--augmentation
now,garments]`.

Trains the preset `simclr` under each way of making views for the same steps, and prints how well the classes of
*validation* images are told by 20 nearest neighbours among the training images, and by average similarity to ten
training images of each class. The rows of `genzoo.data.augmentation_presets` were chosen by such tables; the test split
has no part in it.
"""

import argparse
import time

import genzoo
from genzoo.core.errors import GenzooError
from genzoo.core.random import seeded
from genzoo.data.augmentation_presets import AUGMENTATIONS, KINDS, LIGHT, ground_of, on_ground
from genzoo.data.augmentations import Augmentation, ColourJitter, Compose, RandomCrop
from genzoo.data.image_data import ImageData
from genzoo.metrics.probes import Labelled, few_shot_accuracy, knn_accuracy

TRIED: dict[str, Augmentation] = {
    "crops": Compose((RandomCrop(scale=(0.3, 1.0), flip=0.5), LIGHT)),
    "small-crops": Compose((RandomCrop(scale=(0.2, 1.0), flip=0.5), ColourJitter(0.15, 0.15, gamma=0.15))),
    "mild": Compose(
        (RandomCrop(scale=(0.6, 1.1), ratio=(0.9, 1.1), flip=0.5), ColourJitter(0.5, 0.5, gamma=0.5))
    ),
    "mild-shades": Compose(
        (RandomCrop(scale=(0.5, 1.1), ratio=(0.85, 1.18), flip=0.5), ColourJitter(0.15, 0.15, gamma=0.15))
    ),
}
"""Ways beside the presets' that were tried."""


def judged(augmentation: Augmentation, data: ImageData, size: str, steps: int, seed: int) -> str:
    """The figures of an encoder trained under `augmentation`."""
    encoder = genzoo.create_encoder(
        "simclr", data.spec, size, seed=seed, augmentation=on_ground(augmentation, ground_of(data.spec))
    )
    start = time.process_time()
    encoder.fit(data.train, steps=steps, seed=seed, progress=False)
    seconds = time.process_time() - start
    parts = []
    for split in (data.train, data.val):
        assert split.labels is not None
        parts.append(Labelled(encoder.embed(split.images[:]), split.labels))
    knn = knn_accuracy(*parts)
    few = few_shot_accuracy(*parts, generator=seeded("cpu", "views", seed))
    cells = (f"{100 * share.value:6.2f} ± {100 * share.stderr:4.2f}" for share in (knn, few))
    return f"{'   '.join(cells)} {seconds:7.0f}"


def main() -> None:
    """Prints a row for each way."""
    ways = {**AUGMENTATIONS, **TRIED}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="fashion-mnist", help="labelled images")
    parser.add_argument(
        "--augmentation", help=f"some of {', '.join(ways)}; else the data's own and those tried"
    )
    parser.add_argument("--steps", type=int, default=400, help="of training each")
    parser.add_argument("--size", default="small", help="of the preset")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    own = KINDS.get(args.data, "digits")
    names = args.augmentation.split(",") if args.augmentation else ["digits", own, *TRIED]
    if unknown := [name for name in names if name not in ways]:
        parser.error(f"unknown views {unknown[0]!r}: choose from {', '.join(ways)}")
    try:
        data = genzoo.load_data(args.data)
        print(f"{'':14}neighbours      ten per class     cpu s")
        for name in dict.fromkeys(names):
            print(f"{name:14}{judged(ways[name], data, args.size, args.steps, args.seed)}", flush=True)
    except GenzooError as mistake:
        parser.error(str(mistake))


if __name__ == "__main__":
    main()
