"""The exact gradient of what probes in a scalar wave see, in little memory.

A loss is a function of the traces y^n = u^(n+1) at the probes; its gradient dL/dy is given. For the scheme of `scalar_wave`,
v = C g dL/du obeys, outside the absorber, the same damped equation backwards in time, driven at the probes::

    v^n = [2 v^(n+1) - (1 - b dt) v^(n+2) + C (L v^(n+1) + X + dL/dy^(n-1))] / (1 + b dt),    v^(N+1) = v^(N+2) = 0

    dL/dc   = 2/c sum_n v^(n+1) (L u^n + h^2 s^n)        dL/ds^n = h^2 v^(n+1) at the source
    dL/du^0 = (1 + b dt) v^0 / C                         dL/du^(-1) = -(1 - b dt) v^1 / C

X is the absorber's own: both absorbers are symmetric operators, so the adjoint field is absorbed as any other. It is therefore
a field that a second run of a reciprocal device would show. Where the medium is nonlinear, v = K g dL/du with K = (c dt / h)^2
and g at the field that made u, and dL/du gains what the speed and the loss of its own cell add; that is no field of the device.

The gradient with respect to the speed is wanted in a rectangle of cells, the region; there u^n is needed again, last step first.

- ``reverse``: a lossless linear region runs backwards, since u^(n-1) = 2 u^n - u^(n+1) + C (L u^n + h^2 s^n); only the ring of
  cells around it is kept. Rounding grows as it does in any lossless run, see `Gradient.restoration_error`.
- ``checkpoint``: K states are kept, and the N/K steps after each are made again, last ones first, keeping the region alone; K is
  what needs the least memory, of the order of the root of N (A. Griewank, Optim. Methods Softw. 1, 35 (1992)).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.simulators import scalar_wave_adjoint_kernels as kernels
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.scalar_wave import (
    Medium,
    State,
    check_cells,
    coefficients,
    framed,
    propagate,
    rest,
    source_gains,
)
from inmaterio.simulators.scalar_wave_kernels import Coefficients

Region = tuple[tuple[int, int], tuple[int, int]]
"""First row and the one after the last; first column and the one after the last."""

Memory = tuple[Array, Array, Array, Array]
"""psi and zeta of the top and bottom strips, psi and zeta of the left and right ones."""

METHODS = ("auto", "reverse", "checkpoint")


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A run and what its gradient needs.

    Attributes
    ----------
    traces : ndarray, shape (batch, probes, steps)
        As `scalar_wave.Run`.
    state : State
        Where the run ended.
    medium, sources, source_cells, probe_cells, start
        What was run.
    region : Region
    method : str
        ``"reverse"`` or ``"checkpoint"``.
    rings : ndarray, shape (batch, steps, cells around the region)
        Of ``reverse``.
    checkpoints : tuple of State
        Of ``checkpoint``: where each segment begins.
    """

    traces: Array
    state: State
    medium: Medium
    sources: Array
    source_cells: NDArray[np.int64]
    probe_cells: NDArray[np.int64]
    start: State
    region: Region
    method: str
    rings: Array
    checkpoints: tuple[State, ...]

    @property
    def segments(self) -> tuple[tuple[int, int], ...]:
        """First step of each segment between checkpoints, and the first after it."""
        first = [one.step - self.start.step for one in self.checkpoints]
        return tuple(pairwise((*first, self.traces.shape[2])))

    @property
    def memory_bytes(self) -> int:
        """What is kept for the way back, with what it keeps while it is under way, as if all samples went at once."""
        (top, bottom), (left, right) = self.region
        cells = (bottom - top + 2) * (right - left + 2)
        each = len(self.traces) * self.traces.itemsize * cells
        if self.method == "reverse":
            return int(self.rings.nbytes + 2 * each)
        longest = max(last - first for first, last in self.segments) + 2
        return int(sum(_state_bytes(one) for one in self.checkpoints) + longest * each)


