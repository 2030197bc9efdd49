"""A Fisher-KPP medium: fronts that grow from where data are sown, in a reactor that is stirred, read before they have filled it.

::

    inputs --> sown concentrations --> grows, spreads, is carried about for duration_s --> detectors
               (first column)          (rows x columns)                                   (last column)

    u_t = div(D grad u) - v . grad u + growth u (1 - u)

with a still or a cellular flow v = rot psi, psi ~ sin(pi x / length) sin(pi y / width) over every square of the medium (a row
of eddies that turn against one another). In still air a small u runs away at the rate of growth and spreads as fronts of speed
2 sqrt(D growth); u = 0 is unstable, u = 1 stable.

Why no rule of rest points is legal here. Without flow the equation alone would not forbid it: a reaction that is the same
function of u everywhere is a gradient, and u descends the energy sum of D/2 |grad u|^2 - growth (u^2/2 - u^3/3). What forbids it:

- the only rest points are u = 0 and u = 1, which anything sown reaches: the rest point has forgotten the inputs, so the
  difference of two rest points holds no gradient. Inputs are read in the transient, at a time that is chosen;
- the flow is no gradient: it carries u around closed loops, and raises that energy from states that a test gives. So the
  trait ``gradient-flow`` is absent, and so are ``symmetric`` and ``Relaxing``.

Sources: R. A. Fisher, Annals of Eugenics 7, 355 (1937); A. Kolmogorov, I. Petrovsky and N. Piskunov, Bull. Univ. Moscow A 1, 1
(1937). Fronts in cellular flows: M. Abel, A. Celani, D. Vergni and A. Vulpiani, Phys. Rev. E 64, 046307 (2001).
"""

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np

from inmaterio.devices.compilation import kernel
from inmaterio.devices.randomness import Key, normal_array
from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.simulators.black_box import AbstractBlackBox, Electronics
from inmaterio.simulators.capabilities import Array, Parameter
from inmaterio.simulators.option_types import check_option_types
from inmaterio.simulators.reaction_diffusion import Floats, Grid, check_step, check_widths, divergence, largest_step, spread_over

CALIBRATION = 64
"""Random drives that the unit of the detectors is found from."""

TUNING_DEPTH = 0.5
"""Relative change of growth at the end of a tuning parameter's range."""


@kernel
def advect(state: Array, across: Array, along: Array, sign: float, out: Array) -> None:
    """out += sign * (-v . grad u) with velocities through faces in cells per second.

    A face carries the mean of its two cells. As the faces of every cell add up to no flow, what it takes of the cell's own
    value cancels and is left out. What remains is antisymmetric, so that `sign` = -1 gives the transpose.
    """
    rows, columns = state.shape
    for i in range(rows):
        for j in range(columns - 1):
            carried = 0.5 * sign * across[i, j]
            left, right = state[i, j], state[i, j + 1]
            out[i, j] -= carried * right
            out[i, j + 1] += carried * left
    for i in range(rows - 1):
        for j in range(columns):
            carried = 0.5 * sign * along[i, j]
            upper, lower = state[i, j], state[i + 1, j]
            out[i, j] -= carried * lower
            out[i + 1, j] += carried * upper


@kernel
def grow(
    state: Array, across: Array, along: Array, flow_across: Array, flow_along: Array, growth: Array, dt: float, steps: int
) -> None:
    """Make explicit Euler steps of u_t = L u - v . grad u + growth u (1 - u), in place.

    Parameters
    ----------
    state : ndarray, shape (batch, rows, columns)
    across, along : ndarray
        D / h^2 of every edge in 1/s: see `divergence`.
    flow_across, flow_along : ndarray
        Velocity through every face, in cells per second.
    growth : ndarray, shape (rows, columns)
        In 1/s.
    dt : float
        Step in s.
    steps : int
    """
    batch, rows, columns = state.shape
    change = np.empty((rows, columns))
    for b in range(batch):
        u = state[b]
        for _ in range(steps):
            divergence(u, across, along, change)
            advect(u, flow_across, flow_along, 1.0, change)
            for i in range(rows):
                for j in range(columns):
                    v = u[i, j]
                    u[i, j] = v + dt * (change[i, j] + growth[i, j] * v * (1.0 - v))


