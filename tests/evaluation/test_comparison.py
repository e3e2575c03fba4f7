"""Runs beside each other: what is read of their folders, what is ranked with what, and the page that shows it."""

import base64
import io
import json
import math
import re
import shlex
from dataclasses import replace

import pytest
import torch
from commands import run
from hand_written_runs import SPEC, TEST_ID, ais, cost, figure, hand_written, likelihood, quality
from PIL import Image

from genzoo.cli.parsing import parse_known
from genzoo.cli.train_command import TrainFlags, _parse_config
from genzoo.core.config import from_json, to_json
from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.core.spec import DataSpec
from genzoo.data.image_grid import save_grid
from genzoo.evaluation.comparison.charts import HEIGHT, LEFT, WIDTH, Axis, Point, scatter
from genzoo.evaluation.comparison.entries import read_entries, read_entry
from genzoo.evaluation.comparison.overview import likelihood_table, overview, remarks
from genzoo.evaluation.comparison.page import Comparison, Failure, record, render, table_rows
from genzoo.evaluation.comparison.page_pictures import (
    class_command,
    class_pictures,
    sample_pictures,
    work_pictures,
)
from genzoo.evaluation.comparison.tables import (
    Cell,
    Column,
    likelihood_column,
    mark_best,
    protocol_text,
    quality_column,
)
from genzoo.evaluation.cost import machine_text
from genzoo.metrics.metric_registry import current_figure
from genzoo.models.registry import create, get_preset, list_models

DESCRIPTIONS = list_models()


def entries(tmp_path, **reports):
    """Runs by name; the preset is the part of the name before "_"."""
    return read_entries(
        [hand_written(tmp_path / name, name.split("_")[0], *parts) for name, parts in reports.items()]
    )


def blocks(column, runs):
    return [(words, [runs[i].name for i in rows]) for words, rows in column.order()]


# --- folders -------------------------------------------------------------------------------------------------


def test_an_entry_is_what_its_folder_says(tmp_path):
    parts = (quality(12.0), likelihood(2.0, "LOWER_BOUND", details={"K": 64, "elbo": -9.0}), cost(50.0))
    entry = read_entry(hand_written(tmp_path / "vae", "vae", *parts))
    assert (
        entry.quality.figures["frechet"].value == 12.0 and entry.quality.figures["frechet"].reference == 0.5
    )
    assert entry.likelihood.bits_per_dim.value == 2.0 and protocol_text(entry.likelihood.details) == "K 64"
    assert entry.cost.network_calls.most == 30
    assert machine_text(entry.cost.machine) == "Xeon, 2 cores, 1 threads, cpu"
    assert entry.missing == ["memorisation"] and entry.reason is None
    model = get_preset("vae").config("tiny", SPEC).build(SPEC)
    assert entry.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("preset", DESCRIPTIONS)
def test_runs_of_all_families_are_read(preset, tmp_path):
    spec = replace(SPEC, cond="vector", cond_size=64) if "image-to-image" in preset else SPEC
    entry = read_entry(hand_written(tmp_path / "run", preset, spec=spec))
    own = create(preset, spec, "tiny")
    assert entry.parameters == sum(p.numel() for p in own.parameters())
    assert (entry.reason is None) == (own.likelihood is not LikelihoodKind.NONE)


def test_what_is_not_measured_is_named_with_its_command(tmp_path):
    (entry,) = entries(tmp_path, vae=())
    assert entry.missing == ["likelihood", "quality", "memorisation", "cost"]
    assert f"genzoo evaluate {entry.run}" in remarks([entry])[0]
    page = render(Comparison([entry]))
    assert "not measured" in page and f"genzoo evaluate {entry.run}" in page


def test_a_gan_shows_why_it_has_no_likelihood(tmp_path):
    runs = entries(tmp_path, gan=(), vae=(likelihood(2.0, "LOWER_BOUND"),))
    assert "GAN gives images no probability" in runs[0].reason and "likelihood" not in runs[0].missing
    assert len(likelihood_table(runs).columns[0].cells) == 1
    cell = likelihood_column(runs).cells[0]
    assert (cell.value, cell.text, cell.note) == (None, "none", runs[0].reason)
    assert "stands in no table of likelihoods: a GAN" in render(Comparison(runs))


