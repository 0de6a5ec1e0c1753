"""Translate names of classes and parameters of Keras 1 to those of Keras 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import ArchiveError, shown

__all__ = ["KERAS_1", "modern"]

#: A key that is added to configs of Keras 1, which stored kernels in another order.
KERAS_1 = "written by Keras 1"

_CLASSES = {
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "AtrousConv2D": "Conv2D",
    "Deconvolution2D": "Conv2DTranspose",
    "SeparableConvolution1D": "SeparableConv1D",
    "SeparableConvolution2D": "SeparableConv2D",
    "Convolution2DTranspose": "Conv2DTranspose",
    "MaxPool1D": "MaxPooling1D",
    "MaxPool2D": "MaxPooling2D",
    "AvgPool1D": "AveragePooling1D",
    "AvgPool2D": "AveragePooling2D",
    "GlobalAvgPool1D": "GlobalAveragePooling1D",
    "GlobalAvgPool2D": "GlobalAveragePooling2D",
    "GlobalMaxPool1D": "GlobalMaxPooling1D",
    "GlobalMaxPool2D": "GlobalMaxPooling2D",
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
}
_KEYS = {
    "nb_filter": "filters",
    "subsample": "strides",
    "subsample_length": "strides",
    "border_mode": "padding",
    "bias": "use_bias",
    "filter_length": "kernel_size",
    "atrous_rate": "dilation_rate",
    "pool_length": "pool_size",
    "stride": "strides",
    "output_dim": "units",
    "length": "size",
}
_ORDERINGS = {"th": "channels_first", "tf": "channels_last"}
_MERGES = {
    "sum": "Add", "mul": "Multiply", "concat": "Concatenate", "ave": "Average", "max": "Maximum",
}


def modern(kind: str, config: Mapping[str, Any], name: str) -> tuple[str, Mapping[str, Any]]:
    """The class and config of a layer with the names of Keras 2.

    Raises
    ------
    ArchiveError
        If the order of the axes is unknown.
    """
    new: dict[str, Any] = dict(config)
    if "nb_row" in config and "nb_col" in config:
        new["kernel_size"] = [config["nb_row"], config["nb_col"]]
    for old, key in _KEYS.items():
        # A key that exists already, such as the `padding` of ZeroPadding, is kept.
        if old in config and key not in config:
            new[key] = config[old]
    if "dim_ordering" in config:
        ordering = config["dim_ordering"]
        if not isinstance(ordering, str) or ordering not in _ORDERINGS:
            raise ArchiveError(
                f"layer {shown(name)}: found dim_ordering {shown(ordering)}, wanted 'th' or 'tf'"
            )
        new["data_format"] = _ORDERINGS[ordering]
    if "nb_filter" in config:
        new[KERAS_1] = True
    kind = _CLASSES.get(kind, kind)
    if kind == "Merge":
        mode = config.get("mode")
        if isinstance(mode, str) and config.get("mode_type", "raw") == "raw":
            kind = _MERGES.get(mode, kind)
        if kind == "Concatenate":
            new["axis"] = config.get("concat_axis", -1)
    return kind, new
