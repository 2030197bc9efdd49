"""Single conductances: weights that cannot be negative, as the resistors of a circuit are.

A weight w is a conductance g = w unit. What a request does to a device:

Write(w)
    w is clipped to [g_min, g_max]/unit, rounded to the device's levels, programming noise is added, and it is clipped again.
Add(d)
    As Write of what the device holds plus d; a device whose request is zero is left alone.

A gain that differs from device to device multiplies what is held. Pairs that hold signed weights are in `conductance`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from inmaterio.devices.randomness import Key, normal_array
from inmaterio.devices.validation import InputError, check_array, check_range


@dataclass(frozen=True, slots=True)
class SingleConductance:
    """What every device of an array is. Imperfections are off unless they are given.

    Attributes
    ----------
    g_min, g_max : float
        Range, in siemens. 25 uS is the range of the phase-change memory of Nandakumar et al. (ICECS 2019).
    unit : float
        Conductance of a weight of 1, in siemens.
    levels : int or None
        Values a device can be set to, ends included, 2 ... 2^24; None for a continuum.
    programming_noise : float
        Standard deviation of each write, as a fraction of g_max - g_min, away from the ends.
    read_noise : float
        Standard deviation of each read, as a fraction of g_max - g_min; drawn by whoever reads.
    device_spread : float
        Standard deviation of each device's gain about 1, drawn once per chip; gains below 0 become 0.

    Raises
    ------
    InputError
        When a value is out of its limits.
    """

    g_min: float = 0.0
    g_max: float = 25e-6
    unit: float = 1e-5
    levels: int | None = None
    programming_noise: float = 0.0
    read_noise: float = 0.0
    device_spread: float = 0.0

    def __post_init__(self) -> None:
        check_range("g_max", self.g_max, low=0.0, low_open=True, high=1e-2, unit="S")
        check_range("g_min", self.g_min, low=0.0, high=self.g_max, high_open=True, unit="S")
        check_range("unit of conductance", self.unit, low=0.0, low_open=True, high=1.0, unit="S")
        if self.levels is not None:
            check_range("levels", self.levels, low=2, high=2**24)
            if not isinstance(self.levels, (int, np.integer)):
                raise InputError(f"levels is {self.levels}; expected a whole number in [2, {2**24}], or None")
        for name in ("programming_noise", "read_noise", "device_spread"):
            check_range(name, getattr(self, name), low=0.0, high=1.0)

    @property
    def low(self) -> float:
        """Smallest weight, g_min/unit."""
        return self.g_min / self.unit

    @property
    def high(self) -> float:
        """Largest weight, g_max/unit."""
        return self.g_max / self.unit

    @property
    def read_noise_weight(self) -> float:
        """Standard deviation of the weight in one read."""
        return self.read_noise * (self.high - self.low)


@final
class SingleArray:
    """An array of single devices, and what they hold. Made by `make_single_array`."""

    __slots__ = ("_gains", "_held", "_weights", "device", "name", "shape")

    def __init__(
        self, device: SingleConductance, shape: tuple[int, ...], gains: NDArray[Any] | None, dtype: np.dtype[Any], name: str
    ) -> None:
        self.device = device
        self.shape = shape
        self.name = name
        self._gains = gains
        # as made, a device stands at a weight of 1, or at the end of its range that comes nearest
        self._held = np.full(shape, min(max(1.0, device.low), device.high), dtype)
        self._realise()

    @property
    def weights(self) -> NDArray[Any]:
        """Weights as the devices realise them, g/unit, read-only. A later write makes a new array."""
        return self._weights

    def write(self, values: ArrayLike, key: Key) -> int:
        """Ask for these weights.

        Parameters
        ----------
        values : array_like of real numbers, of the array's shape
            Clipped to the devices' range: what is negative becomes the smallest conductance.
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
        self._held = self._set(request, key)
        self._realise()
        return int(request.size)

    def add(self, values: ArrayLike, key: Key) -> int:
        """Ask for the present weights plus these; arguments and errors as `write`.

        Returns
        -------
        int
            Devices that were programmed: those whose request is not zero.
        """
        request = self._check(values)
        moved = self._set(self._held + request, key)
        asked = request != 0
        self._held = np.where(asked, moved, self._held)
        self._realise()
        return int(np.count_nonzero(asked))

    def read_back(self, key: Key) -> NDArray[Any]:
        """Read every device once: the weights plus read noise, in a new array."""
        noise = self.device.read_noise_weight
        if noise == 0.0:
            return self._weights.copy()
        return np.asarray(self._weights + noise * normal_array(key, self.shape, self._weights.dtype))

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Everything the devices hold, as copies."""
        gains = np.ones(0, self._held.dtype) if self._gains is None else self._gains.copy()
        return {"held": self._held.copy(), "gains": gains}

    def restore(self, snapshot: Mapping[str, ArrayLike]) -> None:
        """Go back to a `snapshot`, to the same bits.

        Raises
        ------
        InputError
            When an array is missing or has another shape; nothing has been changed then.
        """
        missing = sorted({"held", "gains"} - set(snapshot))
        if missing:
            raise InputError(f"snapshot of {self.name} lacks {', '.join(missing)}")
        held = check_array(f"snapshot of {self.name}, held", snapshot["held"], shape=self.shape)
        gains = check_array(f"snapshot of {self.name}, gains", snapshot["gains"])
        if gains.shape not in ((0,), self.shape):
            raise InputError(f"snapshot of {self.name}, gains has shape {gains.shape}; expected {self.shape}, or (0,) for none")
        self._held = np.array(held, self._held.dtype)
        self._gains = np.array(gains, self._held.dtype) if gains.shape == self.shape else None
        self._realise()

    def _check(self, values: ArrayLike) -> NDArray[Any]:
        request = check_array(f"request for {self.name}", values, shape=self.shape)
        if request.dtype.kind not in "biuf":
            raise InputError(f"request for {self.name} holds {request.dtype} values; expected real numbers")
        return request

    def _set(self, request: NDArray[Any], key: Key) -> NDArray[Any]:
        device = self.device
        weights = np.clip(request, device.low, device.high)
        if device.levels is not None:
            step = (device.high - device.low) / (device.levels - 1)
            weights = device.low + np.rint((weights - device.low) / step) * step
        if device.programming_noise > 0.0:
            noise = device.programming_noise * (device.high - device.low)
            weights = np.clip(weights + noise * normal_array(key, self.shape), device.low, device.high)
        return np.asarray(weights, self._held.dtype)

    def _realise(self) -> None:
        self._weights = np.ascontiguousarray(self._held if self._gains is None else self._held * self._gains)
        self._weights.flags.writeable = False


def make_single_array(
    device: SingleConductance, shape: Sequence[int], *, key: Key, dtype: DTypeLike = np.float32, name: str = "array"
) -> SingleArray:
    """Make an array of devices, all at a weight of 1 or the end of their range that comes nearest.

    Parameters
    ----------
    device : SingleConductance
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
    gains = None
    if device.device_spread > 0.0:
        draws = normal_array(key.at("gain"), (math.prod(lengths),)).reshape(lengths)
        gains = np.maximum(1.0 + device.device_spread * draws, 0.0).astype(kind)
    return SingleArray(device, lengths, gains, kind, name)