def test_a_generator_plus_noise_is_in_no_ranking(tmp_path):
    runs = entries(tmp_path, gan=(ais(4.321, images=20),), vae=(likelihood(2.0),))
    assert blocks(likelihood_column(runs), runs)[-1] == ("no figure", ["gan"])
    assert "Generators plus noise" in render(Comparison(runs)) and "~ 4.321" in render(Comparison(runs))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": {"name": "mnist"}}, "data digits, .* on mnist"),
        ({"data": None}, "does not say what it was trained on"),
        ({"spec": DataSpec((1, 8, 8), levels=2)}, "levels 17, .* on 2"),
        ({"spec": DataSpec((1, 4, 4), levels=17)}, r"shape \(1, 8, 8\), .* on \(1, 4, 4\)"),
    ],
)
def test_other_data_are_refused(tmp_path, change, words):
    runs = [hand_written(tmp_path / "a"), hand_written(tmp_path / "b", **change)]
    with pytest.raises(GenzooError, match=words):
        read_entries(runs)


def test_mistakes_are_told_in_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good, bad = hand_written(tmp_path / "good"), hand_written(tmp_path / "bad")
    (bad / "report.json").write_text("{")
    for argv, words in (
        ([good, good], "named twice"),
        ([good, "nowhere"], "no run folder at nowhere"),
        ([good, bad], "report.json cannot be read as JSON"),
        ([], "takes run folders"),
        (["vae", "gan"], "for a bake-off of presets add --data"),
        ([good, "--minutes", 3], "--minutes is for a bake-off: add --data"),
        (["--data", "digits"], "a bake-off needs entrants"),
        (["--data", "digits", "vea"], "did you mean 'vae'"),
        (["--data", "digits", "vae", "vae"], "named twice"),
        (["--data", "digits", "simclr"], "is an encoder"),
        (["--data", "digits", good], "is a run folder"),
        (["--data", "digits", "vae", "--steps", 3, "--minutes", 1], "give one budget"),
        (["--data", "digits", "vae", "--steps", 0], "--steps must be a whole number from 1"),
        (["--data", "nonsense", "vae", "--steps", 3], "nonsense"),
    ):
        assert run("compare", *argv) == 2
        error = capsys.readouterr().err
        assert error.startswith("genzoo: error: ") and error.count("\n") == 1 and words in error, error


def test_a_command_rebuilt_from_a_configuration_makes_it_again(tmp_path):
    """The flags that the page prints are parsed by the train command into the very configuration."""
    config = replace(get_preset("flow").config("tiny", SPEC), sigma_data=0.4)
    config = replace(config, training=replace(config.training, optimizer="adamw", batch_size=48))
    folder = hand_written(tmp_path / "run", "flow", config=to_json(config))
    words = shlex.split(read_entry(folder).command.partition("#")[0])
    assert words[:3] == ["genzoo", "train", "flow"] and "#" not in read_entry(folder).command
    flags, rest = parse_known(TrainFlags, words[3:], "test")
    assert (flags.size, flags.steps, flags.data) == ("tiny", 6, "digits")
    again = _parse_config(get_preset("flow").config(flags.size, SPEC), rest)
    assert again == from_json(to_json(config))


# --- who is ranked with whom -----------------------------------------------------------------------------------


def test_other_judges_and_sample_sizes_are_other_groups(tmp_path):
    runs = entries(
        tmp_path, vae=(quality(3.0),), vae_2=(quality(2.0, identity="other"),), vae_3=(quality(1.0, samples=50),),
        vae_4=(quality(2.5),), vae_5=(),
    )  # fmt: skip
    column = quality_column(runs, "frechet")
    names = [names for _, names in blocks(column, runs)]
    assert names == [["vae_4", "vae"], ["vae_2"], ["vae_3"], ["vae_5"]] and column.separated
    assert any("ranked within groups only: Fréchet" in line for line in remarks(runs))
    assert [words for words, i in table_rows(overview(runs), 5) if i == -1][-1] == "no figure"


def test_kinds_are_other_groups_exact_ones_first(tmp_path):
    runs = entries(
        tmp_path, flow=(likelihood(1.0, "ESTIMATE"),), vae=(likelihood(1.5, "LOWER_BOUND"),),
        pixelcnn=(likelihood(2.0),), pixelcnn_2=(likelihood(1.9),),
        pixelcnn_3=(likelihood(0.1, details={"conditional": True}),),
    )  # fmt: skip
    found = blocks(likelihood_column(runs), runs)
    assert [names for _, names in found] == [["pixelcnn_2", "pixelcnn"], ["pixelcnn_3"], ["vae"], ["flow"]]
    assert "exact (=)" in found[0][0] and "given labels" in found[1][0] and "bounds (<=)" in found[2][0]


