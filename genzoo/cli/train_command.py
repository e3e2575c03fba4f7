"""`python -m genzoo.train [PRESET] [flags]`: trains a preset, then shows what came of it.

Of a generative model these are samples and the test likelihood, of an encoder what its vectors are good for.
"""

import contextlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from genzoo.cli import parsing
from genzoo.cli.imports import Imports, imported
from genzoo.cli.preset_help import print_preset_help
from genzoo.cli.shared import device_of, fresh_folder, guarded, is_main_process, none_rows, print_table, tell
from genzoo.core.attempts import Attempts
from genzoo.core.bounds import Budgeted, Many, Pixels, Range, Seed
from genzoo.core.showable import showable
from genzoo.evaluation.sample_grids import WrittenGrid, draw_grid, draw_pairs, draw_variations
from genzoo.models.names import DEFAULT_PRESET, PresetRow, encoder_rows, model_rows
from genzoo.models.run_data import DataArguments, data_of_run

if TYPE_CHECKING:
    from genzoo.core.trainable import Trainable, TrainableConfig
    from genzoo.data.image_data import ImageData
    from genzoo.evaluation.report.case import Case
    from genzoo.evaluation.report.encoder_case import EncoderCase
    from genzoo.evaluation.report.section import Section
    from genzoo.models.base import Encoder, GenerativeModel
    from genzoo.training.trainer import Budget, Trainer

PROG = "genzoo train"
DEFAULT_MINUTES = 1.5
TEST_IMAGES = 2000  # at most, after training; `genzoo evaluate` takes them all
PAIRS = 32  # validation images shown with their inputs, of a model that has input images
TEST_SECONDS = 60.0  # and no more time than this, which counts where a likelihood is slow
BANK_IMAGES = (
    10_000  # training images, at most, that an encoder is probed by; `genzoo evaluate` takes them all
)


@dataclass(frozen=True)
class TrainFlags:
    """The flags that do not depend on the preset."""

    data: str = "digits"
    """digits, stacked-digits, mnist, mnist-binary, fashion-mnist, cifar10, folder:PATH or toy:NAME."""
    data_root: str | None = None
    """Where data sets lie or are downloaded to; else $GENZOO_DATA, else ./data."""
    cond: str | None = None
    """"class" trains a model that draws and scores images of a given class; mask, downsample, grey, edges or
    folder:INPUTS one that does so given an input image; encoder:RUN one given an encoder's vectors."""
    prior: bool = False
    """Also learn to draw the vectors of --cond encoder:RUN, so that samples need no picture."""
    augmentation: str | None = None
    """Augmentation policy of an encoder: digits, small-digits, garments, photographs or none; else by the data."""
    size: Literal["tiny", "small", "base", "large"] = "small"
    """The size of the model; up to small suits two processor cores, large wants a GPU."""
    image_size: Pixels | None = None
    """Images of a folder are resized and cropped to this many pixels."""
    skip_bad_images: bool = False
    """Count and leave out images that cannot be read."""
    seed: Seed = 0
    """Decides initial weights, data order and all randomness in training."""
    minutes: Budgeted | None = None
    """Budget in minutes; 1.5 where no budget is given."""
    steps: Annotated[int, Range(1, 1e12)] | None = None
    """Budget in steps."""
    epochs: Budgeted | None = None
    """Budget in passes over the training images."""
    save_every: Many | None = None
    """Steps between checkpoints; else about every minute."""
    resume: bool = False
    """Continue the run in --out exactly where its last checkpoint stands."""
    out: str | None = None
    """The run folder; else a new one, runs/PRESET-DATA."""
    device: str | None = None
    """Such as cpu or cuda; else the fastest there is."""
    track: Literal["tensorboard", "wandb"] | None = None
    """Also log to TensorBoard or Weights & Biases."""
    progress: bool = True
    """Show progress."""
    import_: Imports = ()
    """A module of your own that registers presets, data sources or metrics (`genzoo.register`); repeatable."""

    def data_arguments(self) -> DataArguments:
        """The part that says which data."""
        return DataArguments(self.data, self.data_root, self.image_size, self.cond, self.skip_bad_images)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return guarded(lambda: _trained_or_helped(imported(arguments)))


