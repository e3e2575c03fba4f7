"""Reports on disk: read as they were written, by the version before this format too, and whatever became of them."""

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import get_type_hints

import pytest
from hand_written_runs import TEST_ID, ais, cost, figure, hand_written, likelihood, quality

from genzoo.__main__ import main
from genzoo.core.errors import GenzooError
from genzoo.evaluation.comparison.entries import read_entries, read_entry
from genzoo.evaluation.comparison.overview import other_tables, remarks
from genzoo.evaluation.comparison.page import Comparison, render
from genzoo.evaluation.report.all_sections import SECTIONS
from genzoo.evaluation.report.encoder_schema import FineTuningResult, MapResult, ProbesResult, SpaceResult
from genzoo.evaluation.report.report_file import parsed_report, read_report, write_report
from genzoo.evaluation.report.sample_schema import (
    ClassesResult,
    ExtractorFacts,
    InputDistances,
    MemorisationResult,
    ModesResult,
    PublishedResult,
    TranslationResult,
)
from genzoo.evaluation.report.schema import (
    PARTS,
    BaselinesResult,
    ClassificationResult,
    GeneralisationGap,
    IllustrationsResult,
    LatentsResult,
    ModelFacts,
    OODResult,
    Report,
    figures_of,
)
from genzoo.metrics.estimate import Estimate

OLD = Path(__file__).parents[1] / "fixtures" / "reports-b15435d"


def whole_report():
    """Every part there is, every field of it set."""
    extractor, f = ExtractorFacts("own encoder", "abc", 64, 1.5), figure(1.0)
    own = replace(
        likelihood(2.0)["likelihood"], split="test", seed=3, parameters=10, protocol={"sizes": {"test": 300}},
        gap=GeneralisationGap(f, 20, 1.9), details={"K": 5, "each": [1.0, 2.0], "deeper": {"a": None}},
    )  # fmt: skip
    return Report(
        TEST_ID,
        ModelFacts("VAE", "digits", (1, 8, 8), 17, "class", 10, 99, "none", "runs/vae"),
        ModesResult(TEST_ID, f, f, f, 10, 500, False),
        TranslationResult(
            TEST_ID, f, f, f, {"pixels": f}, 40, InputDistances(0.1, 20.0, 1.0, {"pixels": 2.0})
        ),
        own,
        BaselinesResult(TEST_ID, {"PNG": own}, "test", 0),
        LatentsResult(TEST_ID, 5, f, f, f, f, (1.0, 2.0), 3, (1, 2), 8, 16, {"mine": [1.5]}, ("a.png",)),
        ClassificationResult(TEST_ID, f, f, f, f, 40, 10, "EXACT", {"K": 1}, "test", 1),
        cost(30.0)["cost"],
        replace(
            quality(3.0)["quality"], missing={"kid": "why"}, remark="mind", picture="b.png", references=300
        ),
        PublishedResult(
            TEST_ID, {"inception": extractor}, {"inception": f}, {"dinov2": "why"}, 5, 1, 0.5, "draw"
        ),
        MemorisationResult(
            TEST_ID, extractor, {"ct": f}, {"a": "b"}, 5, 6, 7, "none", 1, 0.5, "mind", "c.png"
        ),
        ClassesResult(TEST_ID, f, {"zero": f}, 1, "d.png"),
        IllustrationsResult(TEST_ID, ("e.png", "f.png")),
        OODResult(TEST_ID, "mnist", {"ratio": f}, 2.0, (30, 40), "ESTIMATE"),
        ais(4.0, images=20)["ais"],
        ProbesResult(TEST_ID, f, f, f, 20, 10, 20, 0.1, 0.9, 300, 1000, 100, "test", 1, {"name": "digits"}),
        FineTuningResult(TEST_ID, f, 40, 30, 8, 0.001),
        SpaceResult(TEST_ID, f, f, f, f, f, 0.5, 0.25, 64, 300, False),
        MapResult(TEST_ID, "g.png"),
    )


# --- one schema --------------------------------------------------------------------------------------------------


def test_a_report_is_read_as_it_was_written(tmp_path):
    report = whole_report()
    assert {name for name, _ in report.parts()} == set(PARTS)
    write_report(report, tmp_path)
    json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)  # plain JSON
    stored = read_report(tmp_path)
    assert stored.notes == () and stored.report(TEST_ID) == report


