"""The Allen-Cahn medium itself: its flow, its energy, its rest points and gradients through them.

In units of the reaction's time 1/r, with kappa_e = D_e / (h^2 r) the conductance of the edge e between two cells and f_c the
force on cell c (local field plus drive), the medium descends

    F = sum_e kappa_e / 2 (u_i - u_j)^2 + sum_c [ w(u_c) - f_c u_c ],    w(u) = a/4 u^4 + b/2 u^2

by du/dt = -dF/du = L u - a u^3 - b u + f: two wells at u = +-sqrt(-b/a) for b < 0, one at 0 for b >= 0.

Source: S. M. Allen and J. W. Cahn, Acta Metallurgica 27, 1085 (1979).

By explicit Euler F falls at every step of dt < 2 / Lambda, Lambda = 4 d max(kappa) + max w'', since dF/du is Lipschitz with
Lambda. With dt <= 1 / Lambda the step besides keeps the order of two states, so that the medium stays where the force lets
it: |u| <= `largest_state`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import spsolve

from inmaterio.devices.compilation import kernel
from inmaterio.devices.validation import InputError
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.fixed_point import loss_values
from inmaterio.simulators.reaction_diffusion import DIMENSIONS, Floats, Grid, divergence


@kernel
def relax_medium(
    state: Array,
    force: Array,
    pull: Array,
    across: Array,
    along: Array,
    quartic: float,
    quadratic: float,
    step: Array,
    substeps: NDArray[np.int64],
    updates: int,
    tolerance: float,
    residual: Array,
    record: Array,
) -> int:
    """Relax in place; return the number of updates made.

    Parameters
    ----------
    state, force : ndarray, shape (batch, rows, columns)
    pull : ndarray, shape (rows, columns)
        Added to the quadratic coefficient b of each cell: what a nudge adds to the curvature.
    across, along : ndarray
        See `divergence`, in units of the reaction rate.
    quartic, quadratic : float
        a and b.
    step : ndarray, shape (batch,)
        Time step of each sample, in units of the reaction's time.
    substeps : ndarray of int64, shape (batch,)
        Steps that make one update.
    updates : int
        At most.
    tolerance : float
        Stop when no cell of any sample changed by more in an update; negative: make all.
    residual : ndarray, shape (batch,)
        Out: largest change of a cell in the last update.
    record : ndarray, shape (updates, batch, rows, columns) or (0, 0, 0, 0)
        Out: states after each update.
    """
    batch, rows, columns = state.shape
    flow = np.empty((rows, columns))
    before = np.empty((rows, columns))
    for update in range(updates):
        for b in range(batch):
            u = state[b]
            f = force[b]
            before[:] = u
            dt = step[b]
            for _ in range(substeps[b]):
                divergence(u, across, along, flow)
                for i in range(rows):
                    for j in range(columns):
                        v = u[i, j]
                        u[i, j] = v + dt * (flow[i, j] - (quartic * v * v + quadratic + pull[i, j]) * v + f[i, j])
            change = 0.0
            for i in range(rows):
                for j in range(columns):
                    difference = abs(u[i, j] - before[i, j])
                    # written so that a change that is not a number sticks
                    if not difference <= change:
                        change = difference
            residual[b] = change
            if record.shape[0] > 0:
                record[update, b] = u
        if tolerance >= 0.0 and residual.max() <= tolerance:
            return update + 1
    return updates


def largest_state(force: Any, quartic: float, quadratic: float) -> Any:
    """A bound U that states within it do not leave: a U^3 + b U >= max |f|; infinite where there is none.

    Where the largest |u| exceeds U, no neighbour pushes it further and the well pulls it back.
    """
    most = np.asarray(force, dtype=np.float64)
    if quartic <= 0.0:
        return most / quadratic if quadratic > 0.0 else np.full(most.shape, np.inf)
    bound = np.sqrt(max(-quadratic, 0.0) / quartic) + np.cbrt(most / quartic)
    return np.minimum(bound, most / quadratic) if quadratic > 0.0 else bound


def steepest(state: Any, quartic: float, quadratic: float) -> Any:
    """Largest w'' = 3 a u^2 + b over |u| <= `state`, never below 0."""
    return np.maximum(3.0 * quartic * np.square(state) + quadratic, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Medium:
    """One medium in float64, in units of the reaction's time.

    Attributes
    ----------
    grid : Grid
    conductance : ndarray, shape (edges,)
        kappa of each edge, > 0.
    quartic, quadratic : float
        a >= 0 and b.
    """

    grid: Grid
    conductance: Floats
    quartic: float
    quadratic: float

    def matrix(self) -> csr_array:
        """-L, symmetric, (cells, cells): its quadratic form is the sum over edges of kappa (u_i - u_j)^2."""
        i, j = self.grid.ends()
        ones = np.ones(self.grid.edges)
        edge = np.arange(self.grid.edges)
        shape = (self.grid.edges, self.grid.cells)
        incidence = csr_array((np.r_[ones, -ones], (np.r_[edge, edge], np.r_[i, j])), shape=shape)
        return csr_array(incidence.T @ diags_array(self.conductance) @ incidence)

    def stiffness(self, largest: Any) -> Any:
        """Lambda = 4 d max(kappa) + max w'' for states within `largest`."""
        kappa = float(self.conductance.max(initial=0.0))
        return 4.0 * DIMENSIONS * kappa + steepest(largest, self.quartic, self.quadratic)

    def energy(self, force: Array, state: Array) -> Floats:
        """F of each sample: force and state (batch, cells) give (batch,)."""
        i, j = self.grid.ends()
        edges = 0.5 * np.sum(self.conductance * (state[:, i] - state[:, j]) ** 2, axis=1)
        well = 0.25 * self.quartic * state**4 + 0.5 * self.quadratic * state**2
        return np.asarray(edges + np.sum(well - force * state, axis=1))

    def rest(self, force: Array, *, tolerance: float = 1e-9, updates: int = 100_000) -> Floats:
        """The rest point (batch, cells) that the flow reaches from u = 0, brought to rounding error by Newton's method.

        Raises
        ------
        InputError
            When the medium has not come to rest after so many updates.
        """
        grid, batch = self.grid, len(force)
        across, along = grid.split(self.conductance)
        forces = np.ascontiguousarray(force, dtype=np.float64).reshape(batch, grid.rows, grid.columns)
        state = np.zeros_like(forces)
        step = 1.0 / self.stiffness(largest_state(np.abs(forces).max(axis=(1, 2)), self.quartic, self.quadratic))
        residual, none = np.zeros(batch), np.zeros((0, 0, 0, 0))
        pull, substeps = np.zeros((grid.rows, grid.columns)), np.ones(batch, dtype=np.int64)
        a, b = self.quartic, self.quadratic
        relax_medium(state, forces, pull, across, along, a, b, step, substeps, updates, tolerance, residual, none)
        if not residual.max() <= tolerance:
            raise InputError(f"the medium still changes by {residual.max():.3g} per step after {updates} steps; expected rest")
        rest, wanted = state.reshape(batch, grid.cells), forces.reshape(batch, grid.cells)
        matrix = self.matrix()
        for sample in range(batch):
            for _ in range(4):
                u = rest[sample]
                slope = matrix @ u + a * u**3 + b * u - wanted[sample]
                rest[sample] = u - self._solve(matrix, u, slope)
        return rest

    def adjoint(self, state: Array, error: Array) -> Floats:
        """lambda (batch, cells) with (-L + w''(u)) lambda = error: how rest points answer to forces."""
        matrix = self.matrix()
        return np.stack([self._solve(matrix, u, e) for u, e in zip(state, error, strict=True)])

    def _solve(self, matrix: csr_array, state: Array, right: Array) -> Floats:
        hessian = matrix + diags_array(3.0 * self.quartic * state**2 + self.quadratic)
        return np.atleast_1d(np.asarray(spsolve(hessian.tocsc(), right), dtype=np.float64))


@dataclass(frozen=True, slots=True, eq=False)
class MediumOracle:
    """What this very medium would do without noise per use: for tests and probes, never for a rule.

    Attributes
    ----------
    medium : Medium
        With the diffusivities it really has.
    unit : float
        Conductance of an edge per unit of its parameter.
    spread : ndarray, shape (edges,)
        Factor of each edge that its parameter does not know of.
    illumination : ndarray, shape (cells, inputs)
        Force on each cell per unit of each input; zero where none falls.
    field : ndarray, shape (cells,)
    outputs_at, inner, lit : ndarray of int64
        Cells that are read as outputs, all others, and those that the light falls on.
    readout_edges : ndarray of bool, shape (edges,)
        Edges that end at an output cell.
    names : tuple of str
        Parameters that the medium has.
    """

    medium: Medium
    unit: float
    spread: Floats
    illumination: Floats
    field: Floats
    outputs_at: NDArray[np.int64]
    inner: NDArray[np.int64]
    lit: NDArray[np.int64]
    readout_edges: NDArray[np.bool_]
    names: tuple[str, ...]

    def force(self, inputs: Array) -> Floats:
        """Force on every cell (batch, cells)."""
        return np.asarray(np.asarray(inputs, dtype=np.float64) @ self.illumination.T + self.field)

    def states(self, inputs: Array) -> tuple[Floats, ...]:
        """Free rest point from u = 0: inner cells, output cells."""
        return self._parts(self.medium.rest(self.force(inputs)))

    def outputs(self, inputs: Array) -> Floats:
        """Output cells of `states`."""
        return self.states(inputs)[-1]

    def energy(self, inputs: Array, states: tuple[Array, ...]) -> Floats:
        """F of each sample (batch,) at these states."""
        whole = np.empty((len(inputs), self.medium.grid.cells))
        whole[:, self.inner], whole[:, self.outputs_at] = states
        return self.medium.energy(self.force(inputs), whole)

    def loss(self, inputs: Array, targets: Array, loss: str) -> float:
        """Batch-mean loss at the free rest point."""
        return float(loss_values(self.outputs(inputs), targets, loss).mean())

    def loss_gradient(self, inputs: Array, targets: Array, loss: str) -> dict[str, Floats]:
        """Gradient of the batch-mean loss with respect to each parameter, by implicit differentiation.

        Raises
        ------
        InputError
            When the loss is not ``mse``, the only one that a nudge of this medium belongs to.
        """
        if loss != "mse":
            raise InputError(f"loss is {loss!r}; outputs of this medium are not confined to [0, 1], expected 'mse'")
        drive = np.asarray(inputs, dtype=np.float64)
        rest = self.medium.rest(self.force(drive))
        error = np.zeros_like(rest)
        error[:, self.outputs_at] = rest[:, self.outputs_at] - targets
        adjoint = self.medium.adjoint(rest, error)
        i, j = self.medium.grid.ends()
        # dF/du moves by (u_i - u_j) per unit of kappa at one end, its opposite at the other; the rest point answers with -lambda
        edges = -np.mean((adjoint[:, i] - adjoint[:, j]) * (rest[:, i] - rest[:, j]), axis=0) * self.unit * self.spread
        field = adjoint.mean(axis=0)
        found = {
            "illumination": (adjoint.T @ drive / len(drive))[self.lit],
            "field": field[self.inner],
            "diffusivity_change": edges[~self.readout_edges],
            "readout_field": field[self.outputs_at],
            "readout_diffusivity_change": edges[self.readout_edges],
        }
        return {name: found[name] for name in self.names}

    def _parts(self, whole: Floats) -> tuple[Floats, ...]:
        return whole[:, self.inner], whole[:, self.outputs_at]
