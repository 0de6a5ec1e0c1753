"""Vectors of float32 as values in Numba code.

LLVM's loop vectoriser keeps no results of several rows in registers, and adds tests
for overlapping arrays and code for tails. Here `lanes` neighbouring floats are one
value of an LLVM vector type, so a kernel written in Python states its register tile.
LLVM splits vectors longer than the machine's. Arithmetic is float32, the same in every
lane: a product and the sum it goes into may be rounded once, nothing is reordered.

Offsets count elements of C-contiguous float32 arrays of any shape, and nothing checks
them. `lanes` is a compile-time constant.
"""

# Numba infers the types of its kernels; they carry no annotations.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped, unused-ignore]
from numba import extending, types
from numba.extending import models, register_model

__all__ = ["broadcast", "load", "multiply_add", "store", "zeros"]

# Calls leave out the first parameter, which type checkers cannot know.
intrinsic: Any = extending.intrinsic


class _Vector(types.Type):  # type: ignore[misc, unused-ignore]
    def __init__(self, lanes):
        self.lanes = lanes
        super().__init__(name=f"float32x{lanes}")


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc, unused-ignore]
    def __init__(self, manager, vector):
        super().__init__(manager, vector, _llvm(vector))


def _llvm(vector):
    return ir.VectorType(ir.FloatType(), vector.lanes)


def _address(context, builder, signature, args):
    """Pointer to element args[1] of array args[0]."""
    array = context.make_array(signature.args[0])(context, builder, args[0])
    return builder.gep(array.data, [args[1]])


@intrinsic(prefer_literal=True)
def zeros(typingctx, lanes):
    """A vector of zeros."""
    vector = _Vector(lanes.literal_value)

    def codegen(context, builder, signature, args):
        return ir.Constant(_llvm(vector), [0.0] * vector.lanes)

    return vector(lanes), codegen


@intrinsic(prefer_literal=True)
def load(typingctx, array, offset, lanes):
    """`lanes` elements from `offset` on."""
    vector = _Vector(lanes.literal_value)

    def codegen(context, builder, signature, args):
        address = _address(context, builder, signature, args)
        return builder.load(builder.bitcast(address, _llvm(vector).as_pointer()), align=4)

    return vector(array, types.intp, lanes), codegen


@intrinsic(prefer_literal=True)
def broadcast(typingctx, array, offset, lanes):
    """The element at `offset` in every lane."""
    vector = _Vector(lanes.literal_value)

    def codegen(context, builder, signature, args):
        scalar = builder.load(_address(context, builder, signature, args))
        index = ir.IntType(32)
        undefined = ir.Constant(_llvm(vector), ir.Undefined)
        first = builder.insert_element(undefined, scalar, ir.Constant(index, 0))
        places = ir.Constant(ir.VectorType(index, vector.lanes), [0] * vector.lanes)
        return builder.shuffle_vector(first, undefined, places)

    return vector(array, types.intp, lanes), codegen


@intrinsic
def store(typingctx, array, offset, vector):
    """Write a vector's lanes from `offset` on."""

    def codegen(context, builder, signature, args):
        address = _address(context, builder, signature, args)
        builder.store(args[2], builder.bitcast(address, _llvm(vector).as_pointer()), align=4)
        return context.get_dummy_value()

    return types.none(array, types.intp, vector), codegen


@intrinsic
def multiply_add(typingctx, a, b, c):
    """a * b + c, rounded once where the machine has an instruction for it."""

    def codegen(context, builder, signature, args):
        product = builder.fmul(args[0], args[1], flags=("contract",))
        return builder.fadd(product, args[2], flags=("contract",))

    return c(a, b, c), codegen
