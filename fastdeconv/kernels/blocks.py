"""The forward pass in fused blocks: what a back end is asked to do.

A back end that has ``forward_blocks`` runs a convolution with all that follows it, up to
and including a max pool, in one go, and keeps activations in a form of its own between
blocks. Others are driven layer by layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from .interface import Backend, FloatArray, Padding, Pair, Window

__all__ = ["Activation", "BlockBackend", "Epilogue", "ForwardBlock"]


class Epilogue(NamedTuple):
    """What follows a convolution: scale and shift, ReLU, scale and shift, each optional."""

    affine1: tuple[FloatArray, FloatArray] | None = None
    relu: bool = False
    affine2: tuple[FloatArray, FloatArray] | None = None


class ForwardBlock(NamedTuple):
    """A convolution of the forward pass with what is fused into it."""

    weight: FloatArray
    bias: FloatArray | None
    window: Window
    groups: int
    out_size: Pair
    """Of the convolution."""
    epilogue: Epilogue
    pool: tuple[Window, Pair] | None
    """The pool that follows, and its output size."""
    room: Padding
    """Zeros the next convolution wants around the result."""
    cache: dict[Any, Any]
    """For packed weights; lives as long as the weights do."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the result."""
        return len(self.weight), *(self.pool[1] if self.pool else self.out_size)


class Activation(Protocol):
    """An activation as a back end keeps it."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)"""

    def planes(self) -> FloatArray:
        """The activation as a (C, H, W) array."""


class BlockBackend(Backend, Protocol):
    """A back end that runs fused blocks."""

    def forward_blocks(
        self, x: Any, blocks: Sequence[ForwardBlock], algorithm: str, num_threads: int
    ) -> list[tuple[Any, NDArray[Any] | None]]:
        """Convolution, epilogue and pool in one pass, of each block on what the last one gave.

        Parameters
        ----------
        x : array (C, H, W) or Activation
            An `Activation` has at least the first convolution's padding around it.
        algorithm : {"auto", "direct", "winograd"}
            As `Network.forward` has it.

        Returns
        -------
        list of (Activation, switches)
            Of every block; switches (H, W, Cs), Cs >= C, or None without a pool.
        """