def test_parts_on_other_images_stay(tmp_path):
    write_report(whole_report(), tmp_path)
    other = likelihood(3.0, test_id="digits/val")["likelihood"]
    write_report(Report("digits/val", likelihood=other), tmp_path)
    write_report(replace(whole_report(), ood=replace(whole_report().ood, against="cifar10")), tmp_path)
    stored = read_report(tmp_path)
    assert stored.report(TEST_ID).likelihood.bits_per_dim.value == 2.0
    assert stored.report("digits/val").likelihood == other
    assert list(stored.parts["ood"]) == [f"{TEST_ID} against mnist", f"{TEST_ID} against cifar10"]


def test_what_a_model_tells_becomes_plain(tmp_path):
    """Details come from the families: what JSON does not know is a text, what is not finite nothing."""
    odd = {"nan": math.nan, "path": Path("a"), 3: (1, 2)}
    write_report(Report(TEST_ID, **likelihood(2.0, details=odd)), tmp_path)
    details = read_report(tmp_path).report().likelihood.details
    assert details == {"nan": None, "path": "a", "3": [1, 2]}


def test_every_section_has_a_part_and_every_part_a_section():
    names = [section.name for section in SECTIONS]
    assert len(set(names)) == len(names) and set(names) == set(PARTS) - {"about"}
    for section in SECTIONS:
        made = get_type_hints(type(section).measure)["return"]
        assert PARTS[section.name] in (made, *getattr(made, "__args__", ())), section.name


def test_no_constant_or_flag_is_a_figure(tmp_path):
    """A figure is what has the type of one; the page has a column for each of these, and for nothing else."""
    report = whole_report()
    assert list(figures_of(report.modes)) == ["covered", "divergence", "spread"]
    assert list(figures_of(report.classes)) == ["shift", "share of zero"]
    assert list(figures_of(report.classification)) == ["accuracy", "nll", "calibration error", "confidence"]
    assert list(figures_of(report.translation)) == ["l1", "psnr", "sharpness", "frechet pixels"]
    for name, part in report.parts():
        plain = [f.name for f in fields(part) if isinstance(getattr(part, f.name), (bool, int, float, str))]
        assert not {key.replace("_", " ") for key in plain} & set(figures_of(part)), name
    run = hand_written(tmp_path / "gan", "gan")
    write_report(report, run)
    titles = {table.title: [c.title for c in table.columns] for table, _ in other_tables([read_entry(run)])}
    assert titles["Modes of the data that samples hit"] == ["covered", "divergence", "spread"]
    assert titles["Generative classification"] == ["accuracy", "nll", "calibration error", "confidence"]


# --- reports of b15435d ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(OLD.glob("*.json")), ids=lambda path: path.stem)
def test_reports_of_the_version_before_are_read(path, tmp_path):
    """Written by that version's commands, for tiny models of digits."""
    old, stored = json.loads(path.read_text()), read_report(path)
    renamed = {"noised_generator": "ais", "outliers": "ood"}
    assert stored.notes == () and set(stored.parts) == {renamed.get(name, name) for name in old}
    for name, by_set in old.items():
        assert list(stored.parts[renamed.get(name, name)]) == list(by_set)
    found = stored.report("digits/test@seed=0")
    for name, content in ((name, next(iter(by_set.values()))) for name, by_set in old.items()):
        part = getattr(found, renamed.get(name, name))
        check_same_numbers(name, content, part)
    write_report(found, tmp_path)
    assert read_report(tmp_path).report(found.test_id) == found


def check_same_numbers(name, content, part):
    """Figures, counts and names of an old part against those of today."""
    for then, now in SAME[name](content, part):
        assert now == then, name


def same_likelihood(then, now):
    yield (then["bits_per_dim"], then["nats"]), (now.bits_per_dim.value, now.nats.value)
    yield (then["bits_per_dim_stderr"], then["nats_stderr"]), (now.bits_per_dim.stderr, now.nats.stderr)
    details = {"t_min" if key == "first" else key: value for key, value in then["details"].items()}
    yield (then["kind"], then["images"], details), (now.kind, now.images, now.details)
    gap = then.get("generalisation_gap")
    if gap is not None:
        yield (gap["bits_per_dim"], gap["stderr"]), (now.gap.bits_per_dim.value, now.gap.bits_per_dim.stderr)
        yield gap["train"]["bits_per_dim"], now.gap.train_bits_per_dim


