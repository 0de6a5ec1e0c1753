"""The methods of a decision: their maps (F, T) are positive where the input speaks for a class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..deconvnet.plan import rectifies
from ..deconvnet.projection import deconvolve_from, gradient_at
from ..deconvnet.scores import score_layer, scores_of
from ..deconvnet.trace import Trace
from ..errors import ParameterError
from ..network import layers as nn
from .feature_maps import deviation
from .grid import Grid, Patches, as_fill
from .occlusion import occlude_trace
from .passes import scores_of_constant, side_by_side
from .targets import Target

__all__ = ["METHODS", "STEPS", "Rules", "blurred", "cam_layer"]

Array = NDArray[Any]
Numbers = NDArray[np.float64]

#: Names of the methods, the default first.
METHODS = (
    "integrated_gradients", "cam", "occlusion", "gradient_x_deviation", "gradient", "guided",
    "deconvnet",
)
#: Default number of steps of integrated gradients.
STEPS = 12
_SIGMA = 8.0
"""Standard deviation of the Gaussian that smooths maps, in bins and frames."""
_RECTIFIED = ("guided", "deconvnet")
_SMOOTH = ("cam", "occlusion")


class Rules:
    """The methods for some targets and one clip; what they have in common is computed once.

    Parameters
    ----------
    trace : Trace
        Of the clip.
    grid : Grid
        Of the clip.
    targets : sequence of Target
    steps : int
        Of integrated gradients.
    """

    def __init__(
        self, trace: Trace, grid: Grid, targets: Sequence[Target], steps: int = STEPS
    ) -> None:
        self.trace, self.grid, self.targets, self.steps = trace, grid, list(targets), steps
        self.scores = scores_of(trace)
        self._top = score_layer(trace.network)
        self._known: dict[str, Numbers] = {}
        self.complete: list[tuple[float, float]] = []
        """For each target the sum of the map of integrated gradients, and what it should be."""

    def maps(self, method: str) -> Numbers:
        """A map (F, T) for each target."""
        make: dict[str, Callable[[], Numbers]] = {
            "integrated_gradients": self._integrated_gradients,
            "cam": self._cam,
            "occlusion": self._occlusion,
            "gradient_x_deviation": self._gradient_x_deviation,
            "gradient": lambda: self._planes(self._gradients(self.trace)),
            "guided": lambda: self._started("guided"),
            "deconvnet": lambda: self._started("deconvnet"),
        }
        if method not in self._known:
            self._known[method] = make[method]()
        return self._known[method]

    def _planes(self, maps: Array) -> Numbers:
        return np.asarray(self.grid.planes(maps), np.float64)

    def _back(self, trace: Trace, values: Sequence[Numbers], rule: str) -> Array:
        """Project values at the scores (classes, H, W), an array for each target, to the input."""
        planes = np.stack(values).astype(np.float32)
        shape = len(planes), *trace.activation(self._top).shape
        return deconvolve_from(trace, self._top, planes.reshape(shape), rule)

    def _gradients(self, trace: Trace) -> Array:
        scores = scores_of(trace)
        return self._back(trace, [target.slopes(scores) for target in self.targets], "gradient")

    def _started(self, rule: str) -> Numbers:
        starts = [target.start(self.scores) for target in self.targets]
        return self._planes(self._back(self.trace, starts, rule))

    def _gradient_x_deviation(self) -> Numbers:
        maps = self._gradients(self.trace).astype(np.float64) * deviation(self.trace, self.grid)
        return self._planes(maps)

    def _integrated_gradients(self) -> Numbers:
        x = self.trace.x
        silence = x.min()
        way = x.astype(np.float64) - silence
        total = np.zeros((len(self.targets), *x.shape))

        def found_at(k: int) -> Array:
            """The scores of silence, then the gradients at every step."""
            if k == 0:
                return scores_of_constant(self.trace.network, x.shape, silence)
            share = (k - 0.5) / self.steps
            return self._gradients(self.trace.network.forward(silence + share * way))

        found = side_by_side(found_at, 1 + self.steps)
        none = next(found)
        for gradients in found:
            total += gradients
        maps = total / self.steps * way
        self.complete = [
            (float(one.sum()), target.score(self.scores) - target.score(none))
            for one, target in zip(maps, self.targets)
        ]
        return self._planes(maps)

    def _cam(self) -> Numbers:
        trace = self.trace
        layer = cam_layer(trace)
        slopes = np.stack([target.slopes(self.scores) for target in self.targets])
        shape = len(slopes), *trace.activation(self._top).shape
        gradients = gradient_at(trace, self._top, slopes.reshape(shape), layer)
        weights = gradients.mean(axis=(2, 3), dtype=np.float64)
        # einsum: BLAS rounds differently with the number of its threads.
        coarse = np.einsum("kc,chw->khw", weights, trace.activation(layer), dtype=np.float64)
        fine = _bilinear(np.maximum(coarse, 0), trace.x.shape[1:])
        every = np.broadcast_to(fine[:, None], (len(fine), *trace.x.shape))
        return self._planes(every) / len(self.grid.x)

    def _occlusion(self) -> Numbers:
        patches = Patches.of(self.grid.shape)
        filled = as_fill(self.grid, "band_mean")
        found = occlude_trace(self.trace, self.grid, patches, filled, [], self.targets)
        drops = np.stack([*found.class_drops.values()])
        return patches.spread(drops.reshape(len(drops), -1))


def cam_layer(trace: Trace) -> int:
    """The layer of class activation maps, below the scores.

    It is the rectifier before the second last pool. With fewer than two pools, it is the last layer
    whose maps have more than one place.

    Raises
    ------
    ParameterError
        If the maps of no layer have more than one place.
    """
    net, top = trace.network, score_layer(trace.network)
    pools = [
        i for i, layer in enumerate(net.layers[:top])
        if isinstance(layer, (nn.MaxPool2d, nn.AvgPool2d))
    ]
    if len(pools) > 1:
        (below,) = net.sources[pools[-2]]
        at = below
        while at >= 0 and not rectifies(net.layers[at]):
            if isinstance(net.layers[at], (nn.Conv2d, nn.Joining)):
                return below
            (at,) = net.sources[at]
        return at if at >= 0 else max(below, 0)
    shapes = net.shapes(trace.x.shape)
    several = [i for i in range(top) if shapes[i][1] * shapes[i][2] > 1]
    if not several:
        raise ParameterError(
            "cam has nothing to show: no layer below the scores has maps with several places. Ask "
            "for other methods"
        )
    return several[-1]


def blurred(method: str, maps: Numbers) -> Numbers:
    """The maps (..., F, T) of a method, smoothed unless the method gives smooth maps."""
    if method in _SMOOTH:
        return maps
    from scipy.ndimage import gaussian_filter

    if method in _RECTIFIED:
        maps = np.maximum(maps, 0)
    sigma = (*(0.0 for _ in maps.shape[:-2]), _SIGMA, _SIGMA)
    return np.asarray(gaussian_filter(maps, sigma, mode="reflect"))


def _bilinear(planes: Numbers, size: Sequence[int]) -> Numbers:
    """Planes (K, h, w) resized by bilinear interpolation; values are at the middle of places."""
    for axis, wanted in ((1, size[0]), (2, size[1])):
        n = planes.shape[axis]
        at = np.clip((np.arange(wanted) + 0.5) * n / wanted - 0.5, 0, n - 1)
        lower = np.minimum(at.astype(np.intp), max(n - 2, 0))
        share = (at - lower).reshape((-1, 1) if axis == 1 else (-1,))
        upper = np.minimum(lower + 1, n - 1)
        planes = planes.take(lower, axis) * (1 - share) + planes.take(upper, axis) * share
    return planes

