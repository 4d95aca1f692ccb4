"""Segments of Llama-like layers, the LM head and an exit check, each one compiled call. Everything is float32.

No result depends on how many rows a call has, nor on the number of threads: threads share out blocks of outputs and
heads, and every sum is made by one of them in a fixed order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange, types
from numba.extending import intrinsic

from selfdraft_viz.layered.compiled.tiles import BLOCK, product

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract"}, "cache": True}


class LayerWeights(NamedTuple):
    """The weights of all L layers, in the layout of `tiles` (a last block is filled up with zeros).

    Attributes:
        attention_norm, mlp_norm: (L, width) RMS norm scales.
        qkv: (L, blocks, width, BLOCK): queries, then keys, then values, head after head. qkv_bias: (L, outputs).
        query_norm, key_norm: (L, head width) RMS norm scales (Qwen 3), or (L, 0).
        output: (L, blocks, heads x head width, BLOCK). output_bias: (L, width).
        gate_up: (L, blocks, width, BLOCK), in each block BLOCK / 2 gates and the BLOCK / 2 ups that belong to them.
        down: (L, blocks, MLP width, BLOCK).
        windows: (L,) int64, how many keys back a row sees, itself counted.
    """

    attention_norm: np.ndarray
    qkv: np.ndarray
    qkv_bias: np.ndarray
    query_norm: np.ndarray
    key_norm: np.ndarray
    output: np.ndarray
    output_bias: np.ndarray
    mlp_norm: np.ndarray
    gate_up: np.ndarray
    down: np.ndarray
    windows: np.ndarray


@intrinsic
def _bits_as_float(typing_context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


@njit(inline="always", **_OPTIONS)
def _exp(x: np.float32) -> np.float32:
    """e ** x for x <= 88, within 2 units of the last place (Cephes' expf, S. Moshier): compilers vectorise it."""
    x = max(x, np.float32(-87.0))
    n = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23))
    return (p * r * r + r + np.float32(1.0)) * _bits_as_float(power)  # type: ignore[call-arg]


@njit(**_OPTIONS)
def _normed(x: np.ndarray, scale: np.ndarray, epsilon: np.float32, y: np.ndarray) -> None:
    """RMS norm of one row whose width is a multiple of 8, or at least 8 numbers of it."""
    a = b = c = d = e = f = g = h = np.float32(0.0)
    width = len(x)
    for i in range(0, width - 7, 8):
        a += x[i] * x[i]
        b += x[i + 1] * x[i + 1]
        c += x[i + 2] * x[i + 2]
        d += x[i + 3] * x[i + 3]
        e += x[i + 4] * x[i + 4]
        f += x[i + 5] * x[i + 5]
        g += x[i + 6] * x[i + 6]
        h += x[i + 7] * x[i + 7]
    total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    for i in range(width - width % 8, width):
        total += x[i] * x[i]
    factor = np.float32(1.0) / np.sqrt(total / np.float32(width) + epsilon)
    for i in range(width):
        y[i] = scale[i] * (x[i] * factor)


@njit(**_OPTIONS)
def _rotated(x: np.ndarray, cosines: np.ndarray, sines: np.ndarray) -> None:
    """The rotary embedding of one head, in place, in transformers' convention (the halves are paired)."""
    half = len(x) // 2
    for i in range(half):
        low, high = x[i], x[i + half]
        x[i] = low * cosines[i] - high * sines[i]
        x[i + half] = high * cosines[i + half] + low * sines[i + half]