def same_samples(then, now):
    yield list(then["figures"]), list(now.figures)
    for name, old in then["figures"].items():
        new = now.figures[name]
        names = ("value", "low", "high", "interval", "samples", "references", "higher_is_better")
        yield tuple(old[key] for key in names), tuple(getattr(new, key) for key in names)
        yield old["floor"], new.reference
    yield then["missing"], now.missing
    yield (then["judge"]["name"], then["judge"]["identity"]), (now.extractor.name, now.extractor.identity)


def values(figures):
    return {name: figure.value for name, figure in figures.items()}


def same_modes(then, now):
    names = ("covered", "modes", "divergence", "spread", "collapsed")
    numbers = now.covered.value, now.modes, now.divergence.value, now.spread.value, now.collapsed
    yield tuple(then[name] for name in names), numbers


def same_classes(then, now):
    yield {name: own["value"] for name, own in then["share_of"].items()}, values(now.share_of)
    yield (
        {name: own["floor"] for name, own in then["share_of"].items()},
        {name: figure.reference for name, figure in now.share_of.items()},
    )
    yield then["shift"]["value"], now.shift.value


def same_probes(then, now):
    yield (then["knn"]["value"], then["knn"]["stderr"]), (now.knn.value, now.knn.stderr)
    yield (then["few_shot"]["value"], then["few_shot"]["examples"]), (now.few_shot.value, now.examples)
    yield (then["linear"]["value"], then["linear"]["C"]), (now.linear.value, now.strength)


SAME = {
    "likelihood": same_likelihood,
    "noised_generator": lambda then, now: [
        *same_likelihood(then, now),
        ((then["details"]["scale"], then["details"]["bdmc_gap"]), (now.scale, now.bdmc_gap)),
    ],
    "quality": same_samples,
    "memorisation": same_samples,
    "modes": same_modes,
    "classes": same_classes,
    "probes": same_probes,
    "cost": lambda then, now: [
        (then["training"]["cpu_seconds"], now.cost.training.cpu_seconds),
        (then["network_calls"]["most"], now.cost.network_calls.most),
        (then["machine"], now.cost.machine),
        (then["parameters"], now.cost.parameters),
    ],
    "space": lambda then, now: [
        (then["effective_rank"], now.effective_rank.value),
        (then["class_alignment"], now.class_alignment.value),
        ((then["width"], then["collapsed"]), (now.width, now.collapsed)),
    ],
    "latents": lambda then, now: [
        ((then["rate"], then["distortion"]), (now.rate.value, now.distortion.value)),
        ((then["active_units"], then["latents"]), (now.active_units, now.latents)),
    ],
    "classification": lambda then, now: [
        ((then["accuracy"], then["accuracy_stderr"]), (now.accuracy.value, now.accuracy.stderr)),
        ((then["nll"], then["classes"]), (now.nll.value, now.classes)),
    ],
    "baselines": lambda then, now: [
        (own["nats"], now.likelihoods[name].nats.value) for name, own in then["figures"].items()
    ],
    "outliers": lambda then, now: [
        (then["auroc"], values(now.auroc)),
        (then["auroc_stderr"], {name: figure.stderr for name, figure in now.auroc.items()}),
        (("digits", then["images"]), (now.against, list(now.images))),
    ],
    "translation": lambda then, now: [
        ((then["l1"], then["psnr_stderr"]), (now.l1.value, now.psnr.stderr)),
        (then["input"]["psnr"], now.inputs.psnr),
        (then["frechet"], values(now.frechet)),
    ],
    "fine_tuning": lambda then, now: [((then["value"], then["steps"]), (now.accuracy.value, now.steps))],
    "illustrations": lambda then, now: [(then["pictures"], list(now.pictures))],
    "map": lambda then, now: [(then["picture"], now.picture)],
}


def test_runs_of_the_version_before_are_compared(tmp_path):
    runs = [hand_written(tmp_path / name, name) for name in ("vae", "gan", "pixelcnn")]
    for run in runs:
        (run / "report.json").write_text((OLD / f"{run.name}.json").read_text())
    entries = read_entries(runs)
    assert [e.missing for e in entries] == [[], [], []] and not any(e.notes for e in entries)
    old = json.loads((OLD / "vae.json").read_text())
    bits = old["likelihood"][TEST_ID]["bits_per_dim"]
    table = str(Comparison(entries))
    assert (
        f"<= {bits:.3f}" in table and f"{old['quality'][TEST_ID]['figures']['frechet']['value']:.4g}" in table
    )
    page = render(Comparison(entries))
    assert "AMD EPYC" in page and "Generative classification" in page and "Modes of the data" in page