@dataclass(frozen=True, slots=True, eq=False)
class Gradient:
    """Gradient of a loss of the traces.

    Attributes
    ----------
    speed : ndarray, shape (rows, columns)
        With respect to c_lin, in s/m, summed over the batch; 0 outside the region, where it is not looked for.
    density : ndarray, shape (rows, columns), or None
        With respect to the density of a nonlinear medium (of speed and loss), in the same way; 0 at the sources, where it must
        stay 0.
    sources : ndarray, shape (batch, sources, steps)
        In m^2.
    field, previous : ndarray, shape (batch, rows, columns)
        With respect to u^0 and u^(-1); 0 in the absorber, whose start is held.
    restoration_error : float
        ``reverse``: largest difference of the start as the reversed run found it, over the largest field known; else 0.
    shares : ndarray, shape (batch, rows of the region, columns of the region)
        What each sample adds to `speed`.
    """

    speed: NDArray[np.float64]
    density: NDArray[np.float64] | None
    sources: Array
    field: Array
    previous: Array
    restoration_error: float
    shares: NDArray[np.float64]


def record(
    medium: Medium,
    sources: ArrayLike,
    source_cells: ArrayLike,
    probe_cells: ArrayLike,
    *,
    start: State | None = None,
    region: Region | None = None,
    method: str = "auto",
) -> Recording:
    """Run waves as `scalar_wave.propagate` does, and keep what `pull_back` needs.

    Parameters
    ----------
    medium, sources, source_cells, probe_cells, start
        As for `scalar_wave.propagate`.
    region : Region, optional
        Where the gradient with respect to the maps is wanted, outside the absorber; all of that by default. In a nonlinear
        medium it grows to hold all density.
    method : {"auto", "reverse", "checkpoint"}
        ``auto`` is ``reverse`` where that is possible.

    Raises
    ------
    InputError
        As `scalar_wave.propagate`; when the region is not one; when ``reverse`` is asked of a region with loss or nonlinearity.
    """
    check_name("method", method, METHODS)
    wanted = _check_region(region, medium)
    obstacle = _irreversible(medium, wanted)
    if method == "reverse" and obstacle:
        raise InputError(f"reverse reconstruction needs a lossless linear region, but {obstacle}; expected method 'checkpoint'")
    reverse = not obstacle and method != "checkpoint"
    places, probes = check_cells("source", source_cells, medium), check_cells("probe", probe_cells, medium)
    driven = np.ascontiguousarray(check_array("sources", sources, shape=(None, len(places), None)), dtype=medium.dtype)
    batch, _, steps = driven.shape
    check_range("steps", steps, low=1)
    # no steps: checks what is left to check, and casts the start
    begin = propagate(medium, driven[:, :, :0], places, probes, start=start).state
    rings: Array = np.empty((batch, 0, 0), dtype=medium.dtype)
    if reverse:
        (top, bottom), (left, right) = wanted
        rings = np.empty((batch, steps, 2 * (bottom - top + right - left)), dtype=medium.dtype)
        edges = [0, steps]
    else:
        wanted = _with_density(medium, wanted)
        edges = _edges(medium, steps, wanted)
    traces, states = _run(medium, driven, places, probes, begin, wanted, edges, rings)
    checkpoints, state = () if reverse else states[:-1], states[-1]
    return Recording(
        traces,
        state,
        medium,
        driven,
        places,
        probes,
        begin,
        wanted,
        "reverse" if reverse else "checkpoint",
        rings,
        checkpoints,
    )