def test_another_test_set_is_another_group(tmp_path):
    runs = entries(tmp_path, pixelcnn=(likelihood(2.0),), pixelcnn_2=(likelihood(1.0, test_id="digits/val"),))
    assert [names for _, names in blocks(likelihood_column(runs), runs)] == [["pixelcnn"], ["pixelcnn_2"]]


def test_unlike_protocols_have_no_best_and_say_so(tmp_path):
    k1, k50 = ({"K": k, "conditional": False} for k in (1, 50))
    runs = entries(
        tmp_path, vae=(likelihood(2.0, "LOWER_BOUND", details=k1),),
        vae_2=(likelihood(1.0, "LOWER_BOUND", details=k50, images=70),),
    )  # fmt: skip
    column = likelihood_column(runs)
    assert column.separated and not any(cell.best for cell in column.cells)
    assert (
        "NOT ALIKE: estimated in different ways" in column.order()[0][0]
        and "70 to 300" in column.order()[0][0]
    )
    alike = entries(
        tmp_path / "alike", vae=(likelihood(2.0, details=k1),), vae_2=(likelihood(1.0, details=k1),)
    )
    assert [cell.best for cell in likelihood_column(alike).cells] == [False, True]


def test_times_on_other_machines_are_other_groups(tmp_path):
    runs = entries(tmp_path, vae=(cost(10.0),), vae_2=(cost(90.0, "i7"),), vae_3=(cost(20.0),))
    speed = next(c for c in overview(runs).columns if c.title == "samples/s")
    assert [names for _, names in blocks(speed, runs)] == [["vae_3", "vae"], ["vae_2"]]


def test_best_are_those_that_intervals_do_not_tell_apart():
    def cells(*intervals):
        return [Cell(sum(i) / 2, "", interval=i) for i in intervals]

    lower = mark_best(cells((1.0, 2.0), (1.9, 3.0), (2.1, 4.0)), False)
    assert [c.best for c in lower] == [True, True, False]
    higher = mark_best(cells((1.0, 2.0), (1.9, 3.0), (2.1, 4.0)), True)
    assert [c.best for c in higher] == [False, True, True]
    assert not any(c.best for c in mark_best(cells((1.0, 2.0)), False))
    assert not any(c.best for c in mark_best(cells((1.0, 2.0), (5.0, 6.0)), None))


def test_best_of_figures_that_are_wrong_on_both_sides():
    """The nearest to what is best, and what intervals do not tell from it; not the largest."""
    ct = [Cell(value, "", interval=(value - 1, value + 1), target=0.0) for value in (57.0, -1.5, 0.8, -8.0)]
    assert [c.best for c in mark_best(ct, None)] == [False, True, True, False]
    column = Column("C_T", mark_best(ct, None))
    assert column.order() == [("", [2, 1, 3, 0])] and column.sense == "nearest to 0 is best"


def test_the_worst_model_is_not_the_best_of_two_sided_figures(tmp_path):
    """Of reports of today and of those that call high values of these figures better."""
    values = {"density": (7.8, 1.02, 0.4), "vendi": (40.0, 13.0, 2.0), "authenticity": (0.99, 0.52, 0.1)}
    runs = []
    for i, name in enumerate(("stray", "good", "copies")):
        figures = {
            key: figure(own[i], 0.02, higher=True, floor=values[key][1]) for key, own in values.items()
        }
        report = quality(1.0 + i)
        report["quality"] = replace(report["quality"], figures=figures)
        runs.append(hand_written(tmp_path / name, "vae", report))
    entries = read_entries(runs)
    for name in values:
        column = quality_column(entries, name)
        assert [cell.best for cell in column.cells] == [False, True, False], name
        assert "nearest to that of real images" in column.sense and column.order()[0][1][0] == 1
    page = render(Comparison(entries))
    assert "nearest to that of real images is best" in page


def test_what_was_called_c_t_is_another_figure(tmp_path):
    old = replace(figure(57.0), interval="95%: 1.96 standard deviations of a z-score")
    assert current_figure("ct", old)[0] == "ct_standardised"
    name, new = current_figure("ct", figure(57.0, higher=True))
    assert name == "ct" and new.best == 0.0 and new.direction == "nearest 0"


