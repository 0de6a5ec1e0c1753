"""What docs/threads-and-processes.md promises; kernels are in deconvnet/test_concurrency.py."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import fastdeconv as fd

SR = 8000


def network() -> fd.Network:
    rng = np.random.default_rng(0)
    return fd.Network(
        [
            {"type": "conv2d", "name": "conv", "padding": "same"},
            {"type": "relu", "name": "relu"},
            {"type": "max_pool2d", "name": "pool", "kernel_size": 2},
        ],
        {"conv.weight": rng.standard_normal((6, 1, 3, 3)), "conv.bias": np.zeros(6)},
        (1, None, None),
        frontend=fd.Frontend(sr=SR, n_fft=256, hop_length=128), name="tiny",
    )


def clip(net: fd.Network) -> fd.Clip:
    return fd.Clip(np.random.default_rng(1).standard_normal(SR) / 8, SR, net.frontend)


def all_of(explanation: fd.Explanation) -> list[bytes]:
    found = [explanation.maps["pool"].tobytes(), repr(explanation.table).encode()]
    return found + [explanation.sound("pool", k).tobytes() for k in range(6)]


def test_many_threads_read_one_explanation():
    net = network()
    wanted = all_of(fd.explain(clip(net), net))
    # Nothing of this one has been computed or kept before all meet.
    shared = fd.explain(clip(net), net)
    meeting = threading.Barrier(6, timeout=600)

    def read(_: int) -> list[bytes]:
        meeting.wait()
        return all_of(shared)

    with ThreadPoolExecutor(6) as readers:
        assert list(readers.map(read, range(6))) == [wanted] * 6


def test_many_threads_explain_with_one_network():
    net = network()
    wanted = all_of(fd.explain(clip(net), net))
    shared, sound = network(), clip(net)
    meeting = threading.Barrier(4, timeout=600)

    def explain(i: int) -> list[bytes]:
        meeting.wait()
        return all_of(fd.explain(sound, shared, num_threads=1 + i % 3))

    with ThreadPoolExecutor(4) as callers:
        assert list(callers.map(explain, range(4))) == [wanted] * 4


def test_settings_belong_to_a_task():
    from fastdeconv.kernels.dispatch import get_num_threads

    async def with_threads(count: int) -> list[int]:
        found = []
        with fd.config(num_threads=count):
            for _ in range(3):
                await asyncio.sleep(0)
                found.append(get_num_threads())
        return found

    async def both() -> list[list[int]]:
        return await asyncio.gather(with_threads(2), with_threads(3))

    # In a thread of its own: tests with a browser leave a loop running in this one.
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(lambda: asyncio.run(both())).result()
    assert found == [[2] * 3, [3] * 3]


SPAWNING = """
import multiprocessing, sys
sys.path[:0] = {path}
import numpy as np
import fastdeconv as fd

def maps_of(trace):
    return fd.deconvolve(trace, "pool").tobytes()

def sound_of(explanation):
    return explanation.sound("pool", 2).tobytes()

def maps_from(net, x):
    return maps_of(net.forward(x))

if __name__ == "__main__":
    net = fd.Network.load({archive!r})
    clip = fd.Clip(np.random.default_rng(1).standard_normal(8000) / 8, 8000, net.frontend)
    trace, explanation = net.forward(clip.x), fd.explain(clip, net)
    with multiprocessing.get_context({method!r}).Pool(1) as pool:
        assert pool.apply(maps_from, (net, clip.x)) == maps_of(trace)
        assert pool.apply(maps_of, (trace,)) == maps_of(trace)
        assert pool.apply(sound_of, (explanation,)) == sound_of(explanation)
    print("same bits")
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_what_is_sent_to_another_process_gives_the_same_bits(tmp_path, method):
    import multiprocessing

    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    network().save(tmp_path / "net.npz")
    script = tmp_path / "script.py"
    path = [str(Path(fd.__file__).parents[1])]
    script.write_text(
        SPAWNING.format(path=path, archive=str(tmp_path / "net.npz"), method=method)
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=600)
    assert done.stdout == "same bits\n", done.stderr


@pytest.mark.skipif(
    getattr(sys, "_is_gil_enabled", lambda: True)(), reason="this Python has its global lock"
)
def test_a_free_threaded_python_stays_free():
    net = network()
    fd.explain(clip(net), net).sound("pool", 0)
    assert not sys._is_gil_enabled()
