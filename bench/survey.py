"""A collection of mp3 files: tracks a second, and where the time of a track goes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import fastdeconv as fd
from fastdeconv.analysis.stimuli import chord_stimuli
from fastdeconv.audio.reading import read_source
from fastdeconv.audio.song import load_song
from fastdeconv.deconvnet.scores import class_scores
from fastdeconv.survey.measuring import reduced, windows

from .measure import Spread
from .report import Report, number, spread
from .sections import Options

_SECONDS, _RATE = 30, 44100
_TRACKS_A_WORKER = 40
_SECONDS_OF_A_WINDOW = 10.0  # which the network fixes
_STAGES = ("decoding", "resampling", "spectra", "forward", "statistics")


def survey(report: Report, options: Options) -> None:
    """`fd.survey` of mp3 files."""
    report.heading("Collections")
    report.paragraph(
        f"`fd.survey` of mp3 files of {_SECONDS} s (stereo, {_RATE} Hz; music and chords), the "
        "bundled network, its five pooling layers. Where the time goes: one thread, one track "
        "at a time. The rate: all of a survey, with the start of its processes and the tables."
    )
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        report.paragraph(f"Skipped: {error}.")
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        count = _TRACKS_A_WORKER * options.threads
        _write_collection(root / "music", count)
        _show_stages(report, sorted((root / "music").iterdir())[:10], options.rounds)
        begin = time.perf_counter()
        found = fd.survey(root / "music", "choi5-genre", root / "out", workers=options.threads)
        seconds = time.perf_counter() - begin
    assert found.counts["tracks"] == count and not found.counts["errors"]
    report.paragraph(
        f"{count} tracks with {options.threads} processes: {number(seconds)} s, "
        f"{count / seconds:.1f} tracks a second."
    )


def _show_stages(report: Report, paths: list[Path], rounds: int) -> None:
    found = np.array([_stage_times(paths) for _ in range(rounds)])  # (rounds, stages), ms a track
    total = found.sum(axis=1)
    rows = [
        (stage, spread(Spread.of(own)), f"{100 * np.median(own / total):.0f} %")
        for stage, own in zip(_STAGES, found.T)
    ]
    report.table(
        ("", "ms a track [quartiles]", "share"),
        [*rows, ("all", spread(Spread.of(total)), "")],
    )


def _stage_times(paths: list[Path]) -> list[float]:
    """Milliseconds a track of every stage."""
    net = fd.pretrained("choi5-genre")
    frontend, layers = net.frontend, [net.layer_index(layer) for layer in net.pooling_layers]
    times = dict.fromkeys(_STAGES, 0.0)

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        times[stage] += time.perf_counter() - begin

    with fd.config(num_threads=1):
        for path in paths:
            with timed("decoding"):
                samples, rate, _ = read_source(path, 0.0, lambda rate: None)
            with timed("resampling"):
                song = load_song((samples, rate), frontend)
            with timed("spectra"):
                clips = [clip for _, clip in windows(song, _SECONDS_OF_A_WINDOW)]
            for clip in clips:
                with timed("forward"):
                    trace = net.forward(clip.x)
                with timed("statistics"):
                    class_scores(trace)
                    for layer in layers:
                        reduced(trace.activation(layer), frontend.layout, 1.0)
    return [1000 * times[stage] / len(paths) for stage in _STAGES]


def _write_collection(folder: Path, count: int) -> None:
    import soundfile

    folder.mkdir()
    rng = np.random.default_rng(0)
    pieces = [piece.clip(fd.Frontend(sr=_RATE)).samples for piece in chord_stimuli()[::40]]
    demo, rate = soundfile.read(Path(fd.__file__).parent / "data" / "demo.flac", dtype="float32")
    mono = demo if demo.ndim == 1 else demo.mean(axis=1)
    pieces.append(fd.Clip(mono, rate, fd.Frontend(sr=_RATE)).samples)
    size = _SECONDS * _RATE
    for i in range(count):
        sound = np.zeros((size, 2), np.float32)
        for channel in range(2):
            order = rng.permutation(len(pieces))
            sound[:, channel] = np.resize(np.concatenate([pieces[j] for j in order]), size)
        sound += 0.01 * rng.standard_normal(sound.shape).astype(np.float32)
        soundfile.write(folder / f"{i:05}.mp3", 0.6 * sound, _RATE, format="MP3")