def _trained_or_helped(arguments: Sequence[str]) -> None:
    parsing.check_words(arguments)
    if {"-h", "--help"}.isdisjoint(arguments):
        _train(arguments)
        return
    names = [argument for argument in arguments if argument not in ("-h", "--help")]
    if names and not names[0].startswith("-"):
        _help_on(names[0])
        return
    default = f"default {DEFAULT_PRESET}; each has more flags: {PROG} PRESET --help"
    text = f"Trains a generative model, or an encoder, on images.\n\nPresets ({default}):\n{_listed(model_rows())}"
    text += f"\n\nEncoders, which turn images into vectors:\n{_listed(encoder_rows())}"
    parsing.print_help({"run": TrainFlags()}, f"{PROG} [PRESET]", text)


def _listed(rows: Mapping[str, PresetRow]) -> str:
    return "\n".join(f"  {name:20}{row.description}" for name, row in rows.items())


def _help_on(preset: str) -> None:
    from genzoo.core.spec import DataSpec

    row = row_of(preset)
    # an encoder's views follow the data: here those of grey images
    config = row.recipe().config("small", DataSpec((1, 28, 28)))
    text = f"{row.description}.\n\nDefaults are those of size small."
    print_preset_help(TrainFlags(), config, f"{PROG} {preset}", text)


def row_of(name: str) -> PresetRow:
    """The preset of a generative model or an encoder; raises `GenzooError` with the nearest name otherwise."""
    from genzoo.models.preset import named

    return named(name, model_rows() | encoder_rows(), "preset")


# --- what is to be done --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """A training run as the command line, and a run to be resumed, want it."""

    flags: TrainFlags
    preset: str
    config: "TrainableConfig"
    budget: "Budget"
    arguments: DataArguments
    data: "ImageData"
    out: Path


def make_plan(argv: Sequence[str]) -> Plan:
    """Reads the command line, then the data, then the configuration adapted to them.

    Raises `GenzooError` or ends the program on mistakes; those in flags are found before data are loaded.
    """
    flags, rest = parsing.parse_known(TrainFlags, argv, PROG)
    preset = rest.pop(0) if rest and not rest[0].startswith("-") else None
    if flags.resume:
        return _resumed_plan(argv, flags, preset, rest)

    device_of(flags.device)
    name = preset or DEFAULT_PRESET
    _check_flags(name, flags, rest)
    budget = _budget(flags) or _default_budget()
    arguments = flags.data_arguments()
    out = fresh_folder(name, flags.data) if flags.out is None else Path(flags.out)
    _check_free(out)
    data = arguments.load()
    config, data = _parse_config(_config_for(name, flags, data), rest).adapted(data)
    return Plan(flags, name, _with_prior(config) if flags.prior else config, budget, arguments, data, out)


def _check_flags(name: str, flags: TrainFlags, rest: Sequence[str]) -> None:
    """Finds mistakes before data are loaded; the flags of an encoder's views are known when the data are."""
    from genzoo.core.errors import GenzooError

    recipe = row_of(name).recipe()
    if name in encoder_rows():
        return
    if flags.augmentation is not None:
        raise GenzooError("--augmentation is for encoders, such as simclr; leave it out")
    _parse_config(recipe.sizes[flags.size], rest)


def _config_for(name: str, flags: TrainFlags, data: "ImageData") -> "TrainableConfig":
    """The preset's configuration for these data and the kind of their images."""
    from genzoo.data.sources import image_kind_of

    return (
        row_of(name).recipe().config(flags.size, data.spec, flags.augmentation or image_kind_of(flags.data))
    )


def _with_prior(config: "TrainableConfig") -> "TrainableConfig":
    from genzoo.core.errors import GenzooError
    from genzoo.models.base import ModelConfig
    from genzoo.models.prior.with_prior import WithPriorConfig

    if not isinstance(config, ModelConfig):
        raise GenzooError("--prior is for models that draw images; leave it out")
    return WithPriorConfig(config)