def test_all_parts_of_the_version_before_are_among_the_examples():
    names = {name for path in OLD.glob("*.json") for name in json.loads(path.read_text())}
    renamed = {"noised_generator": "ais", "outliers": "ood"}
    later = {"about", "published"}
    assert {renamed.get(name, name) for name in names} == set(PARTS) - later


def test_an_old_report_is_kept_where_a_new_part_joins_it(tmp_path):
    old = json.loads((OLD / "gan.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps({**old, "quality": {"a": 1}}))
    before = read_report(OLD / "gan.json").parts["modes"]
    write_report(Report(TEST_ID, **likelihood(2.0)), tmp_path)
    content, stored = json.loads((tmp_path / "report.json").read_text()), read_report(tmp_path)
    assert content["format"] == 2 and content["quality"] == {"a": 1}  # nobody can read it, nobody lost it
    assert stored.parts["modes"] == before and stored.report(TEST_ID).likelihood.bits_per_dim.value == 2.0
    assert len(stored.notes) == 1 and "quality of a" in stored.notes[0]


# --- whatever has become of them -----------------------------------------------------------------------------------


def changed(path, value):
    """The whole report as JSON text, with another value at a path of keys."""
    report = whole_report()
    folder = changed.folder
    write_report(report, folder)
    content = json.loads((folder / "report.json").read_text())
    (folder / "report.json").unlink()
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return json.dumps(content)


@pytest.fixture(autouse=True)
def folder_for_changes(tmp_path):
    changed.folder = tmp_path / "changes"


FRECHET = ("quality", TEST_ID, "figures", "frechet")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ((*FRECHET, "value"), "1.0", ["quality", "Expected `float`, got `str`", "figures"]),
        ((*FRECHET, "value"), True, ["quality", "figures"]),
        ((*FRECHET, "value"), None, ["quality", "figures"]),
        ((*FRECHET, "value"), math.nan, ["quality", "figures.frechet.value is no finite number"]),
        ((*FRECHET, "low"), -math.inf, ["quality", "figures.frechet.low is no finite number"]),
        ((*FRECHET, "low"), 1e9, ["quality", "interval"]),
        ((*FRECHET, "low"), None, ["quality", "interval"]),
        ((*FRECHET, "samples"), -3, ["quality", ">= 0", "samples"]),
        ((*FRECHET, "samples"), 1.5, ["quality", "samples"]),
        ((*FRECHET, "samples"), 10**30, ["quality", "samples is beyond the range"]),
        ((*FRECHET, "value"), 10**400, ["quality", "value is beyond the range"]),
        (("quality", TEST_ID, "figures"), [1], ["quality", "figures"]),
        (("quality", TEST_ID, "extractor"), None, ["quality", "extractor"]),
        (("quality", TEST_ID, "extractor", "name"), "\ud800", ["quality", "extractor.name", "characters"]),
        (("quality", TEST_ID), 5, ["quality", "Expected `object`"]),
        (("quality", TEST_ID), {}, ["quality", "required field"]),
        (("quality",), [1, 2], ["quality is no part of a report"]),
        (("likelihood", TEST_ID, "kind"), "CERTAIN", ["likelihood", "CERTAIN", "kind"]),
        (("likelihood", TEST_ID, "details"), {"a": {"b": [math.inf]}}, ["likelihood", "details.a.b[0]"]),
        (("cost", TEST_ID, "cost", "network_calls", "most"), "30", ["cost", "network_calls.most"]),
        (("horoscope",), {TEST_ID: {"stars": 3}}, ["horoscope", "knows no such part"]),
        (("modes", TEST_ID, "collapsed"), 0, ["modes", "collapsed"]),
        (("format",), 77, ["format 77"]),
    ],
)
def test_what_is_wrong_costs_its_part_only(path, value, words, tmp_path):
    """One line names the part and the field; all other parts are as they were, and the page is made."""
    run = hand_written(tmp_path / "run", "vae")
    (run / "report.json").write_text(changed(path, value))
    stored, report = read_report(run), whole_report()
    (note,) = stored.notes
    assert all(word in note for word in words) and "\n" not in note, note
    for name, part in report.parts():
        if name != path[0]:
            assert getattr(stored.report(TEST_ID), name) == part, name
        elif path[0] not in ("horoscope", "format"):
            assert TEST_ID not in stored.parts.get(name, {})
    assert any(note in line for line in remarks([read_entry(run)]))
    assert main(["compare", str(run), "--html", str(tmp_path / "page.html")]) == 0


