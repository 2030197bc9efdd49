"""Scalar waves in two dimensions, in the time domain: a map of speeds, loss, absorbers, a speed that depends on the field.

::

    u_tt + 2 b u_t = c(x)^2 (lap u + s)

on a grid of rows x columns with spacing h; outside it the field is zero (Dirichlet walls). One step of dt, of second order in
space and time (five-point Laplacian, leapfrog), takes u^n and u^(n-1) to

    u^(n+1) = [2 u^n - (1 - b dt) u^(n-1) + C (L u^n + X^n + h^2 s^n)] / (1 + b dt),   C = (c dt / h)^2
            = g [2 u^n - 2 u^(n-1) + C (L u^n + X^n + h^2 s^n)] + u^(n-1),              g = 1 / (1 + b dt)

    (L u)[i, j] = u[i-1, j] + u[i+1, j] + u[i, j-1] + u[i, j+1] - 4 u[i, j]

A source enters with the factor c^2, so that the lossless operator is self-adjoint and source and probe may be exchanged. Step n
(from 0) uses the source sample s^n, and trace sample n is u^(n+1) at the probe: the field that this step made.

**Absorbers** fill strips of N cells along the chosen sides; loss map and nonlinear density must be zero there.

- ``graded``: b grows into the strip (see `absorbers.graded_loss`); nothing else changes.
- ``cpml`` (default): convolutional perfectly matched layer for the second-order equation (Pasalic & McGarry, 80th SEG meeting,
  2010, 2925-2929). Along the columns' axis, X_x[j] = psi[j+1/2] - psi[j-1/2] + zeta[j], with two memory variables in the strips
  only, updated from u^n before they are used:

      psi[j-1/2] <- q[j-1/2] psi[j-1/2] + a[j-1/2] (u[j] - u[j-1])
      zeta[j]    <- q[j] zeta[j] + a[j] (u[j+1] - 2 u[j] + u[j-1] + psi[j+1/2] - psi[j-1/2])

  and the same along the rows' axis; X = X_x + X_y. psi stands between cells and zeta on them, so that the discrete operator is
  symmetric: sources and probes outside the strips may still be exchanged. q and a: `absorbers.cpml_coefficients`; they depend on
  depth only. Both absorbers are scaled with the largest linear speed in the strips.

**Nonlinear media** (Hughes, Williamson, Minkov and Fan, Science Advances 5, eaay6946, 2019) have a density d(x) >= 0, one map for
both effects, as the caller gives it (raw or projected is the caller's choice):

    c = c_lin + d c_nl u^2,    b = b_lin + d b_0 / (1 + (u / u_th)^2),    u = u^n of the cell itself

The stability limit holds for the true speed: where c leaves (0, h / (sqrt2 dt)] while a run is under way, it ends with an error.
Sources stand on cells of density zero.

Arrays are C-contiguous, rows first; cells are (row, column) from 0. Inside the kernels a field carries a frame of one zero cell.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.simulators import scalar_wave_kernels as kernels
from inmaterio.simulators.absorbers import Absorber, cpml_coefficients, graded_loss
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.scalar_wave_kernels import Coefficients

Floats = NDArray[np.float64]
Cells = NDArray[np.int64]

CELLS_PER_WAVELENGTH = 8.0
"""Fewest cells for one wavelength: there the speed of a wave along an axis is wrong by up to 2.6 %."""

CACHE_LINE = 64
"""Bytes."""

CHECK_EVERY = 64
"""Steps between looks at whether a field is finite."""

ABSORBERS = {"none": kernels.OPEN, "graded": kernels.GRADED, "cpml": kernels.CPML}

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


@dataclass(frozen=True, slots=True)
class State:
    """Where the waves of a batch are, from which a run can go on to the same bits.

    Attributes
    ----------
    field, previous : ndarray, shape (batch, rows, columns)
        u^n and u^(n-1).
    memory : tuple of ndarray
        Memory variables of a CPML: psi and zeta of the top and bottom strips (batch, 2, cells + 1, columns) and (batch, 2, cells,
        columns), psi and zeta of the left and right ones (batch, 2, cells + 1, rows) and (batch, 2, cells, rows).
    step : int
        n, for messages.
    """

    field: Array
    previous: Array
    memory: tuple[Array, Array, Array, Array]
    step: int = 0

    def reversed(self) -> "State":
        """The waves running backwards: fields exchanged. Only lossless waves retrace their way."""
        return State(self.previous, self.field, self.memory, self.step)


@dataclass(frozen=True, slots=True)
class Run:
    """What a run gave.

    Attributes
    ----------
    traces : ndarray, shape (batch, probes, steps)
        Field at the probes after each step; its square is what an intensity probe measures.
    state : State
        Where the run ended.
    pictures : ndarray, shape (batch, kept, rows, columns)
        Field after each `picture_every` steps; none kept unless asked for.
    """

    traces: Array
    state: State
    pictures: Array


def rest(medium: Medium, batch: int) -> State:
    """No field, no memory.

    Parameters
    ----------
    medium : Medium
    batch : int
        Number of samples.
    """
    rows, columns = medium.grid.shape
    fields = np.zeros((2, batch, rows, columns), dtype=medium.dtype)
    shapes = _memory_shapes(medium, batch)
    psi_rows, zeta_rows, psi_columns, zeta_columns = (np.zeros(shape, dtype=medium.dtype) for shape in shapes)
    return State(fields[0], fields[1], (psi_rows, zeta_rows, psi_columns, zeta_columns))


def _memory_shapes(medium: Medium, batch: int) -> tuple[tuple[int, ...], ...]:
    rows, columns = medium.grid.shape
    if medium.absorber.kind != "cpml":
        return ((batch, 2, 1, 0), (batch, 2, 0, 0), (batch, 2, 1, 0), (batch, 2, 0, 0))
    cells = medium.absorber.cells
    return ((batch, 2, cells + 1, columns), (batch, 2, cells, columns), (batch, 2, cells + 1, rows), (batch, 2, cells, rows))


def propagate(
    medium: Medium,
    sources: ArrayLike,
    source_cells: ArrayLike,
    probe_cells: ArrayLike,
    *,
    start: State | None = None,
    picture_every: int | None = None,
) -> Run:
    """Run waves for as many steps as the sources have samples, the batch shared out among numba's threads.

    Results do not depend on the number of threads, on the rest of the batch, or on how a run is cut into blocks.

    Parameters
    ----------
    medium : Medium
    sources : array, shape (batch, sources, steps)
        s: what drives each source cell at each step, in units of the field per m^2. No sources: shape (batch, 0, steps).
    source_cells, probe_cells : array of int, shape (sources, 2) and (probes, 2)
        Row and column of each, outside the absorber; sources where the nonlinear density is zero.
    start : State, optional
        Where to start, as a run in this medium left it; at rest by default. It is not changed.
    picture_every : int, optional
        Keep the whole field after each so many steps.

    Returns
    -------
    Run

    Raises
    ------
    InputError
        When an argument does not fit the medium; when the speed leaves (0, h / (sqrt2 dt)] (cell, step, both speeds, largest safe
        step); when the field is no longer finite (cell and step).
    """
    driven = check_array("sources", sources, shape=(None, None, None))
    places = check_cells("source", source_cells, medium)
    probes = check_cells("probe", probe_cells, medium)
    batch, count, steps = driven.shape
    if count != len(places):
        raise InputError(f"sources has shape {driven.shape}; expected (any, {len(places)}, any) for {len(places)} source cells")
    _check_undense(places, medium)
    if picture_every is not None:
        check_range("picture_every", picture_every, low=1)
    state = rest(medium, batch) if start is None else _check_start(start, medium, batch)
    prepared = coefficients(medium)
    gains = source_gains(medium, places)
    driven = np.ascontiguousarray(driven, dtype=medium.dtype)
    traces = np.empty((batch, len(probes), steps), dtype=medium.dtype)
    length = steps if picture_every is None else picture_every
    pictures = []
    for first in range(0, steps, max(length, 1)):
        block = np.ascontiguousarray(driven[:, :, first : first + length])
        piece, state = _advance_block(medium, prepared, state, block, places, gains, probes)
        traces[:, :, first : first + length] = piece
        if picture_every is not None and block.shape[2] == length:
            pictures.append(state.field)
    kept = np.stack(pictures, axis=1) if pictures else np.empty((batch, 0, *medium.grid.shape), dtype=medium.dtype)
    return Run(traces, state, kept)


def _advance_block(
    medium: Medium, prepared: Coefficients, state: State, sources: Array, places: Cells, gains: Array, probes: Cells
) -> tuple[Array, State]:
    """Traces and end of a block of steps; a field that blew up is sought again, looking at every step."""
    batch, _, steps = sources.shape
    for check_every in (CHECK_EVERY, 1):
        fields = _on_cache_lines(state)
        psi_rows, zeta_rows, psi_columns, zeta_columns = (one.copy() for one in state.memory)
        spare = np.empty((batch, 2, medium.absorber.cells), dtype=medium.dtype)
        traces = np.empty((batch, len(probes), steps), dtype=medium.dtype)
        fault, seen = np.zeros((batch, 4), dtype=np.int64), np.zeros((batch, 1))
        per_sample = fields, psi_rows, zeta_rows, psi_columns, zeta_columns, spare, sources, traces, fault, seen
        run_in_threads(_run_part, per_sample, prepared, places, gains, probes, check_every)
        if not fault[:, 0].any():
            now, before = steps % 2, 1 - steps % 2
            inner = np.s_[:, 1:-1, 1 : 1 + medium.grid.shape[1]]
            end = State(
                np.ascontiguousarray(fields[:, now][inner]),
                np.ascontiguousarray(fields[:, before][inner]),
                (psi_rows, zeta_rows, psi_columns, zeta_columns),
                state.step + steps,
            )
            return traces, end
    sample = int(np.flatnonzero(fault[:, 0])[0])
    raise _fault(medium, sample, fault[sample], float(seen[sample, 0]), state.step)


def _run_part(
    fields: Array,
    psi_rows: Array,
    zeta_rows: Array,
    psi_columns: Array,
    zeta_columns: Array,
    spare: Array,
    sources: Array,
    traces: Array,
    fault: Cells,
    seen: Floats,
    prepared: Coefficients,
    places: Cells,
    gains: Array,
    probes: Cells,
    check_every: int,
) -> None:
    """`kernels.run_batch` with what has a batch axis first."""
    memory = psi_rows, zeta_rows, psi_columns, zeta_columns
    kernels.run_batch(prepared, fields, *memory, spare, sources, places, gains, probes, traces, check_every, fault, seen)


def run_in_threads(part: Callable[..., None], per_sample: Sequence[Array], *shared: Any) -> None:
    """Call ``part(*per_sample, *shared)`` for parts of the batch, one per numba thread; `part` must release the interpreter lock.

    Parameters
    ----------
    part : callable
        Works on each sample by itself, so that results do not depend on the number of parts.
    per_sample : sequence of array
        Each with a batch axis first; written in place.
    shared
        What every part takes as it is.
    """
    batch = len(per_sample[0])
    parts = min(numba.get_num_threads(), batch)
    if parts <= 1:
        part(*per_sample, *shared)
        return
    edges = [batch * number // parts for number in range(parts + 1)]
    with ThreadPoolExecutor(parts) as pool:
        waiting = [pool.submit(part, *(one[a:b] for one in per_sample), *shared) for a, b in pairwise(edges)]
    for one in waiting:
        one.result()


def _fault(medium: Medium, sample: int, fault: Cells, seen: float, first_step: int) -> InputError:
    kind, step, place = int(fault[0]), first_step + int(fault[1]), (int(fault[2]), int(fault[3]))
    where = f"at step {step} at cell {place} of sample {sample}"
    if kind == kernels.NOT_FINITE:
        return InputError(f"the field is {seen:g} {where}; expected a finite number: weaker sources or a smaller start")
    grid = medium.grid
    speed = seen * grid.spacing_m / grid.step_s
    if speed <= 0.0:
        return InputError(
            f"the nonlinear speed is {speed:g} m/s {where}; expected more than 0 m/s: a weaker field, density or speed slope"
        )
    return InputError(
        f"the nonlinear speed is {speed:g} m/s {where}, above the stability limit of {grid.largest_speed_m_per_s:g} m/s; "
        f"the largest safe step is {grid.spacing_m / (math.sqrt(2.0) * speed):g} s"
    )


def framed(state: State) -> Array:
    """Fields as kernels take them: (batch, 2, rows + 2, columns + 2), u^n first, a frame of zeros around each."""
    batch, rows, columns = state.field.shape
    fields = np.zeros((batch, 2, rows + 2, columns + 2), dtype=state.field.dtype)
    fields[:, 0, 1:-1, 1:-1], fields[:, 1, 1:-1, 1:-1] = state.field, state.previous
    return fields


def _aligned(shape: tuple[int, ...], dtype: str | np.dtype[Any], lead: int = 0) -> Array:
    """Zeros whose element `lead` begins a cache line."""
    kind, count = np.dtype(dtype), math.prod(shape)
    line = CACHE_LINE // kind.itemsize
    room = np.zeros(count + line, dtype=kind)
    first = (-(room.ctypes.data // kind.itemsize) - lead) % line
    return room[first : first + count].reshape(shape)


def _on_cache_lines(state: State) -> Array:
    """As `framed`, with more zero columns behind, so that the first cell of every row begins a cache line: 20 % faster."""
    batch, rows, columns = state.field.shape
    line = CACHE_LINE // state.field.itemsize
    # one line more than is needed keeps rows off powers of two, at which they would compete for the same places in the cache
    pitch = (columns + 2 + line - 1) // line * line + line
    fields = _aligned((batch, 2, rows + 2, pitch), state.field.dtype, lead=1)
    fields[:, 0, 1:-1, 1 : columns + 1], fields[:, 1, 1:-1, 1 : columns + 1] = state.field, state.previous
    return fields


def coefficients(medium: Medium) -> Coefficients:
    """What the kernels need of a medium, in its precision; made once, not to be written to."""
    if not medium._prepared:
        medium._prepared.append(_prepare(medium))
    return medium._prepared[0]


def _prepare(medium: Medium) -> Coefficients:
    grid, absorber, nonlinearity = medium.grid, medium.absorber, medium.nonlinearity
    real = np.dtype(medium.dtype).type
    unused: Floats = np.empty((0, 0))

    def cast(values: Array) -> Any:
        array = _aligned(values.shape, medium.dtype)
        array[...] = values
        return array

    speed = medium.speed_m_per_s
    courant = speed * (grid.step_s / grid.spacing_m)
    damping: Floats = unused
    if nonlinearity is not None:
        damping = np.zeros(grid.shape)
    if medium.loss_per_s is not None:
        damping = medium.loss_per_s * grid.step_s
    lossy = medium.loss_per_s is not None or nonlinearity is not None
    density: Floats = unused if nonlinearity is None else nonlinearity.density
    dense_rows = np.flatnonzero(density.any(axis=1))
    active = (int(dense_rows[0]), int(dense_rows[-1]) + 1) if len(dense_rows) else (0, 0)
    kind = kernels.NONLINEAR if nonlinearity is not None else kernels.LOSSY if lossy else kernels.LINEAR
    return Coefficients(
        medium=kind,
        absorber=ABSORBERS[absorber.kind if absorber.sides else "none"],
        sides=np.array([side in absorber.sides for side in ("top", "bottom", "left", "right")], dtype=np.int64),
        ratio=cast(np.square(courant)),
        gain=cast(1.0 / (1.0 + damping) if lossy else unused),
        courant=cast(courant if nonlinearity is not None else unused),
        density=cast(density),
        damping=cast(damping if nonlinearity is not None else unused),
        active_rows=np.array(active, dtype=np.int64),
        speed_slope=real(0.0 if nonlinearity is None else nonlinearity.speed_slope_m_per_s * grid.step_s / grid.spacing_m),
        saturable_damping=real(0.0 if nonlinearity is None else nonlinearity.loss_per_s * grid.step_s),
        inverse_saturation=real(0.0 if nonlinearity is None else nonlinearity.saturation**-2.0),
        largest_courant=real((1.0 + ROUNDING) / math.sqrt(2.0)),
        **{name: cast(values) for name, values in _strip_coefficients(medium, speed).items()},
    )


def _strip_coefficients(medium: Medium, speed: Floats) -> dict[str, Floats]:
    """Damping gains or memory coefficients by depth. Both are made, because a kernel's argument has one type."""
    cells, columns, spacing, step = medium.absorber.cells, medium.grid.shape[1], medium.grid.spacing_m, medium.grid.step_s
    thickness = max(cells, 1) * spacing
    strips = {"top": speed[:cells], "bottom": speed[-cells:], "left": speed[:, :cells], "right": speed[:, -cells:]}
    reference = max((float(strips[side].max()) for side in medium.absorber.sides), default=0.0)
    nodes: Floats = (np.arange(cells, 0, -1, dtype=np.float64) - 0.5) * spacing
    halves: Floats = np.arange(cells, -1, -1, dtype=np.float64) * spacing
    across = np.zeros((2, columns))
    for row, side in enumerate(("left", "right")):
        if side in medium.absorber.sides:
            loss = graded_loss(nodes, thickness, reference)
            across[row, np.s_[:cells] if row == 0 else np.s_[columns - cells :]] = loss if row == 0 else loss[::-1]
    down = graded_loss(nodes, thickness, reference)
    loss_rows = np.stack([down, down[::-1]])[:, :, None] + across.sum(axis=0)
    loss_columns = np.stack([across[0, :cells], across[1, columns - cells :]])
    both = {}
    for name, depth in (("half", halves), ("node", nodes)):
        decay, gain = cpml_coefficients(depth, thickness, reference, step)
        both[f"{name}_decay"], both[f"{name}_gain"] = np.stack([decay, decay[::-1]]), np.stack([gain, gain[::-1]])
    return {
        "gain_rows": (1.0 / (1.0 + loss_rows * step)).reshape(2 * cells, columns),
        "gain_columns": 1.0 / (1.0 + loss_columns * step),
        **both,
    }


