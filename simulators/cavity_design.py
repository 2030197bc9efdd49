"""What a chaotic cavity is made of: dimensions, tones, detectors, membranes, medium; and the guards on all of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_name, check_range
from inmaterio.simulators.cavity_shape import Mask, disc_coverage, make_mask, open_neighbours, spread_cells

Floats = NDArray[np.float64]
Cells = NDArray[np.int64]

AIR_DENSITY = 1.204
"""kg/m^3, dry air at 20 degrees Celsius and 101325 Pa."""

SOUND_SPEED = 343.2
"""m/s, same air."""

CELLS_PER_WAVELENGTH = 10.0
"""Fewest cells in the wavelength of the highest tone: its phase velocity is then off by less than 2 %."""

STEEPEST = 9.0 / 8.0
"""Largest slope of u^3/(1 + u^2), at u^2 = 3."""

QUIET = math.log(1000.0)
"""e-folds of amplitude a cavity is left alone for between two passes: 60 dB."""

FIRST_HEARD = 0.2
"""Share of a pass before detectors begin: the first sound is then on its way."""

LAYOUT = Key(0).at("chaotic cavity", "layout")
"""Where loudspeakers and the rest are placed, the same in every cavity of a design."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CavityDesign:
    """Options of a chaotic cavity.

    Attributes
    ----------
    shape : str
        One of `cavity_shape.SHAPES`.
    rows, columns : int
        Size in cells.
    cell_m, height_m : float
        Side of a cell and height of the flat cavity, in m.
    courant : float
        sound speed x time step / cell.
    steps : int
        Time steps of a pass.
    decay_s : float
        Time in which the amplitude of every mode falls by e, in s; infinite for no loss. It is 1/6.91 of the reverberation time.
    low_hz, high_hz : float
        Lowest and highest tone, in Hz.
    speakers, microphones : int, list of (row, column), or None
        How many, or where; None chooses a number by the widths.
    detector : str
        ``"intensity"``: mean squared pressure in windows of time, output j from microphone j mod M in window j div M.
        ``"lock-in"``: squared amplitude of pressure at the tones, then at their harmonics, output j from microphone j mod M.
    harmonics : int
        Highest harmonic a lock-in listens to.
    reference : bool
        One more loudspeaker sounds a tone in the middle of the band at constant full amplitude. Without it a medium that is
        linear or odd gives the same intensities for x and -x: the sign of the data is lost.
    flow_m3_s : float
        Volume flow at full amplitude, in m^3/s, of the reference, and of all data tones together (root of the sum of squares).
    membranes : int or list of (row, column)
        Membranes in the floor, a cell each; how many, or where.
    membrane_place : str
        ``"inner"`` or ``"wall"``: whether places are chosen among all cells or among those at a wall.
    membrane_kg_m2 : float
        Mass per area, in kg/m^2.
    quality : float
        Quality factor of a membrane by itself; infinite for no loss. Resonances are spaced evenly over the band of the tones.
    quadratic, cubic : float
        Restoring force k x (1 + quadratic x/s + cubic (x/s)^2) with s = `membrane_scale_m`.
    membrane_scale_m : float
        In m, about the thickness of a membrane.
    medium_hz : float
        Strength of the saturable medium, as the cut-off frequency it gives the cavity at full saturation, in Hz; 0 for none.
    saturation_pa : float
        Pressure amplitude of a tone in the middle of the band at which the medium is half saturated, in Pa.
    scatterers : int
        Soft discs, such as foam, in which sound is slow.
    scatterer_m, scatterer_speed : float
        Radius in m, and speed of sound inside, relative to air.
    tunable : int
        Membranes, the first ones, whose stiffness can be tuned.
    tuning : float
        Relative change of stiffness from the middle of the range to its end.
    spread : float
        Static errors of a chip: relative spread of the membranes' forces and of the loudspeakers' gain.
    precision : str
        ``"float32"`` or ``"float64"``, of passes; gradients are always worked out in float64.
    """

    shape: str = "stadium"
    rows: int = 36
    columns: int = 60
    cell_m: float = 0.01
    height_m: float = 0.05
    courant: float = 0.69
    steps: int = 256
    decay_s: float = 0.02
    low_hz: float = 800.0
    high_hz: float = 3200.0
    speakers: int | Sequence[Sequence[int]] | None = None
    microphones: int | Sequence[Sequence[int]] | None = None
    detector: Literal["intensity", "lock-in"] = "intensity"
    harmonics: int = 2
    reference: bool = True
    flow_m3_s: float = 0.01
    membranes: int | Sequence[Sequence[int]] = 32
    membrane_place: Literal["inner", "wall"] = "inner"
    membrane_kg_m2: float = 0.05
    quality: float = 20.0
    quadratic: float = 0.3
    cubic: float = 0.3
    membrane_scale_m: float = 1e-4
    medium_hz: float = 0.0
    saturation_pa: float = 1000.0
    scatterers: int = 3
    scatterer_m: float = 0.03
    scatterer_speed: float = 0.6
    tunable: int = 0
    tuning: float = 0.3
    spread: float = 0.0
    precision: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        for name, value, unit in (
            ("cell_m", self.cell_m, "m"),
            ("height_m", self.height_m, "m"),
            ("flow_m3_s", self.flow_m3_s, "m^3/s"),
            ("membrane_kg_m2", self.membrane_kg_m2, "kg/m^2"),
            ("membrane_scale_m", self.membrane_scale_m, "m"),
            ("saturation_pa", self.saturation_pa, "Pa"),
            ("scatterer_m", self.scatterer_m, "m"),
            ("low_hz", self.low_hz, "Hz"),
        ):
            check_range(name, value, low=0.0, low_open=True, high_open=True, unit=unit)
        for name, value, unit in (("decay_s", self.decay_s, "s"), ("quality", self.quality, "")):
            check_range(name, value, low=0.0, low_open=True, unit=unit)
        for name, count, low in (("steps", self.steps, 10), ("harmonics", self.harmonics, 1), ("scatterers", self.scatterers, 0)):
            check_range(name, count, low=low)
        check_range("high_hz", self.high_hz, low=self.low_hz, high_open=True, unit="Hz")
        check_range("medium_hz", self.medium_hz, low=0.0, high_open=True, unit="Hz")
        check_range("scatterer_speed", self.scatterer_speed, low=0.0, low_open=True, high=1.0)
        check_range("tuning", self.tuning, low=0.0, high=1.0, high_open=True)
        check_range("spread", self.spread, low=0.0, high_open=True)
        check_range("quadratic", self.quadratic, low_open=True, high_open=True)
        check_range("cubic", self.cubic, low=0.0, high_open=True)
        check_name("detector", self.detector, ("intensity", "lock-in"))
        check_name("membrane place", self.membrane_place, ("inner", "wall"))
        check_name("precision", self.precision, ("float32", "float64"))
        self._check_sampling()

    def _check_sampling(self) -> None:
        check_range("courant", self.courant, low=0.0, low_open=True, high_open=True)
        squared = 8.0 * (SOUND_SPEED / self.cell_m) ** 2 + STEEPEST * (2.0 * math.pi * self.medium_hz) ** 2
        safe = 2.0 / math.sqrt(squared)
        if self.step_s >= safe:
            limit = SOUND_SPEED * safe / self.cell_m
            raise InputError(
                f"courant is {self.courant:g} with a time step of {self.step_s:.4g} s; expected less than {limit:.4g}, "
                f"a largest safe step of {safe:.4g} s, for cells of {self.cell_m:g} m and a medium of {self.medium_hz:g} Hz"
            )
        cells = SOUND_SPEED / (self.high_hz * self.cell_m)
        slowest = self.scatterer_speed if self.scatterers else 1.0
        if cells < CELLS_PER_WAVELENGTH:
            raise InputError(
                f"high_hz is {self.high_hz:g} Hz, a wavelength of {cells:.3g} cells; expected at least {CELLS_PER_WAVELENGTH:g}, "
                f"at most {SOUND_SPEED / (CELLS_PER_WAVELENGTH * self.cell_m):.4g} Hz"
            )
        if cells * slowest < CELLS_PER_WAVELENGTH / 2.0:
            raise InputError(
                f"the wavelength of {self.high_hz:g} Hz inside scatterers is {cells * slowest:.3g} cells; expected at least "
                f"{CELLS_PER_WAVELENGTH / 2.0:g}"
            )
        stiffest = 2.0 * math.sin(1.0) / (2.0 * math.pi * self.step_s * math.sqrt(1.0 + self.tuning))
        if self.high_hz > stiffest:
            raise InputError(
                f"high_hz is {self.high_hz:g} Hz; expected at most {stiffest:.4g} Hz, so that membranes are resolved by the step"
            )

    @property
    def step_s(self) -> float:
        """Time step, in s."""
        return self.courant * self.cell_m / SOUND_SPEED

    @property
    def linear(self) -> bool:
        """Whether the field depends linearly on what drives it."""
        bent = self.quadratic != 0.0 or self.cubic != 0.0
        has_membranes = self.membranes != 0 if isinstance(self.membranes, int) else len(self.membranes) > 0
        return self.medium_hz == 0.0 and not (bent and has_membranes)

    @property
    def lossless(self) -> bool:
        """Whether energy is conserved while nothing drives."""
        has_membranes = self.membranes != 0 if isinstance(self.membranes, int) else len(self.membranes) > 0
        return math.isinf(self.decay_s) and (math.isinf(self.quality) or not has_membranes)

    @property
    def potential_scale(self) -> float:
        """Unit of the field, a velocity potential in m^2/s: that of a tone of `saturation_pa` in the middle of the band."""
        return self.saturation_pa / (AIR_DENSITY * math.pi * (self.low_hz + self.high_hz))


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where everything is, in cells; places are (n, 2) of (row, column), counted from 0.

    Attributes
    ----------
    mask : ndarray of bool, shape (rows, columns)
    scatterers : ndarray, shape (scatterers, 2)
        Middles, in cells from the corner.
    speakers, microphones, membranes : ndarray of int64
        The last speaker is that of the reference where there is one.
    """

    mask: Mask
    scatterers: Floats
    speakers: Cells
    microphones: Cells
    membranes: Cells


def place(design: CavityDesign, widths: tuple[int, int]) -> Layout:
    """Place what the design leaves open: far from each other and outside scatterers, always in the same way.

    Raises
    ------
    InputError
        When a given place is in a wall or outside, or there is no room.
    """
    mask = make_mask(design.shape, design.rows, design.columns)
    generator = LAYOUT.generator()
    radius = design.scatterer_m / design.cell_m
    clear = mask & ~_near_wall(mask, math.ceil(radius))
    if design.scatterers and not clear.any():
        raise InputError(f"scatterer_m is {design.scatterer_m:g} m; expected discs that fit into the cavity")
    scatterers: Floats = spread_cells(clear, design.scatterers, generator).astype(np.float64) + 0.5
    free = mask & (disc_coverage(mask.shape, scatterers, radius) == 0.0)
    speakers = max(4, -(-widths[0] // 16)) if design.speakers is None else design.speakers
    microphones = max(4, -(-widths[1] // 8)) if design.microphones is None else design.microphones
    driven = _places("speaker", speakers, mask, free, generator, np.zeros((0, 2), np.int64), least=1)
    if design.reference:
        driven = np.concatenate([driven, spread_cells(free, 1, generator, driven)])
    heard = _places("microphone", microphones, mask, free, generator, driven, least=1)
    at_wall = free & (open_neighbours(mask) < 4.0)
    membranes = _places(
        "membrane", design.membranes, mask, at_wall if design.membrane_place == "wall" else free, generator, driven, least=0
    )
    check_range("tunable", design.tunable, low=0, high=len(membranes), unit="membranes")
    return Layout(mask, scatterers, driven, heard, membranes)


def _near_wall(mask: Mask, distance: int) -> Mask:
    near = ~np.pad(mask, distance)
    for _ in range(distance):
        grown = near.copy()
        grown[1:] |= near[:-1]
        grown[:-1] |= near[1:]
        grown[:, 1:] |= near[:, :-1]
        grown[:, :-1] |= near[:, 1:]
        near = grown
    return near[distance:-distance, distance:-distance]


def _places(
    name: str,
    wanted: int | Sequence[Sequence[int]],
    mask: Mask,
    free: Mask,
    generator: np.random.Generator,
    taken: Cells,
    *,
    least: int,
) -> Cells:
    """Cells that were given, checked, or a number of cells chosen."""
    if isinstance(wanted, (int, np.integer)):
        check_range(f"number of {name}s", wanted, low=least)
        return spread_cells(free, int(wanted), generator, taken)
    rows, columns = mask.shape
    check_range(f"number of {name}s", len(wanted), low=least)
    cells = np.zeros((len(wanted), 2), dtype=np.int64)
    for index, cell in enumerate(wanted):
        if len(cell) != 2 or not all(isinstance(one, (int, np.integer)) for one in cell):
            raise InputError(f"{name} {index} is at {cell!r}; expected a row and a column")
        row, column = int(cell[0]), int(cell[1])
        if not (0 <= row < rows and 0 <= column < columns):
            raise InputError(
                f"{name} {index} at row {row}, column {column} is outside the grid; expected rows 0 to {rows - 1}, "
                f"columns 0 to {columns - 1}"
            )
        if not mask[row, column]:
            raise InputError(f"{name} {index} at row {row}, column {column} is in a wall; expected an open cell of the cavity")
        cells[index] = row, column
    if len(np.unique(cells, axis=0)) < len(cells):
        raise InputError(f"two {name}s are in one cell; expected a cell each")
    return cells
