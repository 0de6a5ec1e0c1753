from __future__ import annotations

import os

import pytest

from fastdeconv import ParameterError
from fastdeconv.report.folder import MANIFEST, check_free, check_writable, new_folder


def write_result(out, name, text, **options):
    with new_folder(out, name, **options) as folder:
        (folder / MANIFEST).write_text(text)


def test_the_folder_appears_only_when_the_block_ends(tmp_path):
    with new_folder(tmp_path, "song") as folder:
        (folder / "a").write_text("a")
        assert not (tmp_path / "song").exists()
    assert (tmp_path / "song" / "a").read_text() == "a"
    assert os.listdir(tmp_path) == ["song"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_when_the_block_raises(tmp_path, error):
    with pytest.raises(error), new_folder(tmp_path, "song") as folder:
        (folder / "a").write_text("a")
        raise error
    assert os.listdir(tmp_path) == []


def test_a_failed_replacement_leaves_the_earlier_result(tmp_path):
    write_result(tmp_path, "song", "old")
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path, "song", overwrite=True):
        raise KeyboardInterrupt
    assert (tmp_path / "song" / MANIFEST).read_text() == "old"
    assert os.listdir(tmp_path) == ["song"]


def test_an_earlier_result_comes_back_when_the_new_one_cannot_take_its_name(tmp_path):
    write_result(tmp_path, "song", "old")
    with (
        pytest.raises(FileNotFoundError),
        new_folder(tmp_path, "song", overwrite=True) as folder,
    ):
        folder.rmdir()  # so that the last rename fails
    assert (tmp_path / "song" / MANIFEST).read_text() == "old"
    assert os.listdir(tmp_path) == ["song"]


def test_a_result_is_replaced_whole_and_only_on_request(tmp_path):
    write_result(tmp_path, "song", "old")
    (tmp_path / "song" / "left-over").write_text("x")
    with pytest.raises(ParameterError, match="already there"):
        write_result(tmp_path, "song", "new")
    write_result(tmp_path, "song", "new", overwrite=True)
    assert os.listdir(tmp_path / "song") == [MANIFEST]
    assert (tmp_path / "song" / MANIFEST).read_text() == "new"
    assert os.listdir(tmp_path) == ["song"]


def test_what_is_not_a_result_is_never_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("folder", "file"):
        with pytest.raises(ParameterError, match="not a result of fastdeconv"):
            check_free(tmp_path, name, overwrite=True)
    assert (tmp_path / "folder" / "thesis.tex").exists()


@pytest.mark.skipif(os.name == "nt", reason="making links needs a right on Windows")
def test_a_link_to_a_result_is_not_replaced(tmp_path):
    write_result(tmp_path, "real", "old")
    (tmp_path / "song").symlink_to(tmp_path / "real")
    with pytest.raises(ParameterError, match="not a result"):
        write_result(tmp_path, "song", "new", overwrite=True)
    assert (tmp_path / "real" / MANIFEST).read_text() == "old"


def test_a_result_that_appears_meanwhile_is_not_overwritten(tmp_path):
    with pytest.raises(ParameterError, match="already there"), new_folder(tmp_path, "song"):
        write_result(tmp_path, "song", "of somebody else")
    assert (tmp_path / "song" / MANIFEST).read_text() == "of somebody else"
    assert os.listdir(tmp_path) == ["song"]


def test_missing_output_folders_are_made_when_there_is_a_result_for_them(tmp_path):
    out = tmp_path / "a" / "b"
    check_writable(out)
    assert os.listdir(tmp_path) == []
    with pytest.raises(KeyError), new_folder(out, "song"):
        raise KeyError
    assert os.listdir(tmp_path) == []
    write_result(out, "song", "{}")
    assert os.listdir(out) == ["song"]


def test_folders_that_were_there_or_hold_something_stay(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(KeyError), new_folder(tmp_path / "a" / "b", "song"):
        (tmp_path / "a" / "b" / "of another process").write_text("x")
        raise KeyError
    assert os.listdir(tmp_path / "a" / "b") == ["of another process"]
    check_writable(tmp_path / "a")
    assert os.listdir(tmp_path) == ["a"]


def test_an_output_folder_that_is_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(ParameterError, match=r"cannot write in the output folder .*out"):
        check_writable(tmp_path / "out")
    with pytest.raises(ParameterError, match="cannot write"), new_folder(tmp_path / "out", "song"):
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
