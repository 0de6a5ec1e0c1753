"""A survey on a Dask cluster whose workers die."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner

import fastdeconv as fd
from fastdeconv.cli import main
from fastdeconv.report.atlas import write_atlas
from fastdeconv.survey.worker import DIED

from .conftest import DEADLY, ONCE, network, use_shims, write_sounds

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")

# Of Dask, when the process of a worker ends that it did not end itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two workers of this machine: the address of their scheduler, and a file.

    While it is there the next worker that opens a sound dies, and the file is gone.
    """
    killing = tmp_path_factory.mktemp("cluster") / "killing"
    # A busy machine may take longer than Dask waits for a worker to come back.
    settings = {
        "distributed.scheduler.allowed-failures": 0,
        "distributed.deploy.lost-worker-timeout": "10 minutes",
    }
    with pytest.MonkeyPatch.context() as monkeypatch, dask.config.set(settings):
        use_shims(monkeypatch)
        monkeypatch.setenv(ONCE, str(killing))
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
            silence_logs=100, scheduler_kwargs={"dashboard_address": ":0"},  # a free port
        ) as found:
            yield found.scheduler_address, killing


def test_workers_that_die_cost_the_track_that_kills_them(cluster, deadly, tmp_path, run):
    network().save(tmp_path / "net.npz")
    deadly_one, spared = DEADLY
    (deadly / spared).unlink()
    result = CliRunner().invoke(main, [
        "survey", str(deadly), "-o", str(tmp_path / "out"), "--network",
        str(tmp_path / "net.npz"), "--scheduler", cluster[0],
    ])
    assert result.exit_code == 1, result.output
    assert "12 of 13 tracks, " in result.output and "1 track could not be used" in result.output
    found = fd.Survey.load(tmp_path / "out")
    assert found.errors == [{"track": deadly_one, "error": DIED}]
    (deadly / deadly_one).unlink()
    assert found.exemplars.equals(run(deadly, "good").exemplars)


def test_verdicts_are_the_same_bytes_though_a_worker_dies(cluster, make_survey, tmp_path):
    scheduler, killing = cluster
    found = make_survey(tmp_path)
    network = shutil.copy2(tmp_path / "out" / "network.npz", tmp_path)
    shutil.copytree(tmp_path / "out", tmp_path / "here")
    with ThreadPoolExecutor(1) as executor:
        write_atlas(tmp_path / "here", outside=True, trust=True, executor=executor, workers=1)
    killing.touch()
    result = CliRunner().invoke(main, [
        "survey", str(tmp_path / "music"), "-o", str(found.folder), "--network", str(network),
        "--layers", "pool1", "--scheduler", scheduler, "--trust",
    ])
    assert result.exit_code == 0, result.output
    assert "35 with a verdict" in result.output
    assert not killing.exists()
    verdicts = [
        {path.name: path.read_bytes() for path in [out / "trust.parquet", *out.glob("trust/*")]}
        for out in (tmp_path / "here", found.folder)
    ]
    assert len(verdicts[0]) > 7 and verdicts[0] == verdicts[1]


def test_a_scheduler_that_is_not_there_is_said(tmp_path):
    write_sounds(tmp_path / "sounds", 1)
    result = CliRunner().invoke(main, [
        "survey", str(tmp_path / "sounds"), "-o", str(tmp_path / "out"), "--scheduler",
        "nonsense://x",
    ])
    assert result.exit_code == 1
    assert "the scheduler 'nonsense://x' does not answer" in result.output