def pull_back(recording: Recording, trace_gradient: ArrayLike) -> Gradient:
    """The gradient of a loss from its gradient with respect to the traces.

    Parameters
    ----------
    recording : Recording
    trace_gradient : array, shape (batch, probes, steps)
        dL/dy, not divided by the batch.

    Raises
    ------
    InputError
        When the shape does not fit or an element is not finite.
    """
    medium = recording.medium
    checked = check_array("gradient with respect to the traces", trace_gradient, shape=recording.traces.shape)
    driving = np.ascontiguousarray(checked, dtype=medium.dtype)
    way = _Way(recording, driving)
    found = _for_each(way.pull_one, len(driving))
    (top, bottom), (left, right) = recording.region
    speed, density = np.zeros(medium.grid.shape), None
    totals = np.array([one.total for one in found], dtype=np.float64)
    c = np.asarray(medium.speed_m_per_s, dtype=np.float64)[top:bottom, left:right]
    if medium.nonlinearity is None:
        shares = 2.0 / c * totals
    else:
        shares = medium.grid.step_s / medium.grid.spacing_m * totals
        density = np.zeros(medium.grid.shape)
        density[top:bottom, left:right] = np.sum([one.dense for one in found], axis=0, dtype=np.float64)
        density[recording.source_cells[:, 0], recording.source_cells[:, 1]] = 0.0
    speed[top:bottom, left:right] = shares.sum(axis=0)
    return Gradient(
        speed,
        density,
        np.stack([one.sources for one in found]),
        np.stack([one.field for one in found]),
        np.stack([one.previous for one in found]),
        max(one.restoration_error for one in found),
        shares,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Pulled:
    """What the way back of one sample gave."""

    total: Array
    dense: Array
    sources: Array
    field: Array
    previous: Array
    restoration_error: float


class _Way:
    """What every sample's way back shares."""

    def __init__(self, recording: Recording, driving: Array) -> None:
        medium = recording.medium
        self._recording, self._driving = recording, driving
        self._own = _prepared(medium)
        self._linear = self._own if medium.nonlinearity is None else _prepared(replace(medium, nonlinearity=None))
        self._square = np.dtype(medium.dtype).type(medium.grid.spacing_m**2)
        self._source_gains = source_gains(medium, recording.source_cells)
        self._probe_gains = np.ascontiguousarray(
            source_gains(medium, recording.probe_cells) / medium.grid.spacing_m**2, dtype=medium.dtype
        )
        (top, bottom), (left, right) = recording.region
        self._inside = np.s_[top:bottom, left:right]
        self._corner, self._size = np.array([top, left]), np.array([bottom - top, right - left])
        self._ratio = np.ascontiguousarray(self._own.ratio[self._inside])
        own = self._own
        self._maps = [np.ascontiguousarray(one[self._inside]) for one in (own.courant, own.density, own.damping) if one.size]
        self._constants = np.array([own.speed_slope, own.saturable_damping, own.inverse_saturation], dtype=medium.dtype)
        damping = np.zeros(medium.grid.shape)
        if medium.loss_per_s is not None:
            damping = np.asarray(medium.loss_per_s, dtype=np.float64) * medium.grid.step_s
        interior = np.logical_not(medium.in_absorber())
        ratio = (np.asarray(medium.speed_m_per_s, dtype=np.float64) * medium.grid.step_s / medium.grid.spacing_m) ** 2
        self._field_factor = interior * (1.0 + damping) / ratio
        self._previous_factor = interior * (damping - 1.0) / ratio

    def pull_one(self, b: int) -> _Pulled:
        """The way back of sample b."""
        recording, medium = self._recording, self._recording.medium
        batchless = rest(medium, 1)
        adjoint, memory = framed(batchless)[0], _of_sample(batchless, 0)
        spare = np.empty((2, medium.absorber.cells), dtype=medium.dtype)
        total, dense, multiplier, carried = (np.zeros(tuple(self._size), dtype=medium.dtype) for _ in range(4))
        sources = np.zeros(recording.sources.shape[1:], dtype=medium.dtype)
        error = 0.0
        shared = (adjoint, *memory, spare, recording.sources[b], recording.source_cells)
        probing = (recording.probe_cells, self._probe_gains, self._driving[b], self._corner)
        steps = recording.traces.shape[2]
        if recording.method == "reverse":
            rings, boxes = recording.rings[b], self._last_box(b)
            known = (boxes, rings, recording.traces[b])
            largest = max(max(float(one.max(initial=0.0)), -float(one.min(initial=0.0))) for one in known)
            kernels.pull_linear(
                self._own,
                *shared,
                self._source_gains,
                self._square,
                *probing,
                self._ratio,
                rings,
                boxes,
                0,
                steps,
                total,
                sources,
            )
            pairs = zip(boxes, (recording.start.field[b], recording.start.previous[b]), strict=True)
            difference = max(float(np.abs(found[1:-1, 1:-1] - begun[self._inside]).max()) for found, begun in pairs)
            error = difference / largest if largest else 0.0
        longest = max((last - first for first, last in recording.segments), default=0)
        room = np.empty((longest + 2, *(self._size + 2)), dtype=medium.dtype)  # fresh memory for each segment would cost a third
        for k in reversed(range(len(recording.checkpoints))):
            first, last = recording.segments[k]
            boxes = self._remake(b, k, first, last, room)
            if medium.nonlinearity is None:
                kernels.pull_linear(
                    self._own,
                    *shared,
                    self._source_gains,
                    self._square,
                    *probing,
                    self._ratio,
                    recording.rings[b],
                    boxes,
                    first,
                    last,
                    total,
                    sources,
                )
            else:
                courant, density, damping = self._maps
                kernels.pull_nonlinear(
                    self._linear,
                    *shared,
                    self._square,
                    *probing,
                    boxes,
                    first,
                    last,
                    courant,
                    density,
                    damping,
                    self._constants,
                    multiplier,
                    carried,
                    total,
                    dense,
                    sources,
                )
        field = self._field_factor * adjoint[0, 1:-1, 1:-1]
        previous = self._previous_factor * adjoint[1, 1:-1, 1:-1]
        if medium.nonlinearity is not None:
            field[self._inside], previous[self._inside] = multiplier, carried
        return _Pulled(total, dense, sources, field, previous, error)

    def _last_box(self, b: int) -> Array:
        """u^steps and u^(steps-1) in the region, each where its number's parity puts it."""
        recording = self._recording
        steps = recording.traces.shape[2]
        box = np.zeros((2, *(self._size + 2)), dtype=recording.medium.dtype)
        box[steps % 2, 1:-1, 1:-1] = recording.state.field[b][self._inside]
        box[1 - steps % 2, 1:-1, 1:-1] = recording.state.previous[b][self._inside]
        return box

    def _remake(self, b: int, k: int, first: int, last: int, room: Array) -> Array:
        """The region, with a frame, in u^(first-1) ... u^last, written into `room`."""
        recording, medium = self._recording, self._recording.medium
        begin = recording.checkpoints[k]
        boxes = room[: last - first + 2]
        kernels.run_recorded(
            self._own,
            framed(_one(begin, b))[0],
            *_of_sample(begin, b),
            np.empty((2, medium.absorber.cells), dtype=medium.dtype),
            np.ascontiguousarray(recording.sources[b, :, first:last]),
            recording.source_cells,
            self._source_gains,
            recording.probe_cells,
            np.empty((len(recording.probe_cells), last - first), dtype=medium.dtype),
            self._corner,
            self._size,
            np.empty((0, 0), dtype=medium.dtype),
            boxes,
        )
        return boxes


def _run(
    medium: Medium, driven: Array, places: Array, probes: Array, start: State, region: Region, edges: Sequence[int], rings: Array
) -> tuple[Array, tuple[State, ...]]:
    """Traces of a run, and the states in which it stood at these steps; rings around the region where there is room for them."""
    (top, bottom), (left, right) = region
    corner, size = np.array([top, left]), np.array([bottom - top, right - left])
    prepared, gains = _prepared(medium), source_gains(medium, places)
    batch = len(driven)
    traces = np.empty((batch, len(probes), driven.shape[2]), dtype=medium.dtype)
    states = [start] + [
        State(np.empty_like(start.field), np.empty_like(start.field), _copy(start.memory), start.step + edge)
        for edge in edges[1:]
    ]
    none = np.empty((0, 0, 0), dtype=medium.dtype)

    def run(b: int) -> bool:
        fields, memory = framed(_one(start, b))[0], _of_sample(start, b)
        spare = np.empty((2, medium.absorber.cells), dtype=medium.dtype)
        for k in range(1, len(edges)):
            steps = np.s_[:, edges[k - 1] : edges[k]]
            block, piece = np.ascontiguousarray(driven[b][steps]), np.ascontiguousarray(traces[b][steps])
            stopped = kernels.run_recorded(
                prepared, fields, *memory, spare, block, places, gains, probes, piece, corner, size, rings[b], none
            )
            if stopped >= 0:
                return False
            traces[b][steps] = piece
            if piece.shape[1] % 2:
                fields = np.ascontiguousarray(fields[::-1])
            states[k].field[b], states[k].previous[b] = fields[:, 1:-1, 1:-1]
            for held, one in zip(states[k].memory, memory, strict=True):
                held[b] = one
        return bool(np.isfinite(fields).all())

    if not all(_for_each(run, batch)):
        # the plain run says where and when
        propagate(medium, driven, places, probes, start=start)
    return traces, tuple(states)


def _prepared(medium: Medium) -> Coefficients:
    """`coefficients` with a map of its own: one that cannot be written is another type, and would compile every kernel again."""
    found = coefficients(medium)
    return found._replace(density=found.density.copy())


def _for_each(work: Callable[[int], Any], count: int) -> list[Any]:
    """work(0) ... work(count - 1), shared out among as many threads as numba may use; the kernels hold no interpreter lock."""
    threads = min(numba.get_num_threads(), count)
    if threads < 2:
        return [work(b) for b in range(count)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, range(count)))


