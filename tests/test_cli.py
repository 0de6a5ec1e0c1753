from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

import fastdeconv as fd
from fastdeconv import cli
from fastdeconv.explanation import DEFAULT_NETWORK
from fastdeconv.report import song as song_report

SR = 8000


@pytest.fixture
def network(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "net.npz"
    fd.Network(
        [
            {"type": "conv2d", "name": "conv1", "padding": "same", "bias": False},
            {"type": "relu", "name": "relu1"},
            {"type": "max_pool2d", "name": "pool1", "kernel_size": 2},
            {"type": "conv2d", "name": "conv2", "padding": "same", "bias": False},
            {"type": "relu", "name": "relu2"},
            {"type": "max_pool2d", "name": "pool2", "kernel_size": 2},
        ],
        {
            "conv1.weight": rng.standard_normal((4, 1, 3, 3)),
            "conv2.weight": rng.standard_normal((6, 4, 3, 3)),
        },
        (1, 33, None),
        frontend={"kind": "stft", "sr": SR, "n_fft": 64, "hop_length": 32, "frames": 20},
        name="tiny",
    ).save(path)
    return path


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def write_song(path, seed=1):
    samples = 0.2 * np.random.default_rng(seed).standard_normal(640)
    soundfile.write(path, samples, SR)
    return path


def run(*args):
    return CliRunner().invoke(cli.main, [str(arg) for arg in args])


def folders(out):
    return sorted(os.listdir(out))


# What explain writes


def test_explain_writes_a_folder_per_song_and_says_what_to_open(tmp_path, network, out):
    song = write_song(tmp_path / "song.wav")
    result = run("explain", song, "-o", out, "--network", network)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.startswith(f"{out / 'song'}: 10 features of 2 layers")
    assert os.path.isfile(result.stdout.split("Open ")[1].strip())
    assert folders(out) == ["song"]
    assert len(list(out.glob("song/pool2/feature_*"))) == 12


def test_several_songs_get_a_page_of_them_all_whenever_they_were_explained(
    tmp_path, network, out
):
    one = run("explain", write_song(tmp_path / "one.wav"), "-o", out, "--network", network)
    assert "All songs" not in one.stdout and folders(out) == ["one"]
    two = run("explain", write_song(tmp_path / "two.wav"), "-o", out, "--network", network)
    assert two.stdout.endswith(f"All songs: open {out / 'index.html'}\n")
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "one/index.html" in page and "two/index.html" in page


def test_a_song_may_be_called_as_the_page_of_all_songs(tmp_path, network, out):
    songs = [write_song(tmp_path / name) for name in ("index.html.wav", "b.wav")]
    assert run("explain", *songs, "-o", out, "--network", network).exit_code == 0
    assert folders(out) == ["b", "index.html", "index.html-2"]
    assert (out / "index.html").is_file()


def test_a_page_of_somebody_else_in_the_output_folder_is_kept(tmp_path, network, out):
    out.mkdir()
    (out / "index.html").write_text("mine")
    songs = [write_song(tmp_path / f"{name}.wav") for name in "ab"]
    result = run("explain", *songs, "-o", out, "--network", network)
    assert result.exit_code == 1
    assert "not a page of fastdeconv" in result.stderr
    assert (out / "index.html").read_text() == "mine"
    assert (out / "a" / "index.html").is_file() and (out / "b" / "index.html").is_file()


def test_the_sound_format_can_be_chosen(tmp_path, network, out):
    song = write_song(tmp_path / "song.wav")
    result = run("explain", song, "-o", out, "--network", network, "--audio-format", "flac")
    assert result.exit_code == 0
    assert len(list(out.rglob("*.flac"))) == 11 and not list(out.rglob("*.wav"))


def test_options_reach_the_result(tmp_path, network, out):
    song = write_song(tmp_path / "song.wav")
    result = run(
        "explain", song, "-o", out, "--network", network, "--layers", "pool2",
        "--features", "4, 0-1", "--rule", "guided", "--start", "max", "--mode", "phase",
        "--offset", "0.01", "--backend", "reference", "--threads", "1", "--quiet",
    )
    assert (result.exit_code, result.output) == (0, "")
    manifest = json.loads((out / "song" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["parameters"] == {
        "rule": "guided", "start": "max", "mode": "phase", "offset": 0.01, "precision": "float32",
    }
    assert (manifest["computation"]["backend"], manifest["computation"]["threads"]) == (
        "reference", 1,
    )
    (layer,) = manifest["layers"]
    assert layer["name"] == "pool2" and list(layer["gains"]) == ["4", "0", "1"]


def test_silence_is_not_an_error(tmp_path, network, out):
    soundfile.write(tmp_path / "song.wav", np.zeros(640), SR)
    result = run("explain", tmp_path / "song.wav", "-o", out, "--network", network)
    assert result.exit_code == 0 and result.stderr == ""
    assert "all of them silent" in result.stdout


def test_an_empty_choice_of_features_is_said_plainly(tmp_path, network, out):
    song = write_song(tmp_path / "song.wav")
    result = run("explain", song, "-o", out, "--network", network, "--layers", "pool1,pool2")
    assert result.exit_code == 0 and "10 features of 2 layers" in result.stdout


# Several songs


def test_a_song_that_fails_is_reported_and_the_others_are_complete(tmp_path, network, out):
    first, last = write_song(tmp_path / "first.wav"), write_song(tmp_path / "last.wav", 2)
    broken = tmp_path / "broken.wav"
    broken.write_text("no audio")
    result = run(
        "explain", first, tmp_path / "missing.wav", broken, last, "-o", out,
        "--network", network,
    )
    assert result.exit_code == 1
    assert folders(out) == ["first", "index.html", "last"]
    missing, damaged = result.stderr.splitlines()
    assert missing == f"Error: {tmp_path / 'missing.wav'}: No such file or directory"
    assert damaged.startswith(f"Error: {broken}: ") and damaged.count("broken.wav") == 1
    assert "Traceback" not in result.output


def test_where_no_song_could_be_read_no_folder_is_left(tmp_path, network, out):
    result = run("explain", tmp_path / "missing.wav", "-o", out, "--network", network)
    assert result.exit_code == 1 and "No such file" in result.stderr
    assert not out.exists()


def test_songs_of_one_name_get_folders_of_their_own(tmp_path, network, out):
    songs = []
    for seed, name in enumerate(("a/song.wav", "b/Song.wav", "c/song.wav")):
        (tmp_path / name).parent.mkdir()
        songs.append(write_song(tmp_path / name, seed))
    assert run("explain", *songs, "-o", out, "--network", network, "-q").exit_code == 0
    assert folders(out) == ["Song-2", "index.html", "song", "song-3"]
    originals = [(out / n / "original.wav").read_bytes() for n in ("song", "Song-2", "song-3")]
    assert len(set(originals)) == 3


def test_an_earlier_result_is_refused_before_the_work_and_replaced_on_request(
    tmp_path, network, out
):
    song = write_song(tmp_path / "song.wav")
    arguments = ("explain", song, "-o", out, "--network", network)
    assert run(*arguments).exit_code == 0
    before = (out / "song" / "original.wav").read_bytes()
    write_song(song, seed=2)
    refused = run(*arguments)
    assert refused.exit_code == 1
    assert "already there" in refused.stderr and "--overwrite" in refused.stderr
    assert (out / "song" / "original.wav").read_bytes() == before
    assert run(*arguments, "--overwrite").exit_code == 0
    assert (out / "song" / "original.wav").read_bytes() != before
    assert folders(out) == ["song"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such file names")
@pytest.mark.parametrize(
    "name", ["two\nlines.wav", "\x1b[31mred.wav", "..wav", "노래.wav", "\udcff.wav", "nul.wav"]
)
def test_hostile_file_names_stay_inside_out_and_are_printed_escaped(
    tmp_path, network, out, name
):
    try:
        song = write_song(tmp_path / "song.wav").rename(tmp_path / name)
    except (OSError, UnicodeError):
        pytest.skip("the file system does not take this name")
    result = run("explain", song, tmp_path / "missing" / name, "-o", out, "--network", network)
    assert result.exit_code == 1
    (folder,) = folders(out)
    assert not set(folder) & set("/\n\x1b\udcff") and folder not in (".", "..")
    assert result.stdout.count("\n") == result.stderr.count("\n") == 1
    assert "\x1b" not in result.output
    assert sorted(os.listdir(tmp_path)) == sorted([name, "net.npz", "out"])


def test_a_song_may_begin_with_a_dash_after_two_dashes(tmp_path, network, out, monkeypatch):
    write_song(tmp_path / "-o.wav")
    monkeypatch.chdir(tmp_path)
    assert run("explain", "-o", out, "--network", network, "-q", "--", "-o.wav").exit_code == 0
    assert folders(out) == ["o"]


# Errors


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["song.wav", "--rule", "magic"],
        ["song.wav", "--start", "middle"],
        ["song.wav", "--mode", "loud"],
        ["song.wav", "--threads", "0"],
        ["song.wav", "--offset", "-1"],
        ["song.wav", "--features", "x"],
        ["song.wav", "--features", "-1"],
        ["song.wav", "--features", "5-3"],
        ["song.wav", "--features", ""],
        ["song.wav", "--features", "0-9999999999"],
        ["song.wav", "--no-such-option"],
    ],
)
def test_a_usage_error_has_status_2_and_touches_nothing(out, arguments):
    result = run("explain", "-o", out, *arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert not out.exists()


def test_the_output_folder_is_required():
    assert run("explain", "song.wav").exit_code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--network", "no-such-network"], "no-such-network"),
        (["--network", "no-such.npz"], "no-such.npz"),
        (["--layers", "pool9"], "pool1, "),
        (["--backend", "abacus"], "abacus"),
        (["--isa", "abacus"], "abacus"),
    ],
)
def test_what_is_wrong_for_every_song_is_said_once(tmp_path, network, out, options, message):
    songs = [write_song(tmp_path / f"{i}.wav", i) for i in range(2)]
    result = run("explain", *songs, "-o", out, "--network", network, *options)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ") and message in line
    assert not out.exists()


def test_a_feature_that_no_song_has_is_one_error(tmp_path, network, out):
    songs = [write_song(tmp_path / f"{name}.wav") for name in "ab"]
    common = ["explain", *songs, "-o", out, "--network", network, "--features", "0-99"]
    for more in ([], ["--duration", "all"]):
        result = run(*common, *more)
        assert result.exit_code == 1
        assert re.fullmatch(r"Error: layer 'pool1' has features 0\.\.\d, found \d\n", result.stderr)
    assert not out.exists()


def test_an_output_folder_that_cannot_be_written_is_said_once(tmp_path, network):
    (tmp_path / "out").write_text("a file")
    songs = [write_song(tmp_path / f"{i}.wav", i) for i in range(2)]
    result = run("explain", *songs, "-o", tmp_path / "out", "--network", network)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "cannot write in the output folder" in line


def test_ctrl_c_has_status_130_and_leaves_only_complete_songs(
    tmp_path, network, out, monkeypatch
):
    songs = [write_song(tmp_path / f"{name}.wav") for name in "abc"]
    write_png = song_report.write_png

    def interrupted(path, indices, **how):
        if path.parent.parent.name.startswith(".b."):  # in the second song
            raise KeyboardInterrupt
        write_png(path, indices, **how)

    monkeypatch.setattr(song_report, "write_png", interrupted)
    result = run("explain", *songs, "-o", out, "--network", network)
    assert result.exit_code == 130
    assert "Interrupted" in result.stderr and "Traceback" not in result.output
    assert folders(out) == ["a"]


def test_a_full_disk_is_an_error_of_the_song_and_leaves_nothing(
    tmp_path, network, out, monkeypatch
):
    def full(path, indices):
        raise OSError(28, "No space left on device")  # without a name, as file.write raises it

    monkeypatch.setattr(song_report, "write_png", full)
    song = write_song(tmp_path / "song.wav")
    result = run("explain", song, "-o", out, "--network", network)
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {song}: {out / 'song'} cannot be written: No space left on device\n"
    )
    assert not out.exists()


