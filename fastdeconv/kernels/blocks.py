"""The forward pass in blocks: what a back end is asked to do.

A block is a layer together with the layers after it that can run in the same go, up to and
including a pool. A back end that has ``forward_blocks`` runs whole blocks, and stores the
activations between them in a layout of its own. Blocks that it cannot run are computed layer by
layer, on planes (C, H, W).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from .activations import InKernel
from .interface import Backend, FloatArray, Padding, Pair, Window

__all__ = [
    "Activation", "BlockBackend", "BlockResults", "ConvBlock", "Epilogue", "ForwardBlock",
    "JoinBlock", "Pool", "PoolBlock",
]

Shape = tuple[int, int, int]
"""(C, H, W)"""


class Epilogue(NamedTuple):
    """What is done to a finished sum, each part optional: affine, activation, affine.

    An affine is x * scale + shift, with a number for each channel.
    """

    affine1: tuple[FloatArray, FloatArray] | None = None
    activation: InKernel | None = None
    weight: FloatArray | None = None
    """The parameter `weight` of the activation: one number for each channel."""
    affine2: tuple[FloatArray, FloatArray] | None = None

    @property
    def parts(self) -> tuple[bool, bool, bool]:
        """Which of the three are missing.

        It changes when a trace is asked for an activation inside a block.
        """
        return self.affine1 is None, self.activation is None, self.affine2 is None


class Pool(NamedTuple):
    """A max pool, or an average pool."""

    window: Window
    counts: FloatArray | None = None
    """Of an average pool, (H, W): the number of elements that each mean is taken over."""


@dataclass(frozen=True)
class ForwardBlock:
    """Layers that run together.

    Attributes
    ----------
    sources : tuple of int
        The keys of the activations that it takes.
    key : int
        The key of the activation that it makes.
    shape : (C, H, W)
        The shape of that activation.
    room : Padding
        How many zeros the convolutions that take this activation need around it.
    cache : dict
        Packed weights. It lives as long as the weights do.
    """

    sources: tuple[int, ...]
    key: int
    shape: Shape
    room: Padding
    cache: dict[Any, Any]


@dataclass(frozen=True)
class ConvBlock(ForwardBlock):
    """A convolution, an epilogue, and perhaps a pool."""

    weight: FloatArray
    bias: FloatArray | None
    window: Window
    groups: int
    out_size: Pair
    """The size of the convolution's output, before the pool."""
    epilogue: Epilogue
    pool: Pool | None
    cut_from: ConvBlock | None = None
    """The block that this one is a part of, whose sums it repeats bit for bit."""


@dataclass(frozen=True)
class JoinBlock(ForwardBlock):
    """Several activations joined into one, or a single one unchanged, then an epilogue."""

    kind: str
    """"sum" or "product" (an axis of size 1 is repeated), or "concat" (along the channels)."""
    epilogue: Epilogue


@dataclass(frozen=True)
class PoolBlock(ForwardBlock):
    """A pool without a convolution, or the means over whole axes."""

    pool: Pool


class Activation(Protocol):
    """An activation, in the layout that a back end stores it in."""

    @property
    def shape(self) -> Shape: ...

    def planes(self, num_threads: int) -> FloatArray:
        """The activation as a (C, H, W) array."""

    def cells(self) -> FloatArray | None:
        """The activation as an (H, W, C) array, or None if it is not stored with channels last."""

    def largest(self) -> float:
        """Its largest absolute value."""


class BlockResults(Protocol):
    """What blocks made: a sequence with one pair of activation and switches for each block.

    It also has the arrays that the blocks were given, copied in the same go.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, block: int) -> tuple[Activation, NDArray[Any] | None]: ...

    def copy_of(self, key: int) -> Activation:
        """An array that was given."""

    def largest_of(self, key: int) -> float:
        """The largest absolute value of an array that was given; NaN if it has NaN."""


class BlockBackend(Backend, Protocol):
    """A back end that runs blocks.

    Attributes
    ----------
    runs_joins : bool
        True if it can run every kind of block. False if it can run a `ConvBlock` only, with ReLU
        as the only activation and a max pool as the only pool.
    copies_given : bool
        Whether what `forward_blocks` returns is `BlockResults`.
    """

    runs_joins: bool
    copies_given: bool

    def forward_blocks(
        self, given: Mapping[int, Any], blocks: Sequence[ForwardBlock], algorithm: str,
        num_threads: int,
    ) -> Sequence[tuple[Any, NDArray[Any] | None]]:
        """Run blocks one after another.

        Parameters
        ----------
        given : mapping of int to array (C, H, W) or Activation
            The activations that these blocks take and do not make themselves, by key. An
            `Activation` must have at least as much padding around it as these blocks need.
        blocks : sequence of ForwardBlock
        algorithm : {"auto", "direct", "winograd"}
            See `Network.forward`.

        Returns
        -------
        sequence of (Activation, switches)
            One pair for each block. The switches have shape (H, W, Cs) with Cs >= C; None for a
            block without a max pool.
        """

    def switch_planes(
        self, switches: NDArray[Any], channels: int, num_threads: int
    ) -> NDArray[Any]:
        """Switches (H, W, Cs) as planes (C, H, W)."""
