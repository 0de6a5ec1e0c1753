"""Processes that die: a track that kills whoever reads it, and ends that come at any time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import pytest

import fastdeconv as fd
from fastdeconv.survey.engine import run_jobs
from fastdeconv.survey.worker import DIED

from .conftest import DEADLY, network, tables, write_sounds


def test_a_track_that_kills_costs_only_itself(deadly, tmp_path, run):
    found = fd.survey(deadly, network(), tmp_path / "out", workers=2)
    assert found.errors == [{"track": name, "error": DIED} for name in DEADLY]
    for name in DEADLY:
        (deadly / name).unlink()
    assert found.exemplars.equals(run(deadly, "good").exemplars)
    assert not multiprocessing.active_children()


def test_a_process_that_is_killed_loses_nothing(sounds, tmp_path, run):
    killed = []

    def kill_one(done: int, total: int) -> None:
        children = multiprocessing.active_children()
        if children and not killed:
            os.kill(children[0].pid, signal.SIGKILL)
            killed.append(children[0].pid)

    found = fd.survey(sounds, network(), tmp_path / "out", workers=2, progress=kill_one)
    assert found.errors == [] and killed
    assert tables(found.folder) == tables(run(sounds, "undisturbed").folder)


def test_a_pool_of_the_users_is_not_replaced_but_said(deadly, tmp_path):
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as executor, pytest.raises(
        fd.BackendError, match="run the survey again to go on"
    ):
        fd.survey(deadly, network(), tmp_path / "out", executor=executor)


def test_an_executor_that_was_shut_down_is_named(sounds, tmp_path):
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(fd.BackendError, match=r"the executor takes no more work: .*shutdown"):
        fd.survey(sounds, network(), tmp_path / "out", executor=executor)


class KilledWorker(Exception):  # noqa: N818
    """Called as Dask's."""


class _DyingCluster(Executor):
    """Runs all at once; the tasks with these numbers die."""

    def __init__(self, deaths):
        self.deaths, self.count = deaths, 0

    def submit(self, function, /, *args):
        future, self.count = Future(), self.count + 1
        if self.count in self.deaths:
            future.set_exception(KilledWorker())
        else:
            future.set_result(function(*args))
        return future


def test_a_cluster_whose_workers_die_at_any_task_goes_on(sounds, tmp_path, run):
    # The first is a shard; the next are those that ask whether workers are there again.
    for deaths in ({1}, {1, 2, 3}):
        found = fd.survey(
            sounds, network(), tmp_path / str(len(deaths)), executor=_DyingCluster(deaths),
            workers=1,
        )
        assert found.errors == []
        assert tables(found.folder) == tables(run(sounds, "undisturbed").folder)
    with pytest.raises(fd.BackendError, match="die before they answer"):
        fd.survey(sounds, network(), tmp_path / "no", executor=_DyingCluster({*range(1, 99)}))


def test_processes_that_cannot_start_are_said(sounds, tmp_path):
    script = (
        "import fastdeconv as fd, sys\n"
        "sys.path.insert(0, sys.argv[3])\n"
        "net = fd.Network.load(sys.argv[1])\n"
        "fd.survey(sys.argv[2], net, sys.argv[2] + '-out', workers=1)\n"
    )
    (tmp_path / "script.py").write_text(script)
    network().save(tmp_path / "net.npz")
    result = subprocess.run(
        [sys.executable, tmp_path / "script.py", tmp_path / "net.npz", sounds, os.getcwd()],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert result.returncode == 1
    assert "BackendError: no worker process could be started" in result.stderr


def test_a_command_that_is_killed_goes_on_where_it_was(tmp_path, run):
    write_sounds(tmp_path / "many", 30)
    network().save(tmp_path / "net.npz")
    command = [
        sys.executable, "-m", "fastdeconv", "survey", str(tmp_path / "many"), "-o",
        str(tmp_path / "out"), "--network", str(tmp_path / "net.npz"), "--workers", "2",
    ]
    process = subprocess.Popen(command, start_new_session=True)
    shards = tmp_path / "out/shards"
    while process.poll() is None and not list(shards.glob("*.parquet")):
        time.sleep(0.01)
    process.kill()
    process.wait()
    # Its processes end with it, and give the folder free.
    subprocess.run(command, check=True, capture_output=True)
    assert tables(tmp_path / "out") == tables(run(tmp_path / "many", "undisturbed").folder)
    assert not list(tmp_path.glob("out/**/.*.tmp"))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("processes of the killed command are still there")


def test_jobs_are_asked_for_as_they_are_needed():
    """No more than two for each worker are handed out, however many there are."""
    from fastdeconv.survey.worker import Done, Job

    asked, open_futures, most = [], [], []

    class Slow(Executor):
        def submit(self, function, job):
            future: Future = Future()
            open_futures.append(future)
            most.append(len(open_futures))
            if len(open_futures) == 4:
                open_futures.pop(0).set_result(Done("", 1, 0))
            return future

    def jobs():
        for number in range(10):
            asked.append(number)
            yield Job("", str(number), "", (), {}, "", 1.0, 0.0, True, "native", None)

    def tell(done):
        if open_futures:
            open_futures.pop(0).set_result(Done("", 1, 0))

    run_jobs(jobs(), Slow(), 2, tell)
    assert asked == list(range(10)) and max(most) == 4
