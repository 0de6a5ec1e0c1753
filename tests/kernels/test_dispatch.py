"""Which back end, instruction set and thread count a call uses."""

from __future__ import annotations

import io
import threading
from typing import Any

import numpy as np
import pytest

import fastdeconv
from fastdeconv.kernels import dispatch

VARIABLES = ("FASTDECONV_BACKEND", "FASTDECONV_NUM_THREADS", "FASTDECONV_ISA")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def backend_now() -> str:
    return dispatch.get_backend().name


def test_the_best_back_end_is_the_default() -> None:
    available = fastdeconv.available_backends()
    assert backend_now() == available[0]
    assert available[-1] == "reference"
    assert available == [name for name in dispatch.BACKENDS if name in available]


def test_environment_wins_over_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTDECONV_BACKEND", "reference")
    monkeypatch.setenv("FASTDECONV_NUM_THREADS", "7")
    assert (backend_now(), dispatch.get_num_threads()) == ("reference", 7)


def test_config_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTDECONV_BACKEND", "numba")
    monkeypatch.setenv("FASTDECONV_NUM_THREADS", "7")
    with fastdeconv.config(backend="reference", num_threads=3):
        assert (backend_now(), dispatch.get_num_threads()) == ("reference", 3)
    assert dispatch.get_num_threads() == 7


def test_arguments_win_over_config() -> None:
    best = fastdeconv.available_backends()[0]
    with fastdeconv.config(backend=best, num_threads=3):
        assert dispatch.get_backend("reference").name == "reference"
        assert dispatch.get_num_threads(5) == 5


def test_ops_run_on_the_back_end_of_their_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []

    class Spy:
        def max_pool2d(self, x: Any, window: Any, out_size: Any, num_threads: int) -> None:
            seen.append(("spy", num_threads))

    def get_backend(name: str | None) -> Spy:
        seen.append((str(name), 0))
        return Spy()

    monkeypatch.setattr("fastdeconv.kernels.ops.get_backend", get_backend)
    fastdeconv.ops.max_pool2d(np.zeros((1, 1, 2, 2)), 2, backend="numba", num_threads=4)
    assert seen == [("numba", 0), ("spy", 4)]


def test_nested_configs_keep_what_they_do_not_set_and_restore_what_was() -> None:
    before = backend_now()
    with fastdeconv.config(backend="reference", num_threads=2):
        with fastdeconv.config(num_threads=5):
            assert (backend_now(), dispatch.get_num_threads()) == ("reference", 5)
        assert (backend_now(), dispatch.get_num_threads()) == ("reference", 2)
    assert backend_now() == before


def test_a_config_ends_with_an_exception() -> None:
    before = backend_now()
    with pytest.raises(KeyError), fastdeconv.config(backend="reference"):
        raise KeyError
    assert backend_now() == before


def test_each_thread_has_a_config_of_its_own() -> None:
    both_inside = threading.Barrier(3, timeout=30)
    seen: dict[int, int] = {}

    def run(threads: int) -> None:
        with fastdeconv.config(num_threads=threads):
            both_inside.wait()
            seen[threads] = dispatch.get_num_threads()
            both_inside.wait()

    workers = [threading.Thread(target=run, args=(n,)) for n in (11, 13)]
    for worker in workers:
        worker.start()
    both_inside.wait()
    here = dispatch.get_num_threads()
    both_inside.wait()
    for worker in workers:
        worker.join()
    assert seen == {11: 11, 13: 13}
    assert here == dispatch.usable_cpus()


def test_the_default_thread_count_is_the_cpus_this_process_may_use() -> None:
    assert dispatch.get_num_threads() == dispatch.usable_cpus() >= 1


