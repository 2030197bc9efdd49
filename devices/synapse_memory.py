"""Digital memory of synapses: words on a grid of equal steps, exact once they are written.

A word holds a whole multiple of `step` within [low, high]. Requests are rounded to the nearest one, half to even, or refused
where they are none. A weight of b bits has 2^b - 1 levels, symmetric about the one at zero:

    step = weight_max / (2^(b-1) - 1)

so that 2 bits are ternary. A delay is a multiple of the chip's resolution, in steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from inmaterio.devices.validation import InputError, check_array, check_name, check_range

ROUNDINGS = ("nearest", "refuse")
"""What happens to a request that is no multiple of the step."""

OUTSIDE = ("clip", "refuse")
"""What happens to a written value that lies beyond the ends of the grid."""


@dataclass(frozen=True, slots=True)
class WordGrid:
    """What the words of a memory can hold.

    Attributes
    ----------
    low, high : float
        Ends, in `unit`. They are multiples of the step where there is one: of a range that does not end on one, what can be held
        ends before it.
    step : float
        Distance of two levels, in `unit`; 0 for words of floating point, which round to their own precision alone.
    rounding : str
        One of `ROUNDINGS`.
    outside : str
        One of `OUTSIDE`. A sum of a held and an added value is clipped either way.
    unit : str
        For messages.
    bits : int
        Length of a word as it is counted.

    Raises
    ------
    InputError
        When the ends are in the wrong order or a choice is unknown.
    """

    low: float = -np.inf
    high: float = np.inf
    step: float = 0.0
    rounding: str = "nearest"
    outside: str = "clip"
    unit: str = "1"
    bits: int = 32

    def __post_init__(self) -> None:
        check_range("upper end of a memory's words", self.high, low=self.low, unit=self.unit)
        check_range("step of a memory's words", self.step, low=0.0, high_open=True, unit=self.unit)
        check_range("bits of a memory's words", self.bits, low=1)
        check_name("rounding of a memory's words", self.rounding, ROUNDINGS)
        check_name("policy outside a memory's range", self.outside, OUTSIDE)

    def place(self, name: str, values: NDArray[Any]) -> NDArray[np.float64]:
        """The levels nearest to values, in float64.

        Raises
        ------
        InputError
            With the value, the unit and what was expected, when `rounding` refuses it.
        """
        asked = np.asarray(values, dtype=np.float64)
        if self.step == 0.0:
            return np.asarray(np.clip(asked, self.low, self.high))
        counts = asked / self.step
        nearest = np.rint(counts)
        if self.rounding == "refuse" and (nearest != counts).any():
            place = tuple(int(i) for i in np.argwhere(nearest != counts)[0])
            raise InputError(
                f"{name} is {asked[place]:g} {self.unit} at {place}; expected a multiple of {self.step:g} {self.unit}"
            )
        # an end that lies on the grid up to rounding is on it
        lowest, highest = np.ceil(self.low / self.step - 1e-6), np.floor(self.high / self.step + 1e-6)
        return np.asarray(np.clip(nearest, lowest, highest) * self.step)


def weight_grid(weight_max: float, bits: int | None) -> WordGrid:
    """The grid of weights in [-weight_max, weight_max] of so many bits, or of floating point; requests outside are clipped."""
    if bits is None:
        return WordGrid(-weight_max, weight_max)
    levels = 2 ** (int(bits) - 1) - 1
    return WordGrid(-weight_max, weight_max, weight_max / levels, bits=int(bits))


def delay_grid(max_delay: int, resolution: int, rounding: str) -> WordGrid:
    """The grid of delays in [0, max_delay] steps; writing one outside is refused."""
    bits = max(int(max_delay // resolution).bit_length(), 1)
    return WordGrid(0.0, float(max_delay), float(resolution), rounding, outside="refuse", unit="step", bits=bits)


@final
class SynapseMemory:
    """Words of one grid, in an array.

    Parameters
    ----------
    grid : WordGrid
    shape : tuple of int
    dtype : float32 or float64
    name : str
        What it holds, for messages.
    """

    def __init__(self, grid: WordGrid, shape: tuple[int, ...], *, dtype: DTypeLike = np.float64, name: str = "value") -> None:
        self.grid = grid
        self.shape = tuple(shape)
        self.name = name
        self._held: NDArray[Any] = np.zeros(self.shape, dtype=dtype)

    @property
    def held(self) -> NDArray[Any]:
        """What the words hold: a view."""
        view = self._held.view()
        view.flags.writeable = False
        return view

    @property
    def bytes(self) -> int:
        """Size of the memory, with words cut from its whole length of bits."""
        return -(-self._held.size * self.grid.bits // 8)

    def check(self, values: ArrayLike, *, adding: bool = False) -> NDArray[np.float64]:
        """What the words would hold if these values were written, or added.

        Raises
        ------
        InputError
            On another shape, a value that is not finite, or one that the grid refuses.
        """
        grid = self.grid
        limits = {"low": grid.low, "high": grid.high} if grid.outside == "refuse" and not adding else {}
        asked = check_array(self.name, values, shape=self.shape, unit=grid.unit, **limits)
        if adding:
            grid.place(self.name, asked)  # refuses an addition of what is no multiple
            asked = np.add(self._held, asked, dtype=np.float64)
        return grid.place(self.name, asked)

    def write(self, values: ArrayLike) -> int:
        """Write every word; how many were written.

        Raises
        ------
        InputError
            As `check`.
        """
        self._held[...] = self.check(values)
        return self._held.size

    def add(self, values: ArrayLike) -> int:
        """Add to the words; how many were written: those to which something other than zero was added.

        The sum is rounded, so that what is less than half a step from a level does not move it.

        Raises
        ------
        InputError
            As `check`.
        """
        self._held[...] = self.check(values, adding=True)
        return int(np.count_nonzero(values))

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """What is held."""
        return {"held": self._held.copy()}

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Go back to a `snapshot`."""
        self._held[...] = snapshot["held"]
