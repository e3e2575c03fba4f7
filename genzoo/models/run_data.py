"""What a run was trained on, as its `config.json` tells, and where that is now."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from genzoo.core.bounds import Range, check_fields
from genzoo.core.errors import GenzooError, InvalidValue
from genzoo.core.path_arguments import real_path
from genzoo.core.showable import showable
from genzoo.data.listing import expanded

if TYPE_CHECKING:
    from genzoo.data.image_data import ImageData


ENCODER, FOLDER = "encoder:", "folder:"
"""What a --cond begins with that names an encoder's run folder, and what --data and --cond begin with that name one."""

FORMER_RULES = 1
"""Of `genzoo.data.layout.Rules`, by which runs read their folders that do not say."""


@dataclass(frozen=True)
class DataArguments:
    """What `load_data` was asked for; kept in a run's `config.json`, so that its data can be found again.

    `rules` and `classes` are those of a run: how it read its folder, and the names of its classes in their order.
    """

    name: str
    root: str | None = None
    image_size: Annotated[int, Range(1, 2**14)] | None = None
    cond: str | None = None
    skip_bad_images: bool = False
    rules: int = 2
    classes: tuple[str, ...] = ()

    def load(self) -> "ImageData":
        """The data. Raises `GenzooError` for what the data room refuses."""
        from genzoo.data.sources import load_data
        from genzoo.models.conditioning import encoded

        run = self.encoder
        data = load_data(
            self.name, self.root, cond=self.cond if run is None else None, image_size=self.image_size,
            skip_bad_images=self.skip_bad_images, rules=self.rules, classes=self.classes,
        )  # fmt: skip
        return data if run is None else encoded(data, run)

    @property
    def encoder(self) -> Path | None:
        """The run of the encoder whose vectors are the condition; None for another condition."""
        name = (self.cond or "").removeprefix(ENCODER)
        return Path(name) if name != (self.cond or "") else None

    def resolved(self) -> "DataArguments":
        """With paths that hold in any working directory."""
        root = self.root
        if root is None and not os.environ.get("GENZOO_DATA") and Path("data").is_dir():
            root = "data"
        return replace(
            self, name=_resolved(self.name), cond=None if self.cond is None else _resolved(self.cond),
            root=None if root is None else _absolute(root),
        )  # fmt: skip

    def protocol(self, data: "ImageData") -> dict[str, Any]:
        """What `config.json` records of the data: how they came to be, and these arguments."""
        arguments = asdict(self.resolved())
        del arguments["classes"]  # beside them
        return {**data.protocol, "arguments": arguments}

    def moved(self, name: str | None = None, cond: str | None = None) -> "DataArguments":
        """These arguments with the places where the data, and what their condition names, are now.

        Raises `GenzooError` where `cond` is of another kind than the run's.
        """
        found = self if name is None else replace(self, name=name)
        if cond is None:
            return found
        if _kind(cond) is None or _kind(cond) != _kind(self.cond):
            raise GenzooError(
                f"--cond says where the run's {_kind(self.cond) or 'inputs'} are now, and this run has "
                f"{'no condition' if self.cond is None else f'--cond {showable(self.cond)}'}: leave --cond out"
            )
        return replace(found, cond=cond)

    def load_for(self, run: Path) -> "ImageData":
        """The data of the run in the folder `run`. Raises `GenzooError` that tells how to say where they are now."""
        own = data_of_run(run)
        recorded = ("", "") if own is None else (own.name, own.cond)
        for text, before, flag in (
            (self.name, recorded[0], "--data"),
            (self.cond or "", recorded[1], "--cond"),
        ):
            kind, _, place = text.partition(":")
            is_place = f"{kind}:" in (ENCODER, FOLDER) and text == before
            if is_place and not os.path.isdir(expanded(place)):
                raise GenzooError(
                    f"there is no folder {showable(place)}, which {showable(run)} was trained with: "
                    f"say where it is now with {flag} {kind}:PATH"
                )
        if self.encoder is not None:
            check_encoder(run, self.encoder)
        return self.load()


def data_of_run(run: Path) -> DataArguments | None:
    """What the run in `run` was trained on; None where it was saved without (by `model.save`).

    Raises `GenzooError` where `run` is no run folder.
    """
    stored = recorded_data(run)
    arguments = stored.get("arguments")
    if not isinstance(arguments, Mapping) or "name" not in arguments:
        return None
    known = {field.name for field in fields(DataArguments)} - {"classes"}
    own = {"rules": FORMER_RULES, **{key: value for key, value in arguments.items() if key in known}}
    found = DataArguments(**own, classes=_names_in(stored))
    try:
        check_fields(found)
    except InvalidValue as error:
        raise GenzooError(f"{showable(run)} does not say what it was trained on: {error}") from error
    return found


def recorded_data(run: Path) -> Mapping[str, Any]:
    """All that the run in `run` records of its data; {} where it records nothing."""
    from genzoo.training.checkpoint import read_config

    stored = read_config(run).get("data")
    return stored if isinstance(stored, Mapping) else {}


def class_names_of_run(run: Path) -> tuple[str, ...]:
    """The names of a run's classes in the order of their numbers; () where it has none, or does not say."""
    from genzoo.data.sources import class_names_of

    stored = recorded_data(run)
    return _names_in(stored) or class_names_of(str(stored.get("name")))


def change_since(run: Path, data: "ImageData") -> str | None:
    """What is not as it was when the run in `run` was trained, in a line; None where `data` are the run's own."""
    from genzoo.data.identity import difference

    stored = recorded_data(run)
    return difference(stored, data.protocol) if stored else None


def check_encoder(run: Path, encoder: Path) -> None:
    """Raises `GenzooError` where the run folder `encoder` does not hold the encoder that `run` was trained under."""
    from genzoo.models.conditioning import encoder_hash

    stored = recorded_data(run).get("encoder")
    known = stored.get("weights") if isinstance(stored, Mapping) else None
    if known is not None and (encoder / "model.safetensors").is_file() and encoder_hash(encoder) != known:
        raise GenzooError(
            f"{showable(encoder)} holds another encoder than the one that {showable(run)} was trained under: name its "
            "place now with --cond encoder:RUN"
        )


def is_place(cond: str | None) -> bool:
    """Whether a condition names a folder: that of an encoder's run, or one of inputs."""
    return _kind(cond) is not None


def _names_in(stored: Mapping[str, Any]) -> tuple[str, ...]:
    names = stored.get("classes")
    return tuple(map(str, names)) if isinstance(names, (list, tuple)) else ()


def _kind(cond: str | None) -> str | None:
    """What a condition names that is a place: an encoder or a folder."""
    return next((kind[:-1] for kind in (ENCODER, FOLDER) if (cond or "").startswith(kind)), None)


def _resolved(text: str) -> str:
    """`folder:PATH` or `encoder:RUN` with the whole path; anything else as it is."""
    kind, colon, rest = text.partition(":")
    return f"{kind}:{_absolute(rest)}" if colon and f"{kind}:" in (ENCODER, FOLDER) and rest else text


def _absolute(path: str) -> str:
    try:
        return str(real_path(expanded(path)))
    except (OSError, RuntimeError, ValueError):  # of a home that is not known, for one
        return path