@kernel
def pull_back(
    state: Array,
    adjoint: Array,
    across: Array,
    along: Array,
    flow_across: Array,
    flow_along: Array,
    growth: Array,
    dt: float,
    gradient: Array,
) -> None:
    """The transpose of one step of `grow`, in place.

    Parameters
    ----------
    state : ndarray, shape (batch, rows, columns)
        Before the step.
    adjoint : ndarray, like `state`
        In: gradient with respect to the state after the step. Out: with respect to `state`.
    gradient : ndarray, shape (rows, columns)
        Added to: gradient with respect to `growth`, summed over the batch.

    Other parameters as in `grow`.
    """
    batch, rows, columns = state.shape
    change = np.empty((rows, columns))
    for b in range(batch):
        divergence(adjoint[b], across, along, change)
        advect(adjoint[b], flow_across, flow_along, -1.0, change)
        for i in range(rows):
            for j in range(columns):
                u = state[b, i, j]
                a = adjoint[b, i, j]
                gradient[i, j] += dt * u * (1.0 - u) * a
                adjoint[b, i, j] = a + dt * (change[i, j] + growth[i, j] * (1.0 - 2.0 * u) * a)


def eddies(grid: Grid, fastest: float) -> tuple[Floats, Floats]:
    """Velocity through every face of a row of eddies, in units of `fastest` / cell: across, along.

    The stream function stands at the corners of the cells, so that each cell's faces add up to no flow; it vanishes on the rim.
    """
    number = max(1, round(grid.columns / grid.rows))
    y = np.sin(np.pi * np.arange(grid.rows + 1) / grid.rows)
    x = np.sin(np.pi * number * np.arange(grid.columns + 1) / grid.columns)
    y[[0, -1]] = x[[0, -1]] = 0.0
    stream = y[:, None] * x[None, :]
    across, along = np.diff(stream, axis=0)[:, 1:-1], -np.diff(stream, axis=1)[1:-1]
    largest = max(np.abs(across).max(initial=0.0), np.abs(along).max(initial=0.0))
    scale = fastest / largest if largest > 0.0 else 0.0
    return np.ascontiguousarray(scale * across), np.ascontiguousarray(scale * along)


