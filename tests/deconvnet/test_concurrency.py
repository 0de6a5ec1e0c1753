"""The same input gives the same bits, whatever runs beside it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import fastdeconv as fd

# The reference runs in the calling thread alone, one feature like the other.
IMPLEMENTATIONS = [{"backend": "native", "isa": isa} for isa in fd.available_isas()] + [
    {"backend": name} for name in fd.available_backends() if name not in ("native", "reference")
]
IDS = ["-".join(i.values()) for i in IMPLEMENTATIONS]
RULES = ("deconvnet", "guided", "gradient")

CONV = {"type": "conv2d", "kernel": (3, 3), "padding": "same"}
RELU = {"type": "relu"}
POOL = {"type": "max_pool2d", "kernel_size": 2}
SHAPE = (1, 33, 26)


@pytest.fixture(params=IMPLEMENTATIONS, ids=IDS)
def on(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Every back end with threads and every instruction set in turn."""
    if request.param["backend"] == "native":
        # As many threads as are asked for, whatever the machine has.
        monkeypatch.setattr("fastdeconv.kernels.recording.usable_cpus", lambda: 8)
    with fd.config(**request.param):
        yield request.param


@pytest.fixture
def net(build):
    """Channels and lanes that fill no vector, an overlapping pool, a classifier on top."""
    records = [
        {**CONV, "out": 19}, RELU, POOL,
        {**CONV, "out": 37, "kernel": (3, 2)}, {"type": "batch_norm2d"}, RELU, POOL,
        {**CONV, "out": 70}, RELU, {**POOL, "kernel_size": 3, "name": "pool3", "stride": 2},
        {"type": "avg_pool2d", "kernel_size": 2}, {"type": "flatten"},
        {"type": "linear", "out": 5, "name": "score"},
    ]
    return build(records, SHAPE)


LAYERS = ("l2", "l6", "l8", "pool3", "score")


def noise(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)


def everything(net: fd.Network, x: np.ndarray, **arguments: Any) -> list[bytes]:
    """All that the network computes of an input, as bytes."""
    trace = net.forward(x)
    found = [trace[layer.name].tobytes() for layer in net.layers]
    found += [trace.switches(layer).tobytes() for layer in net.pooling_layers]
    for layer, rule in itertools.product(LAYERS, RULES):
        found.append(fd.deconvolve(trace, layer, rule=rule, **arguments).tobytes())
    return found


def test_any_number_of_threads_and_every_run_gives_the_same_bits(on, net):
    x = noise()
    with fd.config(num_threads=1):
        alone = everything(net, x)
    for threads in (1, 2, 5):
        with fd.config(num_threads=threads):
            assert everything(net, x) == alone
    fresh = fd.Network(net.layers, net.arrays, net.input_shape)
    assert everything(fresh, x) == alone


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layer", LAYERS)
def test_subsets_and_orders_give_the_bits_of_the_whole(on, net, layer, rule):
    trace = net.forward(noise())
    whole = fd.deconvolve(trace, layer, rule=rule)
    rng = np.random.default_rng(0)
    for count in {1, 2, 5, 17, len(whole) - 1, 3 * len(whole)}:
        features = rng.integers(0, len(whole), count)
        found = fd.deconvolve(trace, layer, features, rule=rule)
        assert found.tobytes() == whole[features].tobytes()


def test_a_silent_feature_changes_no_bit_of_the_others(on, net):
    trace = net.forward(noise())
    start = trace["l6"].copy()
    loud = fd.deconvolve(trace, "l6", start=start)
    start[::2] = 0
    found = fd.deconvolve(trace, "l6", start=start)
    assert found[1::2].tobytes() == loud[1::2].tobytes()


def test_many_threads_on_one_network_give_the_bits_of_one(on, net):
    inputs = [noise(seed) for seed in range(3)]
    alone = [everything(fd.Network(net.layers, net.arrays, SHAPE), x) for x in inputs]
    # Nothing is packed or cached yet: all meet at the first call.
    meeting = threading.Barrier(6, timeout=60)

    def call(i: int) -> list[bytes]:
        meeting.wait()
        with fd.config(**on, num_threads=1 + i % 3):
            return everything(net, inputs[i % 3])

    with ThreadPoolExecutor(6) as callers:
        found = list(callers.map(call, range(6)))
    assert found == [alone[i % 3] for i in range(6)]


