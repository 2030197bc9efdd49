"""What two reaction-diffusion media have in common: a grid of cells, the flux between them, and the longest safe step.

A medium is a rectangle of square cells of side h, no flux through its rim. The concentration u of a cell changes by

    (div D grad u)_c = sum over its two to four neighbours n of  D_cn (u_n - u_c) / h^2

with one diffusivity D per edge between two cells: the matrix of this map is symmetric whatever D is, its eigenvalues lie in
[-4 d max(D) / h^2, 0] with d = 2 dimensions (Gershgorin's circles).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.compilation import kernel
from inmaterio.devices.validation import InputError, check_range
from inmaterio.simulators.capabilities import Array

Floats = NDArray[np.float64]

DIMENSIONS = 2


@kernel
def divergence(state: Array, across: Array, along: Array, out: Array) -> None:
    """out = sum over neighbours of conductance times difference: what flows into each cell.

    Parameters
    ----------
    state : ndarray, shape (rows, columns)
    across : ndarray, shape (rows, columns - 1)
        Conductance D / h^2 of the edge between columns j and j + 1.
    along : ndarray, shape (rows - 1, columns)
        That of the edge between rows i and i + 1.
    out : ndarray, shape (rows, columns)
        Replaced.
    """
    rows, columns = state.shape
    for i in range(rows):
        for j in range(columns):
            out[i, j] = 0.0
        for j in range(columns - 1):
            flow = across[i, j] * (state[i, j + 1] - state[i, j])
            out[i, j] += flow
            out[i, j + 1] -= flow
    for i in range(rows - 1):
        for j in range(columns):
            flow = along[i, j] * (state[i + 1, j] - state[i, j])
            out[i, j] += flow
            out[i + 1, j] -= flow


@dataclass(frozen=True, slots=True)
class Grid:
    """A rectangle of cells; edges are numbered across (row by row), then along.

    Attributes
    ----------
    rows, columns : int
    """

    rows: int
    columns: int

    @property
    def cells(self) -> int:
        """Number of cells."""
        return self.rows * self.columns

    @property
    def edges(self) -> int:
        """Number of pairs of neighbours."""
        return self.rows * (self.columns - 1) + (self.rows - 1) * self.columns

    def ends(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Cells at the two ends of every edge, each (edges,), cells numbered row by row."""
        number = np.arange(self.cells, dtype=np.int64).reshape(self.rows, self.columns)
        first = np.concatenate([number[:, :-1].ravel(), number[:-1].ravel()])
        return first, np.concatenate([number[:, 1:].ravel(), number[1:].ravel()])

    def split(self, edges: Array) -> tuple[Floats, Floats]:
        """Values of edges (edges,) as `divergence` takes them: across (rows, columns - 1), along (rows - 1, columns)."""
        middle = self.rows * (self.columns - 1)
        across = np.ascontiguousarray(edges[:middle], dtype=np.float64).reshape(self.rows, self.columns - 1)
        return across, np.ascontiguousarray(edges[middle:], dtype=np.float64).reshape(self.rows - 1, self.columns)


def check_widths(widths: Sequence[int]) -> tuple[int, int, int]:
    """Inputs, inner cells and outputs; hidden widths, of which a medium has no layers, are added up.

    Raises
    ------
    InputError
        When there are fewer than two, or one is no whole number of at least 1.
    """
    if len(widths) < 2:
        raise InputError(f"widths are {list(widths)}; expected inputs, any number of inner cells, outputs")
    for width in widths:
        if not isinstance(width, (int, np.integer)) or isinstance(width, bool):
            raise InputError(f"a width is {width!r}; expected a whole number")
        check_range("a width", width, low=1)
    return int(widths[0]), int(sum(widths[1:-1])), int(widths[-1])


def spread_over(places: int, number: int) -> NDArray[np.int64]:
    """Rows of `number` ports that are spread evenly over `places` rows, at least as many."""
    return ((2 * np.arange(number, dtype=np.int64) + 1) * places) // (2 * number)


def largest_step(diffusivity: Any, cell_m: float, slope_per_s: Any) -> Any:
    """Longest safe step of explicit Euler in seconds, 2 / (4 d D / h^2 + slope).

    Parameters
    ----------
    diffusivity : float or ndarray
        Largest diffusivity of any edge, in m^2/s.
    cell_m : float
        h, in m.
    slope_per_s : float or ndarray
        Largest rate at which the reaction alone pulls a deviation back, in 1/s.
    """
    return 2.0 / (4.0 * DIMENSIONS * diffusivity / cell_m**2 + slope_per_s)


def check_step(step_s: float, limit_s: float) -> float:
    """Return the step when it is safe.

    Raises
    ------
    InputError
        With the step and the largest safe one.
    """
    if not 0.0 < step_s <= limit_s:
        raise InputError(
            f"step_s is {step_s:g} s; expected a number in (0, {limit_s:.6g}] s: the largest safe step, "
            "2 / (4 d D / h^2 + slope of the reaction)"
        )
    return step_s