QUOTA = "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, 8),
        ({"/sys/fs/cgroup/cpu.max": "max 100000"}, 8),
        ({"/sys/fs/cgroup/cpu.max": "150000 100000"}, 2),
        ({"/sys/fs/cgroup/cpu.max": "10000 100000"}, 1),
        ({"/sys/fs/cgroup/cpu.max": "1600000 100000"}, 8),
        (dict(zip(QUOTA, ("300000", "100000"))), 3),
        (dict(zip(QUOTA, ("-1", "100000"))), 8),
    ],
)
def test_affinity_and_the_quota_of_a_container_are_respected(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cpus: int
) -> None:
    def opened(path: str, **how: str) -> io.StringIO:
        if path not in files:
            raise FileNotFoundError(path)
        return io.StringIO(files[path] + "\n")

    monkeypatch.setattr(dispatch, "open", opened, raising=False)
    monkeypatch.setattr(dispatch.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert dispatch.usable_cpus.__wrapped__() == cpus  # which is asked once a process


# Instruction sets


def test_every_instruction_set_there_is_can_be_chosen() -> None:
    for isa in fastdeconv.available_isas():
        with fastdeconv.config(isa=isa):
            assert dispatch.get_isa() == isa


def test_instruction_sets_follow_config_then_environment_then_best(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    isas = fastdeconv.available_isas()
    if not isas:
        pytest.skip("the native back end is not built here")
    assert dispatch.get_isa() == isas[0]
    monkeypatch.setenv("FASTDECONV_ISA", isas[-1])
    assert dispatch.get_isa() == isas[-1]
    with fastdeconv.config(isa=isas[0]):
        assert dispatch.get_isa() == isas[0]


# Errors


def test_an_unknown_back_end_is_refused_with_those_there_are() -> None:
    message = "unknown back end 'mkl'; there are native, numba, cuda, reference"
    with pytest.raises(fastdeconv.BackendError, match=message), fastdeconv.config(backend="mkl"):
        pass


def test_an_unknown_back_end_in_the_environment_is_refused_when_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FASTDECONV_BACKEND", "mkl")
    with pytest.raises(fastdeconv.BackendError, match="unknown back end 'mkl'"):
        fastdeconv.ops.max_pool2d(np.zeros((1, 1, 2, 2)), 2)


@pytest.mark.skipif("numba" not in fastdeconv.available_backends(), reason="Numba is missing")
def test_a_missing_back_end_is_refused_with_its_reason_and_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "_native_module", lambda: None)
    monkeypatch.setattr(dispatch, "_cuda_missing", lambda: "there is no NVIDIA driver")
    assert fastdeconv.available_backends() == ["numba", "reference"]
    assert fastdeconv.available_isas() == []
    message = r"'native' is not available: .*not built.*; available: numba, reference"
    with pytest.raises(fastdeconv.BackendError, match=message):
        dispatch.get_backend("native")
    message = r"'avx2' is not available; available: none \(no native back end\)"
    with pytest.raises(fastdeconv.BackendError, match=message), fastdeconv.config(isa="avx2"):
        pass


def test_an_unknown_instruction_set_is_refused_with_those_there_are() -> None:
    found = ", ".join(fastdeconv.available_isas()) or "none"
    message = f"'sse9' is not available; available: {found}"
    with pytest.raises(fastdeconv.BackendError, match=message), fastdeconv.config(isa="sse9"):
        pass


@pytest.mark.parametrize("threads", [0, -1, True, 2.0, "2"])
def test_thread_counts_that_are_no_positive_int_are_refused(threads: Any) -> None:
    message = "num_threads must be a positive int, found"
    with pytest.raises(fastdeconv.ParameterError, match=message):
        dispatch.get_num_threads(threads)
    with (
        pytest.raises(fastdeconv.ParameterError, match=message),
        fastdeconv.config(num_threads=threads),
    ):
        pass


@pytest.mark.parametrize("text", ["0", "-3", "two", "1.5"])
def test_thread_counts_of_the_environment_are_checked(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("FASTDECONV_NUM_THREADS", text)
    with pytest.raises(fastdeconv.ParameterError, match=f"FASTDECONV_NUM_THREADS .* '{text}'"):
        dispatch.get_num_threads()


# What is shown


def test_the_reference_does_not_stand_in_for_a_fast_back_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dispatch, "_native_module", lambda: None)
    monkeypatch.setattr(dispatch, "_numba_installed", lambda: False)
    with pytest.raises(fastdeconv.BackendError, match=r"pip install 'fastdeconv\[numba\]'"):
        dispatch.get_backend()
    assert dispatch.get_backend("reference").name == "reference"
    fastdeconv.show_config()
    out = capsys.readouterr().out
    assert "none (available: reference)" in out
    assert "pip install 'fastdeconv[numba]'" in out


def test_show_config_names_the_version_and_what_is_in_use(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with fastdeconv.config(backend="reference", num_threads=3):
        fastdeconv.show_config()
    out = capsys.readouterr().out
    assert fastdeconv.__version__ in out
    assert "reference (available:" in out
    assert any(line.split() == ["threads:", "3"] for line in out.splitlines())


@pytest.mark.skipif("numba" not in fastdeconv.available_backends(), reason="Numba is missing")
def test_show_config_says_how_to_get_the_native_back_end_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dispatch, "_native_module", lambda: None)
    monkeypatch.setattr(dispatch, "_cuda_missing", lambda: "there is no NVIDIA driver")
    fastdeconv.show_config()
    out = capsys.readouterr().out
    assert "The native back end is missing" in out
    assert "install a C compiler" in out
    assert "numba (available: numba, reference)" in out
