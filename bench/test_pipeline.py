"""Forward pass, projections, and the whole way to files: `pytest bench --benchmark-only`."""

from __future__ import annotations

import inspect

import pytest

import fastdeconv as fd

from . import workload

FORWARD = [{}]
if "algorithm" in inspect.signature(fd.Network.forward).parameters:
    FORWARD += [{"algorithm": name} for name in ("direct", "winograd")]


@pytest.fixture(scope="module")
def work():
    return workload.paper()


@pytest.mark.parametrize("options", FORWARD, ids=lambda o: o.get("algorithm", "default"))
def test_forward(benchmark, settings, work, options):
    benchmark(work.network.forward, work.x, **options)


@pytest.mark.parametrize("depth", range(1, workload.DEPTH + 1))
@pytest.mark.parametrize("rule", ["deconvnet", "guided", "gradient"])
def test_projection_of_64_features(benchmark, settings, work, depth, rule):
    benchmark(fd.deconvolve, work.trace, f"pool{depth}", rule=rule)


@pytest.mark.parametrize("features", [1, 4, 8, 20])
@pytest.mark.parametrize("depth", [1, 3, 5])
def test_projection_of_few_features(benchmark, settings, work, depth, features):
    benchmark(fd.deconvolve, work.trace, f"pool{depth}", range(features))


@pytest.mark.parametrize("features", [1, 64])
def test_projection_of_the_strongest_unit(benchmark, settings, work, features):
    benchmark(fd.deconvolve, work.trace, "pool5", range(features), start="max")


def test_auralise_64_features(benchmark, work):
    maps = fd.deconvolve(work.trace, "pool5")
    benchmark(fd.auralise, workload.clip(), maps)


def test_explain_and_save_320_features(benchmark, work, tmp_path):
    def run():
        fd.explain(workload.clip(), work.network).save(tmp_path, "song", overwrite=True)

    benchmark(run)
