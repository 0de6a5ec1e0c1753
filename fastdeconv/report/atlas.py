"""``index.html`` of a survey: the atlas of a network, to see and hear.

It is figure 2 of Zeiler and Fergus (arXiv 1311.2901) for sound: for every feature the excerpts of a
whole collection at which it fires most, and what it hears in them. docs/atlas.md says what is on
the page and what that proves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np

from ..audio._checks import MODES, as_choice, as_int
from ..belief.trust import VERDICTS
from ..deconvnet.layerwise import RULES
from ..errors import AudioError, ParameterError, printable
from ..network.fingerprint import network_hash
from ..network.network import Network
from ..survey.surveying import Survey, as_workers
from ..version import __version__
from .atlas_content import page_data
from .atlas_excerpts import Excerpt, Settings, Studio
from .atlas_songs import Songs, songs_of
from .atlas_tables import Key, SurveyRecord, Tables, read_survey
from .atlas_trust import Verdicts, counts_of, read_verdicts
from .axis import FrequencyAxis
from .folder import as_folder, replace_file
from .listening import front_end_text
from .numbers import length_text
from .picture import RANGE_DB
from .sounds import check_format, encode
from .web import is_ours, render

__all__ = ["Atlas", "write_atlas"]

_SCRIPTS = (
    "page.js", "atlas_data.js", "player.js", "panel.js", "form.js", "atlas_cards.js",
    "atlas_detail.js", "keys.js", "start.js",
)
_STARTS = {"map": "the whole map", "max": "the strongest unit", "one": "1 everywhere"}
# How many tracks that are missing are named on the page; the result names all of them.
_NAMED = 20


class Atlas(NamedTuple):
    """What `write_atlas` wrote."""

    page: Path
    excerpts: int
    """How many excerpts the page has."""
    missing: dict[str, str]
    """Tracks from which an excerpt should have come but could not, and why. Spare excerpts of other
    tracks took their places."""
    judged: int
    """How many excerpts have a verdict."""
    unjudged: dict[str, str]
    """Tracks whose excerpts could not be judged, and why."""


def write_atlas(
    out: str | os.PathLike[str],
    net: Network | None = None,
    *,
    root: str | os.PathLike[str] | None = None,
    outside: bool = False,
    shown: int = 9,
    rule: str = "deconvnet",
    start: str = "map",
    mode: str = "mask",
    audio_format: str = "ogg",
    progress: Callable[[int, int], None] | None = None,
    trust: bool = False,
    executor: Executor | None = None,
    workers: int | None = None,
    trust_progress: Callable[[int, int], None] | None = None,
) -> Atlas:
    """Write ``out/index.html``, the atlas of a network, and its sounds and pictures.

    What is there already is not made again, so a run that was interrupted continues where it
    stopped. Files of excerpts that are not shown any more are removed.

    Parameters
    ----------
    out : path
        The folder of a survey whose tables are made.
    net : Network, optional
        The network that the survey was made with. Default: the copy in the survey's folder.
    root : path, optional
        Where the tracks are now. Default: where they were for the survey.
    outside : bool
        Whether tracks may lie outside of `root`, as those of a list of paths do. Allow it only
        for a survey that you made yourself: the page has excerpts of any file its tables name.
    shown : int
        How many excerpts of each feature are shown, 1 to 100. The survey has spare ones for
        excerpts that cannot be made.
    rule, start, mode
        How a feature is projected and heard; see `fastdeconv.explain`.
    audio_format : {"ogg", "wav", "flac"}
        Format of the sounds. wav is written instead if the network's sample rate or this
        machine's libsndfile does not allow it.
    progress : callable, optional
        Called with (excerpts that are done, excerpts in all).
    trust : bool
        Whether to measure for every excerpt how far to believe it; see `Explanation.trust` and
        docs/believe.md. For every window that excerpts are from, this needs the sounds of all
        features of the layer and of those of an untrained network. docs/atlas.md says how long
        that takes and what it does not prove. Verdicts from an earlier call are always shown.
    executor, workers
        What computes the verdicts, as in `fastdeconv.survey`. By default these are processes of
        this machine, so a script has to make the call below ``if __name__ == "__main__":``.
    trust_progress : callable, optional
        Called with (windows and layers that are judged, windows and layers in all).

    Returns
    -------
    Atlas

    Raises
    ------
    ParameterError
        If there is no survey, another process is writing to it, a table is damaged, `net` is not
        the network of the survey, ``out/index.html`` is not a page of fastdeconv, or the extra
        ``fastdeconv[survey]`` is not installed.
    BackendError
        If processes that judge excerpts cannot be started, or die again and again.
    ArchiveError
        If the copy of the network is damaged.
    OSError
        If writing fails, for instance on a full disk. The next run continues from there.

    Examples
    --------
    >>> import fastdeconv as fd
    >>> found = fd.survey("music", "choi5-genre", "out")  # doctest: +SKIP
    >>> fd.write_atlas("out", root="music").page  # doctest: +SKIP
    PosixPath('out/index.html')
    """
    folder = as_folder(out)
    settings = _settings(rule, start, mode, audio_format)
    count = as_int("shown", shown, minimum=1, maximum=100)
    processes = as_workers(workers)
    Survey.load(folder)  # without a survey nothing is written, not even a lock
    from ..survey.store import locked
    from ..survey.verdicts import Way

    with locked(folder, alone=True):
        tables = read_survey(folder)
        network = _network(folder, net, tables.survey)
        page = folder / "index.html"
        if os.path.lexists(page) and not is_ours(page):
            raise ParameterError(
                f"{printable(str(page))} is not a page of fastdeconv and is not overwritten"
            )
        settings = settings._replace(
            audio_format=_possible(settings.audio_format, tables.survey.frontend["sr"])
        )
        place = tables.survey.root if root is None else os.path.abspath(os.fspath(root))
        studio = Studio(folder, place, network, tables.survey, settings, outside=outside)
        excerpts = studio.make(tables.exemplars, count, progress)
        used = [one for own in excerpts.values() for one in own]
        verdicts = read_verdicts(
            folder, tables.survey, place, Way(rule, start, mode), excerpts, asked=bool(trust),
            executor=executor, workers=processes, progress=trust_progress,
        )
        songs = songs_of(folder, tables, (one.exemplar.track for one in used))
        content = _content(tables, excerpts, songs, settings, studio.missing, count, verdicts)
        replace_file(page, render("atlas.html", _SCRIPTS, content))
        studio.remove_others(used)
    return Atlas(
        page, len(used), dict(sorted(studio.missing.items())), len(verdicts.rows),
        dict(sorted(verdicts.missing.items())),
    )


def _settings(rule: Any, start: Any, mode: Any, audio_format: Any) -> Settings:
    as_choice("rule", rule, RULES)
    as_choice("start", start, tuple(_STARTS))
    as_choice("mode", mode, MODES)
    return Settings(rule, start, mode, check_format(audio_format))


def _possible(audio_format: str, sr: float) -> str:
    """`audio_format`, or wav if sounds of this sample rate cannot be written in it here."""
    try:
        encode(np.zeros(2, np.float32), sr, audio_format=audio_format)
    except AudioError:
        return "wav"
    return audio_format


def _network(out: Path, net: Network | None, survey: SurveyRecord) -> Network:
    """The network of the survey."""
    from ..survey.worker import NETWORK

    found = Network.load(out / NETWORK) if net is None else net
    if network_hash(found) != survey.settings.get("network"):
        raise ParameterError("the network is not the one that the survey was made with")
    if found.frontend is None or found.frontend.to_record() != survey.frontend:
        raise ParameterError("the network's front end is not the one of the survey")
    return found


def _content(
    tables: Tables,
    excerpts: Mapping[Key, Sequence[Excerpt]],
    songs: Songs,
    settings: Settings,
    missing: Mapping[str, str],
    shown: int,
    verdicts: Verdicts,
) -> dict[str, Any]:
    survey = tables.survey
    axis = FrequencyAxis.of(survey.frontend)
    silent = sum(row.silent for row in tables.features.values())
    return {
        "network": printable(survey.name or "a network"),
        "collection": _collection(survey),
        "unjudged": [
            (printable(track), printable(why))
            for track, why in sorted(verdicts.missing.items())[:_NAMED]
        ],
        "unjudged_count": len(verdicts.missing),
        "facts": _facts(tables, settings, songs, verdicts, sum(map(len, excerpts.values()))),
        "has_verdicts": bool(verdicts.rows),
        "shown": shown,
        "missing": [(printable(track), why) for track, why in sorted(missing.items())[:_NAMED]],
        "missing_count": len(missing),
        "has_tags": bool(tables.attributes),
        "has_control": tables.has_control,
        "silent": silent,
        "tracks": sum(not track.is_error for track in tables.tracks),
        "layers": [{"name": layer, "shown": printable(layer)} for layer in survey.layers],
        "attributes": [printable(name) for name in tables.attributes],
        "classes": bool(survey.classes),
        "axis": {
            "unit": "as notes" if axis.notes else "in Hz",
            "hz": [(round(100 * axis.position(hz), 2), name) for hz, name in axis.ticks()],
            "seconds": [],
        },
        "range_db": round(RANGE_DB),
        "data": page_data(
            tables, excerpts, songs, settings.audio_format, shown, verdicts.rows
        ),
    }


def _collection(survey: SurveyRecord) -> str:
    """The name of the collection's folder, without the folders around it."""
    path = PureWindowsPath(survey.root) if "\\" in survey.root else PurePosixPath(survey.root)
    return printable(path.name or "a collection")