@final
class FisherKppMedium(AbstractBlackBox):
    """One medium; see `build`."""

    def __init__(
        self,
        grid: Grid,
        ports: tuple[int, int],
        electronics: Electronics,
        *,
        chip: Key,
        cell_m: float,
        diffusivity: float,
        growth: float,
        flow: float,
        sown: float,
        steps: int,
        dt: float,
        spread: float,
        tunable: int,
    ) -> None:
        self._grid, self._dt, self._steps, self._sown = grid, dt, steps, sown
        self._cell_m, self._diffusivity = cell_m, diffusivity
        self._sources = spread_over(grid.rows, ports[0])
        self._detectors = spread_over(grid.rows, ports[1])
        self._growth_rate = growth
        edge = np.full(grid.edges, diffusivity / cell_m**2)
        self._across, self._along = grid.split(edge)
        self._flow = eddies(grid, flow / cell_m)
        # bands of columns, from the sources to the detectors
        self._patch = np.arange(grid.cells).reshape(grid.columns, grid.rows).T * max(tunable, 1) // grid.cells
        parameters = {}
        if tunable:
            parameters["growth_change"] = Parameter((tunable,), "1", -1.0, 1.0, accepts=("Write", "Add"), initial=0.0)
        super().__init__(parameters, ports, electronics, pass_seconds=steps * dt, channels=ports[0])
        self._local = np.ones((grid.rows, grid.columns))
        self._scale = np.ones(ports[1])
        drive = np.random.default_rng(0).uniform(-1.0, 1.0, (CALIBRATION, ports[0]))
        nominal = self._respond(drive, self._held)
        self._scale = np.sqrt(np.mean(nominal**2, axis=0))
        if not self._scale.min() > 0.0:
            raise InputError(
                f"duration_s is {steps * dt:g} s; nothing of what is sown has reached the detectors by then, expected longer"
            )
        self._local = self._stable(np.exp(spread * normal_array(chip.at("growth"), self._local.shape)))

    def _stable(self, local: Floats) -> Floats:
        """Factors of growth, when the step of the integration is safe with them."""
        fastest = self._growth_rate * float(local.max()) * (1.0 + TUNING_DEPTH * len(self._parameters))
        check_step(self._dt, float(largest_step(self._diffusivity, self._cell_m, fastest)))
        return local

    @property
    def traits(self) -> frozenset[str]:
        """None: what is read is no rest point, and a flow is no gradient."""
        return frozenset()

    def _growth(self, held: Mapping[str, Floats]) -> Floats:
        growth = self._growth_rate * self._local
        return growth * (1.0 + TUNING_DEPTH * held["growth_change"][self._patch]) if held else growth

    def _sow(self, drive: Floats) -> Floats:
        state = np.zeros((len(drive), self._grid.rows, self._grid.columns))
        state[:, self._sources, 0] = 0.5 * self._sown * (1.0 + drive)
        return state

    def _respond(self, drive: Floats, held: Mapping[str, Floats]) -> Floats:
        state = self._sow(drive)
        grow(state, self._across, self._along, *self._flow, self._growth(held), self._dt, self._steps)
        return np.asarray(state[:, self._detectors, -1] / self._scale)

    def _pullback(self, drive: Floats, held: Mapping[str, Floats], gradient: Floats) -> tuple[Floats, dict[str, Floats]]:
        shape = (self._grid.rows, self._grid.columns)
        adjoint, summed = np.zeros((len(drive), *shape)), np.zeros(shape)
        adjoint[:, self._detectors, -1] = gradient / self._scale
        medium = (self._across, self._along, *self._flow, self._growth(held), self._dt)
        # a state is kept every so many steps, those in between are made anew: memory grows as the root of the steps
        every = int(np.ceil(np.sqrt(self._steps)))
        state, kept = self._sow(drive), []
        for first in range(0, self._steps, every):
            kept.append(state.copy())
            grow(state, *medium, min(every, self._steps - first))
        for block in reversed(range(len(kept))):
            path = [kept.pop()]
            for _ in range(min(every, self._steps - block * every) - 1):
                path.append(path[-1].copy())
                grow(path[-1], *medium, 1)
            for before in reversed(path):
                pull_back(before, adjoint, *medium, summed)
        toward = 0.5 * self._sown * adjoint[:, self._sources, 0]
        if not held:
            return toward, {}
        by_cell = TUNING_DEPTH * self._growth_rate * self._local * summed
        tuned = np.zeros_like(held["growth_change"])
        np.add.at(tuned, self._patch, by_cell)
        return toward, {"growth_change": tuned}

    def disturb(self, size: float, key: Key) -> None:
        """Change every cell's rate of growth for good by a factor of logarithm `size` times a normal number.

        Raises
        ------
        InputError
            When the size is no number of at least 0, or the step of the integration is not safe with the new rates.
        """
        check_range("size of the disturbance", size, low=0.0, high_open=True)
        self._local = self._stable(self._local * np.exp(size * normal_array(key.at("disturb"), self._local.shape)))

    def _hidden(self) -> dict[str, Any]:
        return {"local": self._local.copy()}

    def _set_hidden(self, snapshot: Mapping[str, Any]) -> None:
        check_name("entry of the snapshot", "local", snapshot)
        self._local = np.array(check_array("local", snapshot["local"], shape=self._local.shape), dtype=np.float64)


PRESETS: Mapping[str, Mapping[str, Any]] = {"fisher-kpp": {}}
"""Substrates of this file by name."""


def build(widths: Sequence[int], *, chip: Key, **options: Any) -> FisherKppMedium:
    """A medium.

    Parameters
    ----------
    widths : sequence of int
        Inputs, inner cells, outputs.
    chip : Key
        Stream of its static errors.
    **options
        Those of `stirred_medium`.

    Raises
    ------
    InputError
        On an unknown option, naming the nearest, or one of another type; and as `stirred_medium` does.

    Examples
    --------
    >>> medium = build((4, 32, 4), chip=Key(0))
    >>> sorted(medium.capabilities)
    ['Forward']
    """
    kind = "option of a Fisher-KPP medium:"
    check_option_types(stirred_medium, options, "fisher-kpp", kind=kind, reserved=("widths", "chip"))
    return stirred_medium(widths, chip=chip, **options)