def _resumed_plan(argv: Sequence[str], flags: TrainFlags, preset: str | None, rest: list[str]) -> Plan:
    """The plan that the run folder holds, with what the command line says beside it.

    Differences that a run cannot bear are found by the trainer, which compares both.
    """
    from genzoo.core.errors import GenzooError
    from genzoo.models.loading import config_of
    from genzoo.models.prior.with_prior import WithPriorConfig
    from genzoo.training.checkpoint import read_config
    from genzoo.training.trainer import Budget

    if flags.out is None:
        raise GenzooError("--resume needs the run folder; name it with --out")
    for flag in ("--size", "--augmentation"):
        if any(argument.split("=")[0] == flag for argument in argv):
            raise GenzooError(f"a resumed run keeps what it was made of; leave {flag} out")
    out = Path(flags.out)
    stored, arguments = read_config(out), data_of_run(out)
    if arguments is None:
        raise GenzooError(f"{out} does not say what it was trained on; only runs of `{PROG}` can be resumed")
    before = replace(
        TrainFlags(), seed=stored.get("seed", 0), data=arguments.name, data_root=arguments.root,
        cond=arguments.cond, image_size=arguments.image_size, skip_bad_images=arguments.skip_bad_images,
    )  # fmt: skip
    flags, _ = parsing.parse_known(TrainFlags, argv, PROG, default=before)
    budget = _budget(flags) or Budget(**stored.get("budget", {}))
    # data may have moved since: what they are is compared, and not where they lie
    now = replace(flags.data_arguments(), rules=arguments.rules, classes=arguments.classes)
    data = now.load_for(out)
    stored_config = config_of(stored, out)
    if flags.prior and not isinstance(stored_config, WithPriorConfig):
        raise GenzooError("--prior is for new runs: the run in --out was begun without; leave it out")
    config, data = _parse_config(stored_config, rest).adapted(data)
    return Plan(flags, preset or stored["preset"], config, budget, now, data, out)


def _parse_config(default: "TrainableConfig", rest: Sequence[str]) -> "TrainableConfig":
    config, unknown = parsing.parse_known(type(default), rest, PROG, default=default)
    if unknown:
        parsing.refuse(unknown, PROG, [*parsing.flags_of(type(default)), *parsing.flags_of(TrainFlags)])
    return config


def _budget(flags: TrainFlags) -> "Budget | None":
    from genzoo.training.trainer import Budget

    given = (flags.minutes, flags.steps, flags.epochs)
    if all(amount is None for amount in given):
        return None
    return Budget(minutes=flags.minutes, steps=flags.steps, epochs=flags.epochs)


def _default_budget() -> "Budget":
    from genzoo.training.trainer import Budget

    return Budget(minutes=DEFAULT_MINUTES)


def _check_free(out: Path) -> None:
    from genzoo.core.path_arguments import check_can_be_made
    from genzoo.training.checkpoint import claim_folder

    claim_folder(out)
    check_can_be_made(out)


# --- doing it ------------------------------------------------------------------------------------------------


def _train(argv: Sequence[str]) -> None:
    plan = make_plan(argv)
    from genzoo.core.errors import Interrupted
    from genzoo.data.class_choice import numbering
    from genzoo.models.base import Encoder, GenerativeModel
    from genzoo.models.preset import build
    from genzoo.training.processes import leave_processes

    model = build(plan.config, plan.data.spec, seed=plan.flags.seed)
    if is_main_process():
        parameters = sum(p.numel() for p in model.parameters()) / 1e6
        print(
            f"{plan.preset} ({parameters:.2f} M parameters) on {plan.data.name}, writing to {showable(plan.out)}"
        )
        if plan.data.spec.cond == "class":
            print(f"classes: {numbering(plan.data.class_names, plan.data.spec.cond_size)}")
    tell(plan.data.remarks)
    trainer = _trainer(model, plan)
    try:
        trainer.fit(plan.data.train, plan.data.val)
    except Interrupted:
        if is_main_process():
            with contextlib.suppress(OSError):  # a terminal that has hung up
                out = shlex.quote(str(plan.out))
                print(f"saved at step {trainer.step}; continue with: {PROG} --resume --out {out}", flush=True)
        leave_processes()
        raise
    leave_processes()  # the figures are the first one's business
    if not is_main_process():
        return
    if isinstance(model, GenerativeModel):
        _show(model, plan, trainer)
    elif isinstance(model, Encoder):
        _show_encoder(model, plan, trainer)


