"""Products of bfloat16 in tiles: the instructions in plain C, and the kernel that uses them."""

from __future__ import annotations

import ctypes
import itertools
import shutil
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import fastdeconv
from fastdeconv.kernels.dispatch import get_backend, get_isa
from fastdeconv.kernels.interface import Window
from fastdeconv.kernels.lanes import NO_POOL, Convolution, Post, Source, Step

native = pytest.importorskip("fastdeconv.kernels.native")
native_cpu = pytest.importorskip("fastdeconv.kernels.native_cpu")
native_shared = pytest.importorskip("fastdeconv.kernels.native_shared")

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
FLAGS = ["-std=gnu11", "-O2", "-ffp-contract=off", "-shared", "-fPIC", f"-I{ROOT / 'csrc'}"]
ISAS = [name for name, table in native.tables_on_request().items() if table.prepare()]

PROPERTY = settings(derandomize=True, deadline=None)
QUIET_NAN = 0x7FC00000

pytestmark = pytest.mark.skipif(not ISAS, reason="this CPU has no multiply-add that rounds once")


class Shapes(ctypes.Structure):
    """As tile_shapes."""

    _fields_ = (
        ("palette", ctypes.c_uint8), ("start_row", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8 * 14), ("row_bytes", ctypes.c_uint16 * 16),
        ("rows", ctypes.c_uint8 * 16),
    )