@pytest.mark.parametrize("arguments", [
    ("explain", "closed"), ("why", "closed"), ("import", "closed", "--input-shape", "1,8,8"),
    ("survey", "song.wav", "--tags", "closed"), ("invariance", "closed"),
])
def test_a_file_that_may_not_be_read_is_an_error_like_others(
    tmp_path, network, out, monkeypatch, arguments
):
    write_song(tmp_path / "song.wav")
    (tmp_path / "closed").write_bytes(b"something")

    def closed(path, *mode):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return open(path, *mode)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fastdeconv.files.open", closed, raising=False)
    monkeypatch.setattr(os, "access", lambda path, mode: not os.fspath(path).endswith("closed"))
    given = () if arguments[0] == "import" else ("--network", network)
    result = run(*arguments, "-o", out, *given)
    assert result.exit_code == 1
    assert re.search(r"^Error: '?closed'?: .*Permission denied", result.stderr)
    assert not out.exists()


@pytest.mark.parametrize("command", ["explain", "why", "import", "survey"])
def test_an_empty_path_is_no_place_to_write_to(tmp_path, monkeypatch, command):
    write_song(tmp_path / "song.wav")
    monkeypatch.chdir(tmp_path)
    result = run(command, "song.wav", "-o", "")
    assert result.exit_code == 2
    assert "'-o' / '--out': the path is empty" in result.stderr
    assert folders(tmp_path) == ["song.wav"]


