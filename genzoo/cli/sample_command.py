"""`python -m genzoo.sample RUN [flags]`: draws images from a trained model and writes them as one PNG."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from genzoo.cli import parsing
from genzoo.cli.imports import Imports, imported
from genzoo.cli.shared import class_condition, device_of, guarded
from genzoo.core.bounds import Many, Range, Seed
from genzoo.core.showable import showable
from genzoo.evaluation.sample_grids import draw_grid, draw_pairs
from genzoo.models.run_data import (
    DataArguments,
    check_encoder,
    class_names_of_run,
    data_of_run,
    is_place,
    recorded_data,
)

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.data.split import Split
    from genzoo.models.base import Encoder, GenerativeModel

PROG = "genzoo sample"


@dataclass(frozen=True)
class SampleFlags:
    """Draws images from a trained model and writes them as one PNG."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder."""
    n: Annotated[int, Range(1, 2**16)] = 64
    """How many images; of a model with input images, each with an input of the test set and the true image."""
    cond: str | None = None
    """A class by its name or number, such as cats or 3, or several such as cats,dogs, of a model trained with --cond
    class; or encoder:RUN or folder:INPUTS: where what the model was trained with is now."""
    data: str | None = None
    """Of a model with input images: where their folder is now (folder:PATH)."""
    like: Path | None = None
    """Draw variations of this picture, with a model trained with --cond encoder:RUN."""
    text: str | None = None
    """Draw what this text says, such as "a sneaker", with a model trained with --cond encoder:RUN --prior, where RUN
    is a run of clip."""
    steps: Many | None = None
    """Steps of a diffusion or flow model's sampler; else those of its configuration."""
    guidance: float | None = None
    """Classifier-free guidance scale of such a model; 1 turns guidance off. Else that of its configuration."""
    decode: Literal["draw", "mean"] = "draw"
    """Of a model with an output distribution in its decoder (VAEs and VQ models): draw pixels from it, or give its mean
    rounded to the nearest level, without the noise of each pixel on its own."""
    seed: Seed = 0
    """Decides the images."""
    out: Path | None = None
    """The PNG file; else one in RUN/samples."""
    device: str | None = None
    """Such as cpu or cuda; else the CPU."""
    import_: Imports = ()
    """A module of your own that registers presets, data sources or metrics (`genzoo.register`); repeatable."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return guarded(lambda: _sample(parsing.parse(SampleFlags, imported(arguments), PROG)))


def _sample(flags: SampleFlags) -> None:
    from genzoo.core.errors import GenzooError
    from genzoo.core.files import check_product
    from genzoo.core.path_arguments import check_can_be_made
    from genzoo.models.loading import load_generative

    if flags.out is not None:
        check_product(flags.out)
        check_can_be_made(flags.out)
    chosen = None if is_place(flags.cond) else flags.cond
    if sum(condition is not None for condition in (chosen, flags.like, flags.text)) > 1:
        raise GenzooError("--cond, --like and --text each say what is drawn: give one of them")
    from genzoo.models.prior.with_prior import WithPrior

    model = load_generative(flags.run)
    model.decoding = flags.decode
    _change_sampling(model.generator if isinstance(model, WithPrior) else model, flags)
    model = model.to(device_of(flags.device))
    out, inside = (_default_out(flags), flags.run) if flags.out is None else (flags.out, None)
    cond = _condition(model, flags)
    if cond is not None or model.spec.cond != "vector" or isinstance(model, WithPrior):
        names = class_names_of_run(flags.run) if model.spec.cond == "class" else ()
        drawn = draw_grid(model, out, n=flags.n, cond=cond, seed=flags.seed, names=names, inside=inside)
    else:
        drawn = draw_pairs(model, _test_pairs(flags), out, n=flags.n, seed=flags.seed, inside=inside)
    print(f"{flags.n} images, {drawn.images_per_second:.1f} images/s: {showable(drawn.path, 1000)}")


def _condition(model: "GenerativeModel", flags: SampleFlags) -> "Tensor | None":
    """What the flags ask to be drawn, for each image; raises `GenzooError` where the model cannot."""
    if flags.text is not None:
        return _for_text(model, flags.text, flags)
    if flags.like is not None:
        return _like(flags)
    if flags.cond is None or (is_place(flags.cond) and model.spec.cond == "vector"):
        return None
    return class_condition(flags.cond, flags.n, model.spec, class_names_of_run(flags.run))


def _arguments(flags: SampleFlags) -> DataArguments | None:
    """What the run was trained on, and where that is now; None where it does not say."""
    own = data_of_run(flags.run)
    return None if own is None else own.moved(flags.data, flags.cond if is_place(flags.cond) else None)


def _encoder(flags: SampleFlags) -> "Encoder | None":
    """The encoder that the run was trained under; None for other runs. Raises `GenzooError` for another encoder."""
    from genzoo.models.conditioning import load_encoder

    arguments = _arguments(flags)
    if arguments is None or arguments.encoder is None:
        return None
    check_encoder(flags.run, arguments.encoder)
    return load_encoder(arguments.encoder)


def _for_text(model: "GenerativeModel", text: str, flags: SampleFlags) -> "Tensor":
    """Vectors `[n, cond_size]` of the model's prior that go with the text.

    Raises `GenzooError` for a run that has no prior, or whose vectors are no clip encoder's.
    """
    from genzoo.core.errors import GenzooError
    from genzoo.core.random import seeded
    from genzoo.models.encoders.clip import ClipEncoder
    from genzoo.models.prior.text_prior import vectors_for_text
    from genzoo.models.prior.with_prior import WithPrior

    arguments, encoder = _arguments(flags), _encoder(flags)
    if not isinstance(encoder, ClipEncoder):
        raise GenzooError(
            "--text is for models trained with --cond encoder:RUN --prior, where RUN is a run of clip"
        )
    if not isinstance(model, WithPrior):
        named = arguments.cond if arguments is not None else "encoder:RUN"
        raise GenzooError(f"--text needs a prior over the vectors: train with --cond {named} --prior")
    found = vectors_for_text(
        model, encoder, text, flags.n, generator=seeded(model.device, "text", flags.seed)
    )
    print(f'"{text}": {found.pool} vectors of the prior, {found.effective:.0f} of them in effect')
    return found.vectors


def _like(flags: SampleFlags) -> "Tensor":
    """The vector of the picture `--like` `[n, width]`, of a run that was trained under an encoder.

    Raises `GenzooError` for other runs, and for a picture that cannot be read.
    """
    from genzoo.core.errors import GenzooError
    from genzoo.data.pictures import WHITE, read_picture
    from genzoo.models.conditioning import condition_vectors

    encoder = _encoder(flags)
    if encoder is None or flags.like is None:
        raise GenzooError("--like is for models trained with --cond encoder:RUN; leave it out")
    white = recorded_data(flags.run).get("white", WHITE)
    picture = read_picture(flags.like, encoder.spec, white if isinstance(white, int) else WHITE)
    return condition_vectors(encoder, picture[None]).expand(flags.n, -1)


def _test_pairs(flags: SampleFlags) -> "Split":
    """The test split, with its input images, of a run that was trained with a --cond that names them.

    Raises `GenzooError` where the run does not say so.
    """
    from genzoo.core.errors import GenzooError

    arguments = _arguments(flags)
    if arguments is None or arguments.cond is None:
        raise GenzooError("this model draws for given vectors; use model.sample(n, cond=vectors) in Python")
    if arguments.encoder is not None:
        raise GenzooError("this model draws variations of a picture: name one with --like")
    return arguments.load_for(flags.run).test


def _change_sampling(model: "GenerativeModel", flags: SampleFlags) -> None:
    """Sets what the flags say of a diffusion model's sampler; raises `GenzooError` for other families."""
    from genzoo.core.errors import GenzooError
    from genzoo.models.diffusion.samplers.sampling import Sampling
    from genzoo.models.diffusion.shortcut import Shortcut

    if isinstance(model, Shortcut) and flags.steps is not None:
        model.config = replace(model.config, calls=flags.steps)
        flags = replace(flags, steps=None)

    changes = {"steps": flags.steps, "guidance": flags.guidance}
    changes = {name: value for name, value in changes.items() if value is not None}
    sampling = getattr(model.config, "sampling", None)
    if changes and not isinstance(sampling, Sampling):
        raise GenzooError(f"--{next(iter(changes))} is for diffusion and flow models; leave it out")
    if isinstance(sampling, Sampling):
        model.config = replace(model.config, sampling=replace(sampling, **changes))  # pyright: ignore


