"""Names in run folders that earlier versions wrote: configurations and tensors in today's words.

Nothing here changes what a name stands for; every function is the identity on what today's version writes.
Reports have a module of their own, `genzoo.evaluation.report.legacy_report`.
"""

import re
from collections.abc import Mapping
from typing import Any

TYPES: Mapping[str, str] = {
    "CentredSoftmax": "Centering",
    "CrossView": "CrossViewLoss",
    "Lazily": "Lazy",
    "LogSNRClock": "LogSNRConditioning",
    "Then": "Compose",
    "TimeClock": "TimeConditioning",
    "Tuplets": "SupervisedNPair",
}
"""Configuration types: former name to today's."""

FIELDS: Mapping[str, Mapping[str, str]] = {
    "Balanced": {"share": "fraction"},
    "BoundProtocol": {"first": "t_min"},
    "Capacity": {"share": "fraction"},
    "ConvGANNetworks": {"widths": "channels"},
    "ConvUNetConfig": {"widths": "channels"},
    "DenseGANNetworks": {"judging_blocks": "discriminator_blocks"},
    "DiffusionConfig": {
        "clock": "c_noise",
        "data_std": "sigma_data",
        "first": "t_min",
        "null_share": "cond_dropout",
        "unit_input": "scale_input",
    },
    "GANConfig": {"augmentation": "augmentation_probability", "latents": "latent_dim"},
    "HVAEConfig": {"latents": "latent_channels", "mixture": "prior_components", "widths": "channels"},
    "Importance": {"uniform_share": "uniform_fraction"},
    "InpaintingConfig": {"hidden_share": "hidden_fraction"},
    "LatentConfig": {"autoencoder_share": "autoencoder_fraction"},
    "OdeProtocol": {"first": "t_min"},
    "PatchDiscriminatorConfig": {"widths": "channels"},
    "QuantiserConfig": {"codes": "codebook_size"},
    "ResNetConfig": {"widths": "channels"},
    "ShortcutConfig": {"bootstrap_share": "bootstrap_fraction", "clock": "c_noise"},
    "TrainConfig": {"ema_share": "ema_fraction", "final_rate": "final_lr_fraction", "muon": "optimizer"},
    "UNetConfig": {"widths": "channels"},
    "VAEConfig": {"latents": "latent_dim", "mixture": "prior_components", "widths": "channels"},
    "VQVAEConfig": {"widths": "channels"},
    "WarmUp": {"share": "fraction"},
}
"""Fields of types, by today's name of the type: former name to today's."""

VALUES: Mapping[tuple[str, str], Mapping[Any, Any]] = {
    ("TrainConfig", "optimizer"): {True: "muon", False: "adamw"},
}
"""Values of fields, by today's names: former value to today's."""

_PLAYED = re.compile(r"((?:^|\.)game\.)played$")


def upgrade(content: Any) -> Any:
    """JSON of a configuration, dicts tagged by "type" at any depth, with former names replaced.

    >>> upgrade({"type": "TrainConfig", "muon": True, "ema_share": 0.1})
    {'type': 'TrainConfig', 'optimizer': 'muon', 'ema_fraction': 0.1}
    >>> upgrade([{"type": "Lazily", "penalty": {"type": "R1", "weight": 1.0}, "every": 4}])
    [{'type': 'Lazy', 'penalty': {'type': 'R1', 'weight': 1.0}, 'every': 4}]
    """
    if isinstance(content, list):
        return [upgrade(value) for value in content]
    if not isinstance(content, dict):
        return content
    kind = content.get("type")
    if not isinstance(kind, str):
        return {key: upgrade(value) for key, value in content.items()}
    kind = TYPES.get(kind, kind)
    fields: dict[str, Any] = {}
    for key, value in content.items():
        name = FIELDS.get(kind, {}).get(key, key)
        former = VALUES.get((kind, name), {})
        fields[name] = former[value] if isinstance(value, bool) and value in former else upgrade(value)
    return fields | {"type": kind}


def upgrade_tensors(content: Any) -> Any:
    """Tensors by name, also in dicts of dicts (a training state), with former names replaced.

    >>> upgrade_tensors({"model": {"autoencoder.game.played": 3}, "step": 4})
    {'model': {'autoencoder.game.d_steps': 3}, 'step': 4}
    """
    if not isinstance(content, dict):
        return content
    return {
        _PLAYED.sub(r"\1d_steps", key) if isinstance(key, str) else key: upgrade_tensors(value)
        for key, value in content.items()
    }