def _facts(
    tables: Tables, settings: Settings, songs: Songs, verdicts: Verdicts, excerpts: int
) -> list[tuple[str, str]]:
    survey = tables.survey
    used = [track for track in tables.tracks if not track.is_error]
    windows = sum(track.windows for track in used)
    seconds = sum(track.duration for track in used)
    length = survey.settings["window"]
    facts = [
        ("network", printable(survey.name or "without a name")),
        ("collection", f"{len(used):,} tracks, {windows:,} windows of {length:.3g} s, "
                       f"{length_text(seconds)}"),
    ]
    errors = len(tables.tracks) - len(used)
    if errors:
        tracks = f"{errors:,} track{'' if errors == 1 else 's'}"
        facts.append(("not used", f"{tracks} that could not be read; errors.csv says why"))
    if songs.left_out:
        facts.append((
            "not searched",
            f"{songs.left_out:,} tracks: the search knows {len(songs.listed):,} tracks, those with "
            "excerpts before others",
        ))
    if survey.left_out:
        facts.append(("tags left out", "; ".join(map(printable, survey.left_out))))
    facts += [
        ("heard", f"by the rule {settings.rule}, from {_STARTS[settings.start]} of each feature, "
                  f"mode {settings.mode}"),
        ("to be believed", _believed(verdicts, excerpts)),
        ("front end", front_end_text(survey.frontend)),
        ("computed by", f"fastdeconv {__version__}"),
    ]
    return facts


def _believed(verdicts: Verdicts, excerpts: int) -> str:
    """How many excerpts have which verdict, in words."""
    found = counts_of([*verdicts.rows.values()])
    if found is None:
        if verdicts.missing:
            return "asked for, but no excerpt could be judged"
        return "not measured; fastdeconv survey --trust does that"
    judged = sum(found["counts"])
    words = ", ".join(
        f"{word} {count:,}" for word, count in zip(VERDICTS, found["counts"]) if count
    )
    control = found["control"]
    return (
        f"{words} of {judged:,} excerpts"
        + (f" ({excerpts - judged:,} others were not judged)" if judged < excerpts else "")
        + ("" if control is None else
           f"; of the features of an untrained network {100 * control:.1f} % are “yes” there")
    )
