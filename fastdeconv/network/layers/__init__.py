"""The layers that a network can have, as plain records: parameters and shapes, no arithmetic.

There is one file for each family of layers. Every layer is a frozen dataclass, whose fields are
the parameters of the archive format, with PyTorch's defaults. They keep the form in which they
were written (``padding`` may be ``"same"``, a stride an int or a pair), but lists become tuples,
so that a record can be hashed and never changes. Parameters are checked when the record is made.

Shapes are (C, H, W), with None for an unknown size. The output of a flat layer is (C, 1, 1).
"""

from . import activations as _activations
from .activations import *
from .base import *
from .checks import LARGEST_SIZE as LARGEST_SIZE
from .combining import *
from .convolution import *
from .normalisation import *
from .pooling import *
from .records import *
from .shaping import *

#: Types of layers that turn scores into probabilities.
OUTPUTS = ("softmax", "sigmoid")


def __getattr__(name: str) -> type[Elementwise]:
    """The classes of activations, which are generated from their table."""
    found: type[Elementwise] = getattr(_activations, name)
    return found
