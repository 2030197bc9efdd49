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

Arrays are C-contiguous, rows first; cells are (row, column) from 0. Inside the kernels a field carries a frame of one zero cell,
and numbers below the smallest normal one of their type count as zero (`devices.subnormals`).
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numba
import numpy as np
from numpy.typing import ArrayLike

from inmaterio.devices.validation import InputError, check_array, check_range
from inmaterio.simulators import scalar_wave_run_kernels as kernels
from inmaterio.simulators.absorbers import Absorber
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.scalar_wave_coefficients import CACHE_LINE, aligned, coefficients, source_gains
from inmaterio.simulators.scalar_wave_kernels import Coefficients
from inmaterio.simulators.scalar_wave_medium import Cells, Floats, Grid, Medium, Nonlinearity, check_cells

__all__ = [
    "Absorber",
    "Cells",
    "Coefficients",
    "Floats",
    "Grid",
    "Medium",
    "Nonlinearity",
    "Run",
    "State",
    "check_cells",
    "coefficients",
    "framed",
    "propagate",
    "rest",
    "run_in_threads",
    "source_gains",
]

CHECK_EVERY = 64
"""Steps between looks at whether a field is finite."""


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


def _on_cache_lines(state: State) -> Array:
    """As `framed`, with more zero columns behind, so that the first cell of every row begins a cache line: 20 % faster."""
    batch, rows, columns = state.field.shape
    line = CACHE_LINE // state.field.itemsize
    # one line more than is needed keeps rows off powers of two, at which they would compete for the same places in the cache
    pitch = (columns + 2 + line - 1) // line * line + line
    fields = aligned((batch, 2, rows + 2, pitch), state.field.dtype, lead=1)
    fields[:, 0, 1:-1, 1 : columns + 1], fields[:, 1, 1:-1, 1 : columns + 1] = state.field, state.previous
    return fields


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
