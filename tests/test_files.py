"""What may be opened: regular files, and nothing that could keep the reader waiting."""

from __future__ import annotations

import os
import socket

import pytest

from fastdeconv.errors import ParameterError
from fastdeconv.files import open_regular, read_text


def test_a_regular_file_is_opened_also_through_a_link(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"content"


@pytest.mark.parametrize("kind", ["folder", "pipe", "socket", "device"])
def test_anything_else_is_refused_at_once(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    if kind == "folder":
        os.mkdir("it")
    elif kind == "pipe":
        os.mkfifo("it")
    elif kind == "device":
        os.symlink(os.devnull, "it")
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("it")
    with pytest.raises(OSError, match="'it'") as caught:
        open_regular("it")
    assert caught.value.strerror == f"a {kind}, not a regular file"


def test_a_missing_file_and_a_name_that_cannot_be_opened_keep_their_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        open_regular(tmp_path / "missing")
    with pytest.raises(OSError, match="null"):
        open_regular("a\0b")


@pytest.mark.parametrize(("content", "reason"), [
    ("a\n".encode("utf-32"), "the text is UTF-32; save it as UTF-8"),
    ("a\n".encode("utf-16"), "the text is UTF-16; save it as UTF-8"),
    ("a\n".encode("utf-16-le"), "not a text file .* UTF-16 or UTF-32, save it as UTF-8"),
    (b"\xef\xbb\xbfab\xff", "not UTF-8 at byte 5;"),
    (b"ab\xff", "not UTF-8 at byte 2;"),
])
def test_text_in_another_encoding_is_named(tmp_path, content, reason):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(ParameterError, match=reason):
        read_text(tmp_path / "list.txt", 1 << 20)