def nested(depth):
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"K"', '"K": K, "L"', 1),  # no JSON within a part
        lambda text: text.replace('"K": 5', f'"K": {nested(100_000)}', 1),
        lambda text: text.replace('"K": 5', f'"K": {nested(100)}', 1),
        lambda text: text.replace('"K": 5', f'"K": {"9" * 5000}', 1),
        lambda text: text.replace('"K": 5', '"K": 1e999', 1),
        lambda text: text.replace('"K": 5', '"K": NaN', 1),
        lambda text: text.replace('"K": 5', '"K": "\\ud800"', 1),
    ],
    ids=["no JSON", "deep", "nested", "digits", "1e999", "NaN", "surrogate"],
)
def test_damage_costs_its_part_only(damage, tmp_path):
    write_report(replace(whole_report(), baselines=None, classification=None), tmp_path)
    text = (tmp_path / "report.json").read_text()
    stored = parsed_report(damage(text), "report.json")
    assert len(stored.notes) == 1 and "likelihood" in stored.notes[0] and "\n" not in stored.notes[0]
    assert len(stored.notes[0]) < 400 and "likelihood" not in stored.parts
    rest = replace(whole_report(), baselines=None, classification=None, likelihood=None)
    assert stored.report(TEST_ID) == rest


def test_a_report_cut_short_keeps_what_came_before(tmp_path):
    write_report(whole_report(), tmp_path)
    text = (tmp_path / "report.json").read_text()
    half = text[: text.index('"cost"') + 200]
    (tmp_path / "report.json").write_text(half)
    stored = read_report(tmp_path)
    assert list(stored.parts) == [
        "about",
        "modes",
        "translation",
        "likelihood",
        "baselines",
        "latents",
        "classification",
    ]
    assert stored.report(TEST_ID).likelihood == whole_report().likelihood
    assert len(stored.notes) == 1 and "damaged" in stored.notes[0]
    write_report(Report(TEST_ID, **likelihood(5.0)), tmp_path)  # and is mended by the next evaluation
    assert read_report(tmp_path).notes == () and "modes" in read_report(tmp_path).parts


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "7", '"x"', "null", "\x00", "{" * 5000, "[" * 100_000])
def test_what_is_no_report_is_told_in_one_line(text, tmp_path):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(GenzooError) as error:
        read_report(tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_bytes_that_are_no_text(tmp_path):
    write_report(whole_report(), tmp_path)
    content = (tmp_path / "report.json").read_bytes().replace(b"own encoder", b"\xff\xfe\x00")
    (tmp_path / "report.json").write_bytes(content)
    stored = read_report(tmp_path)  # a control character within a string is no JSON
    assert "quality" not in stored.parts and stored.report(TEST_ID).cost == whole_report().cost


def test_no_leaf_of_a_report_can_hurt(tmp_path):
    """Every value in turn becomes something else: reading never fails, and other parts never change."""
    write_report(whole_report(), tmp_path)
    text = (tmp_path / "report.json").read_text()
    paths = list(leaves(json.loads(text), ()))
    assert len(paths) > 300
    report = whole_report()
    for path in paths:
        for value in ("x", {"a": [None]}, math.nan):
            content = json.loads(text)
            inner = content
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
            found = parsed_report(json.dumps(content), "report.json").report(TEST_ID)
            for name, part in report.parts():
                if name != path[0]:
                    assert getattr(found, name) == part, (path, value)


def leaves(content, path):
    inner = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in inner:
        if isinstance(value, (dict, list)):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


def test_old_leaves_cannot_hurt_either():
    for path in sorted(OLD.glob("*.json")):
        text = path.read_text()
        for leaf in list(leaves(json.loads(text), ()))[::3]:
            for value in ("x", None, [1], -2, math.inf):
                content = json.loads(text)
                inner = content
                for key in leaf[:-1]:
                    inner = inner[key]
                inner[leaf[-1]] = value
                parts = parsed_report(json.dumps(content), path.name).parts
                figures = [
                    f
                    for by_set in parts.values()
                    for part in by_set.values()
                    for f in figures_of(part).values()
                ]
                assert all(math.isfinite(figure.value) for figure in figures)


def test_a_figure_is_all_that_figures_are_made_of():
    assert (
        figures_of(Estimate(1.0, 2, 3), "x") == {"x": Estimate(1.0, 2, 3)}
        and figures_of({"a": 1, "b": True}) == {}
    )