def test_a_song_whose_name_begins_with_a_dash_gets_a_hint(tmp_path, network, out, monkeypatch):
    write_song(tmp_path / "-hyphen.wav")
    monkeypatch.chdir(tmp_path)
    common = "-o", out, "--network", network, "--layers", "pool1"
    refused = run("explain", "-hyphen.wav", *common)
    assert refused.exit_code == 2
    said = "The file -hyphen.wav was taken for options: write ./-hyphen.wav, or put -- before it."
    assert said in " ".join(refused.stderr.split())
    for arguments in (["./-hyphen.wav", *common], [*common, "--overwrite", "--", "-hyphen.wav"]):
        assert run("explain", *arguments).exit_code == 0
    # No hint where there is no such file, or it was not taken for options.
    for arguments in (["-other.wav"], ["--deep", "--", "-hyphen.wav"]):
        refused = run("explain", *common, *arguments)
        assert refused.exit_code == 2 and "taken for options" not in refused.stderr


# What was left out is said


def test_a_song_that_goes_on_behind_the_clip_is_said_to(tmp_path, network, out):
    short, long = tmp_path / "short.wav", tmp_path / "long.wav"
    soundfile.write(short, np.full(620, 0.1), SR)
    soundfile.write(long, np.full(31 * SR, 0.1), SR)
    result = run("explain", short, long, "-o", out, "--network", network)
    lines = result.stdout.splitlines()
    assert "were explained" not in lines[0]
    assert "The first 0.08 s of the song were explained. The song is longer" in lines[1]
    for name, is_cut in (("short", False), ("long", True)):
        audio = json.loads((out / name / "manifest.json").read_text())["audio"]
        assert (audio["start"], audio["is_cut"]) == (0, is_cut)
        page = (out / name / "index.html").read_text(encoding="utf-8")
        assert ("The first 0.08 s of the song" in page) is is_cut


