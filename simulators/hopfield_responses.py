"""What a node of a relaxing network makes of its drive: the responses of `activations.py`, compiled, real and complex.

Complex ones are written so that no exponential overflows. A hard sigmoid is not analytic and has no complex form.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from inmaterio.devices.compilation import kernel
from inmaterio.simulators.activations import DSILU, HARD_SIGMOID, SIGMOID, TANH
from inmaterio.simulators.capabilities import Array


def _bits_to_float32(typing_context: Any, bits: Any) -> Any:
    """The float32 with the bits of an int32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


_float32_from_bits: Any = intrinsic(_bits_to_float32)


def _logistic(value: Any) -> Any:
    """1 / (1 + exp(-value)) of a number."""
    return 1.0 / (1.0 + np.exp(-value))


@overload(_logistic)
def _logistic_compiled(value: Any) -> Callable[..., Any]:
    if isinstance(value, types.Complex):

        def continued(value: Any) -> Any:
            if value.real < 0.0:
                small = np.exp(value)
                return small / (1.0 + small)
            return 1.0 / (1.0 + np.exp(-value))

        return continued

    def real(value: Any) -> Any:
        return 1.0 / (1.0 + math.exp(-value))

    return real


def _tanh(value: Any) -> Any:
    """tanh of a number."""
    return np.tanh(value)


@overload(_tanh)
def _tanh_compiled(value: Any) -> Callable[..., Any]:
    if isinstance(value, types.Complex):

        def continued(value: Any) -> Any:
            # tanh(x + iy) = (tanh x + i tan y) / (1 + i tanh x tan y), times cos y: bounded parts only
            ratio, cosine, sine = math.tanh(value.real), math.cos(value.imag), math.sin(value.imag)
            return complex(ratio * cosine, sine) / complex(cosine, ratio * sine)

        return continued

    def real(value: Any) -> Any:
        return math.tanh(value)

    return real


def _clip(drive: Array) -> None:
    """Replace drive a by min(max(a, 0), 1), in place, flat."""
    np.clip(drive, 0.0, 1.0, out=drive)


@overload(_clip)
def _clip_compiled(drive: Any) -> Callable[..., None]:
    if isinstance(drive.dtype, types.Complex):

        def continued(drive: Any) -> None:
            # never reached: a network of hard sigmoids is not holomorphic and refuses a complex nudge
            drive[:] = np.nan

        return continued

    def real(drive: Any) -> None:
        for i in range(drive.size):
            drive[i] = min(max(drive[i], 0.0), 1.0)

    return real


def square_modulus(value: Any) -> Any:
    """|value|^2, a real number."""
    return abs(value) ** 2


@overload(square_modulus)
def _square_modulus_compiled(value: Any) -> Callable[..., Any]:
    if isinstance(value, types.Complex):

        def continued(value: Any) -> Any:
            return value.real * value.real + value.imag * value.imag

        return continued

    def real(value: Any) -> Any:
        return value * value

    return real


def _sigmoid(drive: Array) -> None:
    """Replace drive a by 1 / (1 + exp(2 - 4 a)), in place, flat."""
    drive[:] = 1.0 / (1.0 + np.exp(2.0 - 4.0 * drive))


@overload(_sigmoid)
def _sigmoid_compiled(drive: Any) -> Callable[..., None]:
    if drive.dtype == types.float32:

        def single(drive: Any) -> None:
            # exp(u) = 2^n exp(r), |r| <= ln2/2, with Cephes' polynomial for exp(r) and 2^n put together from its bits:
            # free of branches and calls, so that the compiler uses the vector unit, which the library's exp forbids.
            # Error at most 2.4 units in the last place, measured.
            for i in range(drive.size):
                u = min(max(np.float32(2.0) - np.float32(4.0) * drive[i], np.float32(-87.0)), np.float32(87.0))
                n = np.floor(u * np.float32(1.44269504) + np.float32(0.5))
                r = u - n * np.float32(0.693359375)
                r = r - n * np.float32(-2.12194440e-4)
                p = np.float32(1.9875691500e-4)
                p = p * r + np.float32(1.3981999507e-3)
                p = p * r + np.float32(8.3334519073e-3)
                p = p * r + np.float32(4.1665795894e-2)
                p = p * r + np.float32(1.6666665459e-1)
                p = p * r + np.float32(5.0000001201e-1)
                p = p * (r * r) + r + np.float32(1.0)
                power = _float32_from_bits((np.int32(n) + np.int32(127)) << np.int32(23))
                drive[i] = np.float32(1.0) / (np.float32(1.0) + p * power)

        return single

    if isinstance(drive.dtype, types.Complex):

        def continued(drive: Any) -> None:
            for i in range(drive.size):
                drive[i] = _logistic(4.0 * drive[i] - 2.0)

        return continued

    def double(drive: Any) -> None:
        for i in range(drive.size):
            drive[i] = 1.0 / (1.0 + math.exp(2.0 - 4.0 * drive[i]))

    return double


@kernel
def respond(code: int, drive: Array) -> None:
    """Replace drives by responses, in place, flat."""
    if code == SIGMOID:
        _sigmoid(drive)
    elif code == HARD_SIGMOID:
        _clip(drive)
    elif code == TANH:
        for i in range(drive.size):
            drive[i] = _tanh(drive[i])
    elif code == DSILU:
        for i in range(drive.size):
            half = drive[i] / 2
            drive[i] = half * _logistic(drive[i]) + (1 - half) * _logistic(drive[i] - 2)
    # linear: the response is the drive
