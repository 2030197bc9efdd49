"""Numbers too small for the full precision of their type, taken as zero while a kernel runs.

Ahead of a wave in a grid runs a tail that shrinks by the same factor from cell to cell, until it falls below the smallest normal
number (1e-38 in single precision), and what an absorber or a loss has damped ends there too. x86 processors work on such numbers
some hundred times more slowly than on others, which cost a run a quarter of its speed. Elsewhere they are left as they are.

::

    mode = flush_subnormals()
    ...
    restore_subnormals(mode)

The mode belongs to a thread: what is between the two calls must not be left by another way.
"""

import platform
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils as _cgutils
from numba.core import types
from numba.extending import intrinsic, overload

cgutils: Any = _cgutils  # it carries no types

IS_X86 = platform.machine() in ("x86_64", "AMD64", "x86", "i386", "i686")

FLUSH = 0x8040
"""Bits of the control register MXCSR: results that are subnormal become zero, and operands that are count as zero."""


def flush_subnormals() -> int:
    """Take subnormal numbers as zero in this thread from now on; the mode before, for `restore_subnormals`.

    For compiled kernels; in interpreted code it does nothing.
    """
    return 0


def restore_subnormals(mode: int) -> None:
    """Go back to the mode that `flush_subnormals` gave."""


def _call_with_slot(builder: Any, slot: Any, name: str) -> None:
    """Call an intrinsic that takes the address of a 32-bit number."""
    address = ir.PointerType(ir.IntType(8))
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), [address]), name)
    builder.call(function, [builder.bitcast(slot, address)])


def _define_read_mode(typing_context: Any) -> Any:
    """MXCSR of this thread."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        slot = cgutils.alloca_once(builder, ir.IntType(32))
        _call_with_slot(builder, slot, "llvm.x86.sse.stmxcsr")
        return builder.load(slot)

    return types.uint32(), generate


def _define_write_mode(typing_context: Any, mode: Any) -> Any:
    """Make a 32-bit number the MXCSR of this thread."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        slot = cgutils.alloca_once(builder, ir.IntType(32))
        builder.store(arguments[0], slot)
        _call_with_slot(builder, slot, "llvm.x86.sse.ldmxcsr")
        return context.get_dummy_value()

    return types.void(types.uint32), generate


_read_mode: Any = intrinsic(_define_read_mode)
_write_mode: Any = intrinsic(_define_write_mode)


@overload(flush_subnormals)
def _flush_subnormals() -> Callable[[], int]:
    if not IS_X86:
        return lambda: 0

    def flush() -> int:
        mode: Any = _read_mode()
        _write_mode(np.uint32(mode | np.uint32(FLUSH)))
        return int(mode)

    return flush


@overload(restore_subnormals)
def _restore_subnormals(mode: Any) -> Callable[[Any], None]:
    def leave(mode: Any) -> None:
        pass

    def restore(mode: Any) -> None:
        _write_mode(np.uint32(mode))

    return restore if IS_X86 else leave