def compiled(name: str, folder: Path) -> ctypes.CDLL:
    if COMPILER is None:
        pytest.skip("no C compiler")
    library = folder / f"{name}.so"
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run([COMPILER, *FLAGS, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """csrc/tiles.h without the instructions."""
    return compiled("tiles_check", tmp_path_factory.mktemp("tiles"))


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


def multiplied(
    unit: ctypes.CDLL, c: np.ndarray, a: np.ndarray, b: np.ndarray,
    rows: int = 16, pairs: int = 16, columns: int = 16,
) -> np.ndarray:
    """c + a x b: c (16, 16) floats, a and b (16, 16) pairs of bfloat16, as uint32."""
    shapes = Shapes(palette=1)
    sizes = (rows, columns), (rows, pairs), (pairs, columns)
    for t, (tall, wide) in enumerate(sizes):
        shapes.rows[t], shapes.row_bytes[t] = tall, 4 * wide
    c = c.copy()
    unit.check_multiply(ctypes.byref(shapes), pointer(c), pointer(a), pointer(b))
    return c


# One multiply-add


def floats(bits: Any) -> np.ndarray:
    return np.asarray(bits, np.uint32).view(np.float32)


def flushed(bits: int) -> int:
    return bits if bits & 0x7F800000 else bits & 0x80000000


def rounded(x: Fraction) -> int:
    """The bits of a float: to nearest even at 24 bits whatever the exponent, tiny ones flushed."""
    sign, x = (0x80000000, -x) if x < 0 else (0, x)
    exponent = x.numerator.bit_length() - x.denominator.bit_length()
    exponent -= x < Fraction(2) ** exponent
    unit = Fraction(2) ** (exponent - 23)
    x = round(x / unit) * unit  # Python rounds to even, too
    if x < Fraction(2) ** -126:
        return sign
    if x >= 2**128:
        return sign | 0x7F800000
    return sign | int(np.float32(float(x)).view(np.uint32))


def fused(a: int, b: int, c: int) -> int:
    """a x b + c by the definition; bits of floats, any NaN as the same one."""
    a, b, c = map(flushed, (a, b, c))
    with np.errstate(all="ignore"):
        x, y, z = (float(value) for value in floats([a, b, c]))
        if not np.isfinite([x, y, z]).all():
            # Products of doubles do not overflow here, so infinities come of infinities alone.
            rough = np.float32(np.float64(x) * y + z)
            return QUIET_NAN if np.isnan(rough) else int(rough.view(np.uint32))
    exact = Fraction(x) * Fraction(y) + Fraction(z)
    if exact:
        return rounded(exact)
    negative = np.signbit(x) != np.signbit(y) and np.signbit(z)
    return 0x80000000 if negative and not x * y and not z else 0


def one_nan(bits: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(bits.view(np.float32)), np.uint32(QUIET_NAN), bits)


def fused_in_c(function: Any, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    out = np.empty_like(a)
    function(pointer(a), pointer(b), pointer(c), pointer(out), len(a))
    return one_nan(out)


HALVES = st.integers(0, 0xFFFF).map(lambda half: half << 16)


@st.composite
def terms(draw: st.DrawFn) -> tuple[int, int, int]:
    """A product and something to add to it, of about its size more often than chance has it."""
    a, b = draw(HALVES), draw(HALVES)
    near = (a >> 23 & 0xFF) + (b >> 23 & 0xFF) - 127 + draw(st.integers(-30, 30))
    exponent = draw(st.sampled_from([min(max(near, 0), 255), draw(st.integers(0, 255))]))
    fraction = draw(st.sampled_from([0, 1, 0x7FFFFF, draw(st.integers(0, 0x7FFFFF))]))
    return a, b, draw(st.integers(0, 1)) << 31 | exponent << 23 | fraction


@settings(PROPERTY, max_examples=1500)
@given(terms())
@example((0x3F810000, 0x3F810000, 0x4B800000))
@example((0x00800000, 0x3F800000, 0x80800001))
@example((0x80000000, 0x3F800000, 0x80000000))
def test_a_multiply_add_rounds_once_and_knows_no_denormals(unit: ctypes.CDLL, drawn: Any) -> None:
    found = fused_in_c(unit.check_fused, *(np.array([bits], np.uint32) for bits in drawn))
    assert hex(int(found[0])) == hex(fused(*drawn))


def test_a_multiply_add_is_that_of_the_cpu(unit: ctypes.CDLL) -> None:
    if not unit.check_has_fma():
        pytest.skip("this CPU has no FMA that flushes denormals as tiles do")
    rng, n = np.random.default_rng(0), 400_000
    a, b = (rng.integers(0, 2**16, n, np.uint32) << 16 for _ in range(2))
    # Of the product's size, and anything.
    size = (a >> 23 & 0xFF).astype(int) + (b >> 23 & 0xFF) - 127 + rng.integers(-30, 30, n)
    near = np.clip(size, 0, 255).astype(np.uint32) << 23
    sparse = rng.integers(0, 2**23, n, np.uint32) & -(1 << rng.integers(0, 24, n)).astype(np.uint32)
    signs = rng.integers(0, 2, n, np.uint32) << 31
    anything = rng.integers(0, 2**32, n, np.uint32)
    for c in (signs | near | (sparse & 0x7FFFFF), anything):
        np.testing.assert_array_equal(
            fused_in_c(unit.check_fused, a, b, c), fused_in_c(unit.check_fused_by_cpu, a, b, c)
        )


# A product of tiles


def random_pairs(rng: np.random.Generator, special: bool) -> np.ndarray:
    """(16, 16) pairs of bfloat16; `special`: also infinities, NaNs, denormals and zeros."""
    if special:
        return rng.integers(0, 2**32, (16, 16), np.uint32)
    halves = rng.standard_normal((16, 16, 2)).astype(np.float32).view(np.uint32) >> 16
    return np.ascontiguousarray(halves[..., 0] | halves[..., 1] << 16)


@settings(PROPERTY, max_examples=12)
@given(
    st.integers(0, 2**32), st.booleans(), st.integers(1, 16), st.integers(1, 16), st.integers(1, 16)
)
@example(0, False, 16, 16, 16)
def test_a_product_sums_even_and_odd_numbers_apart(
    unit: ctypes.CDLL, seed: int, special: bool, rows: int, pairs: int, columns: int
) -> None:
    rng = np.random.default_rng(seed)
    a, b = random_pairs(rng, special), random_pairs(rng, special)
    c = rng.standard_normal((16, 16)).astype(np.float32).view(np.uint32)
    found = one_nan(multiplied(unit, c, a, b, rows, pairs, columns))
    one = 0x3F800000
    for m, n in rng.integers(0, (rows, columns), (12, 2)):
        even = odd = 0
        for k in range(pairs):
            x, y = int(a[m, k]), int(b[k, n])
            even = fused(x << 16 & 0xFFFFFFFF, y << 16 & 0xFFFFFFFF, even)
            odd = fused(x & 0xFFFF0000, y & 0xFFFF0000, odd)
        assert found[m, n] == fused(int(c[m, n]), one, fused(even, one, odd))
    np.testing.assert_array_equal(found[rows:], c[rows:])
    np.testing.assert_array_equal(found[:, columns:], c[:, columns:])


# A step


def to_halves(x: np.ndarray) -> np.ndarray:
    """Bits of bfloat16, to nearest, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return (bits + (0x7FFF + (bits >> 16 & 1))) >> 16


Entry = tuple[int, int, int, int, int]
"""Channel, row and column of the cell, of the kernel."""


class Case:
    """A step back through a 2 x 2 pool, or none, and a convolution of 3 x 3."""

    def __init__(self, channels: tuple[int, int], features: int, pooled: bool) -> None:
        rng = np.random.default_rng(channels)
        out, inner = channels
        self.cells, self.side = (3, 4), 2 if pooled else 1
        self.size = self.cells[0] * self.side, self.cells[1] * self.side
        self.planes = rng.standard_normal((features, out, *self.cells)).astype(np.float32)
        self.weight = rng.standard_normal((out, inner, 3, 3)).astype(np.float32)
        self.switches = None
        if pooled:
            self.switches = rng.integers(0, 4, (*self.cells, out)).astype(np.uint8)

    def job(self, v: Any) -> Step:
        pool = Window((2, 2), (2, 2), (1, 1), ((0, 0), (0, 0)))
        source = Source(
            self.switches, None, NO_POOL if self.switches is None else pool, (0, 0), self.cells,
            self.size, self.planes.shape[1], {},
        )
        window = Window((3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)))
        return Step(v, source, Convolution(self.weight, window, 1, self.size, {}), Post(), True)

    def run(self, isa: str, planes: np.ndarray | None = None) -> np.ndarray:
        """Maps (features, channels, H, W)."""
        planes = self.planes if planes is None else planes
        with fastdeconv.config(backend="native", isa=isa):
            backend: Any = get_backend()
            v = backend.project(self.job(backend.from_planes(planes, True)), 2)
            found = np.empty((len(planes), self.weight.shape[1], *self.size), np.float32)
            backend.to_planes(v, found, 1)
        return found

    def entries(self, y: int, x: int) -> list[Entry]:
        """What reaches a pixel."""
        found = []
        for i, j in np.ndindex(3, 3):
            row, column = y + 1 - i, x + 1 - j
            if not (0 <= row < self.size[0] and 0 <= column < self.size[1]):
                continue
            cell = row // self.side, column // self.side
            place = row % self.side * self.side + column % self.side
            for c in range(self.weight.shape[0]):
                if self.switches is None or self.switches[(*cell, c)] == place:
                    found.append((c, *cell, i, j))
        return found

    def expected(self, multiply: Callable[..., np.ndarray]) -> np.ndarray:
        """The same, a pixel and a tile after the other; `multiply` as `multiplied`."""
        v, w = to_halves(self.planes), to_halves(self.weight)
        features, inner = len(v), self.weight.shape[1]
        found = np.empty((features, inner, *self.size), np.float32)
        for y, x in np.ndindex(*self.size):
            entries = paired(self.entries(y, x))
            wide, tall, deep = -(-features // 16), -(-inner // 16), -(-len(entries) // 32)
            left = np.zeros((tall * 16, deep * 32), np.uint32)
            right = np.zeros((deep * 32, wide * 16), np.uint32)
            for e, entry in enumerate(entries):
                if entry is None:
                    continue
                c, row, column, i, j = entry
                left[:inner, e] = w[c, :, i, j]
                right[e, :features] = v[:, c, row, column]
            a, b = left[:, ::2] | left[:, 1::2] << 16, right[::2] | right[1::2] << 16
            sums = np.zeros((tall, wide, 16, 16), np.uint32)
            for m, n, k in np.ndindex(tall, wide, deep):
                tiles = (part[i * 16 : i * 16 + 16, j * 16 : j * 16 + 16]
                         for part, i, j in ((a, m, k), (b, k, n)))
                sums[m, n] = multiply(sums[m, n], *map(np.ascontiguousarray, tiles))
            whole = sums.transpose(0, 2, 1, 3).reshape(tall * 16, wide * 16)
            found[:, :, y, x] = whole[:inner, :features].T.view(np.float32)
        return found

    def in_doubles(self) -> tuple[np.ndarray, np.ndarray]:
        """The result of rounded operands in float64, and the sums of the absolute products."""
        v, w = ((to_halves(x) << 16).view(np.float32).astype(float)
                for x in (self.planes, self.weight))
        exact = np.zeros((2, len(v), w.shape[1], *self.size))
        for y, x in np.ndindex(*self.size):
            for c, row, column, i, j in self.entries(y, x):
                product = np.outer(v[:, c, row, column], w[c, :, i, j])
                exact[:, :, :, y, x] += product, np.abs(product)
        return exact[0], exact[1]


def paired(entries: list[Entry]) -> list[Entry | None]:
    """With nothing beside the last one of every place that has an odd number of them."""
    found: list[Entry | None] = []
    for _, of_place in itertools.groupby(entries, lambda entry: entry[3:]):
        found += of_place
        found += [None] * (len(found) % 2)
    return found


CASES = [
    Case((20, 18), 21, pooled=True),    # tiles that are not full, odd numbers of them
    Case((64, 32), 16, pooled=True),    # whole tiles
    Case((45, 5), 3, pooled=False),     # more entries than are brought together at once
]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", CASES, ids=["ragged", "whole", "deep"])
def test_a_step_multiplies_the_tiles_of_every_pixel(
    unit: ctypes.CDLL, case: Case, isa: str
) -> None:
    expected = case.expected(lambda *tiles: multiplied(unit, *tiles))
    np.testing.assert_array_equal(case.run(isa), expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", CASES, ids=["ragged", "whole", "deep"])
def test_a_step_is_the_product_of_rounded_operands(case: Case, isa: str) -> None:
    exact, absolutes = case.in_doubles()
    longest = max(len(case.entries(y, x)) for y, x in np.ndindex(*case.size))
    assert (np.abs(case.run(isa) - exact) <= (longest / 2 + 3) * 2.0**-24 * absolutes).all()


@pytest.mark.parametrize("isa", ISAS)
def test_what_fills_up_a_tile_makes_no_infinity_a_nan(isa: str) -> None:
    case = CASES[0]
    planes = case.planes.copy()
    planes[1] = np.inf
    planes[4] = np.nan
    found, before = case.run(isa, planes), case.run(isa)
    others = [k for k in range(len(planes)) if k not in (1, 4)]
    np.testing.assert_array_equal(found[others], before[others])
    assert not np.isfinite(found[[1, 4]]).any()


@pytest.mark.parametrize("case", CASES, ids=["ragged", "whole", "deep"])
def test_instructions_for_tiles_do_what_the_emulated_ones_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    """What the compiler made of the kernel, on a CPU that leaves its instructions to us."""
    table, flags = native.amx_table(), cpu_flags()
    if table is None or "amx_tile" in flags or not {"avx512bw", "avx512_bf16"} <= flags:
        pytest.skip("no AMX in this build, or in this CPU, or no AVX512_BF16")
    trap = compiled("tiles_trap", tmp_path)
    trap.trap_end.restype = ctypes.c_long
    expected = case.run("amx_emulated")
    monkeypatch.setattr(native_shared, "kernels", lambda: table)
    monkeypatch.setattr(native_cpu, "kernels", lambda: table)
    trap.trap_begin()
    try:
        found = case.run("avx512")
    finally:
        taken = trap.trap_end()
    np.testing.assert_array_equal(found, expected)
    assert taken > 100


def cpu_flags() -> set[str]:
    """As Linux has them; elsewhere none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def test_tiles_have_to_be_asked_for() -> None:
    assert not set(ISAS) & set(fastdeconv.available_isas())
    for isa in ISAS:
        with fastdeconv.config(isa=isa):
            assert get_isa() == isa
