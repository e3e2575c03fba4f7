"""Classes by their names, in Python."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from genzoo.data.class_choice import choose_classes
from genzoo.data.image_data import ImageData
from genzoo.data.sources import class_names_of
from genzoo.models.run_data import class_names_of_run


def class_numbers(classes: str | Sequence[str | int], of: str | Path | ImageData | Sequence[str]) -> Tensor:
    """The numbers of classes, long `[k]`: what `cond` takes.

    `classes` are names or numbers, or one text with commas between them; `of` is a run folder, data, or the names in
    the order of their numbers.

    >>> class_numbers("dog,cat", ["cat", "dog"])
    tensor([1, 0])

    Raises `GenzooError` with the numbering for anything that is no class.
    """
    if isinstance(of, ImageData):
        names: Sequence[str] = of.class_names or class_names_of(of.name)
        count = max(of.spec.cond_size if of.spec.cond == "class" else 0, len(names))
    elif isinstance(of, (str, Path)):
        names, count = class_names_of_run(Path(of)), _classes_of_run(Path(of))
    else:
        names, count = of, len(of)
    return torch.tensor(choose_classes(classes, names, count).numbers)


def _classes_of_run(run: Path) -> int:
    from genzoo.training.checkpoint import read_config

    spec = read_config(run)["spec"]
    return int(spec["cond_size"]) if spec.get("cond") == "class" else 0