@njit(**_OPTIONS)
def _attended(
    query: np.ndarray, keys: np.ndarray, values: np.ndarray, first: int, stop: int, scores: np.ndarray, y: np.ndarray
) -> None:
    """Softmax attention of one head of one row over keys `first`..`stop - 1`.

    Args:
        query: (head width,), scaled. keys: (head width, capacity). values: (capacity, head width). scores: room.
    """
    count, width = stop - first, len(query)
    for j in range(count):
        scores[j] = np.float32(0.0)
    seen = keys[:, first:stop]  # slices, whose indices are known to count from 0, are what compilers vectorise
    even = width - width % 8  # eight at a time, so that a sum stays in a register for eight steps
    for d in range(0, even, 8):
        q0, q1, q2, q3 = query[d], query[d + 1], query[d + 2], query[d + 3]
        q4, q5, q6, q7 = query[d + 4], query[d + 5], query[d + 6], query[d + 7]
        k0, k1, k2, k3 = seen[d], seen[d + 1], seen[d + 2], seen[d + 3]
        k4, k5, k6, k7 = seen[d + 4], seen[d + 5], seen[d + 6], seen[d + 7]
        for j in range(count):
            low = q0 * k0[j] + q1 * k1[j] + q2 * k2[j] + q3 * k3[j]
            scores[j] += low + (q4 * k4[j] + q5 * k5[j] + q6 * k6[j] + q7 * k7[j])
    for d in range(even, width):
        one = seen[d]
        for j in range(count):
            scores[j] += query[d] * one[j]
    best = scores[0]
    for j in range(count):
        best = max(best, scores[j])
    for j in range(count):
        scores[j] = _exp(scores[j] - best)
    total = np.float32(0.0)
    for j in range(count):
        total += scores[j]
    for d in range(width):
        y[d] = np.float32(0.0)
    rows = values[first:stop]
    even = count - count % 8
    for j in range(0, even, 8):
        w0, w1, w2, w3 = scores[j], scores[j + 1], scores[j + 2], scores[j + 3]
        w4, w5, w6, w7 = scores[j + 4], scores[j + 5], scores[j + 6], scores[j + 7]
        v0, v1, v2, v3 = rows[j], rows[j + 1], rows[j + 2], rows[j + 3]
        v4, v5, v6, v7 = rows[j + 4], rows[j + 5], rows[j + 6], rows[j + 7]
        for d in range(width):
            low = w0 * v0[d] + w1 * v1[d] + w2 * v2[d] + w3 * v3[d]
            y[d] += low + (w4 * v4[d] + w5 * v5[d] + w6 * v6[d] + w7 * v7[d])
    for j in range(even, count):
        last = rows[j]
        for d in range(width):
            y[d] += scores[j] * last[d]
    for d in range(len(y)):
        y[d] = y[d] / total


