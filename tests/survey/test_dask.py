"""A survey on a Dask cluster whose workers die."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

import fastdeconv as fd
from fastdeconv.cli import main
from fastdeconv.survey.worker import DIED

from .conftest import DEADLY, network, write_sounds

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")

# Of Dask, when the process of a worker ends that it did not end itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def test_workers_that_die_cost_the_track_that_kills_them(deadly, tmp_path, run):
    network().save(tmp_path / "net.npz")
    deadly_one, spared = DEADLY
    (deadly / spared).unlink()
    # A busy machine may take longer than Dask waits for a worker to come back.
    settings = {
        "distributed.scheduler.allowed-failures": 0,
        "distributed.deploy.lost-worker-timeout": "10 minutes",
    }
    with dask.config.set(settings), distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
        silence_logs=100, scheduler_kwargs={"dashboard_address": ":0"},  # a free port
    ) as cluster:
        result = CliRunner().invoke(main, [
            "survey", str(deadly), "-o", str(tmp_path / "out"), "--network",
            str(tmp_path / "net.npz"), "--scheduler", cluster.scheduler_address,
        ])
    assert result.exit_code == 1, result.output
    assert "13 tracks, " in result.output and "1 track could not be used" in result.output
    found = fd.Survey.load(tmp_path / "out")
    assert found.errors == [{"track": deadly_one, "error": DIED}]
    (deadly / deadly_one).unlink()
    assert found.exemplars.equals(run(deadly, "good").exemplars)


def test_a_scheduler_that_is_not_there_is_said(tmp_path):
    write_sounds(tmp_path / "sounds", 1)
    result = CliRunner().invoke(main, [
        "survey", str(tmp_path / "sounds"), "-o", str(tmp_path / "out"), "--scheduler",
        "nonsense://x",
    ])
    assert result.exit_code == 1
    assert "the scheduler 'nonsense://x' does not answer" in result.output
