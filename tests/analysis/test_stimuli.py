"""Stimuli: what the rendered chords sound like, and every way a table of sounds can be bad."""

from __future__ import annotations

import os
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import soundfile

from fastdeconv import AudioError, Frontend, ParameterError, load_clip
from fastdeconv.analysis import stimuli as module
from fastdeconv.analysis.stimuli import (
    CHORDS,
    INSTRUMENTS,
    ROOTS,
    Stimulus,
    chord_stimuli,
    cut_clips,
    read_stimuli,
)

SR = 11025
FRONTEND = Frontend(sr=SR, n_fft=512, hop_length=256)
NUMPY = INSTRUMENTS["numpy"]


def rendered(root="C", chord="maj", octave=4, instrument="piano", frontend=FRONTEND, **options):
    (stimulus,) = chord_stimuli([root], [chord], [octave], [instrument], **options)
    return stimulus.clip(frontend).samples


def level(samples, start, length=0.1):
    """Root mean square of a stretch of seconds."""
    part = samples[round(start * SR) : round((start + length) * SR)].astype(np.float64)
    return np.sqrt(np.mean(part**2))


def spectrum(samples):
    """Frequencies and magnitudes of the first stroke, finely sampled."""
    part = samples[round(0.1 * SR) : 2 * SR]
    size = 1 << 17
    return np.fft.rfftfreq(size, 1 / SR), np.abs(np.fft.rfft(part * np.hanning(part.size), size))


# --- which there are -----------------------------------------------------------------------


def test_by_default_there_are_480_with_names_of_their_own():
    stimuli = chord_stimuli()
    assert len(stimuli) == len({stimulus.name for stimulus in stimuli}) == 480
    assert len({tuple(stimulus.attributes.values()) for stimulus in stimuli}) == 480
    assert stimuli[0].name == "C-maj-3-piano"


def test_a_name_is_made_of_the_attributes():
    (stimulus,) = chord_stimuli(["C#"], ["min"], [4], ["guitar"])
    assert stimulus.name == "C#-min-4-guitar"
    assert stimulus.attributes == {
        "root": "C#", "chord": "min", "octave": "4", "instrument": "guitar"
    }
    with pytest.raises(FrozenInstanceError):
        stimulus.name = "other"


