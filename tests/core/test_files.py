"""Writing: whole files or none, under names that nobody can foresee, and never out of the folder that is written to."""

import os
import stat
from pathlib import Path

import pytest

from genzoo.core.errors import GenzooError
from genzoo.core.files import (
    append_text,
    check_product,
    home_of,
    make_folder,
    remove_leftovers,
    write_atomically,
    write_product,
)
from genzoo.core.folder_lock import LOCK, only_writer

CONFIG = '{"format": 1, "spec": {}, "config": {}}'


@pytest.fixture
def run(tmp_path):
    """A run folder, and beside it what nobody may touch."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(CONFIG)
    return folder


def untouched(run):
    outside = run.parent / "outside"
    return os.listdir(outside) == ["secret"] and (outside / "secret").read_text() == "secret"


@pytest.mark.parametrize("write", [write_atomically, lambda p, d: append_text(p, d.decode())])
@pytest.mark.parametrize("target", ["../outside/secret", "../outside/new", "nowhere/at/all"])
def test_a_link_is_replaced_and_not_followed(run, write, target):
    (run / "file").symlink_to(target)
    write(run / "file", b"new")
    assert (run / "file").read_text() == "new" and not (run / "file").is_symlink()
    assert untouched(run) and sorted(os.listdir(run)) == ["config.json", "file"]


def test_fixed_temporary_names_are_of_no_use(run):
    for name in (".file.tmp", "file.tmp", "file~"):
        (run / name).symlink_to("../outside/secret")
    write_atomically(run / "file", b"new")
    assert untouched(run) and (run / "file").read_text() == "new"


@pytest.mark.parametrize("write", [write_atomically, lambda p, d: append_text(p, d.decode())])
def test_a_folder_that_leads_out_is_refused(run, write):
    (run / "samples").symlink_to("../outside")
    (run / "deep").mkdir()
    (run / "deep" / "er").symlink_to(run.parent / "outside", target_is_directory=True)
    for place in ("samples/a.png", "samples/b/a.png", "deep/er/a"):
        with pytest.raises(GenzooError, match="leads out of"):
            write(run / place, b"new")
    assert untouched(run)


def test_the_outermost_run_counts(run):
    """A link into another run does not make that one the folder that is written to."""
    other = run.parent / "outside" / "other"
    other.mkdir()
    (other / "config.json").write_text(CONFIG)
    (run / "samples").symlink_to(other)
    assert home_of(run / "samples" / "a.png") == run
    with pytest.raises(GenzooError, match="leads out of"):
        write_atomically(run / "samples" / "a.png", b"new")
    assert os.listdir(other) == ["config.json"]


def test_a_run_that_is_itself_linked_is_the_users_choice(run):
    link = run.parent / "latest"
    link.symlink_to(run)
    write_atomically(link / "samples" / "a.png", b"new")
    assert (run / "samples" / "a.png").read_bytes() == b"new"
    (run.parent / "config.json").write_text('{"learning_rate": 1}')  # of another program
    assert home_of(run.parent / "file") is None


def test_a_folder_that_is_gone_is_not_made_again(tmp_path):
    for write in (write_atomically, lambda p, d, inside: append_text(p, d.decode(), inside=inside)):
        with pytest.raises(GenzooError, match="gone"):
            write(tmp_path / "run" / "state" / "file", b"new", inside=tmp_path / "run")
    with pytest.raises(GenzooError, match="leads out of"):
        make_folder(tmp_path / ".." / "x", inside=tmp_path)
    assert os.listdir(tmp_path) == []


def test_relative_paths(run, monkeypatch):
    monkeypatch.chdir(run.parent)
    write_atomically("run/samples/a.png", b"new")
    write_atomically(Path("run/state/b"), b"new", inside=Path("run"))
    write_atomically("plain", b"new")
    assert (run / "samples" / "a.png").read_bytes() == (run / "state" / "b").read_bytes() == b"new"


def test_a_pipe_does_not_block(run):
    os.mkfifo(run / "metrics.jsonl")
    append_text(run / "metrics.jsonl", "row\n")
    append_text(run / "metrics.jsonl", "row\n")
    assert (run / "metrics.jsonl").read_text() == "row\nrow\n"


def test_files_have_the_mode_that_the_user_asks_for(tmp_path):
    former = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", b"")
        append_text(tmp_path / "b", "")
    finally:
        os.umask(former)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"] == [0o640, 0o640]


def test_long_names_and_leftovers(tmp_path):
    name = "ü" * 120
    write_atomically(tmp_path / name, b"x")
    (tmp_path / ".file.0123.tmp").write_text("half")
    (tmp_path / ".mine.0123.tmp").write_text("mine")
    remove_leftovers(tmp_path, ["file"])
    assert sorted(os.listdir(tmp_path)) == [".mine.0123.tmp", name]


# --- whose a file is -------------------------------------------------------------------------------------------


def test_only_pictures_of_our_own_are_overwritten(tmp_path, run):
    import torch
    from PIL import Image

    from genzoo.core.spec import DataSpec
    from genzoo.data.image_grid import save_grid

    path, images = tmp_path / "photo.png", torch.zeros(4, 1, 3, 3, dtype=torch.long)
    Image.new("L", (4, 4)).save(path)
    mine = path.read_bytes()
    with pytest.raises(GenzooError, match="not of genzoo's making"):
        save_grid(images, DataSpec((1, 3, 3)), path)
    (tmp_path / "link.png").symlink_to("photo.png")
    with pytest.raises(GenzooError, match="not of genzoo's making"):
        save_grid(images, DataSpec((1, 3, 3)), tmp_path / "link.png")
    assert path.read_bytes() == mine
    for _ in range(2):  # a new one, then our own
        save_grid(images, DataSpec((1, 3, 3)), tmp_path / "new.png")
    (run / "old.png").write_bytes(
        mine
    )  # in a run folder everything is ours, unmarked pictures of earlier versions too
    save_grid(images, DataSpec((1, 3, 3)), run / "old.png")


def test_only_pages_of_our_own_are_overwritten(tmp_path):
    for text in ("<html>my thesis on genzoo</html>", "", "%PDF"):
        (tmp_path / "a.html").write_text(text)
        with pytest.raises(GenzooError, match="not of genzoo's making"):
            write_product(tmp_path / "a.html", b"page")
    for text in (
        '<head><meta name="generator" content="genzoo">',
        "<title>Which model is best for digits?</title>",
    ):
        (tmp_path / "a.html").write_text(text)
        write_product(tmp_path / "a.html", b"page")
    with pytest.raises(GenzooError, match="not of genzoo's making"):
        check_product(tmp_path)


# --- one writer ------------------------------------------------------------------------------------------------


def test_one_writer_at_a_time(run):
    pytest.importorskip("fcntl")
    with only_writer(run, "busy"):
        with pytest.raises(GenzooError, match="busy"), only_writer(run, "busy"):
            pass
        (run / "other").mkdir()
        with only_writer(run / "other", "busy"):
            pass
    with only_writer(run, "busy"):
        pass
    assert LOCK not in os.listdir(run)


def test_a_lock_without_a_holder_does_not_block(run):
    """As a killed process leaves one."""
    pytest.importorskip("fcntl")
    (run / LOCK).touch()
    with only_writer(run, "busy"), pytest.raises(GenzooError, match="busy"), only_writer(run, "busy"):
        pass  # held, now that it has a holder
    assert LOCK not in os.listdir(run)


def test_a_lock_that_is_a_link_touches_nothing(run):
    (run / LOCK).symlink_to("../outside/new")
    with only_writer(run, "busy"):
        pass
    assert untouched(run)


def test_a_folder_that_nothing_came_of_is_removed(tmp_path):
    with pytest.raises(ValueError), only_writer(tmp_path / "run", "busy"):
        raise ValueError
    assert os.listdir(tmp_path) == []


def test_those_who_wait_take_turns(run):
    import threading

    pytest.importorskip("fcntl")
    inside, most = [], []

    def work():
        with only_writer(run, "busy", wait=True):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8 and LOCK not in os.listdir(run)


# --- whole folders -----------------------------------------------------------------------------------------------


def test_a_folder_is_written_over_by_its_maker_alone(tmp_path):
    from genzoo.core.files import write_folder

    def write(place):
        (place / "unet").mkdir()
        (place / "unet" / "weights").write_text("new")
        (place / "index.json").write_text('{"a": 1}')

    out = tmp_path / "out"
    for _ in range(2):
        write_folder(out, write, "index.json")
    assert '"a": 1' in (out / "index.json").read_text() and (out / "unet" / "weights").read_text() == "new"
    (out / "notes.txt").write_text("mine")
    with pytest.raises(GenzooError, match=r"also holds notes\.txt"):
        write_folder(out, write, "index.json")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "index.json").write_text('{"a": 2}')
    with pytest.raises(GenzooError, match=r"holds other files, such as index\.json"):
        write_folder(tmp_path / "theirs", write, "index.json")
    assert (tmp_path / "theirs" / "index.json").read_text() == '{"a": 2}'
