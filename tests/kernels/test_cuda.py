"""The CUDA back end where there is no GPU; with one, every suite of this room runs on it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import fastdeconv
from fastdeconv.kernels import dispatch

CHECKS = Path(__file__).with_name("cuda_checks.py")


def check(what: str) -> None:
    run = subprocess.run([sys.executable, CHECKS, what], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="without Numba")
def test_in_the_simulator_everything_is_the_references_up_to_rounding() -> None:
    check("simulate")


@pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="without the extra cuda"
)
def test_kernels_compile_and_keep_their_sums_in_registers() -> None:
    check("compile")


@pytest.mark.skipif("cuda" in fastdeconv.available_backends(), reason="there is a GPU")
def test_where_there_is_no_gpu_it_is_refused_with_the_reason() -> None:
    reason = "no NVIDIA driver|driver finds no GPU|numba package is not installed"
    with pytest.raises(
        fastdeconv.BackendError, match=f"'cuda' is not available: .*({reason}); available: "
    ):
        dispatch.get_backend("cuda")


def test_asking_what_there_is_does_not_import_numba() -> None:
    code = "import sys, fastdeconv; fastdeconv.available_backends(); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "numba" not in run.stdout.split()
