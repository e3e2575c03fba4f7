"""What a run was trained on, as its `config.json` tells."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genzoo.data.image_data import ImageData


ENCODER = "encoder:"
"""What a --cond begins with that names an encoder's run folder."""


@dataclass(frozen=True)
class DataArguments:
    """What `load_data` was asked for; kept in a run's `config.json`, so that its data can be found again."""

    name: str
    root: str | None = None
    image_size: int | None = None
    cond: str | None = None
    skip_bad_images: bool = False

    def load(self) -> "ImageData":
        """The data. Raises `GenzooError` for what the data room refuses."""
        from genzoo.data.sources import load_data
        from genzoo.models.conditioning import encoded

        run = self.encoder
        options = {"image_size": self.image_size, "skip_bad_images": self.skip_bad_images}
        data = load_data(self.name, self.root, cond=self.cond if run is None else None, **options)
        return data if run is None else encoded(data, run)

    @property
    def encoder(self) -> Path | None:
        """The run of the encoder whose vectors are the condition; None for another condition."""
        name = (self.cond or "").removeprefix(ENCODER)
        return Path(name) if name != (self.cond or "") else None

    def protocol(self, data: "ImageData") -> dict[str, Any]:
        """What `config.json` records of the data: how they came to be, and these arguments."""
        return {**data.protocol, "arguments": asdict(self)}


def data_of_run(run: Path) -> DataArguments | None:
    """What the run in `run` was trained on; None where it was saved without (by `model.save`).

    Raises `GenzooError` where `run` is no run folder.
    """
    from genzoo.training.checkpoint import read_config

    stored = read_config(run).get("data") or {}
    arguments = stored.get("arguments") if isinstance(stored, Mapping) else None
    if not isinstance(arguments, Mapping) or "name" not in arguments:
        return None
    known = {field.name for field in fields(DataArguments)}
    return DataArguments(**{key: value for key, value in arguments.items() if key in known})
