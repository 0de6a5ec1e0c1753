"""Operators of ONNX, and those that `passes` make, each a function that puts layers."""

from __future__ import annotations

from ..building import Operator
from . import activations, combining, normalisations, pooling, shaping, windows

__all__ = ["OPERATORS"]

#: The function of every operator that can become layers.
OPERATORS: dict[str, Operator] = {
    # windows and matrices
    "Conv": windows.conv,
    "ConvTranspose": windows.conv_transpose,
    "Gemm": windows.gemm,
    "MatMul": windows.matmul,
    "Linear": windows.linear,
    # pools and reductions
    "MaxPool": pooling.max_pool,
    "AveragePool": pooling.average_pool,
    "GlobalMaxPool": pooling.global_max_pool,
    "GlobalAveragePool": pooling.global_average_pool,
    "ReduceMean": pooling.reduce_mean,
    "ReduceMax": pooling.reduce_max,
    "ReduceSum": pooling.reduce_sum,
    "ReduceL2": pooling.reduce_l2,
    # activations
    "Relu": activations.same("relu"),
    "Sigmoid": activations.same("sigmoid"),
    "Tanh": activations.same("tanh"),
    "Silu": activations.same("silu"),
    "HardSwish": activations.same("hardswish"),
    "Mish": activations.same("mish"),
    "Softplus": activations.softplus,
    "Softsign": activations.same("softsign"),
    "Exp": activations.same("exp"),
    "Log": activations.same("log"),
    "Abs": activations.same("abs"),
    "Sqrt": activations.same("sqrt"),
    "Gelu": activations.gelu,
    "Swish": activations.swish,
    "LeakyRelu": activations.leaky_relu,
    "PRelu": activations.prelu,
    "Elu": activations.elu,
    "Celu": activations.celu,
    "Selu": activations.selu,
    "Clip": activations.clip,
    "HardSigmoid": activations.hard_sigmoid,
    "Pow": activations.power,
    "Reciprocal": activations.reciprocal,
    "Softmax": activations.softmax,
    "LogSoftmax": activations.log_softmax,
    # scales and statistics
    "BatchNormalization": normalisations.batch_norm,
    "ScaleShift": normalisations.scale_shift,
    "InstanceNormalization": normalisations.instance_norm,
    "GroupNormalization": normalisations.group_normalization,
    "GroupNorm": normalisations.group_norm,
    "LayerNormalization": normalisations.layer_normalization,
    "Standardise": normalisations.standardise,
    "LRN": normalisations.local_response_norm,
    # several inputs
    "Add": combining.add,
    "Sum": combining.add,
    "Mul": combining.multiply,
    "Sub": combining.subtract,
    "Div": combining.divide,
    "Mean": combining.mean,
    "Concat": combining.concat,
    # values that only move
    "Identity": shaping.reshape,
    "Cast": shaping.reshape,
    "Reshape": shaping.reshape,
    "Flatten": shaping.reshape,
    "Squeeze": shaping.reshape,
    "Unsqueeze": shaping.reshape,
    "Transpose": shaping.transpose,
    "Slice": shaping.slices,
    "Gather": shaping.gather,
    "Split": shaping.split,
    "Pad": shaping.pad,
    "Resize": shaping.resize,
    "Upsample": shaping.resize,
    "Expand": shaping.expand,
}