def _of_sample(state: State, b: int) -> Memory:
    """A copy of the memory variables of one sample."""
    m = state.memory
    return m[0][b].copy(), m[1][b].copy(), m[2][b].copy(), m[3][b].copy()


def _copy(m: Memory) -> Memory:
    return m[0].copy(), m[1].copy(), m[2].copy(), m[3].copy()


def _one(state: State, b: int) -> State:
    """The fields of one sample, without its memory."""
    return State(state.field[b : b + 1], state.previous[b : b + 1], state.memory)


def _state_bytes(state: State) -> int:
    return state.field.nbytes + state.previous.nbytes + sum(one.nbytes for one in state.memory)


def _edges(medium: Medium, steps: int, region: Region) -> list[int]:
    """Steps at which states are kept, and the last: as few bytes as possible for K states and the longest segment's boxes."""
    (top, bottom), (left, right) = region
    box = (bottom - top + 2) * (right - left + 2) * np.dtype(medium.dtype).itemsize
    one = _state_bytes(rest(medium, 1))
    count = min(range(1, steps + 1), key=lambda k: k * one + (-(-steps // k) + 2) * box)
    return [int(edge) for edge in np.linspace(0, steps, count + 1).round()]


def _check_region(region: Region | None, medium: Medium) -> Region:
    n, sides = medium.absorber.cells, medium.absorber.sides
    rows, columns = medium.grid.shape
    interior = (
        (n if "top" in sides else 0, rows - (n if "bottom" in sides else 0)),
        (n if "left" in sides else 0, columns - (n if "right" in sides else 0)),
    )
    if region is None:
        return interior
    for name, (first, last), (low, high) in zip(("rows", "columns"), region, interior, strict=True):
        if not low <= first < last <= high:
            raise InputError(
                f"the region's {name} are {first} to {last}; expected first < last within {low} to {high}, outside the absorber"
            )
    return region


def _irreversible(medium: Medium, region: Region) -> str:
    """What keeps a region from running backwards; empty when nothing does."""
    if medium.nonlinearity is not None:
        return "the medium is nonlinear"
    if medium.loss_per_s is None:
        return ""
    (top, bottom), (left, right) = region
    loss = np.asarray(medium.loss_per_s)[top:bottom, left:right]
    if not loss.any():
        return ""
    row, column = (int(i) for i in np.argwhere(loss != 0)[0])
    return f"the loss is {loss[row, column]:g} 1/s at cell ({top + row}, {left + column}) inside it"


def _with_density(medium: Medium, region: Region) -> Region:
    """The smallest rectangle that holds a region and all density of a nonlinear medium."""
    if medium.nonlinearity is None or not np.any(medium.nonlinearity.density):
        return region
    dense = np.asarray(medium.nonlinearity.density) != 0
    (top, bottom), (left, right) = region
    rows, columns = (np.flatnonzero(dense.any(axis=axis)) for axis in (1, 0))
    return (
        (min(top, int(rows[0])), max(bottom, int(rows[-1]) + 1)),
        (min(left, int(columns[0])), max(right, int(columns[-1]) + 1)),
    )
