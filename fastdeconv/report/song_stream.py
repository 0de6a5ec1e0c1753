"""The sounds and pictures of a whole song, written window by window.

The gain of a sound and the scale of the pictures are known only after the last window. So what each
window adds to the sounds and pictures first goes to temporary files in the folder that is being
written. At the end one feature after another is read back and written in its final form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..analysis.descriptors import Listener
from ..analysis.song_numbers import ClipNumbers, SongNumbers
from ..analysis.timeline import MOST_COLUMNS
from ..audio.auralise import auralise, heard_magnitude
from ..audio.clip import Clip
from ..audio.windows import Joiner, Windows
from ..kernels.schedule import run_bands
from .axis import FrequencyAxis
from .blocks import Blocks
from .picture import levels, signed_levels, write_png
from .song import original_gain, spectrum
from .sounds import peak_gain, write_stream

__all__ = ["LayerStream", "SongStream"]

FloatArray = NDArray[np.float32]

_BLOCK = 1 << 20
"""How many samples of the original are encoded at a time."""
_DRAWN = 1 << 16
"""How many values of several maps are drawn at a time."""


class Frames:
    """Which frames of a window's STFT go into which columns of the song's pictures.

    Every frame of the song is drawn from one window only: the one in which it is heard most.
    """

    def __init__(self, windows: Windows, number: int, clip: Clip, columns: int) -> None:
        window, frontend = windows.rows[number], windows.song.frontend
        transform = frontend.transform
        self.window, self.number = window, number
        at = window.start + np.arange(clip.stft.shape[1]) * transform.hop_length
        at += 0 if transform.center else transform.n_fft // 2
        low, high = window.middles
        if number == 0:
            low = 0
        inside = at >= low
        inside &= (at < high) if number + 1 < len(windows) else True
        if not inside.any():
            inside[np.abs(2 * at - low - high).argmin()] = True
        own = np.flatnonzero(inside)
        self.first, self.end = int(own[0]), int(own[-1]) + 1
        size = windows.song.samples.size
        found = (at[own] * columns // max(1, size)).clip(0, columns - 1)
        self.columns, self._starts = np.unique(found, return_index=True)
        # Where windows are pieces of one pass, their margins are not part of what is measured.
        crops = windows.exact and frontend.meaning.on_stft
        self.clip = clip
        self.measured = clip.part(self.first, self.end) if crops else clip
        self.crop = slice(self.first, self.end) if crops else slice(None)

    def pooled(self, values: FloatArray) -> FloatArray:
        """The largest magnitude of each column: (rows, ..., own frames) to (..., columns, rows)."""
        return np.moveaxis(np.maximum.reduceat(values, self._starts, axis=-1), 0, -1)

    def pooled_signed(self, values: FloatArray) -> FloatArray:
        """As `pooled`, for signed values: the one with the largest absolute value."""
        most = np.maximum.reduceat(values, self._starts, axis=-1)
        least = np.minimum.reduceat(values, self._starts, axis=-1)
        return np.moveaxis(np.where(most >= -least, most, least), 0, -1)


class SongStream:
    """Collects and writes the sound and the picture of the song itself.

    Parameters
    ----------
    windows : Windows
    mode : {"mask", "phase"}
    audio_format : {"wav", "flac", "ogg"}
    num_threads : int
    """

    def __init__(self, windows: Windows, mode: str, audio_format: str, num_threads: int) -> None:
        self.windows, self.mode = windows, mode
        self.format, self.threads = audio_format, num_threads
        self.axis = FrequencyAxis.of(windows.song.frontend)
        song = windows.song
        hop = song.frontend.transform.hop_length
        self.columns = min(MOST_COLUMNS, max(1, song.samples.size // hop))
        self._picture = np.zeros((self.axis.rows, self.columns), np.float32)
        self._bins = np.zeros(song.frontend.transform.bins)
        self._numbers = ClipNumbers()
        self._errors = self._energy = 0.0

    def frames(self, number: int, clip: Clip) -> Frames:
        """The frames of a window; `clip` is the window's sound."""
        return Frames(self.windows, number, clip, self.columns)

    def listener(self, frames: Frames) -> Listener:
        """Add the clip of a window to the song; returns what measures the window's features."""
        clip, listener = frames.clip, Listener(frames.measured, self.mode, self.threads)
        stft = np.abs(clip.stft[:, frames.first : frames.end])
        own = frames.pooled(self.axis.loudest(stft))
        put(self._picture, frames.columns, own)
        self._bins += np.square(stft, dtype=np.float64).sum(axis=1)
        energy = float(np.square(clip.samples, dtype=np.float64).sum())
        self._numbers.add(listener.clip, energy)
        if clip.round_trip is not None:
            self._errors += energy * 10 ** (clip.round_trip / 10)
            self._energy += energy
        return listener

    def write_original(self, folder: Path) -> None:
        """Write the sound and its spectrogram."""
        samples, sr = self.windows.song.samples, self.windows.song.sr
        blocks = (samples[i : i + _BLOCK] for i in range(0, samples.size, _BLOCK))
        write_stream(folder / f"original.{self.format}", blocks, sr, original_gain(samples))
        filled = self._picture
        write_png(folder / "original.png", levels(filled, float(filled.max(initial=0.0))))

    @property
    def round_trip(self) -> float | None:
        """Error of a map of ones in dB, over all windows; None for silence."""
        if self._energy == 0:
            return None
        return float(10 * np.log10(max(self._errors / self._energy, 1e-20)))

    @property
    def numbers(self) -> dict[str, Any]:
        """The numbers of the song itself."""
        return self._numbers.numbers()

    @property
    def spectrum(self) -> str:
        """The spectrum of the song; see `fastdeconv.report.song.spectrum`."""
        return spectrum(self.axis, self._bins)


