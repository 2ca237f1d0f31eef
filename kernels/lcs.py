"""Longest common subsequence, and the ROUGE-L score and bound based on it.

Bit-parallel LCS: H. Hyyrö, "Bit-parallel LCS-length computation revisited", AWOCA 2004. One 64-bit word holds the
state for a query of up to 64 tokens; longer queries use several words with carries. A pair costs
O(len(b) * ceil(len(a) / 64)) word operations.
"""

# ruff: noqa: ANN001, ANN201 (Numba infers kernel types; the docstrings state them)

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .cache import inner

WORD = 64


@intrinsic
def popcount(typing_context: Any, word: Any) -> Any:  # noqa: ARG001 (Numba's calling convention)
    """Return the number of set bits of a uint64, as int64; one instruction."""

    def emit(_context: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), emit


@intrinsic
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:  # noqa: ARG001
    """Prefetch the cache line of `array[index]` (one dimension, C order); no bounds check, affects only the time."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        shape = ir.FunctionType(ir.VoidType(), [address.type, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, shape, "llvm.prefetch.p0")
        builder.call(function, [address, word(0), word(3), word(1)])  # for reading, all cache levels, data cache
        return context.get_dummy_value()

    return types.void(array, types.int64), emit


@inner
def f_measure(lcs, m, n):  # type: ignore[no-untyped-def]
    """Return ROUGE-L F of two texts of `m` and `n` tokens with an LCS of `lcs`, by the steps of `rouge_score`."""
    if lcs == 0:
        return 0.0
    precision = lcs / m
    recall = lcs / n
    return 2 * precision * recall / (precision + recall)


@inner
def need(m, n, threshold):  # type: ignore[no-untyped-def]
    """Return the smallest LCS whose float64 F is > `threshold` for lengths `m`, `n` >= 1; min(m, n) + 1 if none is.

    Starts from the real-number solution and corrects it with the float64 expression itself, because the two disagree
    on the boundary. O(1).
    """
    most = min(m, n)
    least = min(most, max(1, np.int64(threshold * (m + n) / 2)))
    while least > 1 and f_measure(least - 1, m, n) > threshold:
        least -= 1
    while least <= most and not f_measure(least, m, n) > threshold:
        least += 1
    return least


@inner
def set_pattern(tokens, pattern):  # type: ignore[no-untyped-def]
    """Set `pattern` (uint64[vocabulary], zero before) for up to 64 `tokens`: bit i of pattern[t] is tokens[i] == t."""
    for i in range(tokens.size):
        pattern[tokens[i]] |= np.uint64(1) << np.uint64(i)


@inner
def clear_pattern(tokens, pattern):  # type: ignore[no-untyped-def]
    """Reset to zero what `set_pattern` set for `tokens`."""
    for i in range(tokens.size):
        pattern[tokens[i]] = np.uint64(0)


@inner
def lcs_word(pattern, m, tokens, start, stop):  # type: ignore[no-untyped-def]
    """Return the LCS of the query in `pattern` (`m` <= 64 tokens) and `tokens[start:stop]`: a few steps per token."""
    state = ~np.uint64(0)
    for k in range(start, stop):
        matches = state & pattern[tokens[k]]
        state = (state + matches) | (state - matches)
    if m < WORD:
        state |= ~np.uint64(0) << np.uint64(m)
    return WORD - popcount(state)


@inner
def lcs_long(query, tokens, start, stop, pattern, carries):  # type: ignore[no-untyped-def]
    """Return the LCS of `query` (int32, any length) and `tokens[start:stop]`, 64 query tokens at a time.

    Takes one pass over the text per word of the query. The carry out of one word at text token k is added to the next
    word at k; `carries` (uint8[stop - start or more], scratch) holds it. So memory is O(n), not O(distinct tokens *
    words). `pattern` as in `set_pattern`, zero before and after.
    """
    for k in range(stop - start):
        carries[k] = 0
    lcs = 0
    for first in range(0, query.size, WORD):
        part = query[first : first + WORD]
        set_pattern(part, pattern)
        state = ~np.uint64(0)
        for k in range(stop - start):
            matches = state & pattern[tokens[start + k]]
            carry = np.uint64(carries[k])
            partial = state + matches
            total = partial + carry
            carries[k] = np.uint8(partial < matches) | np.uint8(total < carry)
            state = total | (state - matches)
        clear_pattern(part, pattern)
        if part.size < WORD:
            state |= ~np.uint64(0) << np.uint64(part.size)
        lcs += WORD - popcount(state)
    return lcs


@inner
def score_query(query, tokens, start, stop, pattern, carries):  # type: ignore[no-untyped-def]
    """Return F of `query` and `tokens[start:stop]`; for a query of up to 64 tokens, call `set_pattern` before."""
    if query.size <= WORD:
        lcs = lcs_word(pattern, query.size, tokens, start, stop)
    else:
        lcs = lcs_long(query, tokens, start, stop, pattern, carries)
    return f_measure(lcs, query.size, stop - start)
