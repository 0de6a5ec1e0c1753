"""Networks of other people: read, rewritten as layers, and compared with the original."""

from .keras import from_keras as from_keras
from .onnx import from_onnx as from_onnx
from .torch import from_torch as from_torch