def test_what_an_offset_covers_is_said(tmp_path, network, out):
    song = tmp_path / "song.wav"
    soundfile.write(song, np.full(2 * SR, 0.1), SR)
    said = run("explain", song, "-o", out, "--network", network, "--offset", 1.5).stdout
    assert "1.50 to 1.58 s of the song were explained." in said
    said = run(
        "explain", song, "-o", out, "--network", network, "--offset", 1.95, "--overwrite"
    ).stdout
    assert "The song was explained from 1.95 s to its end at 2.00 s." in said


@pytest.mark.parametrize("variable", [
    "FASTDECONV_BACKEND", "FASTDECONV_ISA", "FASTDECONV_NUM_THREADS",
])
def test_a_wrong_variable_is_an_error_of_no_song(tmp_path, network, out, monkeypatch, variable):
    monkeypatch.setenv(variable, "many")
    songs = [write_song(tmp_path / f"{name}.wav", i) for i, name in enumerate("ab")]
    result = run("explain", *songs, "-o", out, "--network", network)
    assert result.exit_code == 1
    assert "'many'" in result.stderr and result.stderr.count("Error: ") == 1
    assert "a.wav" not in result.stderr


def test_silence_that_follows_a_song_is_said(tmp_path, network, out):
    song = tmp_path / "song.wav"
    soundfile.write(song, np.full(SR // 50, 0.1), SR)
    said = "The network takes 0.08 s and was given silence after the 0.02 s of sound"
    assert said in run("explain", song, "-o", out, "--network", network).stdout
    assert said in (out / "song" / "index.html").read_text(encoding="utf-8")
    assert said in (fd.Explanation.load(out / "song").covered or "")


def test_songs_that_are_not_on_the_page_of_all_are_named(tmp_path, network, out):
    a, b, c, d = (write_song(tmp_path / f"{name}.wav", i) for i, name in enumerate("abcd"))
    run("explain", a, b, "-o", out, "--network", network)
    (out / "b" / "features.csv").write_text("a,b\n1,2\n")
    said = run("explain", c, "-o", out, "--network", network).stdout
    assert "Not on that page: b (it is damaged" in said
    result = run("explain", d, "-o", out, "--network", network, "--rule", "guided")
    assert result.exit_code == 0
    assert "Not on that page: d (it was made with another rule)" in result.stdout
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "it was made with another rule" in page and "it is damaged" in page


# Running again


def test_a_song_that_is_there_with_the_same_settings_is_no_error(tmp_path, network, out):
    a, b = (write_song(tmp_path / f"{name}.wav", i) for i, name in enumerate("ab"))
    run("explain", a, "-o", out, "--network", network)
    before = (out / "a" / "manifest.json").stat().st_mtime_ns
    result = run("explain", a, b, "-o", out, "--network", network)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"{out / 'a'}: already there, with the same settings." in result.stdout
    assert (out / "a" / "manifest.json").stat().st_mtime_ns == before
    assert folders(out) == ["a", "b", "index.html"]


def other_song(tmp_path):
    (tmp_path / "other").mkdir()
    return write_song(tmp_path / "other" / "a.wav", seed=9)


@pytest.mark.parametrize(
    ("options", "differing"),
    [
        (["--rule", "guided"], "rule"), (["--start", "one"], "start"),
        (["--mode", "phase"], "mode"), (["--layers", "pool1"], "layers and features"),
        (["--features", "0"], "layers and features"), (["--audio-format", "flac"], "audio format"),
        (["--offset", "0.01"], "song"),
        ([], "song"),
    ],
)
def test_one_of_another_song_or_with_other_settings_is(tmp_path, network, out, options, differing):
    song = write_song(tmp_path / "a.wav")
    run("explain", song, "-o", out, "--network", network)
    again = song if options else other_song(tmp_path)
    result = run("explain", again, "-o", out, "--network", network, *options)
    assert result.exit_code == 1
    assert f"is already there and differs in {differing}: --overwrite replaces it" in result.stderr


def test_another_network_of_the_same_name_is_told_by_its_weights(tmp_path, network, out):
    song = write_song(tmp_path / "a.wav")
    run("explain", song, "-o", out, "--network", network)
    net = fd.Network.load(network)
    arrays = {key: array + 1 for key, array in net.arrays.items()}
    fd.Network(
        net.layers, arrays, net.input_shape, frontend=net.frontend, name=net.name
    ).save(network)
    result = run("explain", song, "-o", out, "--network", network)
    assert "differs in network" in result.stderr


# How a process ends


def start(*args, **how):
    return subprocess.Popen(
        [sys.executable, "-m", "fastdeconv", *map(str, args)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how,
    )


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_to_end_leaves_one_line_and_complete_songs_only(tmp_path, network, out, name):
    # More than can be done before the signal arrives, however late it is.
    songs = [write_song(tmp_path / "song.wav")] * 2000
    process = start("explain", *songs, "-o", out, "--network", network)
    # The first line that it prints says that a song is done, and the next one is under way.
    process.stdout.readline()
    process.send_signal(getattr(signal, name))
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + getattr(signal, name)
    assert len(said.strip().splitlines()) == 1 and "nothing half-written was left" in said
    assert not [folder for folder in os.listdir(out) if folder.startswith(".")]
    assert 0 < len(os.listdir(out)) < len(songs)
    assert all((out / folder / "manifest.json").exists() for folder in os.listdir(out))


def test_a_signal_that_something_swallows_still_ends_the_process(tmp_path):
    code = """
import signal, time
from fastdeconv.cli.process import ending_on_signals
with ending_on_signals():
    while True:
        try:
            print("ready", flush=True)  # within the try: the signal comes as soon as it is read
            time.sleep(60)
        except KeyboardInterrupt:
            pass
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and said.strip() == "Interrupted."


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_signal_in_a_callback_from_c_ends_what_called_it():
    """Python reports what such a callback raises, and goes on."""
    code = """
import os, signal, sys
from fastdeconv.cli.process import EndedError, ending_on_signals
class Reader:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000): pass
        print("not reached")
def call(reader):
    del reader[0]
    print("not reached")
sys.unraisablehook = print
try:
    with ending_on_signals():
        call([Reader()])
        print("not reached")
except EndedError as error:
    print(error.status, sys.unraisablehook is print, sys.gettrace())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "143 True None\n", "")


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_signal_that_was_ignored_stays_so():
    """As under nohup, and in the background jobs of a shell."""
    code = """
import os, signal
from fastdeconv.cli.process import ending_on_signals
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with ending_on_signals():
    os.kill(os.getpid(), signal.SIGHUP)
    print("still here")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "still here\n", "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize("stream", [">/dev/full", ">&-", "2>&-", "<&-", "| true"])
def test_a_stream_that_takes_nothing_is_no_error_of_a_song(tmp_path, network, out, stream):
    song = write_song(tmp_path / "song.wav")
    command = [sys.executable, "-m", "fastdeconv", "explain", song, "-o", out, "--network", network]
    done = subprocess.run(
        f"{shlex.join(map(str, command))} {stream}", shell=True, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (out / "song" / "index.html").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize("command", ["networks", "info"])
def test_a_command_whose_output_is_its_result_says_that_it_is_lost(command):
    line = shlex.join([sys.executable, "-m", "fastdeconv", command])
    for stream, reason in ((">/dev/full", "No space left"), (">&-", "closed")):
        done = subprocess.run(f"{line} {stream}", shell=True, capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.startswith("Error: ") and reason in done.stderr
        assert done.stderr.count("\n") == 1


def test_too_little_memory_is_one_line(tmp_path, network, out, monkeypatch):
    def none(*args, **options):
        raise MemoryError

    monkeypatch.setattr(song_report, "write_png", none)
    song = write_song(tmp_path / "song.wav")
    result = run("explain", song, "-o", out, "--network", network)
    assert (result.exit_code, result.stderr) == (1, f"Error: {song}: not enough memory\n")
    assert not out.exists()


# Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("quiet", [False, True])
def test_a_terminal_gets_a_progress_bar_unless_quiet(
    tmp_path, network, out, monkeypatch, quiet
):
    song = write_song(tmp_path / "a{b}\nc.wav" if os.name != "nt" else tmp_path / "a{b}.wav")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    options = ["--quiet"] if quiet else []
    arguments = ["explain", str(song), "-o", str(out), "--network", str(network), *options]
    # A path longer than the terminal is wide leaves room for the bar.
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    cli.main.main(arguments, standalone_mode=False)
    assert ("0%|" in terminal.getvalue()) is not quiet
    assert "\n" not in terminal.getvalue()


# The other commands


def test_info_prints_the_configuration():
    result = run("info")
    assert result.exit_code == 0
    assert fd.__version__ in result.stdout and "back end" in result.stdout


def test_networks_lists_a_line_for_each_bundled_and_each_public_network():
    from fastdeconv.network.public import is_installed, list_public

    result = run("networks")
    assert result.exit_code == 0
    found = result.stdout.splitlines()
    lines = {line.split()[0]: line for line in found if not line.startswith(" ")}
    public = {recipe.name: recipe for recipe in list_public()}
    assert list(lines) == [*fd.list_pretrained(), *public]
    for name, recipe in public.items():
        assert (recipe.install in lines[name]) != is_installed(recipe)
        # What is not as in the package comes right below.
        below = [*found, ""][found.index(lines[name]) + 1]
        assert below.strip() == recipe.remark or not below.startswith(" ")
        assert recipe.remark is None or below.startswith(" ")


def test_the_version_is_printed():
    assert run("--version").stdout == f"fastdeconv, version {fd.__version__}\n"


def test_the_default_network_is_the_one_of_the_python_call():
    (option,) = (p for p in cli.explain.params if p.name == "network")
    assert option.default == DEFAULT_NETWORK


def test_help_needs_neither_numpy_nor_any_audio_library():
    heavy = {"numpy", "librosa", "soundfile", "numba", "PIL", "tqdm"}
    code = (
        "import sys; from fastdeconv.cli import main; main(['explain', '--help'], "
        f"standalone_mode=False); print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_demo_runs_as_a_module_without_a_bar_in_a_pipe(out):
    arguments = ["explain", "--demo", "-o", out, "--layers", "pool1", "--features", "0-3"]
    done = subprocess.run(
        [sys.executable, "-m", "fastdeconv", *arguments], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout.startswith(f"{out / 'demo'}: 4 features of 1 layer")
    assert folders(out) == ["demo"]
    assert len(list(out.glob("demo/pool1/feature_*"))) == 8
    about = soundfile.info(out / "demo" / "pool1" / "feature_3.wav")
    original = soundfile.info(out / "demo" / "original.wav")
    assert (about.samplerate, about.frames) == (original.samplerate, original.frames)
    assert about.samplerate == 11025 and 3.9 < original.duration < 4.1


def study_folder(tmp_path):
    """Four short tones: two pitches by two lengths of a fade."""
    rows = ["file,pitch,fade"]
    for pitch in (500, 1500):
        for fade in (5, 50):
            name = f"{pitch}-{fade}.wav"
            time = np.arange(640) / SR
            soundfile.write(
                tmp_path / name, np.sin(2 * np.pi * pitch * time) * np.exp(-fade * time), SR
            )
            rows.append(f"{name},{pitch},{fade}")
    (tmp_path / "attributes.csv").write_text("\n".join(rows))
    return tmp_path


def test_attributes_of_a_folder_of_sounds(network, out, tmp_path):
    command = ["attributes", "-o", str(out), "--network", str(network), "--stimuli",
               str(study_folder(tmp_path)), "--features", "0-2", "--threads", "1"]
    result = CliRunner().invoke(cli.main, command)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("4 stimuli with 4 pairs")
    findings = (out / "attributes" / "findings.txt").read_text(encoding="utf-8")
    assert result.stdout.startswith(findings) and "\n\n" in findings.strip()
    again = CliRunner().invoke(cli.main, command)
    assert again.exit_code == 1 and "already there" in again.output
    assert CliRunner().invoke(cli.main, [*command, "--overwrite", "-q"]).output == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stimuli", "nowhere.csv"], "nowhere.csv"),
        (["--stimuli", ".", "--renderer", "fluidsynth"], "for the rendered chords"),
        (["--soundfont", "x.sf2"], "soundfont is for the renderer 'fluidsynth'"),
        (["--control", "nope"], "there is no network 'nope'"),
    ],
)
def test_attributes_says_what_is_wrong_in_a_line(network, out, options, message):
    result = CliRunner().invoke(
        cli.main, ["attributes", "-o", str(out), "--network", str(network), *options]
    )
    assert result.exit_code in (1, 2) and message in result.output
    assert "Traceback" not in result.output and not list(out.glob("*"))


def test_evolution_over_checkpoints_and_a_song_that_is_cut_into_clips(network, out, tmp_path):
    later = tmp_path / "later.npz"
    fd.randomised(fd.Network.load(network), 3).save(later)
    song = tmp_path / "song.wav"
    soundfile.write(song, np.random.default_rng(0).uniform(-0.5, 0.5, 3 * 608), SR)
    result = CliRunner().invoke(
        cli.main, ["evolution", str(network), str(later), "-o", str(out), "--layer", "pool2",
                   "--features", "0,2", "--clip", str(song)]
    )
    assert result.exit_code == 0, result.output
    assert "2 features at 2 checkpoints" in result.output
    table = (out / "evolution-pool2" / "evolution.csv").read_text().splitlines()
    assert len(table) == 5 and table[1].startswith("pool2,0,net,")
    assert {line.split(",")[4] for line in table[1:]} <= {"0", "1", "2"}


def test_invariance_of_a_song_beside_an_untrained_network(network, out, tmp_path):
    song = tmp_path / "song.wav"
    soundfile.write(song, np.random.default_rng(0).uniform(-0.5, 0.5, 3 * 608), SR)
    command = ["invariance", str(song), "-o", str(out), "--network", str(network), "--layers",
               "pool2", "--offset", "0.02"]
    result = CliRunner().invoke(cli.main, command)
    assert result.exit_code == 0, result.output
    assert "how far layers move of 0.08 s from 0.02 s on." in result.output
    header, *rows = (out / "invariance" / "invariance.csv").read_text().splitlines()
    assert header.startswith("change,amount,layer,distance,control_distance,class")
    assert len(rows) == 15 and all(row.split(",")[2] == "pool2" for row in rows)
    again = CliRunner().invoke(cli.main, command)
    assert again.exit_code == 1 and "already there" in again.output
    nothing = CliRunner().invoke(cli.main, [*command, "--control", "nope", "--overwrite"])
    assert nothing.exit_code == 1 and "there is no network 'nope'" in nothing.output


def test_the_options_offer_what_the_modules_compute():
    from fastdeconv.belief.feature_maps import FEATURE_RULES
    from fastdeconv.belief.rules import METHODS
    from fastdeconv.cli import shared
    from fastdeconv.deconvnet.layerwise import RULES
    from fastdeconv.report.sounds import FORMATS

    assert shared.RULES == RULES
    assert shared.FEATURE_RULES == FEATURE_RULES
    assert shared.METHODS == METHODS
    (option,) = shared.audio_format_option(lambda: None).__click_params__
    assert tuple(option.type.choices) == FORMATS


def test_names_may_have_spaces_between_them(network, out, tmp_path):
    song = write_song(tmp_path / "song.wav")
    result = run("explain", song, "-o", out, "--network", network, "--layers", "pool1, pool2")
    assert result.exit_code == 0, result.output
    assert (out / "song" / "pool2" / "feature_0.wav").is_file()


@pytest.mark.parametrize("layers", ["", "pool1,", ",pool1", "pool1,,pool2"])
def test_a_name_that_is_missing_between_commas_is_a_usage_error(network, out, tmp_path, layers):
    song = write_song(tmp_path / "song.wav")
    result = run("explain", song, "-o", out, "--network", network, "--layers", layers)
    assert result.exit_code == 2
    assert f"wanted names between commas, found {layers!r}" in result.output


def test_a_decision_that_is_there_already_is_said_before_anything_is_computed(
    out, tmp_path, monkeypatch
):
    (out / "song why").mkdir(parents=True)
    monkeypatch.setattr("fastdeconv.studies.decision", pytest.fail)
    result = run("why", tmp_path / "song.wav", "-o", out)
    assert result.exit_code == 1
    assert "song why is already there: overwrite=True (--overwrite) replaces it" in result.output


@pytest.mark.parametrize("command", [
    ["attributes"], ["evolution", "choi5-genre", "--layer", "pool5"],
])
def test_studies_take_feature_numbers_and_not_all(command, out):
    result = run(*command, "-o", out, "--features", "all")
    assert result.exit_code == 2
    assert "'all' is neither a number nor a range such as 0-15" in result.output
