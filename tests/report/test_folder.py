"""Folders of results: whole or not there, and nobody else's is ever replaced."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import textwrap

import pytest

from fastdeconv import ParameterError
from fastdeconv.report import folder as rooms
from fastdeconv.report.folder import (
    MANIFEST,
    check_free,
    check_writable,
    new_folder,
    read_manifest,
    write_manifest,
)

KIND = "fastdeconv-explanation"


def write_result(out, name, text, kind=KIND, **options):
    with new_folder(out, name, kind, **options) as folder:
        (folder / "text").write_text(text)
        (folder / "layer").mkdir()
        (folder / "layer" / "sound.wav").write_text(text)
        write_manifest(folder, {"format": kind, "version": 1})


def text_of(out, name):
    return (out / name / "text").read_text()


def test_the_folder_appears_only_when_the_block_ends(tmp_path):
    with new_folder(tmp_path, "song", KIND) as folder:
        (folder / "a").write_text("a")
        assert not (tmp_path / "song").exists()
    assert (tmp_path / "song" / "a").read_text() == "a"
    assert os.listdir(tmp_path) == ["song"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_when_the_block_raises(tmp_path, error):
    with pytest.raises(error), new_folder(tmp_path, "song", KIND) as folder:
        (folder / "a").write_text("a")
        raise error
    assert os.listdir(tmp_path) == []


# Of what is open when the interruption comes.
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("earlier", [False, True])
def test_an_interruption_at_any_moment_leaves_nothing_half_written(tmp_path, earlier):
    for moment in itertools.count(1):
        out = tmp_path / str(moment) / "out"
        if earlier:
            write_result(out, "song", "old")
        if not interrupted_at(moment, write_result, out, "song", "new", overwrite=True):
            break
        found = os.listdir(out) if out.exists() else []
        assert found in ([], ["song"]), moment
        if found:
            assert text_of(out, "song") in ("old", "new") and (out / "song" / MANIFEST).exists()
        else:
            assert not earlier and not (tmp_path / str(moment)).exists(), moment
    assert moment > 10


def interrupted_at(number, work, *arguments, **options):
    """Whether KeyboardInterrupt came after C function `number` of those that the module calls.

    That is where Python looks for signals.
    """
    left = number

    def profile(frame, event, argument):
        nonlocal left
        if frame.f_code.co_filename == rooms.__file__ and event == "c_return":
            left -= 1
            if left == 0:
                sys.setprofile(None)
                raise KeyboardInterrupt

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        work(*arguments, **options)
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(before)
    return False


def test_a_failed_replacement_leaves_the_earlier_result(tmp_path):
    write_result(tmp_path, "song", "old")
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path, "song", KIND, overwrite=True):
        raise KeyboardInterrupt
    assert text_of(tmp_path, "song") == "old"
    assert os.listdir(tmp_path) == ["song"]


def test_an_earlier_result_comes_back_when_the_new_one_cannot_take_its_name(
    tmp_path, monkeypatch
):
    write_result(tmp_path, "song", "old")
    with (
        pytest.raises(FileNotFoundError),
        new_folder(tmp_path, "song", KIND, overwrite=True) as folder,
    ):
        folder.rmdir()  # so that the last rename fails
        monkeypatch.setattr(rooms, "_exchange", lambda one, other: False)
    assert text_of(tmp_path, "song") == "old"
    assert os.listdir(tmp_path) == ["song"]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_result_is_replaced_whole_and_only_on_request(tmp_path, monkeypatch, at_once):
    if not at_once:  # as where the system cannot let two folders change names
        monkeypatch.setattr(rooms, "_exchange", lambda one, other: False)
    write_result(tmp_path, "song", "old")
    (tmp_path / "song" / ".DS_Store").write_text("of a file manager")
    with pytest.raises(ParameterError, match="already there"):
        write_result(tmp_path, "song", "new")
    write_result(tmp_path, "song", "new", overwrite=True)
    assert sorted(os.listdir(tmp_path / "song")) == ["layer", MANIFEST, "text"]
    assert text_of(tmp_path, "song") == "new"
    assert os.listdir(tmp_path) == ["song"]


def test_a_manifest_lists_every_file_of_its_result(tmp_path):
    write_result(tmp_path, "song", "x")
    listed = read_manifest(tmp_path / "song", KIND)["files"]
    assert listed == ["layer/", "layer/sound.wav", "text"]


OWN = {"format": KIND, "version": 1, "files": []}


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"thesis.tex": "x"}, "no manifest.json"),
        ({MANIFEST: json.dumps({"name": "app", "start_url": "/"}), "app.js": "x"}, "no manifest"),
        ({MANIFEST: "", "notes": "x"}, "damaged"),
        ({MANIFEST: "[]"}, "no manifest"),
        ({MANIFEST: "[" * 100_000}, "damaged"),
        ({MANIFEST: json.dumps({**OWN, "format": "fastdeconv-attributes"})}, "no manifest"),
        ({MANIFEST: json.dumps({**OWN, "version": 2})}, "another version"),
        ({MANIFEST: json.dumps({"format": KIND, "version": 1})}, "does not list its files"),
        ({MANIFEST: json.dumps(OWN), "thesis.tex": "x"}, "holds thesis.tex"),
        ({MANIFEST: json.dumps(OWN), "chapters/one.tex": "x"}, "holds chapters"),
    ],
)
def test_what_is_not_provably_a_result_of_this_kind_is_never_replaced(tmp_path, files, reason):
    for name, text in files.items():
        path = tmp_path / "song" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with pytest.raises(ParameterError, match=f"not a result of fastdeconv.*{reason}"):
        write_result(tmp_path, "song", "new", overwrite=True)
    for name, text in files.items():
        assert (tmp_path / "song" / name).read_text() == text
    assert os.listdir(tmp_path) == ["song"]


def test_a_file_is_never_replaced(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ParameterError, match="not a result of fastdeconv"):
        check_free(tmp_path, "file", KIND, overwrite=True)


def test_a_result_that_somebody_put_something_into_is_not_replaced(tmp_path):
    write_result(tmp_path, "song", "old")
    (tmp_path / "song" / "layer" / "my notes.txt").write_text("x")
    with pytest.raises(ParameterError, match=r"holds layer/my notes\.txt"):
        write_result(tmp_path, "song", "new", overwrite=True)
    assert text_of(tmp_path, "song") == "old"


@pytest.mark.skipif(os.name == "nt", reason="making links needs a right on Windows")
def test_a_link_to_a_result_is_not_replaced(tmp_path):
    write_result(tmp_path, "real", "old")
    (tmp_path / "song").symlink_to(tmp_path / "real")
    with pytest.raises(ParameterError, match="not a result"):
        write_result(tmp_path, "song", "new", overwrite=True)
    assert text_of(tmp_path, "real") == "old"


def test_a_result_that_appears_meanwhile_is_not_overwritten(tmp_path):
    with pytest.raises(ParameterError, match="already there"), new_folder(tmp_path, "song", KIND):
        write_result(tmp_path, "song", "of somebody else")
    assert text_of(tmp_path, "song") == "of somebody else"
    assert os.listdir(tmp_path) == ["song"]


def test_missing_output_folders_are_made_when_there_is_a_result_for_them(tmp_path):
    out = tmp_path / "a" / "b"
    check_writable(out)
    assert os.listdir(tmp_path) == []
    with pytest.raises(KeyError), new_folder(out, "song", KIND):
        raise KeyError
    assert os.listdir(tmp_path) == []
    write_result(out, "song", "{}")
    assert os.listdir(out) == ["song"]


def test_folders_that_were_there_or_hold_something_stay(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(KeyError), new_folder(tmp_path / "a" / "b", "song", KIND):
        (tmp_path / "a" / "b" / "of another process").write_text("x")
        raise KeyError
    assert os.listdir(tmp_path / "a" / "b") == ["of another process"]
    check_writable(tmp_path / "a")
    assert os.listdir(tmp_path) == ["a"]


def test_the_check_makes_no_folder(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    monkeypatch.delattr(os, "mkdir")
    for out in (tmp_path, tmp_path / "there", tmp_path / "a" / "b", tmp_path / "a" / ".." / "b"):
        check_writable(out)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("to nothing", "No such file"),
        ("to itself", "symbolic links"),
        ("file", "Not a directory"),
        ("file/a", "Not a directory"),
        ("a/" + 300 * "b", "name too long"),
    ],
)
def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path, out, reason):
    (tmp_path / "to nothing").symlink_to("nothing")
    (tmp_path / "to itself").symlink_to("to itself")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ParameterError, match=f"cannot write in the output folder .*{reason}"):
        check_writable(tmp_path / out)


def test_an_output_folder_that_is_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(ParameterError, match=r"cannot write in the output folder .*out"):
        check_writable(tmp_path / "out")
    with (
        pytest.raises(ParameterError, match="cannot write"),
        new_folder(tmp_path / "out", "song", KIND),
    ):
        pass


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_read_only_output_folder_is_a_clear_error(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ParameterError, match="cannot write"):
            check_writable(tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_a_null_character_in_the_output_folder_is_a_clear_error(tmp_path):
    with pytest.raises(ParameterError, match="cannot write"):
        check_writable(tmp_path / "a\0b")


# What killed runs leave

KILLED = """
    import os, sys
    from pathlib import Path
    from fastdeconv.report import folder as rooms
    out = Path(sys.argv[1])
    if sys.argv[2] == "between the renames":
        rooms._exchange = lambda one, other: False
        rename = Path.rename
        def renamed(self, to):
            rename(self, to)
            if "replaced" in str(to):
                os._exit(9)
        Path.rename = renamed
    elif sys.argv[2] == "after the exchange":
        rooms.shutil.rmtree = lambda *given, **options: os._exit(9)
    with rooms.new_folder(out, "song", "fastdeconv-explanation", overwrite=True) as folder:
        (folder / "text").write_text("new")
        if sys.argv[2] == "while it writes":
            os._exit(9)
        rooms.write_manifest(folder, {"format": "fastdeconv-explanation", "version": 1})
    """


@pytest.mark.skipif(os.name == "nt", reason="Windows has no locks that end with a process")
@pytest.mark.parametrize(
    ("moment", "kept"),
    [("while it writes", "old"), ("between the renames", "old"), ("after the exchange", "new")],
)
def test_a_killed_run_loses_no_result_and_what_it_left_goes_with_the_next(tmp_path, moment, kept):
    write_result(tmp_path, "song", "old")
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), tmp_path, moment])
    assert killed.returncode == 9
    assert len(os.listdir(tmp_path)) + (moment == "between the renames") >= 2
    write_result(tmp_path, "other", "x")
    assert sorted(os.listdir(tmp_path)) == ["other", "song"]
    assert text_of(tmp_path, "song") == kept


def test_what_another_run_is_writing_is_left_alone(tmp_path):
    with new_folder(tmp_path, "song", KIND) as folder:
        (folder / "text").write_text("x")
        write_result(tmp_path, "other", "x")
        assert (folder / "text").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no locks that end with a process")
def test_only_what_has_a_name_of_ours_is_cleared(tmp_path):
    ours = tmp_path / f".song.fastdeconv-partial-{'0' * 16}"
    others = [tmp_path / ".git", tmp_path / ".song.partial-1-0", tmp_path / "song.fastdeconv"]
    for folder in (ours, *others):
        folder.mkdir()
    write_result(tmp_path, "other", "x")
    assert not ours.exists() and all(folder.exists() for folder in others)