def test_what_is_not_finite_is_no_number(tmp_path):
    runs = [hand_written(tmp_path / name, "vae", quality(1.0), cost(5.0)) for name in ("a", "b")]
    content = json.loads((runs[0] / "report.json").read_text())
    content["quality"][TEST_ID]["figures"]["frechet"]["value"] = math.nan
    (runs[0] / "report.json").write_text(json.dumps(content))
    found = read_entries(runs)
    cell = quality_column(found, "frechet").cells[0]
    assert cell.value is None and "quality" in found[0].missing and found[0].cost is not None
    assert any("figures.frechet.value is no finite number" in line for line in remarks(found))
    first, second = json.loads(json.dumps(record(Comparison(found)), allow_nan=False))["runs"]
    assert first["report"]["quality"] is None and second["report"]["quality"]


# --- pictures and plots ----------------------------------------------------------------------------------------


def opened(picture):
    return Image.open(io.BytesIO(base64.b64decode(picture.uri.partition(",")[2])))


def test_sample_grids_have_one_size(tmp_path):
    runs = [hand_written(tmp_path / "a", samples=64), hand_written(tmp_path / "b", samples=16)]
    none = hand_written(tmp_path / "c", samples=0)
    broken = hand_written(tmp_path / "d")
    (broken / "samples" / "final.png").write_bytes(b"\x89PNG")
    found = sample_pictures(read_entries([*runs, none, broken]))
    assert [(p.width, p.height, p.caption) for p in found[:2]] == [(4 * 65 + 1, 4 * 65 + 1, "16 samples")] * 2
    assert opened(found[0]).tobytes() != opened(found[1]).tobytes()
    assert f"genzoo sample {none}" in found[2].problem and "cannot be read" in found[3].problem


def test_classes_have_a_row_each(tmp_path):
    """Class k is drawn in the grey of level k, by the command that the page names."""
    spec = DataSpec((1, 8, 8), 17, "class", 10)
    (entry,) = read_entries([hand_written(tmp_path / "run", spec=spec)])
    assert "genzoo sample" in class_pictures([entry])[0].problem
    words = class_command(entry)
    assert words[words.index("--n") + 1] == "80" and words[words.index("--cond") + 1] == "0,1,2,3,4,5,6,7,8,9"
    labels = torch.arange(80) // 8
    save_grid(labels.view(80, 1, 1, 1).expand(80, 1, 8, 8), spec, words[-1])
    picture = opened(class_pictures([entry])[0])
    assert picture.size == (8 * 65 + 1, 10 * 65 + 1)
    grey = [[picture.getpixel((65 * x + 30, 65 * y + 30)) for x in range(8)] for y in range(10)]
    assert grey == [[round(k * 255 / 16)] * 8 for k in range(10)]
    page = render(Comparison([entry]))
    assert page.count("<li>seven</li>") == 1


def test_classes_that_nobody_asked_for_are_shown_as_found(tmp_path):
    run = hand_written(tmp_path / "run")
    images = torch.zeros(3 * 8, 1, 8, 8, dtype=torch.uint8)
    save_grid(images, SPEC, run / "samples" / "by-class.png", columns=8)
    entry = read_entry(run)
    (picture,) = class_pictures([entry])
    assert picture.rows == 3 and opened(picture).size == (8 * 65 + 1, 3 * 65 + 1)
    page = render(Comparison([entry]))
    assert page.count("<li>two</li>") == 1 and "<li>three</li>" not in page
    assert class_pictures([read_entry(hand_written(tmp_path / "other"))]) == []


def test_models_are_shown_at_work(tmp_path):
    runs = [hand_written(tmp_path / name) for name in ("a", "b")]
    images = torch.zeros(16, 1, 8, 8, dtype=torch.uint8)
    save_grid(images, SPEC, runs[0] / "denoising.png")
    (runs[1] / "denoising.png").write_bytes(b"no picture")
    entries = read_entries(runs)
    ((title, pictures),) = work_pictures(entries)
    assert title == "How samples come about" and opened(pictures[0]).size == (4 * 65 + 1, 4 * 65 + 1)
    assert "cannot be read" in pictures[1].problem
    assert render(Comparison(entries)).count(title) == 1
    assert "Models at work" not in render(Comparison(entries[:0]))


