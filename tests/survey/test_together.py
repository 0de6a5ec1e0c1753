from __future__ import annotations

import numpy as np
import pytest

from fastdeconv.survey import together
from fastdeconv.survey.together import strongest_pairs


def blocks(seed=0, count=400, features=15):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((count, 5)) @ rng.standard_normal((5, features))
    values = np.maximum(0, values + 0.3 * rng.standard_normal(values.shape)).astype(np.float32)
    values[:, 3] = values[:, 7] * 2  # twins
    values[:, 5] = 1.5  # never changes
    return np.array_split(values, [13, 13, 200])


def test_the_strongest_correlations_come_first():
    parts = blocks()
    found = strongest_pairs(lambda: parts, 15)
    values = np.concatenate(parts).astype(float)
    with np.errstate(invalid="ignore"):
        wanted = np.corrcoef(values.T)
    np.testing.assert_allclose(found.r, wanted[found.one, found.other], atol=1e-6)
    for one in set(range(15)) - {5}:
        mine = found.other[found.one == one]
        others = np.delete(np.arange(15), [one, 5])
        np.testing.assert_allclose(
            wanted[one, mine], sorted(wanted[one, others], reverse=True)[:10], atol=1e-6
        )
    assert found.other[found.one == 3][0] == 7 and found.r[found.one == 3][0] == 1
    assert 5 not in found.one and 5 not in found.other


@pytest.mark.parametrize("cells", [15, 40, 1 << 20])
def test_neither_order_nor_pieces_change_a_bit(cells, monkeypatch):
    parts = blocks()
    wanted = strongest_pairs(lambda: parts, 15)
    monkeypatch.setattr(together, "_MOST_CELLS", cells)
    shuffled = [part[::-1] for part in parts[::-1]]
    found = strongest_pairs(lambda: shuffled, 15)
    for one, other in zip(wanted, found):
        np.testing.assert_array_equal(one, other)


def test_without_windows_there_are_no_pairs():
    assert len(strongest_pairs(lambda: [np.zeros((0, 3), np.float32)], 3).r) == 0
