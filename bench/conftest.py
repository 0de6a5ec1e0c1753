"""`settings` runs a benchmark on every back end and instruction set."""

from __future__ import annotations

import pytest

import fastdeconv as fd

VARIANTS = [{"backend": "native", "isa": isa} for isa in fd.available_isas()]
VARIANTS += [{"backend": name} for name in fd.available_backends() if name == "numba"]


@pytest.fixture(params=VARIANTS, ids=lambda v: v.get("isa", v["backend"]))
def settings(request):
    with fd.config(**request.param):
        yield