def _trainer(model: "Trainable", plan: Plan) -> "Trainer":
    from genzoo.training.trainer import RunOptions, Trainer

    flags = plan.flags
    options = RunOptions(
        save_every=flags.save_every,
        resume=flags.resume,
        tracker=flags.track,
        device=flags.device,
        preset=plan.preset,
        protocol=plan.arguments.protocol(plan.data),
    )
    return Trainer(
        model, plan.budget, seed=flags.seed, out=plan.out, progress=flags.progress, options=options
    )


def _show(model: "GenerativeModel", plan: Plan, trainer: "Trainer") -> None:
    """The samples and figures a person waits for."""
    rows = {"run": str(plan.out), "steps": str(trainer.step)}
    if model.spec.levels is not None:
        attempts = Attempts()
        drawn = attempts("samples", lambda: _drawn(model, plan))
        if drawn is not None:
            rows["sampling"] = f"{drawn.images_per_second:.0f} images/s"
            print(f"samples: {showable(drawn.path, 1000)}")
        rows |= none_rows(attempts)
    print_table(
        f"{plan.preset} on {plan.data.name}", rows | _test_rows(model, plan) | _other_rows(model, plan)
    )


def _drawn(model: "GenerativeModel", plan: Plan) -> WrittenGrid:
    """The grid of samples that suits the model."""
    from genzoo.data.pairs import PairedSplit

    path, seed, out = plan.out / "samples" / "final.png", plan.flags.seed, plan.out
    if isinstance(plan.data.val, PairedSplit):
        n = min(PAIRS, len(plan.data.val))
        return draw_pairs(model, plan.data.val, path, n=n, seed=seed, inside=out)
    if model.spec.cond == "vector" and not plan.flags.prior:
        return draw_variations(model, plan.data.val, path, seed=seed, inside=out)
    return draw_grid(model, path, seed=seed, names=plan.data.class_names, inside=out)


def _show_encoder(model: "Encoder", plan: Plan, trainer: "Trainer") -> None:
    """What the vectors are good for, quickly: `genzoo evaluate` takes all images and draws a map."""
    from genzoo.evaluation.report.all_sections import SECTIONS
    from genzoo.evaluation.report.encoder_case import EncoderCase

    case = EncoderCase(model, plan.data, "test", plan.flags.seed, TEST_IMAGES, BANK_IMAGES)
    rows = {"run": str(plan.out), "steps": str(trainer.step)}
    rows |= _reported_rows(plan.out, case, SECTIONS)
    print_table(f"{plan.preset} on {plan.data.name}", rows)


def _other_rows(model: "GenerativeModel", plan: Plan) -> dict[str, str]:
    """What there is to tell of families whose likelihood does not tell it; joins the report too."""
    from genzoo.evaluation.report.modes_section import ModesSection
    from genzoo.evaluation.report.translation_section import TranslationSection

    return _reported_rows(plan.out, _case(model, plan), [ModesSection(), TranslationSection()])


def _case(model: "GenerativeModel", plan: Plan) -> "Case":
    """What is measured at the end of training: a part of the test images will do."""
    from genzoo.evaluation.report.case import Case

    return Case(model, plan.data, "test", plan.flags.seed, TEST_IMAGES, TEST_SECONDS)


def _reported_rows(out: Path, case: "Case | EncoderCase", sections: Sequence["Section"]) -> dict[str, str]:
    """The rows of what there is to tell, which joins the report."""
    from genzoo.evaluation.evaluator import measured
    from genzoo.evaluation.report.rendering import report_rows
    from genzoo.evaluation.report.report_file import write_report

    report = measured(case, sections)
    report = replace(report, about=None)
    attempts = Attempts()
    if any(report.parts()):
        attempts("report", lambda: write_report(report, out, must_exist=True, keep_thorough=True))
    return report_rows(report, sections) | none_rows(attempts)


def _test_rows(model: "GenerativeModel", plan: Plan) -> dict[str, str]:
    """The test likelihood, which joins the run's report; the reason where the family has none."""
    from genzoo.evaluation.report.likelihood_section import LikelihoodSection

    return _reported_rows(plan.out, _case(model, plan), [LikelihoodSection(gap=False)])
