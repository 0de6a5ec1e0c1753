"""Verdicts on the excerpts of an atlas."""

from __future__ import annotations

import shutil
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

import fastdeconv as fd
from fastdeconv.cli import main
from fastdeconv.report.atlas import Atlas, write_atlas
from fastdeconv.report.atlas_excerpts import Studio

from .conftest import atlas_of as data_of

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from fastdeconv.survey.store import write_table  # noqa: E402
from fastdeconv.survey.worker import DIED  # noqa: E402


class Here(Executor):
    """Does everything at once, here; `deadly` tracks end whoever opens them."""

    def __init__(self, deadly: str = "") -> None:
        self.deadly, self.jobs = deadly, []

    def submit(self, function, /, *args, **kwargs):
        future: Future = Future()
        dies = any(
            self.deadly and job.tracks[0].name == self.deadly and self.deadly not in job.deadly
            for job in args
        )
        self.jobs += args
        if dies:
            future.set_exception(BrokenExecutor("died"))
        else:
            future.set_result(function(*args, **kwargs))
        return future


@pytest.fixture(scope="module")
def judged(make_survey, tmp_path_factory):
    folder = tmp_path_factory.mktemp("survey")
    make_survey(folder)
    found = write_atlas(folder / "out", audio_format="wav", trust=True, executor=Here())
    assert (found.excerpts, found.judged, found.unjudged) == (35, 35, {})
    return folder


@pytest.fixture
def copied(judged, tmp_path):
    shutil.copytree(judged, tmp_path / "copy", copy_function=shutil.copy2)
    return tmp_path / "copy"


def write(folder: Path, **how) -> Atlas:
    how = {"executor": Here(), "audio_format": "wav", "root": folder / "music", **how}
    return write_atlas(folder / "out", **how)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "out" / "trust").iterdir()}


def test_a_verdict_is_that_of_explain_in_the_same_window(judged):
    rows = fd.Survey.load(judged / "out").trust.to_pylist()
    exemplars = fd.Survey.load(judged / "out").exemplars.to_pylist()
    assert [(row["feature"], row["track"], row["start"]) for row in rows] == [
        (row["feature"], row["track"], row["start"]) for row in exemplars
    ]
    network = fd.Network.load(judged / "out" / "network.npz")
    for row in rows[::9]:
        path = judged / "music" / row["track"]
        told = fd.explain(path, network, "pool1", offset=row["start"]).trust()[row["feature"]]
        assert (row["verdict"], row["reason"]) == (told["verdict"], told["reason"])
        for name in ("nearest", "where", "yes_rate", "control_yes_rate"):
            assert row[name] == pytest.approx(told[name], rel=1e-5)
        assert (row["rule"], row["map_start"], row["mode"]) == ("deconvnet", "map", "mask")


def test_the_page_shows_each_verdict_and_counts_them(judged):
    rows = fd.Survey.load(judged / "out").trust.to_pylist()
    data = data_of(judged)
    for feature in data["features"]:
        own = [row for row in rows if row["feature"] == feature["k"]]
        assert [one["verdict"] for one in feature["excerpts"]] == [row["verdict"] for row in own]
        if not own:
            assert feature["believed"] is None
            continue
        words = ("yes", "unsure", "no", "silent")
        assert feature["believed"]["counts"] == [
            sum(row["verdict"] == word for row in own) for word in words
        ]
        mean = sum(row["control_yes_rate"] for row in own) / len(own)
        assert feature["believed"]["control"] == pytest.approx(mean, rel=1e-4)
    assert sum(sum(f["believed"]["counts"]) for f in data["features"] if f["believed"]) == 35


def test_the_same_bytes_whoever_computes_them(judged, copied):
    whole = files_of(judged), (judged / "out" / "trust.parquet").read_bytes()
    for executor in (None, ThreadPoolExecutor(3)):  # None: processes of this machine
        shutil.rmtree(copied / "out" / "trust")
        found = write(copied, trust=True, executor=executor, workers=2)
        assert found.judged == 35
        assert (files_of(copied), (copied / "out" / "trust.parquet").read_bytes()) == whole
        if executor:
            executor.shutdown()


