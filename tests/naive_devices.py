"""Slow, obvious twins of the kernels in devices/: one element at a time, with Python's integers and the math library."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox 4x32-10, round by round as in the paper's figure: multiply, swap, xor, bump the key."""
    r0, l0, r1, l1 = counter
    k0, k1 = key
    for _ in range(10):
        high_0, low_0 = divmod(0xD2511F53 * r0, 2**32)
        high_1, low_1 = divmod(0xCD9E8D57 * r1, 2**32)
        r0, l0, r1, l1 = high_1 ^ l0 ^ k0, low_1, high_0 ^ l1 ^ k1, low_0
        k0 = (k0 + 0x9E3779B9) % 2**32
        k1 = (k1 + 0xBB67AE85) % 2**32
    return r0, l0, r1, l1


def _words(key: tuple[int, int], sample: int, element: int, step: int) -> tuple[int, int, int, int]:
    return philox((element // 4, step, sample % 2**32, sample // 2**32), key)


def uniform(key: tuple[int, int], sample: int, element: int, step: int) -> float:
    """The uniform of one element of one sample at one step."""
    return (_words(key, sample, element, step)[element % 4] + 0.5) / 2**32


def normal(key: tuple[int, int], sample: int, element: int, step: int) -> float:
    """The normal of one element of one sample at one step: Box and Muller, the angle turned back by 45 degrees."""
    words = _words(key, sample, element, step)
    pair = element % 4 // 2
    radius = math.sqrt(-2.0 * math.log((words[2 * pair] + 0.5) / 2**32))
    angle = 2.0 * math.pi * (words[2 * pair + 1] + 0.5) / 2**32 - math.pi / 4.0
    return radius * (math.cos(angle) if element % 2 == 0 else math.sin(angle))


def convert(value: float, bits: int | None, low: float, high: float) -> float:
    """The nearest of all levels to the clipped value; of two equally near the even one."""
    clipped = min(max(value, low), high)
    if bits is None:
        return clipped
    levels = [low + k * (high - low) / (2**bits - 1) for k in range(2**bits)]
    return min(enumerate(levels), key=lambda item: (abs(item[1] - clipped), item[0] % 2))[1]


def pair_after(
    p: float, m: float, request: float, *, adding: bool, soft: bool, bound: float, levels: int | None, errors: tuple[float, float]
) -> tuple[float, float, bool]:
    """Both devices of one pair after one request, in units of weight, and whether a bound cut it short."""
    if adding and request == 0.0:
        return p, m, False
    if adding and soft:
        cut = abs(request) > bound
        if request > 0.0:
            p, m = p + request * (bound - p) / bound, m - request * m / bound
        else:
            p, m = p + request * p / bound, m - request * (bound - m) / bound
    else:
        target = p - m + request if adding else request
        cut = abs(target) > bound
        p, m = (target, 0.0) if target > 0.0 else (0.0, -target)
    held = []
    for state, error in zip((p, m), errors, strict=True):
        state = min(max(state, 0.0), bound)
        if levels is not None:
            state = bound * round(state * (levels - 1) / bound) / (levels - 1)
        held.append(min(max(state + error, 0.0), bound))
    return held[0], held[1], cut


def places(array: NDArray[np.generic]) -> Iterator[tuple[int, ...]]:
    """Every index of an array."""
    yield from np.ndindex(*array.shape)
