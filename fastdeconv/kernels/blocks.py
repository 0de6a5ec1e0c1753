"""The forward pass in blocks: what a back end is asked to do.

A back end that has ``forward_blocks`` runs a layer with all that follows it, up to and
including a max pool, in one go, and keeps activations in a form of its own between
blocks. What it does not know is done layer by layer, on planes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from .activations import InKernel
from .interface import Backend, FloatArray, Padding, Pair, Window

__all__ = [
    "Activation", "BlockBackend", "ConvBlock", "Epilogue", "ForwardBlock", "JoinBlock",
    "Pool", "PoolBlock",
]

Shape = tuple[int, int, int]
"""(C, H, W)"""


class Epilogue(NamedTuple):
    """What follows: scale and shift, an activation, scale and shift, each optional."""

    affine1: tuple[FloatArray, FloatArray] | None = None
    activation: InKernel | None = None
    weight: FloatArray | None = None
    """Of the activation, a number for each channel."""
    affine2: tuple[FloatArray, FloatArray] | None = None

    @property
    def parts(self) -> tuple[bool, bool, bool]:
        """Which there are: an epilogue grows when a trace is asked for what is inside a block."""
        return self.affine1 is None, self.activation is None, self.affine2 is None


class Pool(NamedTuple):
    """A max pool, or an average pool."""

    window: Window
    counts: FloatArray | None = None
    """Of means (H, W): how many elements each is taken over."""


@dataclass(frozen=True)
class ForwardBlock:
    """Layers that run together.

    Attributes
    ----------
    sources : tuple of int
        The keys of the activations that go in.
    key : int
        Of the activation that comes out.
    shape : (C, H, W)
        Of that.
    room : Padding
        Zeros that the convolutions which take it want around it.
    cache : dict
        For packed weights; lives as long as the weights do.
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
    """Of the convolution."""
    epilogue: Epilogue
    pool: Pool | None


@dataclass(frozen=True)
class JoinBlock(ForwardBlock):
    """Several activations made one, or a single one as it is, and an epilogue."""

    kind: str
    """"sum" or "product", where an axis of size 1 is repeated, or "concat", of channels."""
    epilogue: Epilogue


@dataclass(frozen=True)
class PoolBlock(ForwardBlock):
    """A pool by itself, or the means over whole axes."""

    pool: Pool


class Activation(Protocol):
    """An activation as a back end keeps it."""

    @property
    def shape(self) -> Shape: ...

    def planes(self) -> FloatArray:
        """The activation as a (C, H, W) array."""

    def cells(self) -> FloatArray | None:
        """As (H, W, C), if it lies in memory like that."""

    def largest(self) -> float:
        """Its largest absolute value."""


class BlockBackend(Backend, Protocol):
    """A back end that runs blocks.

    Attributes
    ----------
    runs_joins : bool
        Whether it takes every block; one that does not takes a `ConvBlock` alone, with no
        other activation than ReLU and no other pool than a max pool.
    """

    runs_joins: bool

    def forward_blocks(
        self, given: Mapping[int, Any], blocks: Sequence[ForwardBlock], algorithm: str,
        num_threads: int,
    ) -> list[tuple[Any, NDArray[Any] | None]]:
        """The blocks one after another.

        Parameters
        ----------
        given : mapping of int to array (C, H, W) or Activation
            What goes in and is not the result of a block here. An `Activation` has at least
            the padding around it that these blocks want.
        blocks : sequence of ForwardBlock
        algorithm : {"auto", "direct", "winograd"}
            As `Network.forward` has it.

        Returns
        -------
        list of (Activation, switches)
            Of every block; switches (H, W, Cs), Cs >= C, or None without a max pool.
        """