def test_what_is_judged_is_not_judged_again_and_what_is_damaged_is(copied):
    whole = files_of(copied)
    gone, damaged, strange, *_ = sorted((copied / "out" / "trust").iterdir())
    gone.unlink()
    damaged.write_bytes(damaged.read_bytes()[:50])
    table = pq.read_table(strange)
    words = pa.array(["<b>yes</b>"] * len(table))
    at = table.column_names.index("verdict")
    pq.write_table(table.set_column(at, table.schema.field("verdict"), words), strange)
    executor, told = Here(), []
    write(copied, trust=True, executor=executor, trust_progress=lambda *done: told.append(done))
    assert files_of(copied) == whole
    assert len(executor.jobs) == 3
    assert told == [(len(whole) - 3 + i, len(whole)) for i in range(4)]


def test_verdicts_that_are_there_are_shown_without_asking_and_others_are_not_made(copied):
    assert write(copied).judged == 35
    for path in sorted((copied / "out" / "trust").iterdir())[:3]:
        path.unlink()
    found = write(copied)
    page = (copied / "out" / "index.html").read_text(encoding="utf-8")
    assert 0 < found.judged < 35
    assert f"of {found.judged} excerpts ({35 - found.judged} others were not judged)" in page
    assert fd.Survey.load(copied / "out").trust.num_rows == found.judged
    # Verdicts on another sound than the one that is played are none.
    assert write(copied, mode="phase").judged == 0
    page = (copied / "out" / "index.html").read_text(encoding="utf-8")
    assert "nobody asked (survey --trust)" in page and not data_of(copied)["verdicts"]
    with pytest.raises(fd.ParameterError, match="no verdicts were asked for"):
        _ = fd.Survey.load(copied / "out").trust


def test_a_track_that_changed_is_judged_again(copied):
    path = copied / "music" / "song 3.wav"
    path.touch()
    assert write(copied).judged == 35 - 5
    executor = Here()
    assert write(copied, trust=True, executor=executor).judged == 35
    assert {job.tracks[0].name for job in executor.jobs} == {"song 3.wav"}


def test_a_track_that_kills_whoever_judges_it_costs_only_itself(copied):
    shutil.rmtree(copied / "out" / "trust")
    found = write(copied, trust=True, executor=Here(deadly="song 3.wav"))
    assert found.unjudged == {"song 3.wav": DIED}
    assert found.judged == 35 - 5
    page = (copied / "out" / "index.html").read_text(encoding="utf-8")
    assert f"song 3.wav: {DIED}" in page


def test_words_of_strangers_are_text(copied):
    path = sorted((copied / "out" / "trust").iterdir())[0]
    table = pq.read_table(path)
    words = pa.array(["</script><script>alert(1)</script>"] * len(table))
    at = table.column_names.index("reason")
    write_table(path, table.set_column(at, table.schema.field("reason"), words))
    write(copied)
    page = (copied / "out" / "index.html").read_text(encoding="utf-8")
    assert "alert(1)" in page and "<script>alert(1)" not in page


def test_the_command_asks_for_verdicts(copied):
    network = str(copied / "out" / "network.npz")
    arguments = ["survey", str(copied / "music"), "-o", str(copied / "out"), "--network", network,
                 "--layers", "pool1"]
    result = CliRunner().invoke(main, [*arguments, "--trust"])
    assert "(35 excerpts, 35 with a verdict)" in result.output
    result = CliRunner().invoke(main, [*arguments, "--trust", "--no-atlas"])
    assert result.exit_code == 2 and "--trust is about the excerpts" in result.output


@pytest.mark.parametrize("workers", [0, "two"])
def test_impossible_workers_are_refused(judged, workers):
    with pytest.raises(fd.ParameterError, match="workers"):
        write(judged, workers=workers)


def test_a_track_that_goes_after_its_excerpts_costs_only_its_verdicts(copied, monkeypatch):
    track = fd.Survey.load(copied / "out").exemplars.to_pylist()[0]["track"]
    make = Studio.make

    def make_and_remove(studio, *args, **kwargs):
        found = make(studio, *args, **kwargs)
        (copied / "music" / track).unlink()
        return found

    monkeypatch.setattr(Studio, "make", make_and_remove)
    found = write(copied, trust=True)
    assert found.unjudged == {track: "No such file or directory"}
    assert 0 < found.judged < found.excerpts == 35