@njit(parallel=True, **_OPTIONS)
def run_layers(
    first_layer: int,
    last_layer: int,
    start: int,
    stop: int,
    hidden: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    cosines: np.ndarray,
    sines: np.ndarray,
    rotates: np.ndarray,
    weights: LayerWeights,
    scaling: np.float32,
    epsilon: np.float32,
) -> None:
    """Rows `start`..`stop - 1` through layers `first_layer`..`last_layer`, counted from 1.

    Args:
        hidden: (capacity, width), read and written. keys: (L, key-value heads, head width, capacity). values: (L,
            key-value heads, capacity, head width). cosines, sines: (capacity, head width). rotates: (L,) bool.
    """
    attention_norm, mlp_norm = weights.attention_norm, weights.mlp_norm
    qkv_weights, qkv_bias, windows = weights.qkv, weights.qkv_bias, weights.windows
    query_norm, key_norm = weights.query_norm, weights.key_norm
    output_weights, output_bias = weights.output, weights.output_bias
    gate_up, down = weights.gate_up, weights.down
    rows, width = stop - start, hidden.shape[1]
    kv_heads, head_width = keys.shape[1:3]
    inner = output_weights.shape[2]
    heads = inner // head_width
    group = heads // kv_heads
    half = BLOCK // 2
    normed = np.empty((rows, width), np.float32)
    qkv = np.empty((rows, qkv_weights.shape[1] * BLOCK), np.float32)
    mixed = np.empty((rows, inner), np.float32)
    written = np.empty((rows, output_weights.shape[1] * BLOCK), np.float32)
    both = np.empty((rows, gate_up.shape[1] * BLOCK), np.float32)
    active = np.empty((rows, gate_up.shape[1] * half), np.float32)
    scores = np.empty((rows * heads, stop), np.float32)
    for layer in range(first_layer - 1, last_layer):
        for r in range(rows):
            _normed(hidden[start + r], attention_norm[layer], epsilon, normed[r])
        for block in prange(qkv_weights.shape[1]):
            product(normed, qkv_weights[layer, block], qkv, rows, block * BLOCK)
        for r in range(rows):
            position = start + r
            row = qkv[r]
            for i in range(qkv_bias.shape[1]):
                row[i] += qkv_bias[layer, i]
            for head in range(heads + kv_heads):
                one = row[head * head_width : (head + 1) * head_width]
                if query_norm.shape[1] > 0:
                    _normed(one, query_norm[layer] if head < heads else key_norm[layer], epsilon, one)
                if rotates[layer]:
                    _rotated(one, cosines[position], sines[position])
                if head < heads:
                    for d in range(head_width):
                        one[d] *= scaling
            for head in range(kv_heads):
                key_at, value_at = (heads + head) * head_width, (heads + kv_heads + head) * head_width
                for d in range(head_width):
                    keys[layer, head, d, position] = row[key_at + d]
                    values[layer, head, position, d] = row[value_at + d]
        for task in prange(rows * heads):
            r, head = task // heads, task % heads
            position = start + r
            _attended(
                qkv[r, head * head_width : (head + 1) * head_width],
                keys[layer, head // group],
                values[layer, head // group],
                max(0, position + 1 - windows[layer]),
                position + 1,
                scores[task],
                mixed[r, head * head_width : (head + 1) * head_width],
            )
        for block in prange(output_weights.shape[1]):
            product(mixed, output_weights[layer, block], written, rows, block * BLOCK)
            for r in range(rows):
                for i in range(block * BLOCK, min((block + 1) * BLOCK, width)):
                    hidden[start + r, i] += written[r, i] + output_bias[layer, i]
        for r in range(rows):
            _normed(hidden[start + r], mlp_norm[layer], epsilon, normed[r])
        for block in prange(gate_up.shape[1]):
            product(normed, gate_up[layer, block], both, rows, block * BLOCK)
            for r in range(rows):
                for i in range(half):
                    gate, up = both[r, block * BLOCK + i], both[r, block * BLOCK + half + i]
                    active[r, block * half + i] = gate / (np.float32(1.0) + _exp(min(-gate, np.float32(88.0)))) * up
        for block in prange(down.shape[1]):
            product(active, down[layer, block], written, rows, block * BLOCK)
            for r in range(rows):
                for i in range(block * BLOCK, min((block + 1) * BLOCK, width)):
                    hidden[start + r, i] += written[r, i]


@njit(parallel=True, **_OPTIONS)
def unembed(hidden: np.ndarray, norm: np.ndarray, epsilon: np.float32, head: np.ndarray, logits: np.ndarray) -> None:
    """Final norm and LM head.

    Args:
        hidden: (rows, width). head: (blocks, width, BLOCK). logits: (rows, blocks x BLOCK), written.
    """
    rows = hidden.shape[0]
    normed = np.empty(hidden.shape, np.float32)
    for r in range(rows):
        _normed(hidden[r], norm, epsilon, normed[r])
    for block in prange(head.shape[0]):
        product(normed, head[block], logits, rows, block * BLOCK)


@njit(parallel=True, **_OPTIONS)
def translate(hidden: np.ndarray, weight: np.ndarray, bias: np.ndarray, y: np.ndarray) -> None:
    """The affine translator of an exit head: hidden (rows, width), weight (blocks, width, BLOCK), y (rows, blocks x
    BLOCK), written."""
    for block in prange(weight.shape[0]):
        product(hidden, weight[block], y, hidden.shape[0], block * BLOCK)
        for r in range(hidden.shape[0]):
            for i in range(block * BLOCK, min((block + 1) * BLOCK, len(bias))):
                y[r, i] += bias[i]


@njit(parallel=True, **_OPTIONS)
def translate_low_rank(hidden: np.ndarray, down: np.ndarray, up: np.ndarray, bias: np.ndarray, y: np.ndarray) -> None:
    """A low-rank translator, through its two factors: hidden (rows, width), down (rank blocks, width, BLOCK), up
    (blocks, rank, BLOCK), y (rows, blocks x BLOCK), written."""
    rows = hidden.shape[0]
    narrow = np.empty((rows, down.shape[0] * BLOCK), np.float32)
    for block in range(down.shape[0]):  # few
        product(hidden, down[block], narrow, rows, block * BLOCK)
    for block in prange(up.shape[0]):
        product(narrow, up[block], y, rows, block * BLOCK)
        for r in range(rows):
            for i in range(block * BLOCK, min((block + 1) * BLOCK, len(bias))):
                y[r, i] += hidden[r, i] + bias[i]


@njit(**_OPTIONS)
def certainty(logits: np.ndarray, columns: int, temperature: float) -> tuple[int, float, float]:
    """Of one row of logits: the best column, and max softmax at `temperature` and at 1."""
    best, at = logits[0], 0
    for i in range(columns):
        if logits[i] > best:
            best, at = logits[i], i
    inverse = np.float32(1.0 / temperature)
    exps = np.empty((2, columns), np.float32)
    for i in range(columns):
        exps[0, i] = _exp((logits[i] - best) * inverse)
        exps[1, i] = _exp(logits[i] - best)
    annealed = unannealed = 0.0
    for i in range(columns):
        annealed += exps[0, i]
        unannealed += exps[1, i]
    return at, 1.0 / annealed, 1.0 / unannealed