def test_lists_may_be_any_iterables_and_octaves_of_numpy():
    stimuli = chord_stimuli("A", iter(["5"]), np.array([2, 3]), ("organ",))
    assert [stimulus.name for stimulus in stimuli] == ["A-5-2-organ", "A-5-3-organ"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"roots": ["H"]}, "roots: unknown 'H'; possible values: C, C#, D, .*, B"),
        ({"chords": ["sus9"]}, "chords: unknown 'sus9'; possible values: maj, min, .*dim7, 5"),
        ({"octaves": [4, 9]}, "octaves: unknown 9; possible values: 1, 2, 3, 4, 5, 6"),
        ({"octaves": ["4"]}, "octaves: unknown '4'"),
        ({"octaves": [True]}, "octaves: unknown True"),
        ({"octaves": [4.0]}, "octaves: unknown 4.0"),
        ({"octaves": [[4]]}, r"octaves: unknown \[4\]"),
        ({"octaves": 4}, "octaves must be a list, found 4; possible values: 1, 2"),
        ({"instruments": ["kazoo"]}, "instruments: unknown 'kazoo'; possible values: piano, organ"),
        ({"instruments": ["flute"]}, "instruments: unknown 'flute'"),
        ({"roots": []}, "roots must not be empty; possible values: C, C#"),
        ({"chords": ["maj", "min", "maj"]}, "chords: 'maj' is listed twice"),
        ({"seconds": 0.4}, "seconds must be from 0.5 to 600, found 0.4"),
        ({"seconds": 601}, "seconds must be from 0.5 to 600"),
        ({"seconds": float("nan")}, "seconds must be a finite number"),
        ({"seconds": "4"}, "seconds must be a finite number"),
        ({"renderer": "midi"}, "renderer must be one of numpy, fluidsynth, found 'midi'"),
        ({"renderer": ["numpy"]}, "renderer must be one of"),
        ({"soundfont": "font.sf2"}, "soundfont is for the renderer 'fluidsynth'"),
        ({"renderer": "fluidsynth", "soundfont": 3}, "soundfont must be a path, found 3"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(bad, message):
    with pytest.raises(ParameterError, match=message):
        chord_stimuli(**bad)


# --- how they sound ------------------------------------------------------------------------


@pytest.mark.parametrize("instrument", NUMPY)
@pytest.mark.parametrize("chord", CHORDS)
@pytest.mark.parametrize(("root", "octave"), [("C", 4), ("A", 3)])
def test_the_notes_of_the_chord_are_heard_at_their_pitch(root, octave, chord, instrument):
    frequencies, magnitudes = spectrum(rendered(root, chord, octave, instrument))
    base = {("C", 4): 261.626, ("A", 3): 220.0}[root, octave]
    semitones = 12 * np.log2(np.maximum(frequencies, 1) / base)
    for step in CHORDS[chord]:
        near = np.abs(semitones - step) < 0.45
        peak = semitones[near][np.argmax(magnitudes[near])]
        assert abs(peak - step) < 0.08
        assert magnitudes[near].max() > 0.05 * magnitudes.max()
    # Nothing is as loud between the fundamentals: the notes are these and no others.
    for step in set(range(12)) - set(CHORDS[chord]):
        near = np.abs(semitones - step) < 0.3
        assert magnitudes[near].max() < 0.12 * magnitudes.max()


@pytest.mark.parametrize("instrument", NUMPY)
def test_a_stimulus_is_silent_then_struck_at_a_tenth_and_half_way(instrument):
    samples = rendered(instrument=instrument)
    first, second = round(0.1 * SR), 2 * SR
    assert samples.size == 4 * SR
    assert not samples[:first].any()
    for onset in (first, second):
        assert np.abs(samples[onset : onset + 400]).max() > 0.02
    # The first stroke is let go before the second, which begins as the first did.
    assert np.abs(samples[second - 20 : second]).max() < 0.05
    np.testing.assert_array_equal(
        samples[second : second + SR], samples[first : first + SR]
    )


@pytest.mark.parametrize("instrument", NUMPY)
def test_length_and_strokes_follow_seconds_and_the_rate(instrument):
    frontend = Frontend(sr=22050, n_fft=512, hop_length=256)
    samples = rendered(instrument=instrument, frontend=frontend, seconds=1.0)
    assert samples.size == 22050
    assert not samples[:2205].any()
    np.testing.assert_array_equal(samples[11025:15000], samples[2205:6180])


def test_piano_and_guitar_die_away_organ_and_strings_last():
    for instrument in ("piano", "guitar"):
        samples = rendered(instrument=instrument)
        assert level(samples, 1.7) < 0.3 * level(samples, 0.15)
    for instrument in ("organ", "strings"):
        samples = rendered(instrument=instrument)
        assert level(samples, 1.5, 0.4) > 0.6 * level(samples, 0.4, 0.4)


def test_strings_begin_slowly_the_others_at_once():
    def begun(instrument):
        samples = rendered(instrument=instrument)
        return level(samples, 0.1, 0.03) / max(level(samples, at) for at in np.arange(0.1, 1, 0.1))

    assert begun("strings") < 0.4
    assert all(begun(instrument) > 0.6 for instrument in ("piano", "organ", "guitar"))


def test_no_two_instruments_have_the_same_spectrum():
    shapes = []
    for instrument in NUMPY:
        bands = rendered(instrument=instrument)[SR // 10 : 2 * SR]
        power = np.abs(np.fft.rfft(bands))[: 80 * 64].reshape(80, -1).sum(axis=1)
        shapes.append(power / np.linalg.norm(power))
    likeness = np.array(shapes) @ np.array(shapes).T
    assert likeness[np.triu_indices(len(NUMPY), 1)].max() < 0.98


@pytest.mark.parametrize("instrument", NUMPY)
@pytest.mark.parametrize("octave", [1, 3, 6])
def test_a_stimulus_is_loud_enough_and_has_nothing_near_half_the_rate(octave, instrument):
    samples = rendered(octave=octave, instrument=instrument)
    assert np.isfinite(samples).all()
    assert np.abs(samples).max() == pytest.approx(0.5, abs=1e-6)
    frequencies, magnitudes = spectrum(samples)
    assert magnitudes[frequencies > 0.46 * SR].max() < 1e-3 * magnitudes.max()


@pytest.mark.parametrize("instrument", NUMPY)
def test_a_stimulus_is_the_same_bits_whatever_came_before(instrument):
    first = rendered("E", "7", 3, instrument)
    state = np.random.get_state()[1].copy()
    rendered("F", "aug", 3, instrument)
    module._note.cache_clear()
    np.testing.assert_array_equal(rendered("E", "7", 3, instrument), first)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_notes_too_long_to_be_kept_are_the_same_bits(monkeypatch):
    kept = rendered()
    monkeypatch.setattr(module, "_MAX_KEPT", 0)
    np.testing.assert_array_equal(rendered(), kept)


def test_every_stimulus_of_the_default_is_different():
    frontend = Frontend(sr=SR, n_fft=512, hop_length=256, frames=20)
    sounds = {stimulus.clip(frontend).samples.tobytes() for stimulus in chord_stimuli(seconds=0.5)}
    assert len(sounds) == 480


def test_a_front_end_that_fixes_its_length_gets_it():
    frontend = Frontend(sr=SR, n_fft=512, hop_length=256, frames=173)
    (stimulus,) = chord_stimuli(ROOTS[:1], ["maj"], [4], ["organ"])
    assert stimulus.clip(frontend).x.shape == (1, 257, 173)


def test_a_front_end_that_cannot_serve_is_refused():
    (stimulus,) = chord_stimuli(["B"], ["maj7"], [6], ["organ"])
    with pytest.raises(ParameterError, match="must be a Frontend, found 11025"):
        stimulus.clip(11025)
    with pytest.raises(ParameterError, match=r"3729 Hz needs a sample rate .* sr = 8000"):
        stimulus.clip(Frontend(sr=8000))
    with pytest.raises(ParameterError, match="more than the limit of"):
        stimulus.clip(Frontend(sr=1e12))
    with pytest.raises(ParameterError, match="must be a Frontend, found None"):
        cut_clips("a.wav", None)


@pytest.mark.parametrize(("parts", "message"), [
    ((3, {}, len), "name of a stimulus must be a str, found 3"),
    (("a", [("k", "v")], len), "stimulus 'a': attributes must be a dict of str to str"),
    (("a", {1: "v"}, len), "stimulus 'a': attributes must be a dict of str to str"),
    (("a", {}, "a.wav"), "stimulus 'a': source must be a function .*, found 'a"),
])
def test_a_stimulus_of_other_types_is_refused(parts, message):
    with pytest.raises(ParameterError, match=message):
        Stimulus(*parts)


def test_a_source_that_makes_no_clip_is_named():
    stimulus = Stimulus("a", {"k": "v"}, lambda frontend: np.zeros(100))
    with pytest.raises(ParameterError, match="'a': source must return a Clip, found array"):
        stimulus.clip(FRONTEND)


# --- a sound font --------------------------------------------------------------------------


def test_without_pyfluidsynth_the_error_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "fluidsynth", None)
    font = tmp_path / "font.sf2"
    font.touch()
    with pytest.raises(ParameterError, match=r'pip install "fastdeconv\[fluidsynth\]".*Debian: '):
        chord_stimuli(renderer="fluidsynth", soundfont=font)


def test_without_a_sound_font_the_error_says_where_it_was_looked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_SOUND_FONTS", ("/nowhere/a.sf2", "/nowhere/b.sf2"))
    with pytest.raises(ParameterError, match=r"looked for /nowhere/a\.sf2, /nowhere/b\.sf2"):
        chord_stimuli(renderer="fluidsynth")
    with pytest.raises(FileNotFoundError, match=r"missing\.sf2"):
        chord_stimuli(renderer="fluidsynth", soundfont=tmp_path / "missing.sf2")


@pytest.fixture
def sound_font():
    try:
        import fluidsynth  # noqa: F401
    except ImportError as error:  # the package, or the library it loads
        pytest.skip(str(error))
    fonts = [font for font in module._SOUND_FONTS if module.Path(font).is_file()]
    return fonts[0] if fonts else pytest.skip("there is no sound font")


def test_fluidsynth_plays_the_notes_at_their_pitch_the_same_bits_twice(sound_font):
    stimuli = chord_stimuli(["A"], ["min"], [3], renderer="fluidsynth", soundfont=sound_font)
    sounds = [stimulus.clip(FRONTEND).samples for stimulus in stimuli]
    again = [stimulus.clip(FRONTEND).samples for stimulus in reversed(stimuli)]
    for samples, same in zip(sounds, reversed(again)):
        np.testing.assert_array_equal(samples, same)
        assert samples.size == 4 * SR
        assert np.abs(samples).max() == pytest.approx(0.5, abs=0.05)
        assert level(samples, 0) < 1e-3
        frequencies, magnitudes = spectrum(samples)
        semitones = 12 * np.log2(np.maximum(frequencies, 1) / 220.0)
        for step in CHORDS["min"]:
            near = np.abs(semitones - step) < 0.45
            assert abs(semitones[near][np.argmax(magnitudes[near])] - step) < 0.15
            assert magnitudes[near].max() > 0.02 * magnitudes.max()


def test_fluidsynth_plays_every_instrument_it_lists(sound_font):
    stimuli = chord_stimuli(
        ["C"], ["5"], [4], INSTRUMENTS["fluidsynth"], seconds=0.5, renderer="fluidsynth"
    )
    assert len({stimulus.clip(FRONTEND).samples.tobytes() for stimulus in stimuli}) == 10


def test_a_file_that_is_no_sound_font_is_refused_by_name(sound_font, tmp_path):
    font = tmp_path / "font.sf2"
    font.write_bytes(b"not a font" * 100)
    stimulus = chord_stimuli(renderer="fluidsynth", soundfont=font)[0]
    with pytest.raises(AudioError, match=r"font\.sf2: fluidsynth cannot read"):
        stimulus.clip(FRONTEND)


# --- a table of sounds ---------------------------------------------------------------------

SOUND = (0.1 * np.random.default_rng(0).standard_normal(3000)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.wav", "b.wav", "sub/c.wav"):
        soundfile.write(tmp_path / name, SOUND, SR, subtype="FLOAT")
    return tmp_path


def table(folder, text):
    path = folder / "attributes.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_table_gives_its_sounds_in_order_with_their_attributes(folder):
    path = table(folder, 'note, file ,singer\nA4, b.wav,Zoë\n\nC5,sub/c.wav,"Ann, Bo"\n')
    stimuli = read_stimuli(path)
    assert [stimulus.name for stimulus in stimuli] == ["b.wav", "sub/c.wav"]
    assert stimuli[0].attributes == {"note": "A4", "singer": "Zoë"}
    assert stimuli[1].attributes == {"note": "C5", "singer": "Ann, Bo"}
    for stimulus in stimuli:
        expected = load_clip(folder / stimulus.name, FRONTEND)
        np.testing.assert_array_equal(stimulus.clip(FRONTEND).samples, expected.samples)


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_folder_a_byte_order_mark_and_line_ends_of_windows_are_read(folder, ends):
    table(folder, "\ufeff" + ends.join(["file,note", "a.wav,A4", "b.wav,C5"]))
    assert [stimulus.attributes["note"] for stimulus in read_stimuli(str(folder))] == ["A4", "C5"]


def test_sounds_are_read_only_when_asked_for(folder):
    (folder / "a.wav").write_bytes(b"no sound")
    (stimulus,) = read_stimuli(table(folder, "file,note\na.wav,A4\n"))
    with pytest.raises(AudioError, match=r"a\.wav: not an audio file"):
        stimulus.clip(FRONTEND)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the header must have a column 'file' .*found nothing"),
        ("\n\n", "the header must have a column 'file' .*found nothing"),
        ("name,note\na.wav,A4\n", "the header must have .*found 'name', 'note'"),
        ("file,note,note\na.wav,A4,A4\n", "different names"),
        ("file,file,note\na.wav,a.wav,A4\n", "the header must have"),
        ("file,\na.wav,A4\n", "the header must have"),
        ("file\na.wav\n", "there is no attribute, only the column 'file'"),
        ("file,note\n", "there are no rows"),
        ("file,note\na.wav\n", "line 2: found 1 columns, the header has 2"),
        ("file,note\na.wav,A4\nb.wav,A4,x\n", "line 3: found 3 columns, the header has 2"),
        ("file,note\na.wav, \n", "line 2: column 'note' is empty"),
        ("file,note\n,A4\n", "line 2: column 'file' is empty"),
        ("file,note\na.wav,A4\nb.wav,A4\n", r'line 3: .* the same as in line 2\. Add .*"take"'),
        ('file,note\na.wav,"A4\n', "line 2: unexpected end of data"),
        ('file,note\na.wav,"A"4\n', "line 2: "),
        ("file,note\n/etc/passwd,A4\n", "line 2, column 'file': '/etc/passwd' leaves the folder"),
        ("file,note\n../a.wav,A4\n", r"line 2, column 'file': '\.\./a\.wav' leaves the folder"),
        ("file,note\nsub/../../a.wav,A4\n", "leaves the folder"),
        ("file,note\n..\\a.wav,A4\n", "leaves the folder"),
        ("file,note\nC:\\a.wav,A4\n", "leaves the folder"),
        ("file,note\n\\\\host\\share\\a.wav,A4\n", "leaves the folder"),
        ("file,note\nsub,A4\n", "line 2, column 'file': 'sub' is a folder"),
        ("file,note\n.,A4\n", "line 2, column 'file': '.' is a folder"),
        ("file,note\na.wav\0,A4\n", "not a text file"),
        (b"RIFF\x24\0\0\0WAVEfmt \xff\xfe", "not a text file"),
        (b"file,note\na.wav,\xe9\n", "not UTF-8 at byte 16"),
        ("\ufefffile,note\na.wav,A4\n".encode("utf-16-le"), "the text is UTF-16; save it as UTF-8"),
        ("file,note\n" + "x" * 5000 + ",A4\n", "line 2, column 'file': 'xxx.*[Nn]ame too long"),
        ("file,note\na.wav," + "x" * 200_000 + "\n", "line 2: field larger than field limit"),
    ],
)
def test_a_bad_table_is_refused_with_its_name_and_the_line(folder, text, message):
    with pytest.raises(ParameterError, match=message) as caught:
        read_stimuli(table(folder, text))
    assert str(folder / "attributes.csv") in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_table_too_large_is_refused(folder, monkeypatch):
    monkeypatch.setattr(module, "_MAX_CSV_BYTES", 1 << 20)
    with pytest.raises(ParameterError, match=r"attributes\.csv: larger than 1 MB"):
        read_stimuli(table(folder, "file,note\n" + "a.wav,A4\n" * 150_000))


def test_what_is_missing_stays_file_not_found(folder):
    with pytest.raises(FileNotFoundError, match=r"nothing\.csv"):
        read_stimuli(folder / "nothing.csv")
    with pytest.raises(FileNotFoundError, match=r"attributes\.csv"):
        read_stimuli(folder)
    with pytest.raises(FileNotFoundError, match=r"attributes\.csv, line 3, .*'file'.*d\.wav"):
        read_stimuli(table(folder, "file,note\na.wav,A4\nd.wav,C5\n"))


def test_a_path_that_cannot_be_opened_is_refused(folder):
    with pytest.raises(ParameterError, match=r"a\.wav/attributes\.csv: Not a directory"):
        read_stimuli(folder / "a.wav" / "attributes.csv")
    with pytest.raises(ParameterError, match=r"attributes\\x00\.csv: .*embedded null"):
        read_stimuli("attributes\0.csv")
    os.mkfifo(folder / "pipe.csv")
    with pytest.raises(ParameterError, match=r"pipe\.csv: a pipe, not a regular file"):
        read_stimuli(folder / "pipe.csv")
    with pytest.raises(ParameterError, match="path must be a CSV file or a folder, found 3"):
        read_stimuli(3)
