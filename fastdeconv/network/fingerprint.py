"""Short hashes that tell networks, front ends and settings apart."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from .layers import layer_records
from .network import Network

__all__ = ["hash_of", "network_hash"]


def hash_of(*parts: Any) -> str:
    """The hash of arrays and JSON values: 16 hexadecimal digits of their SHA-256."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            found.update(f"{part.dtype.str}{part.shape}".encode())
            found.update(np.ascontiguousarray(part).data)
        else:
            found.update(json.dumps(part).encode())
    return found.hexdigest()[:16]


def network_hash(network: Network) -> str:
    """The hash of everything that the output of a network depends on."""
    return hash_of(
        *network.arrays.values(), layer_records(network.layers), network.classes, network.output
    )