def _default_out(flags: SampleFlags) -> Path:
    """A name that tells the flags, so that other flags do not overwrite it."""
    options = "" if flags.cond is None or is_place(flags.cond) else f"-cond{_cond_slug(flags.cond)}"
    options += "" if flags.like is None else f"-like{flags.like.stem}"
    options += "" if flags.text is None else f"-text{_slug(flags.text)}"
    options += "" if flags.steps is None else f"-steps{flags.steps}"
    options += "" if flags.guidance is None else f"-guidance{flags.guidance:g}"
    options += "" if flags.decode == "draw" else f"-{flags.decode}"
    return flags.run / "samples" / f"n{flags.n}{options}-seed{flags.seed}.png"


def _cond_slug(cond: str) -> str:
    """Classes for the name of a file, told apart where they are too odd to stand in one.

    >>> _cond_slug("0,1,2"), _cond_slug("cats")
    ('0_1_2', 'cats')
    """
    plain = "".join(c if c.isalnum() or c in "-+" else "_" for c in cond)[:48]
    if plain == cond.replace(",", "_"):
        return plain
    return f"{plain}-{hashlib.sha256(cond.encode('utf-8', 'surrogateescape')).hexdigest()[:6]}"


def _slug(text: str) -> str:
    """The words of a text for the name of a file; what is cut off, encoders do not read either.

    >>> _slug("A photo of a T-shirt/top!")
    'a_photo_of_a_t_shirt_top'
    """
    return "_".join("".join(c if c.isalnum() else " " for c in text.lower()).split())[:48]