def test_axes_keep_all_values_within():
    axis = Axis.over([2.0, 4.0], "", 100, 0)
    assert 0 < axis.at(4.0) < 50 < axis.at(2.0) < 100 and axis.at(3.0) == pytest.approx(50)
    log = Axis.over([0.1, 10.0], "", 0, 100, log=True)
    assert log.at(1.0) == pytest.approx(50) and 1.0 in [round(t, 9) for t in log.ticks()]
    assert Axis.over([3.0], "", 0, 100).at(3.0) == 50


def test_a_plot_holds_each_point_and_its_name():
    points = [Point(f"<{i}>", 0.1 * 10**i, float(i), i, None, (i - 0.5, i + 0.5)) for i in range(4)]
    svg = scatter(points, "x", "y", log=True)
    at = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg)]
    assert len(at) == 4 and all(LEFT < x < WIDTH and 0 < y < HEIGHT for x, y in at)
    assert at == sorted(at) and [y for _, y in at] == sorted((y for _, y in at), reverse=True)
    assert "<2>" not in svg and svg.count("&lt;2&gt;") >= 2
    wide = scatter([Point("low", 1, 0.5, 0), Point("high", 2, 50.0, 1), Point("mid", 3, 5.0, 2)], "x", "y")
    low, high, mid = (float(y) for y in re.findall(r'cy="([0-9.]+)"', wide))
    assert mid == pytest.approx((low + high) / 2, abs=0.2)  # the geometric mean lies in the middle
    assert "Nothing to draw" in scatter([], "x", "y")


# --- the page --------------------------------------------------------------------------------------------------


def test_names_and_messages_are_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    run_ = hand_written(tmp_path / "<script>" / "x", "vae", quality(1.0, identity=evil), likelihood(2.0))
    other = hand_written(tmp_path / "b" / "x", preset="vae")
    runs = read_entries([run_, other])
    assert runs[0].name == "<script>/x"
    page = render(Comparison(runs, [Failure(evil, "training", evil, evil)], notes=[evil]))
    assert page.count("<script>") == 1 and "alert(1)</script>" not in page and "&lt;script&gt;" in page


def test_the_page_stands_alone(tmp_path):
    runs = entries(tmp_path, vae=(quality(3.0), cost(5.0), likelihood(2.0)), gan=(quality(2.0), cost(9.0)))
    page = render(Comparison(runs))
    references = re.findall(r"""(?:src|href|srcset|action|data)\s*=\s*["']?([^"'\s>]*)""", page)
    outside = [r for r in references if r and not r.startswith(("data:", "#"))]
    assert not outside and not re.search(r"url\(|@import|https?://(?!www\.w3\.org)|fetch\(|XMLHttp", page)
    assert "default-src 'none'" in page and page.count("data:image/png;base64,") == 2
    assert 'aria-sort="ascending"' in page and 'scope="col"' in page


def test_the_command_writes_the_page_and_the_table(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a = hand_written(tmp_path / "a", "vae", quality(3.0), likelihood(2.0, "LOWER_BOUND"))
    b = hand_written(tmp_path / "b", "gan", quality(1.0))
    assert run("compare", a, b, "--html", "out/page.html") == 0
    text = capsys.readouterr().out
    assert "<= 2.000" in text and "1*" in text and "page: out/page.html" in text
    assert text.index("│ b ") < text.index("│ a ")  # the best first
    assert "<html" in (tmp_path / "out" / "page.html").read_text(encoding="utf-8")
    assert run("compare", a, b, "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert [r["name"] for r in content["runs"]] == ["a", "b"] and content["data"] == "digits"
    assert content["runs"][0]["report"]["likelihood"]["kind"] == "LOWER_BOUND"
    assert (tmp_path / "comparison.html").is_file()


def test_one_data_set_by_any_name(tmp_path):
    """Images tell data sets apart, and not their names."""

    def run(name, called, content):
        path = hand_written(tmp_path / name)
        config = json.loads((path / "config.json").read_text())
        digests = {"train": "t", "val": "v", "test": content}
        config["data"] = {"name": called, "test_id": f"folder/test@images={content}", "content": digests}
        (path / "config.json").write_text(json.dumps(config))
        return path

    a, b, c = run("a", "folder:pics", "1"), run("b", "folder:/all/pics", "1"), run("c", "folder:pics", "2")
    assert len(read_entries([a, b])) == 2
    with pytest.raises(GenzooError, match=r"test images 1\).*test images 2\)"):
        read_entries([a, c])