def stirred_medium(
    widths: Sequence[int],
    *,
    chip: Key,
    rows: int | None = None,
    cell_m: float = 1e-4,
    diffusivity_m2_per_s: float = 1e-9,
    growth_per_s: float = 0.1,
    flow_m_per_s: float = 1e-5,
    sown: float = 0.5,
    duration_s: float | None = None,
    step_s: float | None = None,
    growth_spread: float = 0.0,
    tunable: int = 0,
    drive_bits: int | None = None,
    read_bits: int | None = None,
    write_bits: int | None = None,
    read_noise: float = 0.0,
) -> FisherKppMedium:
    """A medium.

    Parameters
    ----------
    widths : sequence of int
        Inputs, inner cells, outputs. Inputs are sown in the first column and outputs read in the last one, each spread over
        its rows; between them stand as many full columns as the inner cells take, none by default. Several hidden widths are
        added up.
    chip : Key
        Stream of its static errors.
    rows : int, optional
        Rows of the grid, at least the inputs and the outputs; the larger of both by default.
    cell_m : float
        Side of a cell in m.
    diffusivity_m2_per_s, growth_per_s : float
        D in m^2/s, of the order of small molecules in water, and the rate of growth in 1/s, assumed.
    flow_m_per_s : float
        Fastest flow of the eddies in m/s; 0 for none.
    sown : float
        Concentration that an input of 1 sows, in (0, 1]; an input of -1 sows none.
    duration_s : float, optional
        Time from sowing to reading, in s; by default what a front takes to cross the medium, columns * h / (2 sqrt(D growth)).
    step_s : float, optional
        Longest step of the integration, in s; half of the largest safe one by default.
    growth_spread : float
        Static: standard deviation of the logarithm of each cell's rate of growth.
    tunable : int
        Bands of columns whose rate of growth can be tuned by half of itself either way; 0 for none.
    drive_bits, read_bits, write_bits, read_noise
        See `Electronics`.

    Raises
    ------
    InputError
        On a value out of range, a step that is not safe, or a flow too fast for the grid.
    """
    inputs, inner, outputs = check_widths(widths)
    least = max(inputs, outputs)
    height = least if rows is None else int(check_range("rows", rows, low=least, unit="cells"))
    grid = Grid(height, -(-inner // height) + 2)
    for name, value, unit in (
        ("cell_m", cell_m, "m"),
        ("diffusivity_m2_per_s", diffusivity_m2_per_s, "m^2/s"),
        ("growth_per_s", growth_per_s, "1/s"),
    ):
        check_range(name, value, low=0.0, low_open=True, high_open=True, unit=unit)
    check_range("sown", sown, low=0.0, high=1.0, low_open=True)
    check_range("growth_spread", growth_spread, low=0.0, high_open=True)
    check_range("tunable", tunable, low=0, high=grid.cells)
    # beyond this central differences would make concentrations negative
    fastest = 2.0 * diffusivity_m2_per_s / cell_m
    check_range("flow_m_per_s", flow_m_per_s, low=0.0, high=fastest, unit="m/s")
    limit = float(largest_step(diffusivity_m2_per_s, cell_m, growth_per_s))
    longest = 0.5 * limit if step_s is None else check_step(step_s, limit)
    crossing = grid.columns * cell_m / (2.0 * np.sqrt(diffusivity_m2_per_s * growth_per_s))
    duration = crossing if duration_s is None else check_range("duration_s", duration_s, low=0.0, low_open=True, unit="s")
    check_range("duration_s", duration, low=0.0, high_open=True, unit="s")
    steps = int(np.ceil(duration / longest * (1.0 - 1e-12)))
    electronics = Electronics(drive_bits=drive_bits, read_bits=read_bits, write_bits=write_bits, read_noise=read_noise)
    return FisherKppMedium(
        grid,
        (inputs, outputs),
        electronics,
        chip=chip,
        cell_m=cell_m,
        diffusivity=diffusivity_m2_per_s,
        growth=growth_per_s,
        flow=flow_m_per_s,
        sown=sown,
        steps=steps,
        dt=float(duration / steps),
        spread=growth_spread,
        tunable=tunable,
    )


OPTIONS = stirred_medium
"""What the options of `build` are, and of what types."""