class _Files(NamedTuple):
    """The folder of a layer, and the temporary files from which its files are written."""

    folder: Path
    sounds: Blocks
    heard: Blocks
    maps: Blocks


class LayerStream:
    """Collects and writes the sounds and pictures of the features of one layer.

    Parameters
    ----------
    song : SongStream
    layer : str
    features : sequence of int
        No two the same.
    folder : Path or None
        Is made. None if the features are only measured and nothing is written.
    stack : ExitStack or None
        Closes and removes the temporary files.
    """

    def __init__(
        self, song: SongStream, layer: str, features: Sequence[int], folder: Path | None,
        stack: ExitStack | None,
    ) -> None:
        self._song, self._layer, self._features = song, layer, features
        self._files: _Files | None = None
        if folder is not None and stack is not None:
            folder.mkdir()
            self._files = _Files(folder, *(
                stack.enter_context(Blocks(folder / f".{name}"))
                for name in ("sounds", "heard", "maps")
            ))
        count = len(features)
        self._columns: list[NDArray[np.intp]] = []
        self._joiner, self._numbers = Joiner(), SongNumbers(count)
        self._energies, self._peaks, self._nonzero = (np.zeros(count) for _ in range(3))
        self._bins = np.zeros((count, song.windows.song.frontend.transform.bins))
        self._reference = 0.0

    def add(
        self, frames: Frames, listener: Listener, maps: FloatArray, share: float
    ) -> None:
        """Add the maps (K, C, H, W) of the next window, from which `share` of the song is heard."""
        song, clip = self._song, frames.clip
        sounds = auralise(clip, maps, mode=song.mode, num_threads=song.threads)
        finished = self._joiner.add(frames.window, sounds)
        self._energies += np.square(finished, dtype=np.float64).sum(axis=1)
        self._peaks = np.maximum(self._peaks, np.abs(finished).max(axis=1, initial=0.0))
        self._nonzero += share * np.count_nonzero(maps, axis=(1, 2, 3)) / np.prod(maps.shape[1:])
        planes = clip.weights(maps, song.mode)
        self._numbers.add(listener.measure(planes[:, frames.crop]))
        if self._files is not None:
            self._files.sounds.append(finished)
            own = planes[:, frames.first : frames.end]
            self._draw(self._files, frames, own, clip.stft[:, frames.first : frames.end])

    def _draw(
        self, files: _Files, frames: Frames, planes: FloatArray, spectra: NDArray[np.complex64]
    ) -> None:
        song, count, stft = self._song, len(planes), np.abs(spectra).T
        shape = count, len(frames.columns), song.axis.rows
        heard, maps = np.empty(shape, np.float32), np.empty(shape, np.float32)

        size = max(1, _DRAWN // max(1, stft.size))

        def draw(block: int) -> None:
            part = slice(block * size, (block + 1) * size)
            own = planes[part]
            found = heard_magnitude(own, stft, song.mode)
            self._bins[part] += np.square(found, dtype=np.float64).sum(axis=1)
            heard[part] = frames.pooled(song.axis.loudest(found.transpose(2, 0, 1)))
            maps[part] = frames.pooled_signed(song.axis.nearest(own.transpose(2, 0, 1)))

        run_bands(-(-count // size), draw, song.threads)
        self._reference = max(self._reference, float(heard.max(initial=0.0)))
        self._columns.append(frames.columns)
        files.heard.append(heard)
        files.maps.append(maps)

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the table."""
        clip = self._song.numbers
        described = self._numbers.measured().described(self._features, clip)
        return [
            {
                "layer": self._layer,
                "feature": row["feature"],
                "energy": float(self._energies[i]),
                "peak": float(self._peaks[i]),
                "nonzero": float(self._nonzero[i]),
                "gain": peak_gain(float(self._peaks[i])),
                **row,
            }
            for i, row in enumerate(described)
        ]

    def write(self, rows: Sequence[dict[str, Any]]) -> Iterator[str]:
        """Write the files of one feature after another; yields the spectrum of each."""
        song, files = self._song, self._files
        assert files is not None
        for i, (k, row) in enumerate(zip(self._features, rows)):
            write_stream(
                files.folder / f"feature_{k}.{song.format}", files.sounds.row(i),
                song.windows.song.sr, row["gain"],
            )
            heard = self._picture(files.heard, i)
            write_png(files.folder / f"feature_{k}.png", levels(heard, self._reference))
            maps = self._picture(files.maps, i)
            write_png(files.folder / f"map_{k}.png", signed_levels(maps), signed=True)
            yield spectrum(song.axis, self._bins[i])

    def _picture(self, blocks: Blocks, number: int) -> FloatArray:
        picture = np.zeros((self._song.axis.rows, self._song.columns), np.float32)
        for columns, block in zip(self._columns, blocks.row(number)):
            put(picture, columns, block)
        return picture


def put(picture: FloatArray, columns: NDArray[np.intp], block: FloatArray) -> None:
    """Put columns (n, rows) into a picture; of two values at one place the larger size stays."""
    there, new = picture[:, columns], block.T
    picture[:, columns] = np.where(np.abs(new) > np.abs(there), new, there)
