"""`explain`: from a song to the sound of every feature in one call."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, overload

from numpy.typing import ArrayLike

from .deconvnet.scores import class_scores
from .errors import enough_memory
from .explaining.clip_explanation import Explanation
from .explaining.kept import Kept
from .explaining.planning import MEMORY_ADVICE, Features, Plan, Progress, plan
from .explaining.result import computation
from .explaining.song_explanation import SongExplanation
from .explaining.song_planning import SongPlan, plan_song
from .kernels.dispatch import config

if TYPE_CHECKING:
    from .network.network import Network

__all__ = ["DEFAULT_NETWORK", "Explanation", "compute", "explain", "prepare"]

#: The bundled network `explain` uses when it is given none.
DEFAULT_NETWORK = "choi5-genre"


@overload
def explain(
    source: Any,
    net: Network | str | os.PathLike[str] = ...,
    layers: str | Iterable[str] | None = ...,
    features: Features | None = ...,
    rule: Literal["deconvnet", "guided", "gradient", "gradient_x_deviation"] = ...,
    start: Literal["map", "max", "one"] | ArrayLike = ...,
    mode: Literal["mask", "phase", "wiener"] = ...,
    *,
    offset: float = ...,
    duration: None = ...,
    precision: Literal["float32", "bf16"] = ...,
    backend: str | None = ...,
    num_threads: int | None = ...,
    progress: Progress | None = ...,
) -> Explanation: ...


@overload
def explain(
    source: Any,
    net: Network | str | os.PathLike[str] = ...,
    layers: str | Iterable[str] | None = ...,
    features: Features | None = ...,
    rule: Literal["deconvnet", "guided", "gradient", "gradient_x_deviation"] = ...,
    start: Literal["map", "max", "one"] | ArrayLike = ...,
    mode: Literal["mask", "phase", "wiener"] = ...,
    *,
    offset: float = ...,
    duration: float | Literal["all"],
    precision: Literal["float32", "bf16"] = ...,
    backend: str | None = ...,
    num_threads: int | None = ...,
    progress: Progress | None = ...,
) -> SongExplanation: ...


def explain(
    source: Any,
    net: Network | str | os.PathLike[str] = DEFAULT_NETWORK,
    layers: str | Iterable[str] | None = None,
    features: Features | None = None,
    rule: Literal["deconvnet", "guided", "gradient", "gradient_x_deviation"] = "deconvnet",
    start: Literal["map", "max", "one"] | ArrayLike = "map",
    mode: Literal["mask", "phase", "wiener"] = "mask",
    *,
    offset: float = 0.0,
    duration: float | Literal["all"] | None = None,
    precision: Literal["float32", "bf16"] = "float32",
    backend: str | None = None,
    num_threads: int | None = None,
    progress: Progress | None = None,
) -> Explanation | SongExplanation:
    """Project the features of a network back to a clip, to be seen and heard.

    Parameters
    ----------
    source : path, file object, (samples, sr) or Clip
        What `load_clip` takes; a `Clip` is used as it is, with its own front end.
    net : Network, str or path
        A network, the name of a bundled one (`list_pretrained`) or of a public one
        (``fastdeconv networks`` lists both), or the path of an archive or of an ONNX or Keras
        model.
    layers : iterable of str, optional
        Names of layers. Default: every max-pooling layer; in a network without
        one, the last layer of every convolution block (convolution, normalisation,
        activation); with a dict of `features`, its keys.
    features : sequence of int, "all", or dict of layer name -> either, optional
        Feature numbers from 0, for all layers or for each layer. Default, also for a
        layer that is not in the dict: all features; with a `duration`, those to hear first.
    rule : {"deconvnet", "guided", "gradient", "gradient_x_deviation"}
        How the backward pass treats activations. "gradient_x_deviation" is the gradient times
        the difference between the input and its mean over time in every band. It is positive
        where the input raises the activation, and negative where it lowers it. With start "map"
        it starts from 1 everywhere. It cannot be used with a `duration`.
    start : {"map", "max", "one"} or array, shape (K, H, W)
        Where the backward pass starts: from the feature's whole map (arXiv 1607.02444), from its
        strongest unit alone (arXiv 1311.2901), from 1 everywhere, or from values of your own.
    mode : {"mask", "phase", "wiener"}
        How a map becomes sound, see `auralise`.
    offset : float
        Seconds of the file to skip.
    duration : float or "all", optional
        How many seconds of the song to explain, in windows; see `SongExplanation`.
        Default: as much as the front end's `frames` hold, as one clip.
    precision : {"float32", "bf16"}
        ``"bf16"`` is faster and less exact, see `deconvolve`.
    backend : {"native", "numba", "cuda", "reference"}, optional
    num_threads : int, optional
        The result is the same, bit for bit, for any number of threads.
    progress : callable, optional
        Called with (layer, features done, features in all) after each layer; with a `duration`,
        with ("time lines", windows done, windows in all) after each window.

    Returns
    -------
    Explanation
        Or, with a `duration`, a `SongExplanation`.

    Raises
    ------
    ParameterError
        If an argument is not one of the above, the network has no front end, or it
        cannot take an input of this size.
    AudioError
        If `source` cannot be used as sound.
    ArchiveError
        If the archive of the network is damaged.
    BackendError
        If the back end, or bfloat16 on it, is not available.
    FileNotFoundError
        If there is no such sound file or archive.

    Examples
    --------
    >>> import numpy as np, fastdeconv as fd
    >>> net = fd.Network(
    ...     [{"type": "conv2d", "name": "conv1"}, {"type": "max_pool2d", "name": "pool1",
    ...      "kernel_size": 2}],
    ...     {"conv1.weight": np.ones((4, 1, 3, 3)), "conv1.bias": np.zeros(4)},
    ...     input_shape=(1, 257, None),
    ...     frontend=fd.Frontend(sr=11025, n_fft=512, hop_length=256),
    ... )
    >>> ex = fd.explain((np.ones(11025, np.float32), 11025), net, features=[3, 1])
    >>> ex
    <Explanation of 'clip': pool1: 2>
    >>> ex.maps["pool1"].shape, ex.sound("pool1", 3).shape
    ((2, 1, 257, 44), (11025,))
    """
    with config(backend=backend, num_threads=num_threads):
        prepared = prepare(
            source, net, layers, features, rule, start, mode, offset=offset,
            duration=duration, precision=precision,
        )
        return compute(prepared, progress)


def prepare(
    source: Any, net: Network | str | os.PathLike[str], *args: Any,
    duration: float | str | None = None, **how: Any,
) -> Plan | SongPlan:
    """Read and check what is to be explained. The parameters are those of `explain`."""
    if duration is None:
        return plan(source, net, *args, **how)
    return plan_song(source, net, *args, duration=duration, **how)


def compute(
    planned: Plan | SongPlan, progress: Progress | None = None, kept: Kept | None = None
) -> Explanation | SongExplanation:
    """Compute what was prepared, on the back end in use.

    Layers of an earlier result that are `kept` are not computed again.
    """
    if isinstance(planned, SongPlan):
        return SongExplanation(planned, progress, kept)
    there = () if kept is None else kept.pages
    missing = {layer: ks for layer, ks in planned.features.items() if layer not in there}
    with enough_memory(MEMORY_ADVICE):
        trace = planned.network.forward(planned.clip.x)
        maps = planned._replace(features=missing).project(trace, progress)
        activations = {layer: trace[layer] for layer in missing}
        scores = class_scores(trace)
    return Explanation(
        plan=planned, maps=maps, activations=activations, scores=scores,
        computation=computation(), kept=kept,
    )
