"""What looks at a generative model while it trains: the modes that samples cover, and grids of samples."""

import time
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from genzoo.core.random import seeded
from genzoo.core.spec import Images
from genzoo.core.trainable import Monitor, Observation, RunContext, Trainable
from genzoo.data.image_grid import save_grid, save_triples
from genzoo.data.pairs import PairedSplit
from genzoo.metrics.modes import Coverage, Modes
from genzoo.models.input_pictures import DrawsImages, translation_picture

MODE_SAMPLES = 500
"""Samples that modes are counted in."""
PICTURES = 16
"""Samples of a grid."""
GRID_SHARE = 0.05
"""Of the time so far, that all grids but the first may take together."""


# --- modes -----------------------------------------------------------------------------------------------------


def count_modes(model: DrawsImages, modes: Modes, generator: torch.Generator | None = None) -> Coverage:
    """What `MODE_SAMPLES` of the model's samples hit."""
    return modes.count(model.sample(MODE_SAMPLES, generator=generator))


def modes_content(found: Coverage) -> dict[str, Any]:
    """For a report and for `metrics.jsonl`."""
    return {**asdict(found), "collapsed": found.collapsed, "samples": MODE_SAMPLES}


class ModeCounter(Monitor):
    """Counts the modes that samples hit, of families whose losses say nothing of what is left out."""

    what = "modes"

    def __init__(self, run: RunContext) -> None:
        self.train, self.seed = run.train, run.seed

    @cached_property
    def modes(self) -> Modes:
        """Of the training images."""
        return Modes.of(self.train, seed=self.seed)

    @override
    def at_validation(self, model: Trainable, step: int) -> Observation:
        assert isinstance(model, DrawsImages)
        found = count_modes(model, self.modes, seeded(model.device, "modes", self.seed))
        note = f"{found} (collapsed)" if found.collapsed else str(found)
        message = f"{found}, KL {found.divergence:.3f} nats" + (" (collapsed)" if found.collapsed else "")
        return Observation({"modes": modes_content(found)}, note, message)


# --- sample grids ----------------------------------------------------------------------------------------------


class Gallery(Monitor):
    """Sample grids in the run's folder of samples, as long as drawing stays cheap.

    After the first grid another one is drawn only where all grids together then take at most `GRID_SHARE` of the time
    so far. The random numbers are the same each time. Of pairs a grid shows input, sample and truth; of real-valued
    data there is none.
    """

    what, optional = "sample grid", True

    def __init__(self, run: RunContext) -> None:
        self.folder, self.seed = run.samples, run.seed
        self.split: Images = run.train if run.val is None else run.val
        self.spent = self.last = 0.0

    @override
    def affordable(self, seconds: float) -> bool:
        return not self.spent or self.spent + self.last <= GRID_SHARE * seconds

    @override
    def at_validation(self, model: Trainable, step: int) -> Observation:
        assert isinstance(model, DrawsImages)
        if self.folder is not None and model.spec.levels is not None:
            start = time.monotonic()
            self._draw(model, self.folder / f"step_{step:07d}.png")
            self.last = time.monotonic() - start
            self.spent += self.last
        return Observation()

    def _draw(self, model: DrawsImages, path: Path) -> None:
        generator = seeded(model.device, "pictures", self.seed)
        if isinstance(self.split, PairedSplit):
            picture = translation_picture(model, self.split, generator=generator)
            save_triples(picture, model.spec, path, inside=path.parents[1])
            return
        cond = self._vectors(model)
        n = PICTURES if cond is None else len(cond)
        save_grid(model.sample(n, cond, generator=generator), model.spec, path, inside=path.parents[1])

    def _vectors(self, model: DrawsImages) -> Tensor | None:
        """The first vectors of the data for a model conditioned on vectors, which cannot draw its own."""
        if model.spec.cond != "vector":
            return None
        cond = self.split.batch(torch.arange(min(PICTURES, len(self.split)))).cond
        return None if cond is None else cond.to(model.device)
