"""Forward pass, projection of every layer, and the whole way to files."""

from __future__ import annotations

import pytest

import fastdeconv as fd

from . import workload


def test_forward(benchmark, settings):
    benchmark(workload.network().forward, workload.clip().x)


@pytest.mark.parametrize("depth", range(1, workload.DEPTH + 1))
@pytest.mark.parametrize("rule", ["deconvnet", "guided"])
def test_projection_of_64_features(benchmark, settings, depth, rule):
    benchmark(fd.deconvolve, workload.trace(), f"pool{depth}", rule=rule)


def test_auralise_64_features(benchmark):
    maps = fd.deconvolve(workload.trace(), "pool5")
    benchmark(fd.auralise, workload.clip(), maps)


def test_explain_and_save_320_features(benchmark, tmp_path):
    def run():
        fd.explain(workload.clip(), workload.network()).save(tmp_path, "song", overwrite=True)

    benchmark(run)
