"""Random numbers that depend on what they are for, never on when or where they are drawn.

A `Key` names a stream. Inside kernels numbers are counter-based: Philox 4x32 with ten rounds turns (key, step, data-set
index of the sample, element) into four 32-bit words, so a draw is the same at any place in a batch, in any order and for
any number of threads.

Source of the generator: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as
1, 2, 3", SC'11 (2011), section 3.3. Normals: G. E. P. Box, M. E. Muller, Ann. Math. Statist. 29, 610 (1958).
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from inmaterio.devices.compilation import kernel
from inmaterio.devices.validation import InputError, check_array, check_range

MASK = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)
QUARTER = np.uint64(2**30 - 1)
MULTIPLIER_0 = np.uint64(0xD2511F53)
MULTIPLIER_1 = np.uint64(0xCD9E8D57)
WEYL_0 = np.uint64(0x9E3779B9)  # golden ratio
WEYL_1 = np.uint64(0xBB67AE85)  # sqrt(3) - 1

UNIT = 2.0**-32
HALF_UNIT = 2.0**-33
LN_2 = math.log(2.0)
SQRT_2 = math.sqrt(2.0)
HALF_QUARTER = 2.0**29 - 0.5
RADIANS = math.pi / 2.0**31
CHUNK = 256
"""Blocks worked on at a time: the buffers then stay in the first-level cache."""

LARGEST_NORMAL = math.sqrt(66.0 * LN_2)
"""No normal drawn here is larger than this, 6.76, in absolute value: the smallest uniform is 2^-33."""


@kernel
def philox_4x32(
    c0: np.uint64, c1: np.uint64, c2: np.uint64, c3: np.uint64, k0: np.uint64, k1: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """Philox 4x32-10: four random 32-bit words from a counter of four and a key of two, each held in a uint64."""
    x0 = np.uint64(c0) & MASK
    x1 = np.uint64(c1) & MASK
    x2 = np.uint64(c2) & MASK
    x3 = np.uint64(c3) & MASK
    y0 = np.uint64(k0) & MASK
    y1 = np.uint64(k1) & MASK
    for i in range(10):
        # The keys are made from i, not carried from round to round: only then is a loop over counters vectorised (6x).
        p0 = MULTIPLIER_0 * x0
        p1 = MULTIPLIER_1 * x2
        x0 = (p1 >> SHIFT) ^ x1 ^ ((y0 + np.uint64(i) * WEYL_0) & MASK)
        x2 = (p0 >> SHIFT) ^ x3 ^ ((y1 + np.uint64(i) * WEYL_1) & MASK)
        x1 = p1 & MASK
        x3 = p0 & MASK
    return x0, x1, x2, x3


@kernel
def unit_interval(word: np.uint64) -> float:
    """(word + 1/2) / 2^32: in the open interval (0, 1)."""
    return np.float64(np.int64(word)) * UNIT + HALF_UNIT


@kernel
def normal_radius(word: np.uint64) -> float:
    """sqrt(-2 ln u) of u = `unit_interval` (word).

    Arithmetic instead of a library's logarithm: the loop vectorises, and every machine gets the same bits. With
    u = m 2^e and s = (m - 1)/(m + 1), ln u = e ln 2 + 2 atanh s, a series in s^2 < 0.03.
    """
    bits = np.float64(2 * np.int64(word) + 1).view(np.int64)
    m = np.int64((bits & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000).view(np.float64)
    e = np.float64((bits >> 52) - 1056)
    above = m > SQRT_2
    m = 0.5 * m if above else m
    e = e + 1.0 if above else e
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    # fmt: off
    series = 1.0 + z * (1 / 3 + z * (1 / 5 + z * (1 / 7 + z * (1 / 9 + z * (1 / 11 + z * (1 / 13 + z * (1 / 15
             + z * (1 / 17 + z * (1 / 19 + z / 21)))))))))
    # fmt: on
    return math.sqrt(-2.0 * (e * LN_2 + 2.0 * s * series))


@kernel
def normal_direction(word: np.uint64) -> tuple[float, float]:
    """Cosine and sine of 2 pi u - pi/4, u = `unit_interval` (word).

    The two top bits choose the quarter turn, the rest the angle x in (-pi/4, pi/4), where a Taylor series is exact to
    the last digits. Arithmetic only, for the reasons given in `normal_radius`.
    """
    quarter = np.int64(word) >> 30
    x = (np.float64(np.int64(word & QUARTER)) - HALF_QUARTER) * RADIANS
    z = x * x
    # fmt: off
    sine = x * (1.0 + z * (-1 / 6 + z * (1 / 120 + z * (-1 / 5040 + z * (1 / 362880 + z * (-1 / 39916800
           + z * (1 / 6227020800 - z / 1307674368000)))))))
    cosine = 1.0 + z * (-1 / 2 + z * (1 / 24 + z * (-1 / 720 + z * (1 / 40320 + z * (-1 / 3628800 + z * (1 / 479001600
             + z * (-1 / 87178291200 + z / 20922789888000)))))))
    # fmt: on
    swapped = (quarter & 1) != 0
    along = sine if swapped else cosine
    across = cosine if swapped else sine
    return (-along if quarter == 1 or quarter == 2 else along), (-across if quarter >= 2 else across)


@kernel
def normal_block(k0: np.uint64, k1: np.uint64, block: int, step: int, sample: int) -> tuple[float, float, float, float]:
    """Four standard normals: elements 4 block ... 4 block + 3 of a sample, the same bits as `fill_normals` gives."""
    s = np.uint64(sample)
    w0, w1, w2, w3 = philox_4x32(np.uint64(block), np.uint64(step), s, s >> SHIFT, k0, k1)
    r0 = normal_radius(w0)
    r1 = normal_radius(w2)
    c0, s0 = normal_direction(w1)
    c1, s1 = normal_direction(w3)
    return r0 * c0, r0 * s0, r1 * c1, r1 * s1


@kernel
def uniform_block(k0: np.uint64, k1: np.uint64, block: int, step: int, sample: int) -> tuple[float, float, float, float]:
    """Four uniforms in (0, 1): elements 4 block ... 4 block + 3 of a sample, the same bits as `fill_uniforms` gives."""
    s = np.uint64(sample)
    w0, w1, w2, w3 = philox_4x32(np.uint64(block), np.uint64(step), s, s >> SHIFT, k0, k1)
    return unit_interval(w0), unit_interval(w1), unit_interval(w2), unit_interval(w3)


@kernel
def _fill_words(k0: np.uint64, k1: np.uint64, first: int, step: int, sample: int, words: NDArray[np.uint32]) -> None:
    s = np.uint64(sample)
    for i in range(words.shape[1]):
        w0, w1, w2, w3 = philox_4x32(np.uint64(first + i), np.uint64(step), s, s >> SHIFT, k0, k1)
        words[0, i] = w0
        words[1, i] = w1
        words[2, i] = w2
        words[3, i] = w3


@kernel
def _words_to_normals(words: NDArray[np.uint32], count: int, radius: NDArray[np.float64], values: NDArray[np.float64]) -> None:
    # One short loop per step of the work: fused, the compiler vectorises none of it (7x slower).
    for pair in range(2):
        for i in range(count):
            radius[i] = normal_radius(np.uint64(words[2 * pair, i]))
        for i in range(count):
            cosine, sine = normal_direction(np.uint64(words[2 * pair + 1, i]))
            values[2 * pair, i] = radius[i] * cosine
            values[2 * pair + 1, i] = radius[i] * sine


@kernel
def _words_to_uniforms(words: NDArray[np.uint32], count: int, values: NDArray[np.float64]) -> None:
    for row in range(4):
        for i in range(count):
            values[row, i] = unit_interval(np.uint64(words[row, i]))


@kernel
def _spread(values: NDArray[np.float64], out: NDArray[Any]) -> None:
    """out[4 i + row] = values[row, i]; the last block may be cut short."""
    width = out.shape[0]
    whole = width // 4
    for i in range(whole):
        out[4 * i] = values[0, i]
        out[4 * i + 1] = values[1, i]
        out[4 * i + 2] = values[2, i]
        out[4 * i + 3] = values[3, i]
    for i in range(4 * whole, width):
        out[i] = values[i - 4 * whole, whole]


@kernel
def _fill(k0: np.uint64, k1: np.uint64, step: int, samples: NDArray[np.int64], normal: bool, out: NDArray[Any]) -> None:
    batch, width = out.shape
    blocks = (width + 3) // 4
    words = np.empty((4, CHUNK), np.uint32)
    values = np.empty((4, CHUNK))
    radius = np.empty(CHUNK)
    total = batch * blocks
    for start in range(0, total, CHUNK):
        size = min(CHUNK, total - start)
        place = 0
        while place < size:
            b = (start + place) // blocks
            first = (start + place) - b * blocks
            count = min(size - place, blocks - first)
            # Slices, not offsets: an index that might be negative keeps the compiler from vectorising.
            _fill_words(k0, k1, first, step, samples[b], words[:, place : place + count])
            place += count
        if normal:
            _words_to_normals(words, size, radius, values)
        else:
            _words_to_uniforms(words, size, values)
        place = 0
        while place < size:
            b = (start + place) // blocks
            first = (start + place) - b * blocks
            count = min(size - place, blocks - first)
            _spread(values[:, place : place + count], out[b, 4 * first : 4 * (first + count)])
            place += count


@kernel
def fill_normals(k0: np.uint64, k1: np.uint64, step: int, samples: NDArray[np.int64], out: NDArray[Any]) -> None:
    """Fill out[b, i] with the normal of (step, samples[b], i). Shapes (batch,) and (batch, width)."""
    _fill(k0, k1, step, samples, True, out)


@kernel
def fill_uniforms(k0: np.uint64, k1: np.uint64, step: int, samples: NDArray[np.int64], out: NDArray[Any]) -> None:
    """Fill out[b, i] with the uniform of (step, samples[b], i). Shapes (batch,) and (batch, width).

    A float32 `out` may hold 1: what is nearer to it than 2^-25 rounds there. `uniforms` sees to that, a kernel must itself.
    """
    _fill(k0, k1, step, samples, False, out)


@dataclass(frozen=True, slots=True)
class Key:
    """Where a stream of random numbers begins: a seed and a path of names and numbers.

    Attributes
    ----------
    seed : int
        0 or larger.
    path : tuple of str or int
        What the stream is for. ``1`` and ``"1"`` are different parts.

    Raises
    ------
    InputError
        When the seed or a part is of another kind.
    """

    seed: int
    path: tuple[str | int, ...] = ()

    def __post_init__(self) -> None:
        if not _is_integer(self.seed) or self.seed < 0:
            raise InputError(f"seed is {self.seed!r}; expected an integer >= 0")
        for part in self.path:
            if not isinstance(part, str) and not _is_integer(part):
                raise InputError(f"part {part!r} of a key's path is a {type(part).__name__}; expected a str or an int")

    def at(self, *parts: str | int) -> "Key":
        """The key of a stream below this one."""
        return Key(self.seed, self.path + parts)

    def words(self) -> tuple[int, int]:
        """Two 32-bit words: the key of the counter-based draws."""
        digest = self._digest(b"words", 8)
        return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")

    def generator(self) -> np.random.Generator:
        """A numpy generator (Philox 4x64) that starts at this key, for draws outside kernels."""
        return np.random.Generator(np.random.Philox(key=int.from_bytes(self._digest(b"generator", 16), "little")))

    def torch_seed(self) -> int:
        """A seed below 2^63 for ``torch.Generator.manual_seed``."""
        return int.from_bytes(self._digest(b"torch", 8), "little") >> 1

    def _digest(self, purpose: bytes, size: int) -> bytes:
        # Every part carries its kind and its length, so that no two paths share an encoding.
        pieces = []
        for part in (int(self.seed), *self.path):
            text = (part if isinstance(part, str) else str(int(part))).encode()
            pieces.append(b"%c%d:%b" % (b"s" if isinstance(part, str) else b"i", len(text), text))
        return hashlib.blake2b(b"".join(pieces), digest_size=size, person=purpose).digest()


def normals(key: Key, samples: NDArray[np.int64], width: int, *, step: int = 0, dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """Standard normals for the samples of a batch.

    Parameters
    ----------
    key : Key
    samples : ndarray of int, shape (batch,)
        Index of each row in its data set, 0 or larger.
    width : int
        Numbers per sample, up to 2^34.
    step : int
        Step of an iteration, 0 ... 2^32 - 1.
    dtype : float32 or float64
        float32 values are the float64 values, rounded.

    Returns
    -------
    ndarray, shape (batch, width)
        out[b, i] depends on (key, step, samples[b], i) alone. Made from 32-bit uniforms: no value exceeds
        `LARGEST_NORMAL` = 6.76 in size, which a true normal does once in 7e10 draws.

    Raises
    ------
    InputError
        When an argument is out of range.
    """
    return _draw(fill_normals, key, samples, width, step, dtype)


def uniforms(key: Key, samples: NDArray[np.int64], width: int, *, step: int = 0, dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """Uniforms in the open interval (0, 1) for the samples of a batch; arguments and errors as `normals`.

    Multiples of 2^-32 plus 2^-33. In float32 what would round to 1 is 1 - 2^-24.
    """
    out = _draw(fill_uniforms, key, samples, width, step, dtype)
    return np.minimum(out, np.float32(1.0 - 2.0**-24), out=out) if out.dtype == np.float32 else out


def normal_array(key: Key, shape: Sequence[int], dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """Standard normals for the devices of an array: static errors, or the noise of one programming.

    Parameters
    ----------
    key : Key
    shape : sequence of int
    dtype : float32 or float64

    Returns
    -------
    ndarray, of that shape
        Element i in C order is that of ``normals(key, [0], size)``.

    Raises
    ------
    InputError
        When the dtype is not float32 or float64.
    """
    size = math.prod(shape)
    return normals(key, np.zeros(1, np.int64), size, dtype=dtype).reshape(tuple(shape))


def _is_integer(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _draw(fill: Any, key: Key, samples: NDArray[np.int64], width: int, step: int, dtype: DTypeLike) -> NDArray[Any]:
    kind = np.dtype(dtype)
    if kind not in (np.float32, np.float64):
        raise InputError(f"dtype is {kind}; expected float32 or float64")
    indices = np.asarray(samples)
    if indices.dtype.kind not in "iu" or indices.ndim != 1 or (indices.size and indices.min() < 0):
        check_array("samples", indices, shape=(None,), low=0)
        raise InputError(f"samples hold {indices.dtype} values; expected integers")
    check_range("width", width, low=0, high=2**34)
    check_range("step", step, low=0, high=2**32 - 1)
    k0, k1 = key.words()
    out = np.empty((len(indices), int(width)), kind)
    fill(np.uint64(k0), np.uint64(k1), np.uint64(step), np.ascontiguousarray(indices, np.int64), out)
    return out
