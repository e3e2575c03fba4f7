"""Whether a model that says nothing of the images it leaves out still draws all kinds of them."""

from dataclasses import asdict
from typing import Any

import torch

from genzoo.contract import GenerativeModel, Likelihood, Trainable
from genzoo.evaluation.modes import Coverage, Modes

MODE_SAMPLES = 500
"""Samples that modes are counted in."""


def counts_modes(model: Trainable) -> bool:
    """Whether modes are worth counting: a likelihood would tell of those left out, given vectors leave none out."""
    generates = isinstance(model, GenerativeModel) and model.spec.cond != "vector"
    return generates and model.likelihood is Likelihood.NONE


def count_modes(model: GenerativeModel, modes: Modes, generator: torch.Generator | None = None) -> Coverage:
    """What `MODE_SAMPLES` of the model's samples hit."""
    return modes.count(model.sample(MODE_SAMPLES, generator=generator))


def modes_content(found: Coverage) -> dict[str, Any]:
    """For a report."""
    return {**asdict(found), "collapsed": found.collapsed, "samples": MODE_SAMPLES}


def modes_rows(found: Coverage) -> dict[str, str]:
    """For a table; a collapse is called one."""
    covered = (
        f"{found.covered} of {found.modes} covered, KL {found.divergence:.3f} nats from the data's shares"
    )
    rows = {"modes": covered, "spread of samples": f"{found.spread:.2f} of that of the data"}
    return rows | (
        {"health": "COLLAPSED: the samples are alike or miss most modes"} if found.collapsed else {}
    )
