"""The innermost product: a few rows times a block of 64 outputs, all sums held in vector registers.

`product` is the only place where weights meet rows. Every output is one chain of fused multiply-adds in the order of
the inputs, whatever the number of rows: a row's result does not depend, to the last bit, on which rows it is computed
with. Weights may be float32, or the upper halves of float32 numbers as uint16 (that is, bfloat16): shifted back, they
are the same float32 numbers, read with half the memory traffic.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

BLOCK = 64
"""Outputs of one block; the layout of weights is (blocks, inputs, BLOCK)."""

_LANES = 16
_VECTORS = BLOCK // _LANES
_FLOATS = ir.VectorType(ir.FloatType(), _LANES)
_HALVES = ir.VectorType(ir.IntType(16), _LANES)
_WORDS = ir.VectorType(ir.IntType(32), _LANES)
_WIDE = bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))
_MOST_ROWS = 6 if _WIDE else 2  # 6 rows x 4 vectors + 4 of weights fit into 32 registers of 512 bits


@intrinsic
def _at(typing_context: Any, array: Any, offset: Any) -> Any:
    """Address of the element `offset` elements after an array's first one."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.gep(make_array(signature.args[0])(context, builder, args[0]).data, [args[1]])

    return types.CPointer(array.dtype)(array, types.intp), generate


def _tile(rows: int) -> Any:
    """A function that computes `rows` x BLOCK outputs: x (rows, inputs), weights (inputs, BLOCK) -> y (rows, BLOCK).
    `x_stride` and `y_stride` are in elements."""

    @intrinsic
    def tile(typing_context: Any, x: Any, x_stride: Any, weights: Any, y: Any, y_stride: Any, inputs: Any) -> Any:
        def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
            x, x_stride, weights, y, y_stride, inputs = args
            index = ir.IntType(64)

            def number(value: int) -> ir.Constant:
                return ir.Constant(index, value)

            def row_of(base: Any, row: int, stride: Any, offset: Any) -> Any:
                return b.gep(base, [b.add(b.mul(number(row), stride), offset)])

            multiply_add = cgutils.get_or_insert_function(
                b.module, ir.FunctionType(_FLOATS, [_FLOATS] * 3), f"llvm.fma.v{_LANES}f32"
            )
            entry = b.block
            loop, done = b.append_basic_block("inputs"), b.append_basic_block("done")
            b.branch(loop)
            b.position_at_end(loop)
            k = b.phi(index)
            k.add_incoming(number(0), entry)
            sums = [[b.phi(_FLOATS) for _ in range(_VECTORS)] for _ in range(rows)]
            weight_row = b.gep(weights, [b.mul(k, number(BLOCK))])
            vectors = [_load_weights(b, signature.args[2].dtype, weight_row, v) for v in range(_VECTORS)]
            new = []
            for row in range(rows):
                spread = _broadcast(b, b.load(row_of(x, row, x_stride, k)))
                new.append([b.call(multiply_add, [spread, vectors[v], sums[row][v]]) for v in range(_VECTORS)])
            following = b.add(k, number(1))
            k.add_incoming(following, b.block)
            zero = ir.Constant(_FLOATS, [ir.Constant(ir.FloatType(), 0.0)] * _LANES)
            for row in range(rows):
                for v in range(_VECTORS):
                    sums[row][v].add_incoming(zero, entry)
                    sums[row][v].add_incoming(new[row][v], b.block)
            b.cbranch(b.icmp_signed("<", following, inputs), loop, done)
            b.position_at_end(done)
            for row in range(rows):
                for v in range(_VECTORS):
                    place = row_of(y, row, y_stride, number(_LANES * v))
                    b.store(new[row][v], b.bitcast(place, _FLOATS.as_pointer())).align = 4
            return context.get_dummy_value()

        return types.void(x, types.intp, weights, y, types.intp, types.intp), generate

    return tile


def _load_weights(b: Any, dtype: Any, row: Any, vector: int) -> Any:
    place = b.gep(row, [ir.Constant(ir.IntType(64), _LANES * vector)])
    if dtype == types.float32:
        loaded = b.load(b.bitcast(place, _FLOATS.as_pointer()))
        loaded.align = 4
        return loaded
    halves = b.load(b.bitcast(place, _HALVES.as_pointer()))
    halves.align = 2
    shift = ir.Constant(_WORDS, [ir.Constant(ir.IntType(32), 16)] * _LANES)
    return b.bitcast(b.shl(b.zext(halves, _WORDS), shift), _FLOATS)


def _broadcast(b: Any, scalar: Any) -> Any:
    undefined = ir.Constant(_FLOATS, ir.Undefined)
    lane = ir.IntType(32)
    first = b.insert_element(undefined, scalar, ir.Constant(lane, 0))
    return b.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(lane, _LANES), [ir.Constant(lane, 0)] * _LANES))


_one, _two = _tile(1), _tile(2)
_three, _four, _five, _six = _tile(3), _tile(4), _tile(5), _tile(6)


@njit(error_model="numpy", cache=True)
def product(x: np.ndarray, weights: np.ndarray, y: np.ndarray, rows: int, column: int) -> None:
    """y[:rows, column : column + BLOCK] = x[:rows] @ weights.

    Args:
        x: (rows or more, inputs or more) float32. weights: (inputs, BLOCK). y: (rows or more, columns) float32.
    """
    inputs = weights.shape[0]
    x_stride, y_stride = x.strides[0] // 4, y.strides[0] // 4
    w = _at(weights, 0)  # type: ignore[call-arg, var-annotated]
    row = 0
    while row < rows:
        size = min(_MOST_ROWS, rows - row)
        x_row, y_row = _at(x, row * x_stride), _at(y, row * y_stride + column)  # type: ignore[call-arg]
        if size == 6:
            _six(x_row, x_stride, w, y_row, y_stride, inputs)
        elif size == 5:
            _five(x_row, x_stride, w, y_row, y_stride, inputs)
        elif size == 4:
            _four(x_row, x_stride, w, y_row, y_stride, inputs)
        elif size == 3:
            _three(x_row, x_stride, w, y_row, y_stride, inputs)
        elif size == 2:
            _two(x_row, x_stride, w, y_row, y_stride, inputs)
        else:
            _one(x_row, x_stride, w, y_row, y_stride, inputs)
        row += size
