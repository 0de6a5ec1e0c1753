"""What a result rests on, as every manifest cites it."""

from __future__ import annotations

__all__ = ["AURALISATION", "DECONVNET"]

AURALISATION = (
    "K. Choi, G. Fazekas, M. Sandler: Explaining Deep Convolutional Neural Networks on "
    "Music Classification. arXiv:1607.02444, 2016."
)
DECONVNET = (
    "M. D. Zeiler, R. Fergus: Visualizing and Understanding Convolutional Networks. "
    "ECCV 2014. arXiv:1311.2901."
)
