"""What scalar waves run through: a grid, maps of speed, loss and density, and their checks. Equations: `scalar_wave`."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.simulators.absorbers import Absorber
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.scalar_wave_kernels import Coefficients

Floats = NDArray[np.float64]


Cells = NDArray[np.int64]


CELLS_PER_WAVELENGTH = 8.0
"""Fewest cells for one wavelength: there the speed of a wave along an axis is wrong by up to 2.6 %."""


ROUNDING = 1e-6
"""Relative excess over the stability limit that is taken for rounding of the caller's numbers (float32 maps included)."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Cells and steps.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns, absorbing strips included.
    spacing_m, step_s : float
        h in m and dt in s.

    Raises
    ------
    InputError
        When there is no cell, or h or dt is not positive.
    """

    shape: tuple[int, int]
    spacing_m: float
    step_s: float

    def __post_init__(self) -> None:
        if len(self.shape) != 2 or any(isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1 for n in self.shape):
            raise InputError(f"shape of the grid is {self.shape}; expected rows and columns, at least 1 of each")
        check_range("spacing of the grid", self.spacing_m, low=0.0, low_open=True, high_open=True, unit="m")
        check_range("step of the grid", self.step_s, low=0.0, low_open=True, high_open=True, unit="s")

    @property
    def largest_speed_m_per_s(self) -> float:
        """h / (sqrt2 dt): above it a wave outruns the five-point stencil, and the field grows without bound."""
        return self.spacing_m / (math.sqrt(2.0) * self.step_s)


def _held(values: ArrayLike) -> Floats:
    """A copy that nobody writes to."""
    copy = np.array(values, dtype=np.float64)
    copy.setflags(write=False)
    return copy


@dataclass(frozen=True, slots=True, eq=False)
class Nonlinearity:
    """Where and how speed and loss depend on the field; see the module.

    Attributes
    ----------
    density : array, shape (rows, columns)
        d >= 0, dimensionless; used as it is for speed and loss.
    speed_slope_m_per_s : float
        c_nl: change of speed at density 1 and field 1; either sign.
    loss_per_s : float
        b_0 >= 0: extra damping at density 1 and field 0.
    saturation : float
        u_th > 0: field at which the extra damping has halved.
    """

    density: Array
    speed_slope_m_per_s: float = 0.0
    loss_per_s: float = 0.0
    saturation: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "density", _held(check_array("density", self.density, low=0.0)))
        check_range("slope of the speed", self.speed_slope_m_per_s, low_open=True, high_open=True, unit="m/s")
        check_range("saturable loss", self.loss_per_s, low=0.0, high_open=True, unit="1/s")
        check_range("saturation field", self.saturation, low=0.0, low_open=True, high_open=True)


@dataclass(frozen=True, slots=True, eq=False)
class Medium:
    """What waves run through. Maps are copied and can no longer be written to.

    Attributes
    ----------
    grid : Grid
    speed_m_per_s : array, shape (rows, columns)
        c_lin > 0.
    absorber : Absorber
        CPML of 10 cells on all sides by default.
    loss_per_s : array, shape (rows, columns), optional
        b_lin >= 0, zero in the absorber; None is a medium without loss.
    nonlinearity : Nonlinearity, optional
    largest_frequency_hz : float, optional
        Largest frequency of the sources, for a check that the grid samples its wavelength.
    dtype : {"float64", "float32"}
        Precision of fields and maps.

    Raises
    ------
    InputError
        When a map does not fit the grid, the largest speed breaks the stability limit, a wavelength is undersampled, strips leave
        no room between them, or loss or density is not zero in a strip.
    """

    grid: Grid
    speed_m_per_s: Array
    absorber: Absorber = field(default_factory=Absorber)
    loss_per_s: Array | None = None
    nonlinearity: Nonlinearity | None = None
    largest_frequency_hz: float | None = None
    dtype: str = "float64"
    _prepared: list[Coefficients] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        check_name("dtype", self.dtype, ("float32", "float64"))
        shape = tuple(self.grid.shape)
        speed: Array = check_array("speed", self.speed_m_per_s, shape=shape, unit="m/s")
        if not np.all(speed > 0.0):
            place = tuple(int(i) for i in np.argwhere(~(speed > 0.0))[0])
            raise InputError(f"speed is {speed[place]:g} m/s at cell {place}; expected more than 0 m/s")
        fastest, limit = float(speed.max()), self.grid.largest_speed_m_per_s
        if fastest > limit * (1.0 + ROUNDING):
            safe = self.grid.spacing_m / (math.sqrt(2.0) * fastest)
            raise InputError(
                f"largest speed is {fastest:g} m/s, above the stability limit of {limit:g} m/s at a step of "
                f"{self.grid.step_s:g} s and a spacing of {self.grid.spacing_m:g} m; the largest safe step is {safe:g} s"
            )
        if self.largest_frequency_hz is not None:
            check_range("largest frequency", self.largest_frequency_hz, low=0.0, low_open=True, high_open=True, unit="Hz")
            sampled = float(speed.min()) / (self.largest_frequency_hz * self.grid.spacing_m)
            if sampled < CELLS_PER_WAVELENGTH:
                raise InputError(
                    f"the wavelength at {self.largest_frequency_hz:g} Hz is {sampled:.3g} cells where the speed is "
                    f"{float(speed.min()):g} m/s; expected at least {CELLS_PER_WAVELENGTH:g} cells"
                )
        object.__setattr__(self, "speed_m_per_s", _held(speed))
        self._check_strips()
        if self.loss_per_s is not None:
            self._check_map("loss", self.loss_per_s, "1/s")
            object.__setattr__(self, "loss_per_s", _held(self.loss_per_s))
        if self.nonlinearity is not None:
            self._check_map("density", self.nonlinearity.density, "")

    def _check_strips(self) -> None:
        sides, cells = self.absorber.sides, self.absorber.cells
        for axis, pair in enumerate((("top", "bottom"), ("left", "right"))):
            taken = cells * sum(side in sides for side in pair)
            # a strip reads the field on both sides of each of its cells
            if taken >= self.grid.shape[axis]:
                raise InputError(
                    f"absorbing strips take {taken} of {self.grid.shape[axis]} {('rows', 'columns')[axis]}; "
                    "expected room between them"
                )

    def _check_map(self, name: str, values: Array, unit: str) -> None:
        array = check_array(name, values, shape=tuple(self.grid.shape), low=0.0, unit=unit)
        inside = np.argwhere((np.asarray(array) != 0) & self.in_absorber())
        if len(inside):
            place = tuple(int(i) for i in inside[0])
            suffix = f" {unit}" if unit else ""
            raise InputError(f"{name} is {array[place]:g}{suffix} at cell {place}, in the absorber; expected 0 there")

    def in_absorber(self) -> NDArray[np.bool_]:
        """True (rows, columns) in the absorbing strips."""
        inside = np.zeros(self.grid.shape, dtype=np.bool_)
        n = self.absorber.cells
        for side in self.absorber.sides:
            along = inside if side in ("top", "bottom") else inside.T
            along[np.s_[:n] if side in ("top", "left") else np.s_[-n:]] = True
        return inside


def check_cells(name: str, cells: ArrayLike, medium: Medium) -> Cells:
    """Return (count, 2) cells as integers when all lie on the grid and outside the absorber.

    Raises
    ------
    InputError
        With the first that does not.
    """
    array = np.asarray(cells)
    if array.size == 0:
        return np.empty((0, 2), dtype=np.int64)
    if array.dtype.kind not in "iu" or array.ndim != 2 or array.shape[1] != 2:
        raise InputError(f"{name} cells have shape {array.shape} and type {array.dtype}; expected whole numbers (count, 2)")
    rows, columns = medium.grid.shape
    strips = medium.in_absorber()
    for number, (row, column) in enumerate(array.tolist()):
        if not (0 <= row < rows and 0 <= column < columns):
            raise InputError(f"{name} {number} is at cell ({row}, {column}); expected a cell of the {rows} x {columns} grid")
        if strips[row, column]:
            raise InputError(
                f"{name} {number} is at cell ({row}, {column}), in the absorber of {medium.absorber.cells} cells; "
                "expected a cell between the strips"
            )
    return np.ascontiguousarray(array, dtype=np.int64)
