"""The README's table of presets: `python -m genzoo.models.preset_table`."""

import torch

from genzoo.core.spec import DataSpec
from genzoo.models.base import GenerativeModel
from genzoo.models.names import own_model_rows
from genzoo.models.preset import SIZES


def preset_table() -> str:
    """A row per preset, with its paper and its parameters per size on 28x28 grey 8-bit images.

    Those that need an input image have one of 28x28 grey pixels.
    """
    spec = DataSpec((1, 28, 28), levels=256)
    rows = [
        "| preset | what it is | paper | likelihood | " + " | ".join(SIZES) + " |",
        "|---" * (4 + len(SIZES)) + "|",
    ]
    for name, row in own_model_rows().items():
        preset = row.recipe()
        suited = preset.suited(spec)
        with torch.device("meta"):
            models = [preset.config(size, suited).build(suited) for size in SIZES]
        assert isinstance(models[0], GenerativeModel)
        kind = models[0].likelihood.name.lower().replace("_", " ")
        counts = [f"{sum(p.numel() for p in m.parameters()) / 1e6:.2f} M" for m in models]
        rows.append(f"| `{name}` | {row.description} | {row.paper} | {kind} | " + " | ".join(counts) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(preset_table())