def test_many_threads_on_one_trace_give_the_bits_of_one(on, net):
    trace = net.forward(noise())
    alone = {rule: fd.deconvolve(net.forward(noise()), "l8", rule=rule) for rule in RULES}
    meeting = threading.Barrier(6, timeout=60)

    def call(i: int) -> bool:
        meeting.wait()
        with fd.config(**on, num_threads=2):
            maps = fd.deconvolve(trace, "l8", rule=RULES[i % 3])
        return maps.tobytes() == alone[RULES[i % 3]].tobytes()

    with ThreadPoolExecutor(6) as callers:
        assert all(callers.map(call, range(6)))


def test_layers_and_counts_at_once_on_one_trace_give_the_bits_they_give_alone(on, net):
    """Calls of every size take their memory from, and leave it to, one another."""
    trace = net.forward(noise())
    rng = np.random.default_rng(2)
    calls = [
        (layer, rng.integers(0, len(trace[layer]), count), rule, start)
        for layer, count, rule, start in zip(
            LAYERS * 6, (1, 70, 5, 20, 3, 33, 64, 8) * 4, RULES * 10, ("map", "map", "max") * 10
        )
    ]
    alone = [fd.deconvolve(trace, *call).tobytes() for call in calls]
    meeting = threading.Barrier(6, timeout=60)

    def caller(i: int) -> list[int]:
        """Every call, from another one on; the numbers of those with other bits."""
        meeting.wait()
        with fd.config(**on, num_threads=1 + i % 3):
            order = [(5 * i + at) % len(calls) for at in range(len(calls))]
            return [
                at for at in order if fd.deconvolve(trace, *calls[at]).tobytes() != alone[at]
            ]

    with ThreadPoolExecutor(6) as callers:
        assert list(callers.map(caller, range(6))) == [[]] * 6


def test_deconvolving_inside_bands_of_work(net):
    from fastdeconv.kernels.schedule import run_bands

    trace, maps = net.forward(noise()), {}
    whole = fd.deconvolve(trace, "l6")

    def work(i: int) -> None:
        maps[i] = fd.deconvolve(trace, "l6", [i], num_threads=3)[0]

    run_bands(len(whole), work, 4)
    assert all(maps[i].tobytes() == whole[i].tobytes() for i in range(len(whole)))


def test_settings_of_one_thread_do_not_reach_another(net):
    with fd.config(backend="reference"), ThreadPoolExecutor(1) as other:
        elsewhere = other.submit(lambda: net.forward(noise())["l6"]).result()
    assert elsewhere.tobytes() == net.forward(noise())["l6"].tobytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("moment", ["between calls", "while another thread is at work"])
def test_a_forked_child_computes_the_same_bits(moment):
    code = """
import os
import threading
import numpy as np
import fastdeconv as fd
rng = np.random.default_rng(0)
layers = [{"type": "conv2d", "padding": "same", "bias": False}, {"type": "relu"},
          {"type": "max_pool2d", "kernel_size": 2}] * 3
arrays = {f"conv{i}.weight": rng.normal(size=(32, 32 if i > 1 else 1, 3, 3))
          for i in (1, 2, 3)}
net = fd.Network(layers, arrays, (1, 40, 40))
x = rng.normal(size=(1, 40, 40))
def maps():
    with fd.config(num_threads=3):
        return fd.deconvolve(net.forward(x), "pool3").tobytes()
before = maps()
left = threading.Event()
def work():
    while not left.is_set():
        maps()
other = threading.Thread(target=work, daemon=True)
if AT_WORK:
    other.start()
child = os.fork()
if not child:
    assert maps() == before
    os._exit(0)
assert maps() == before
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
left.set()
if AT_WORK:
    other.join()
print("same bits")
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c",
         f"AT_WORK = {moment != 'between calls'}{code}"],
        capture_output=True, text=True, timeout=120, check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "same bits\n", "")
