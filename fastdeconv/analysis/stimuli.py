"""Sounds with known attributes: rendered chords, or the user's own.

A chord is struck at 0.1 s and again at half the length, so that every stimulus has onsets and
sustained parts. By default the notes are computed here in NumPy; they are always the same:

=========  ==================================================================
piano      decaying partials, slightly sharp as on stiff strings; quick attack
organ      steady harmonics of seven drawbars; quick attack and release
strings    sawtooth of three slightly detuned players; slow attack, steady
guitar     plucked string (Karplus and Strong 1983): bright attack, decays
=========  ==================================================================

``renderer="fluidsynth"`` plays a sound font instead.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import product
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..audio._checks import as_choice, as_number
from ..audio.clip import Clip, load_clip
from ..audio.frontend import Frontend
from ..audio.reading import MAX_SAMPLES
from ..errors import AudioError, ParameterError, shown
from ..files import read_table

__all__ = [
    "CHORDS", "INSTRUMENTS", "OCTAVES", "ROOTS", "Stimulus", "chord_stimuli", "cut_clips",
    "read_stimuli",
]

Samples = NDArray[np.float32]

ROOTS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
#: Semitones above the root.
CHORDS = {
    "maj": (0, 4, 7), "min": (0, 3, 7), "dim": (0, 3, 6), "aug": (0, 4, 8), "7": (0, 4, 7, 10),
    "sus4": (0, 5, 7), "maj7": (0, 4, 7, 11), "min7": (0, 3, 7, 10), "dim7": (0, 3, 6, 9),
    "5": (0, 7),
}
#: As in scientific pitch notation: C4 is middle C, MIDI note 60.
OCTAVES = (1, 2, 3, 4, 5, 6)
# General MIDI programs, from 0.
_PROGRAMS = {
    "piano": 0, "organ": 19, "strings": 48, "guitar": 24, "harpsichord": 6, "vibraphone": 11,
    "choir": 52, "trumpet": 56, "clarinet": 71, "flute": 73,
}
#: What each renderer plays.
INSTRUMENTS = {
    "numpy": ("piano", "organ", "strings", "guitar"),
    "fluidsynth": tuple(_PROGRAMS),
}

_FIRST_STROKE = 0.1
_RELEASE = 0.02
_PEAK = 0.5
_MIDDLE_C = 60
_GUARD = 0.45
"""Partials above this share of the sample rate are left out."""
_MIN_SECONDS = 0.5
_MAX_SECONDS = 600
_MAX_KEPT = 1 << 17
"""Longest note, in samples, that is cached: a full cache takes 100 MB."""
_MAX_CSV_BYTES = 1 << 24
_TABLE = "attributes.csv"
_SOUND_FONTS = (
    "/usr/share/sounds/sf2/FluidR3_GM.sf2",
    "/usr/share/sounds/sf2/default-GM.sf2",
    "/usr/share/sounds/sf3/default-GM.sf3",
    "/usr/share/soundfonts/FluidR3_GM.sf2",
    "/usr/share/soundfonts/default.sf2",
)
_FLUIDSYNTH_RATE = 44100
_FLUIDSYNTH_SETTINGS = {
    "synth.reverb.active": 0,
    "synth.chorus.active": 0,
    # Read only the samples of the program that is played; a large sound font takes a second.
    "synth.dynamic-sample-loading": 1,
}


@dataclass(frozen=True)
class Stimulus:
    """A sound with attributes, which is made or read on request.

    Attributes
    ----------
    name : str
    attributes : dict of str to str
        Such as ``{"root": "C#", "chord": "min", "octave": "4", "instrument": "guitar"}``.
    source : callable
        Called with a `Frontend`; returns the `Clip`.

    Raises
    ------
    ParameterError
        If one of them has another type.
    """

    name: str
    attributes: Mapping[str, str]
    source: Callable[[Frontend], Clip] = field(repr=False)

    def __post_init__(self) -> None:
        # A user may have made it, and messages quote the name.
        if not isinstance(self.name, str):
            raise ParameterError(f"name of a stimulus must be a str, found {shown(self.name)}")
        where = f"stimulus {shown(self.name)}"
        if not isinstance(self.attributes, Mapping) or not all(
            isinstance(key, str) for key in self.attributes
        ):
            raise ParameterError(
                f"{where}: attributes must be a dict of str to str, found {shown(self.attributes)}"
            )
        if not callable(self.source):
            raise ParameterError(
                f"{where}: source must be a function from Frontend to Clip, found "
                f"{shown(self.source)}"
            )

    def clip(self, frontend: Frontend) -> Clip:
        """The sound as a network with that front end sees it. It is made anew by every call.

        Parameters
        ----------
        frontend : Frontend

        Returns
        -------
        Clip

        Raises
        ------
        ParameterError
            If `frontend` is not a `Frontend`, its sample rate is too low for a note, or `source`
            does not return a `Clip`.
        AudioError
            If a file cannot be read, or a sound font has no sound for the instrument.
        """
        clip = self.source(_checked(frontend))
        if not isinstance(clip, Clip):
            raise ParameterError(
                f"stimulus {shown(self.name)}: source must return a Clip, found {shown(clip)}"
            )
        return clip


def chord_stimuli(
    roots: Iterable[str] = ROOTS,
    chords: Iterable[str] = ("maj", "min", "dim", "aug", "7"),
    octaves: Iterable[int] = (3, 4),
    instruments: Iterable[str] = INSTRUMENTS["numpy"],
    *,
    seconds: float = 4.0,
    renderer: Literal["numpy", "fluidsynth"] = "numpy",
    soundfont: str | os.PathLike[str] | None = None,
) -> list[Stimulus]:
    """Chords in every combination of root, type, octave and instrument.

    The default is 12 x 5 x 2 x 4 = 480 stimuli of 4 s, each struck at 0.1 s and again at 2 s.

    Parameters
    ----------
    roots : iterable of str
        Some of "C", "C#", ... "B".
    chords : iterable of str
        Some of `CHORDS`: maj, min, dim, aug, 7, sus4, maj7, min7, dim7, 5.
    octaves : iterable of int
        1 to 6. The roots of octave 4 are middle C and the eleven notes above it.
    instruments : iterable of str
        Some of `INSTRUMENTS` of the renderer: piano, organ, strings, guitar; with fluidsynth also
        harpsichord, vibraphone, choir, trumpet, clarinet, flute.
    seconds : float
        Length of each stimulus, 0.5 to 600.
    renderer : {"numpy", "fluidsynth"}
        ``"fluidsynth"`` needs the extra ``fastdeconv[fluidsynth]``, the library and a General
        MIDI sound font. Reverb and chorus are off.
    soundfont : str or path, optional
        Default: the first sound font in the usual folders of Debian and Fedora.

    Returns
    -------
    list of Stimulus
        With the attributes "root", "chord", "octave" and "instrument"; the instrument changes
        fastest.

    Raises
    ------
    ParameterError
        If a value is unknown or listed twice, a list is empty, or the renderer is not installed.
    FileNotFoundError
        If `soundfont` does not exist.

    Examples
    --------
    >>> from fastdeconv.analysis.stimuli import chord_stimuli
    >>> stimuli = chord_stimuli(roots=["C", "C#"], octaves=[4])
    >>> len(stimuli), stimuli[-1].name
    (40, 'C#-7-4-guitar')
    """
    as_choice("renderer", renderer, INSTRUMENTS)
    lists = {
        "roots": _chosen("roots", roots, ROOTS),
        "chords": _chosen("chords", chords, CHORDS),
        "octaves": _chosen("octaves", octaves, OCTAVES),
        "instruments": _chosen("instruments", instruments, INSTRUMENTS[renderer]),
    }
    length = as_number("seconds", seconds)
    if not _MIN_SECONDS <= length <= _MAX_SECONDS:
        raise ParameterError(
            f"seconds must be from {_MIN_SECONDS} to {_MAX_SECONDS}, found {length:g}"
        )
    render = _renderer(renderer, soundfont)

    def stimulus(root: str, chord: str, octave: int, instrument: str) -> Stimulus:
        lowest = _MIDDLE_C + 12 * (octave - 4) + ROOTS.index(root)
        notes = [lowest + step for step in CHORDS[chord]]

        def source(frontend: Frontend) -> Clip:
            samples, sr = render(instrument, notes, length, frontend.sr)
            return Clip(samples * np.float32(_PEAK / np.abs(samples).max()), sr, frontend)

        attributes = {
            "root": root, "chord": chord, "octave": str(octave), "instrument": instrument
        }
        return Stimulus("-".join(attributes.values()), attributes, source)

    return [stimulus(*values) for values in product(*lists.values())]


def read_stimuli(path: str | os.PathLike[str]) -> list[Stimulus]:
    r"""Read the user's sounds, which a CSV file lists with their attributes.

    Parameters
    ----------
    path : str or path
        A CSV file (UTF-8, with a header), or a folder with a file ``attributes.csv``. The column
        ``file`` has paths relative to the folder of the CSV file. Every other column is an
        attribute.

    Returns
    -------
    list of Stimulus
        In the order of the CSV file. The name of a stimulus is that of its file.

    Raises
    ------
    ParameterError
        If the table is not as described, a path leaves the folder, or two rows agree in every
        attribute. The message names the file, the line and the column.
    FileNotFoundError
        If the table or a sound does not exist.

    Examples
    --------
    >>> import numpy as np, soundfile, fastdeconv as fd
    >>> from pathlib import Path
    >>> for vowel in "ao":
    ...     soundfile.write(f"{vowel}.wav", np.zeros(8000), 8000)
    >>> _ = Path("attributes.csv").write_text("file,vowel\na.wav,a\no.wav,o\n")
    >>> [(sound.name, sound.attributes) for sound in fd.read_stimuli(".")]
    [('a.wav', {'vowel': 'a'}), ('o.wav', {'vowel': 'o'})]
    """
    if not isinstance(path, (str, os.PathLike)):
        raise ParameterError(f"path must be a CSV file or a folder, found {shown(path)}")
    table = Path(path)
    if table.is_dir():
        table = table / _TABLE
    seen: dict[tuple[str, ...], int] = {}
    stimuli = []
    for line, file, attributes in _rows(table):
        where = f"{table}, line {line}"
        earlier = seen.setdefault(tuple(attributes.values()), line)
        if earlier != line:
            raise ParameterError(
                f"{where}: the attributes are the same as in line {earlier}. Add a column that "
                'tells the two apart, such as "take"'
            )
        sound = _inside(table.parent, file, where)
        stimuli.append(Stimulus(file, attributes, _reader(sound)))
    return stimuli


def cut_clips(path: str | os.PathLike[str], frontend: Frontend) -> list[Clip]:
    """Cut a sound into consecutive clips of the length that the front end fixes.

    A rest that is shorter than a clip is left out, but a sound that is shorter than one clip is
    padded to one. If the front end does not fix `frames`, the whole sound is one clip.

    Parameters
    ----------
    path : path
    frontend : Frontend

    Returns
    -------
    list of Clip

    Raises
    ------
    AudioError, FileNotFoundError
        See `load_clip`.
    """
    _checked(frontend)
    if frontend.frames is None:
        return [load_clip(path, frontend)]
    samples = load_clip(path, replace(frontend, frames=None)).samples
    length = frontend.framing.shortest(frontend.frames)
    count = max(1, samples.size // length)
    return [
        Clip(samples[i * length : (i + 1) * length], frontend.sr, frontend) for i in range(count)
    ]


def _checked(frontend: Any) -> Frontend:
    if not isinstance(frontend, Frontend):
        raise ParameterError(f"the front end must be a Frontend, found {shown(frontend)}")
    return frontend


def _chosen(key: str, values: Any, known: Iterable[Any]) -> list[Any]:
    """The items of `known` that `values` names, in the order of `values`."""
    there = list(known)
    takes = f"possible values: {', '.join(map(str, there))}"
    try:
        given = [values] if isinstance(values, str) else list(values)
    except TypeError:
        raise ParameterError(f"{key} must be a list, found {shown(values)}; {takes}") from None
    if not given:
        raise ParameterError(f"{key} must not be empty; {takes}")
    chosen: list[Any] = []
    for value in given:
        if not isinstance(value, (str, int, np.integer)) or isinstance(value, bool) or (
            value not in there
        ):
            raise ParameterError(f"{key}: unknown {shown(value)}; {takes}")
        if value in chosen:
            raise ParameterError(f"{key}: {shown(value)} is listed twice")
        # The known value, so that NumPy's int gives a stimulus the same name as Python's.
        chosen.append(there[there.index(value)])
    return chosen


# --- a table of sounds ---------------------------------------------------------------------


def _reader(path: Path) -> Callable[[Frontend], Clip]:
    return lambda frontend: load_clip(path, frontend)


def _rows(table: Path) -> Iterator[tuple[int, str, dict[str, str]]]:
    """The line, the file and the attributes of every row."""
    lines = read_table(table, _MAX_CSV_BYTES)
    _, header = next(lines)
    if header.count("file") != 1 or len(set(header)) < len(header) or "" in header:
        raise ParameterError(
            f"{table}: the header must have a column 'file' and attributes, all with "
            f"different names; found {', '.join(map(shown, header)) or 'nothing'}"
        )
    if len(header) < 2:
        raise ParameterError(f"{table}: there is no attribute, only the column 'file'")
    count = 0
    for line, row in lines:
        count += 1
        yield line, *_row(row, header, f"{table}, line {line}")
    if not count:
        raise ParameterError(f"{table}: there are no rows")


def _row(row: list[str], header: list[str], where: str) -> tuple[str, dict[str, str]]:
    if len(row) != len(header):
        raise ParameterError(f"{where}: found {len(row)} columns, the header has {len(header)}")
    attributes = {name: value.strip() for name, value in zip(header, row)}
    for name, value in attributes.items():
        if not value:
            raise ParameterError(f"{where}: column {shown(name)} is empty")
    return attributes.pop("file"), attributes


def _inside(folder: Path, file: str, where: str) -> Path:
    where = f"{where}, column 'file'"
    # Also as Windows would read it, so that a table means the same everywhere.
    windows = PureWindowsPath(file)
    outside = Path(file).is_absolute() or windows.drive or windows.root
    if outside or ".." in (*Path(file).parts, *windows.parts):
        raise ParameterError(f"{where}: {shown(file)} leaves the folder of the table")
    sound = folder / file
    try:
        is_folder, there = sound.is_dir(), sound.exists()
    except OSError as error:  # for instance a name that is too long
        raise ParameterError(f"{where}: {shown(file)}: {error.strerror}") from None
    if is_folder:
        raise ParameterError(f"{where}: {shown(file)} is a folder, not an audio file")
    if not there:
        raise FileNotFoundError(errno.ENOENT, f"{where}: there is no such file", str(sound))
    return sound


# --- rendering -----------------------------------------------------------------------------

# From (instrument, notes, seconds, wanted sample rate) to samples and their sample rate.
_Render = Callable[[str, Sequence[int], float, float], tuple[Samples, float]]


def _renderer(name: str, soundfont: str | os.PathLike[str] | None) -> _Render:
    if name == "fluidsynth":
        return _fluidsynth(_sound_font(soundfont))
    if soundfont is not None:
        raise ParameterError("soundfont is for the renderer 'fluidsynth'")
    return _render_numpy


def _render_numpy(
    instrument: str, notes: Sequence[int], seconds: float, sr: float
) -> tuple[Samples, float]:
    _check_rate(notes, seconds, sr)
    out = np.zeros(round(seconds * sr))
    strokes = [(round(start * sr), round(end * sr)) for start, end in _strokes(seconds)]
    longest = max(last - first for first, last in strokes)
    make = _note if longest <= _MAX_KEPT else _note.__wrapped__
    chord = np.sum([make(instrument, note, longest, sr) for note in notes], axis=0)
    for first, last in strokes:
        left = last - first - np.arange(last - first)
        out[first:last] = chord[: last - first] * np.minimum(1, left / (_RELEASE * sr))
    return out.astype(np.float32), sr


def _check_rate(notes: Sequence[int], seconds: float, sr: float) -> None:
    highest = _frequency(max(notes))
    if highest >= _GUARD * sr:
        raise ParameterError(
            f"a note of {highest:.0f} Hz needs a sample rate above {highest / _GUARD:.0f} Hz, "
            f"found sr = {sr:g}"
        )
    if seconds * sr > MAX_SAMPLES:
        raise ParameterError(
            f"{seconds:g} s at {sr:g} Hz are more than the limit of {MAX_SAMPLES} samples"
        )


def _frequency(note: int) -> float:
    """The frequency of a MIDI note in Hz."""
    return float(440 * 2 ** ((note - 69) / 12))


def _strokes(seconds: float) -> list[tuple[float, float]]:
    half = seconds / 2
    return [(_FIRST_STROKE, half), (half, seconds)]


@lru_cache(maxsize=192)
def _note(instrument: str, note: int, count: int, sr: float) -> Samples:
    """One note, held to its end. All notes have the same energy."""
    sound = _SYNTHESISERS[instrument](_frequency(note), np.arange(count) / sr, sr, note)
    result: Samples = (sound / np.sqrt(np.mean(np.square(sound)))).astype(np.float32)
    result.flags.writeable = False
    return result


def _partials(
    frequencies: NDArray[Any], sizes: NDArray[Any], t: NDArray[Any], sr: float,
    decays: NDArray[Any] | None = None, phases: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """The sum of decaying sines at times `t`, without those near half the sample rate.

    The other arrays have one value for each partial.
    """
    out = np.zeros(len(t))
    for k in np.flatnonzero(frequencies < _GUARD * sr):
        start = 0.0 if phases is None else phases[k]
        sine = np.sin(2 * np.pi * frequencies[k] * t + start)
        out += sizes[k] * (sine if decays is None else sine * np.exp(-decays[k] * t))
    return out


def _piano(frequency: float, t: NDArray[Any], sr: float, note: int) -> NDArray[Any]:
    n = np.arange(1, 25)
    stretched = frequency * n * np.sqrt(1 + 4e-4 * n**2)
    decays = 0.7 + 0.5 * n * np.sqrt(frequency / 262)
    # The hammer strikes at an eighth of the string, where every eighth partial has a node.
    sizes = np.exp(-0.25 * (n - 1)) * (n % 8 != 0)
    return _partials(stretched, sizes, t, sr, decays) * np.minimum(1, t / 0.004)


def _organ(frequency: float, t: NDArray[Any], sr: float, note: int) -> NDArray[Any]:
    # Without the drawbars 16' and 5 1/3', which would add another octave and fifths to the chord.
    drawbars = np.array([1, 2, 3, 4, 5, 6, 8])
    sizes = np.array([1, 0.8, 0.5, 0.5, 0.2, 0.2, 0.3])
    sound = _partials(frequency * drawbars, sizes, t, sr)
    return sound * np.minimum(1, t / 0.01)


def _strings(frequency: float, t: NDArray[Any], sr: float, note: int) -> NDArray[Any]:
    n = np.arange(1, 41)
    sizes = np.exp(-0.03 * n) / n
    players = [(-0.0035, 5.1), (0.0, 5.6), (0.0031, 4.7)]  # relative detuning, vibrato in Hz
    sound = sum(
        _partials(
            frequency * (1 + detune) * n, sizes,
            t + 0.002 / (2 * np.pi * rate) * np.sin(2 * np.pi * rate * t), sr,
            # Different phases above the fundamental: otherwise all partials would beat together.
            phases=2.4 * player * (n**2 - 1),
        )
        for player, (detune, rate) in enumerate(players)
    )
    return np.asarray(sound) * (1 - np.exp(-t / 0.12))


def _guitar(frequency: float, t: NDArray[Any], sr: float, note: int) -> NDArray[Any]:
    """The plucked string of Karplus and Strong: noise in a loop that averages neighbours.

    Computed harmonic by harmonic: in each period the loop multiplies the amplitude of a harmonic of
    frequency f by cos(pi f / sr). So the pitch is exact, while a real loop must be a whole number
    of samples long.
    """
    n = np.arange(1, int(_GUARD * sr / frequency) + 1)
    kept = np.cos(np.pi * frequency * n / sr) * 0.996
    decays = -np.log(kept) * frequency
    noise = np.random.Generator(np.random.PCG64(zlib.crc32(b"guitar") + note))
    # Plucked at 0.13 of its length. Random sizes around 1, so that no note lacks its fundamental.
    sizes = noise.uniform(0.5, 1.5, len(n)) * np.sin(np.pi * n * 0.13) / np.sqrt(n)
    return _partials(frequency * n, sizes, t, sr, decays, noise.uniform(0, 2 * np.pi, len(n)))


_SYNTHESISERS = {"piano": _piano, "organ": _organ, "strings": _strings, "guitar": _guitar}


def _sound_font(path: str | os.PathLike[str] | None) -> str:
    if path is not None:
        if not isinstance(path, (str, os.PathLike)):
            raise ParameterError(f"soundfont must be a path, found {shown(path)}")
        if not Path(path).is_file():
            raise FileNotFoundError(errno.ENOENT, "there is no sound font", os.fspath(path))
        return os.fspath(path)
    for usual in _SOUND_FONTS:
        if Path(usual).is_file():
            return usual
    raise ParameterError(
        "no sound font: looked for " + ", ".join(_SOUND_FONTS) + "; install one (Debian: "
        "fluid-soundfont-gm) or pass soundfont=..."
    )


def _fluidsynth(soundfont: str) -> _Render:
    try:
        import fluidsynth
    except (ImportError, OSError) as error:  # the package, or the library it loads
        raise ParameterError(
            "renderer 'fluidsynth' needs pip install \"fastdeconv[fluidsynth]\", the library and a "
            f"sound font (Debian: fluidsynth, fluid-soundfont-gm): {error}"
        ) from None

    def render(
        instrument: str, notes: Sequence[int], seconds: float, sr: float
    ) -> tuple[Samples, float]:
        # A new synthesiser for each sound, so that nothing of the sound before rings on.
        synth = fluidsynth.Synth(0.2, float(_FLUIDSYNTH_RATE), **_FLUIDSYNTH_SETTINGS)
        try:
            font = synth.sfload(soundfont)
            if font == -1:
                raise AudioError(f"{soundfont}: fluidsynth cannot read this sound font")
            if synth.program_select(0, font, 0, _PROGRAMS[instrument]) == -1:
                raise AudioError(
                    f"{soundfont}: no {instrument} (General MIDI program "
                    f"{_PROGRAMS[instrument] + 1})"
                )
            sound = _played(synth, notes, seconds)
        finally:
            synth.delete()
        if not sound.any():
            raise AudioError(f"{soundfont}: {instrument} is silent")
        return sound, float(_FLUIDSYNTH_RATE)

    return render


def _played(synth: Any, notes: Sequence[int], seconds: float) -> Samples:
    total = round(seconds * _FLUIDSYNTH_RATE)
    first, second = (round(start * _FLUIDSYNTH_RATE) for start, _ in _strokes(seconds))
    parts = [np.zeros(2 * first, np.int16)]
    for count in (second - first, total - second):
        for note in notes:
            synth.noteon(0, note, 96)
        parts.append(synth.get_samples(count))
        for note in notes:
            synth.noteoff(0, note)
    stereo = np.concatenate(parts).reshape(-1, 2)
    return (stereo.mean(axis=1) / 32768).astype(np.float32)
