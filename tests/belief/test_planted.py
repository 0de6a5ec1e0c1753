"""Networks whose decision rests on a planted cue: it must be seen, heard and ranked first, and a
network that ignores it must not be said to hear it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.belief.grid import Patches
from fastdeconv.belief.rules import METHODS

from .planted import CUES, Cue, clip, network

KINDS = [("softmax", False), ("sigmoid", False), ("softmax", True), ("sigmoid", True)]
KIND_NAMES = ["softmax", "sigmoid", "frames, softmax", "frames, sigmoid"]
#: Rules whose maps must lie on the cue alone. Class activation maps know no frequency here,
#: occlusion is as coarse as its patches, deconvnet maps have all that the way back restores.
SHARP = ("integrated_gradients", "gradient_x_deviation")


@cache
def explained(listens_to: str | None, output: str, per_frame: bool) -> fd.Decision:
    sound = clip()
    return fd.decision(sound, network(sound, listens_to, output, per_frame=per_frame), "cue", "all")


def share(values: np.ndarray, cue: Cue) -> float:
    """Of the sum over a plane of bins and frames."""
    return float(values[cue.bins, cue.frames].sum() / values.sum())


def power(sound: np.ndarray) -> np.ndarray:
    return np.abs(fd.Clip(sound, 8000, clip().frontend).stft).astype(np.float64) ** 2


def number(why: fd.Decision, method: str, name: str) -> float:
    (row,) = (row for row in why.table if row["method"] == method)
    return float(row[name])


@pytest.mark.parametrize("output, per_frame", KINDS, ids=KIND_NAMES)
@pytest.mark.parametrize("name", ["tone", "click"])
class TestACue:
    def test_is_found(self, name: str, output: str, per_frame: bool) -> None:
        why = explained(name, output, per_frame)
        assert why.scores["cue"].score == max(score.score for score in why.scores.values())
        for method in SHARP:
            assert share(np.maximum(why.maps["cue", method], 0), CUES[name]) > 0.9, method

    def test_is_heard_though_it_is_soft(self, name: str, output: str, per_frame: bool) -> None:
        why = explained(name, output, per_frame)
        assert share(power(clip().samples), CUES[name]) < 0.15
        for method in (*SHARP, "gradient", "occlusion"):
            assert share(power(why.sound("cue", method)), CUES[name]) > 0.95, method

    def test_is_gone_from_what_is_left(self, name: str, output: str, per_frame: bool) -> None:
        why = explained(name, output, per_frame)
        bins, frames = CUES[name]
        before = power(clip().samples)[bins, frames].sum()
        after = power(why.sound("cue", "guided", "left"))[bins, frames].sum()
        assert after < 0.3 * before
        assert number(why, "integrated_gradients", "ff_top") > 0.02

    def test_is_ranked_first(self, name: str, output: str, per_frame: bool) -> None:
        why = explained(name, output, per_frame)
        assert why.verdict("cue").startswith("Look at ")
        (best,) = (row for row in why.table if row["best"])
        assert share(power(why.sound("cue", best["method"])), CUES[name]) > 0.95
        baselines = ("random", "input", "band_mean")
        for method in SHARP:
            srg = number(why, method, "srg")
            assert srg > max(number(why, other, "srg") for other in baselines)
            (runner_up,) = (row for row in why.table if row["of"] == method)
            assert srg > runner_up["srg"]
            patches = Patches.of((129, 96))
            first = int(patches.means(why.heard_map("cue", method)).argmax())
            (lo, hi), (begin, end) = [*patches][first]
            bins, frames = CUES[name]
            assert lo < bins.stop and bins.start < hi
            assert begin < frames.stop and frames.start < end

    def test_what_spoke_against_it_is_the_other_sound(
        self, name: str, output: str, per_frame: bool
    ) -> None:
        """Under softmax what makes "loud" likelier; under sigmoid classes are apart."""
        why = explained(name, output, per_frame)
        against = power(why.sound("cue", "integrated_gradients", "against"))
        if output == "softmax":
            assert share(against, CUES["loud"]) > 0.9
        else:
            map_ = why.maps["cue", "integrated_gradients"]
            bins, frames = CUES["loud"]
            assert np.abs(map_[bins, frames]).max() < 1e-3 * np.abs(map_).max()


@pytest.mark.parametrize("output, per_frame", KINDS, ids=KIND_NAMES)
@pytest.mark.parametrize("listens_to", ["elsewhere", None])
def test_who_ignores_the_cues_is_not_said_to_hear_them(
    listens_to: str | None, output: str, per_frame: bool
) -> None:
    why = explained(listens_to, output, per_frame)
    assert why.verdict("cue").startswith("No explanation found")
    assert not any(row["best"] for row in why.table)
    for method in METHODS[:-1]:  # deconvnet maps restore the input, whatever it means
        map_ = why.maps["cue", method]
        for name in ("tone", "click"):
            bins, frames = CUES[name]
            own = np.maximum(explained(name, output, per_frame).maps["cue", method], 0)
            assert np.maximum(map_[bins, frames], 0).sum() < 0.05 * own.sum(), (method, name)


def test_versus_tells_which_of_two_sounds_it_was() -> None:
    sound = clip()
    net = network(sound, "tone", "softmax", per_frame=False)
    why = fd.decision(sound, net, "cue", versus="loud")
    assert share(power(why.sound("cue")), CUES["tone"]) > 0.95
    assert share(power(why.sound("cue", part="against")), CUES["loud"]) > 0.95