def source_gains(medium: Medium, cells: Cells) -> Array:
    """What one unit of a source adds to each of these cells in a step: g C h^2, with the linear speed and loss."""
    rows, columns = cells[:, 0], cells[:, 1]
    gains = (medium.speed_m_per_s[rows, columns] * medium.grid.step_s) ** 2
    if medium.loss_per_s is not None:
        gains = gains / (1.0 + medium.grid.step_s * medium.loss_per_s[rows, columns])
    return np.ascontiguousarray(gains, dtype=medium.dtype)


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


def _check_undense(cells: Cells, medium: Medium) -> None:
    if medium.nonlinearity is None:
        return
    for number, (row, column) in enumerate(cells.tolist()):
        density = medium.nonlinearity.density[row, column]
        if density != 0:
            raise InputError(f"source {number} is at cell ({row}, {column}), where the density is {density:g}; expected 0")


def _check_start(start: State, medium: Medium, batch: int) -> State:
    shape = (batch, *medium.grid.shape)
    arrays = [check_array(name, one, shape=shape) for name, one in (("field", start.field), ("previous field", start.previous))]
    memory = []
    for one, wanted in zip(start.memory, _memory_shapes(medium, batch), strict=True):
        memory.append(np.ascontiguousarray(check_array("memory of the absorber", one, shape=wanted), dtype=medium.dtype))
    field, previous = (np.ascontiguousarray(one, dtype=medium.dtype) for one in arrays)
    return State(field, previous, (memory[0], memory[1], memory[2], memory[3]), start.step)
