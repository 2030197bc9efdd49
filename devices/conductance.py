"""Pairs of conductances that hold signed weights.

A weight w stands in two devices: w = (G+ - G-) weight_max / (g_max - g_min). A positive weight raises the plus device above
g_min and leaves the minus device there, a negative weight the other way (the mapping of Nandakumar et al., "Phase-change
memory models for deep learning training and inference", ICECS 2019). Here each device is held as what it adds to the
weight, p or m in [0, weight_max]: G+ = gain+ (g_min + p (g_max - g_min)/weight_max), so that an ideal pair returns the
very bits that were written.

What a request does to p and m, with b = weight_max:

Write(w)
    p = max(w, 0), m = max(-w, 0), w clipped to [-b, b].
Add(d), `soft_bounds` off
    As Write(p - m + d): both devices are set again.
Add(d), `soft_bounds` on
    Both devices get a pulse of size |d|; the one that must grow moves by |d| (1 - p/b), the other by -|d| m/b, each step
    shrinking towards the end of its device's range. For d > 0 the weight moves by d (1 - w/b), for d < 0 by d (1 + w/b):
    the soft-bounds law of pulsed resistive devices (Fusi & Abbott, Nature Neurosci. 10, 485 (2007)).

Then each device is rounded to its levels, programming noise is added, and it is clipped to its range.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from inmaterio.devices.compilation import kernel
from inmaterio.devices.randomness import Key, normal_array
from inmaterio.devices.validation import InputError, check_array, check_range


@kernel
def _set_pairs(
    values: NDArray[Any],
    adding: bool,
    soft: bool,
    bound: float,
    step: float,
    noise: float,
    draws: NDArray[Any],
    plus: NDArray[Any],
    minus: NDArray[Any],
) -> int:
    """Send one request to every pair; the number of requests that hit a bound.

    Arrays are 1-d, `draws` (2, size) or empty without noise; `step` is the distance of two levels, 0 for a continuum.
    """
    clipped = 0
    for i in range(values.shape[0]):
        value: float = np.float64(values[i])
        if adding and value == 0.0:
            continue
        p: float = np.float64(plus[i])
        m: float = np.float64(minus[i])
        if adding and soft:
            size = abs(value)
            up = p if value > 0.0 else m
            down = m if value > 0.0 else p
            up += size * (1.0 - up / bound)
            down -= size * (down / bound)
            clipped += int(size > bound)
            p = up if value > 0.0 else down
            m = down if value > 0.0 else up
        else:
            target = p - m + value if adding else value
            clipped += int(abs(target) > bound)
            p = max(target, 0.0)
            m = max(-target, 0.0)
        p = min(max(p, 0.0), bound)
        m = min(max(m, 0.0), bound)
        if step > 0.0:
            p = np.rint(p / step) * step
            m = np.rint(m / step) * step
        if noise > 0.0:
            p += noise * draws[0, i]
            m += noise * draws[1, i]
        plus[i] = min(max(p, 0.0), bound)
        minus[i] = min(max(m, 0.0), bound)
    return clipped


@kernel
def _write_ideal(values: NDArray[Any], bound: float, plus: NDArray[Any], minus: NDArray[Any], weights: NDArray[Any]) -> int:
    """`_set_pairs` of a Write and `_realise`, where nothing errs: one pass without branches, which vectorises."""
    clipped = 0
    for i in range(values.shape[0]):
        value: float = np.float64(values[i])
        clipped += int(abs(value) > bound)
        value = min(max(value, -bound), bound)
        plus[i] = max(value, 0.0)
        minus[i] = max(-value, 0.0)
        weights[i] = value
    return clipped


@kernel
def _realise(plus: NDArray[Any], minus: NDArray[Any], gains: NDArray[Any], rest: float, weights: NDArray[Any]) -> None:
    """Weights of pairs: 1-d arrays, gains (2, size), or (2, 0) when every gain is 1."""
    if gains.shape[1] == 0:
        for i in range(plus.shape[0]):
            weights[i] = plus[i] - minus[i]
    else:
        for i in range(plus.shape[0]):
            weights[i] = gains[0, i] * (rest + np.float64(plus[i])) - gains[1, i] * (rest + np.float64(minus[i]))


@dataclass(frozen=True, slots=True)
class ConductancePair:
    """What every pair of an array is made of. Imperfections are off unless they are given.

    Attributes
    ----------
    g_min, g_max : float
        Range of one device, in siemens. 25 uS is the range of the phase-change memory of Nandakumar et al. (ICECS
        2019), whose model starts from 0 S as this one does.
    weight_max : float
        Weight of a pair with one device at g_max and the other at g_min.
    levels : int or None
        Values one device can be set to, ends included, 2 ... 2^24; None for a continuum.
    programming_noise : float
        Standard deviation of each write of a device, as a fraction of g_max - g_min, away from the ends. That memory
        has 0.04 at g_max and 0.01 at 0 S (sigma = 0.263 + 1.965 r - 1.173 r^2 uS, r = g/g_max; same source); here it is
        the same everywhere, which is a simplification.
    read_noise : float
        Standard deviation of each read of a device, as a fraction of g_max - g_min; drawn by whoever reads.
    device_spread : float
        Standard deviation of each device's gain about 1, drawn once per chip; gains below 0 become 0. A gain scales
        the whole conductance, also at g_min.
    soft_bounds : bool
        Steps shrink towards the end of a device's range: see the module.

    Raises
    ------
    InputError
        When a value is out of its limits.
    """

    g_min: float = 0.0
    g_max: float = 25e-6
    weight_max: float = 1.0
    levels: int | None = None
    programming_noise: float = 0.0
    read_noise: float = 0.0
    device_spread: float = 0.0
    soft_bounds: bool = False

    def __post_init__(self) -> None:
        # Above 10 mS the wires of an array are no longer negligible beside its devices; mostly, siemens were mistaken.
        check_range("g_max", self.g_max, low=0.0, low_open=True, high=1e-2, unit="S")
        check_range("g_min", self.g_min, low=0.0, high=self.g_max, high_open=True, unit="S")
        check_range("weight_max", self.weight_max, low=0.0, low_open=True, high=np.inf, high_open=True)
        if self.levels is not None:
            check_range("levels", self.levels, low=2, high=2**24)
            if not isinstance(self.levels, (int, np.integer)):
                raise InputError(f"levels is {self.levels}; expected a whole number in [2, {2**24}], or None")
        for name in ("programming_noise", "read_noise", "device_spread"):
            check_range(name, getattr(self, name), low=0.0, high=1.0)
        if not isinstance(self.soft_bounds, (bool, np.bool_)):
            raise InputError(f"soft_bounds is {self.soft_bounds!r}; expected True or False")

    @property
    def siemens_per_weight(self) -> float:
        """(g_max - g_min)/weight_max."""
        return (self.g_max - self.g_min) / self.weight_max

    @property
    def read_noise_weight(self) -> float:
        """Standard deviation of the weight in one read, of both devices together: sqrt(2) read_noise weight_max."""
        return math.sqrt(2.0) * self.read_noise * self.weight_max

    @property
    def is_ideal(self) -> bool:
        """Whether what is written is what is held (reads may still be noisy)."""
        return self.levels is None and self.programming_noise == 0.0 and self.device_spread == 0.0 and not self.soft_bounds


@final
class DeviceArray:
    """An array of pairs, and what they hold. Made by `make_array`."""

    __slots__ = ("_bound", "_clipped", "_gains", "_minus", "_plus", "_sums", "_view", "_weights", "name", "pair", "shape")

    def __init__(
        self, pair: ConductancePair, shape: tuple[int, ...], gains: NDArray[Any], dtype: np.dtype[Any], name: str
    ) -> None:
        self.pair = pair
        self.shape = shape
        self.name = name
        size = math.prod(shape)
        # Rounded as the weights are, so that a weight at the bound does not count as beyond it.
        self._bound = float(dtype.type(pair.weight_max))
        self._gains = gains
        self._plus = np.zeros(size, dtype)
        self._minus = np.zeros(size, dtype)
        self._weights = np.zeros(size, dtype)
        self._view = self._weights.reshape(shape)
        self._view.flags.writeable = False
        self._sums: dict[int | None, NDArray[np.float64]] = {}
        self._clipped = 0.0
        self._update()

    @property
    def weights(self) -> NDArray[Any]:
        """Weights as the devices realise them, (G+ - G-) weight_max/(g_max - g_min): a contiguous read-only view.

        The view follows every later write. Copy it before it leaves the substrate.
        """
        return self._view

    @property
    def g_plus(self) -> NDArray[Any]:
        """Conductance of every plus device, in siemens."""
        return self._conductance(self._plus, 0)

    @property
    def g_minus(self) -> NDArray[Any]:
        """Conductance of every minus device, in siemens."""
        return self._conductance(self._minus, 1)

    @property
    def clipped_fraction(self) -> float:
        """Fraction of the last call's requests that a bound cut short."""
        return self._clipped

    def write(self, values: ArrayLike, key: Key) -> int:
        """Ask for these weights.

        Parameters
        ----------
        values : array_like of real numbers, of the array's shape
            Clipped to [-weight_max, weight_max].
        key : Key
            Of the programming noise.

        Returns
        -------
        int
            Devices that were programmed: all of them.

        Raises
        ------
        InputError
            When the shape is another or a value is not finite; nothing has been written then.
        """
        request = self._check(values)
        hits = self._set_ideal(request) if self.pair.is_ideal else self._set(request, adding=False, key=key)
        self._clipped = hits / request.size
        return 2 * request.size

    def add(self, values: ArrayLike, key: Key) -> int:
        """Ask for the present weights plus these; arguments and errors as `write`.

        Returns
        -------
        int
            Devices that were programmed: both of each pair whose request is not zero. The others keep their state.
        """
        request = self._check(values)
        asked = int(np.count_nonzero(request))
        hits = self._set_ideal(self._weights + request) if self.pair.is_ideal else self._set(request, adding=True, key=key)
        self._clipped = hits / max(asked, 1)
        return 2 * asked

    def add_outer(self, left: ArrayLike, right: ArrayLike, scale: float, key: Key) -> int:
        """Ask for the present weights plus scale * mean over b of left[b] (x) right[b]. Returns as `add`.

        The sum over the batch is made before the devices act: one pulse per device and call.

        Parameters
        ----------
        left : array_like, shape (batch, to)
        right : array_like, shape (batch, from)
        scale : float
        key : Key

        Raises
        ------
        InputError
            When the shapes do not fit or a value is not finite.
        """
        if len(self.shape) != 2:
            raise InputError(f"{self.name} has shape {self.shape}; expected two axes for an outer product")
        first = np.asarray(check_array(f"left factor for {self.name}", left, shape=(None, self.shape[0])))
        second = np.asarray(check_array(f"right factor for {self.name}", right, shape=(len(first), self.shape[1])))
        check_range("batch size", len(first), low=1)
        return self.add((scale / len(first)) * (first.T @ second), key)

    def read_back(self, key: Key) -> NDArray[Any]:
        """Read every pair once: the weights plus read noise, in a new array."""
        if self.pair.read_noise == 0.0:
            return self._view.copy()
        draws = normal_array(key, self.shape, self._weights.dtype)
        draws *= self.pair.read_noise_weight
        draws += self._view
        return draws

    def conductance_sum(self, axis: int | None = None) -> NDArray[np.float64]:
        """Sum of G+ + G- along an axis, or over the whole array, in siemens; read-only, kept until the next write."""
        found = self._sums.get(axis)
        if found is None:
            pair = self.pair
            if self._gains.shape[1]:
                both = self._gains[0] * (self._rest + self._plus) + self._gains[1] * (self._rest + self._minus)
                total = np.asarray(both.reshape(self.shape).sum(axis=axis, dtype=np.float64))
            else:
                both = self._plus + self._minus
                summed = np.asarray(both.reshape(self.shape).sum(axis=axis, dtype=np.float64))
                total = summed + 2.0 * self._rest * (both.size / max(summed.size, 1))
            found = np.asarray(total * pair.siemens_per_weight)
            found.flags.writeable = False
            self._sums[axis] = found
        return found

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Everything the devices hold, as copies."""
        return {
            "plus": self._plus.reshape(self.shape).copy(),
            "minus": self._minus.reshape(self.shape).copy(),
            "gains": self._gains.copy(),
        }

    def restore(self, snapshot: Mapping[str, ArrayLike]) -> None:
        """Go back to a `snapshot`, to the same bits.

        Raises
        ------
        InputError
            When an array is missing or has another shape; nothing has been changed then.
        """
        missing = sorted({"plus", "minus", "gains"} - set(snapshot))
        if missing:
            raise InputError(f"snapshot of {self.name} lacks {', '.join(missing)}")
        plus = check_array(f"snapshot of {self.name}, plus", snapshot["plus"], shape=self.shape)
        minus = check_array(f"snapshot of {self.name}, minus", snapshot["minus"], shape=self.shape)
        gains = check_array(f"snapshot of {self.name}, gains", snapshot["gains"], shape=self._gains.shape)
        self._plus[:] = plus.reshape(-1)
        self._minus[:] = minus.reshape(-1)
        self._gains = np.array(gains, self._gains.dtype)
        self._update()

    @property
    def _rest(self) -> float:
        """g_min in units of weight."""
        return self.pair.g_min / self.pair.siemens_per_weight

    def _conductance(self, held: NDArray[Any], side: int) -> NDArray[Any]:
        conductance = (self._rest + held) * self.pair.siemens_per_weight
        if self._gains.shape[1]:
            conductance = conductance * self._gains[side]
        return np.asarray(conductance, self._weights.dtype).reshape(self.shape)

    def _check(self, values: ArrayLike) -> NDArray[Any]:
        request = check_array(f"request for {self.name}", values, shape=self.shape)
        if request.dtype.kind not in "biuf":
            raise InputError(f"request for {self.name} holds {request.dtype} values; expected real numbers")
        kind = request.dtype if request.dtype in (np.float32, np.float64) else np.float64
        return np.ascontiguousarray(request, kind).reshape(-1)

    def _set_ideal(self, request: NDArray[Any]) -> int:
        self._sums.clear()
        return _write_ideal(request, self._bound, self._plus, self._minus, self._weights)

    def _set(self, request: NDArray[Any], *, adding: bool, key: Key) -> int:
        pair = self.pair
        bound = self._bound
        noisy = pair.programming_noise > 0.0
        draws = normal_array(key, (2, request.size), self._weights.dtype) if noisy else np.empty((2, 0), self._weights.dtype)
        hits = _set_pairs(
            request,
            adding,
            bool(pair.soft_bounds),
            bound,
            0.0 if pair.levels is None else bound / (pair.levels - 1),
            pair.programming_noise * bound,
            draws,
            self._plus,
            self._minus,
        )
        self._update()
        return int(hits)

    def _update(self) -> None:
        self._sums.clear()
        _realise(self._plus, self._minus, self._gains, self._rest, self._weights)


def make_array(
    pair: ConductancePair, shape: Sequence[int], *, key: Key, dtype: DTypeLike = np.float32, name: str = "array"
) -> DeviceArray:
    """Make an array of pairs, all devices at g_min.

    Parameters
    ----------
    pair : ConductancePair
    shape : sequence of int
        (to, from) for a coupling.
    key : Key
        Of this chip and array: decides the devices' static gains, and nothing else.
    dtype : float32 or float64
        Of everything held.
    name : str
        For messages.

    Raises
    ------
    InputError
        When a length is not a whole number above 0, or the dtype is another.
    """
    lengths = tuple(int(check_range(f"length of an axis of {name}", length, low=1)) for length in shape)
    kind = np.dtype(dtype)
    if kind not in (np.float32, np.float64):
        raise InputError(f"dtype of {name} is {kind}; expected float32 or float64")
    gains = np.empty((2, 0), kind)
    if pair.device_spread > 0.0:
        gains = np.maximum(1.0 + pair.device_spread * normal_array(key.at("gain"), (2, math.prod(lengths))), 0.0).astype(kind)
    return DeviceArray(pair, lengths, gains, kind, name)
