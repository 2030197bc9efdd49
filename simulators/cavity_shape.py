"""Shapes of a flat cavity with rigid walls: masks of open cells, their modes, and what is known of the modes' statistics.

A rectangle is integrable: its levels come like rain drops (Poisson). A stadium (L. A. Bunimovich, Commun. Math. Phys. 65,
295 (1979)) and a Sinai billiard (Ya. G. Sinai, Russ. Math. Surv. 25, 137 (1970)) are chaotic: their levels repel (Wigner).
Both are taken as one symmetric part of the whole, since levels of unlike symmetry ignore each other.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigvalsh
from scipy.sparse import csr_array, diags_array, eye_array
from scipy.sparse.linalg import LinearOperator, eigsh, splu

from inmaterio.devices.validation import InputError, check_name, check_range

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
Cells = NDArray[np.int64]

SHAPES: Mapping[str, str] = {
    "rectangle": "all cells",
    "stadium": "quarter of a stadium: a straight part, then a quarter disc of radius `rows`",
    "full-stadium": "a straight part between two half discs of radius `rows`/2",
    "sinai": "a rectangle less a quarter disc of radius 0.5 `rows` in one corner",
}
"""Shapes by name, and what they are."""


SLICE = 60
"""Levels found about one shift."""


def make_mask(shape: str, rows: int, columns: int) -> Mask:
    """Open cells of a cavity; a cell is open when its middle is.

    Parameters
    ----------
    shape : str
        One of `SHAPES`.
    rows, columns : int
        Size in cells, at least 8; a stadium needs more columns than rows.

    Returns
    -------
    ndarray of bool, shape (rows, columns)

    Raises
    ------
    InputError
        When the shape is unknown or does not fit the size.
    """
    check_name("cavity shape", shape, SHAPES)
    check_range("rows", rows, low=8, unit="cells")
    check_range("columns", columns, low=8, unit="cells")
    if "stadium" in shape and columns <= rows:
        raise InputError(f"a {shape} of {rows} rows has {columns} columns; expected more columns than rows")
    y, x = np.arange(rows)[:, None] + 0.5, np.arange(columns)[None, :] + 0.5
    if shape == "stadium":
        return np.asarray((x <= columns - rows) | ((x - (columns - rows)) ** 2 + y**2 <= rows**2))
    if shape == "full-stadium":
        radius = rows / 2
        beyond = np.maximum(0.0, np.maximum(radius - x, x - (columns - radius)))
        return np.asarray(beyond**2 + (y - radius) ** 2 <= radius**2)
    if shape == "sinai":
        return np.asarray(x**2 + y**2 > (0.5 * rows) ** 2)
    return np.ones((rows, columns), dtype=bool)


def open_neighbours(mask: Mask) -> Floats:
    """Number of open cells beside each cell, shape of the mask."""
    padded = np.pad(mask, 1).astype(np.float64)
    return np.asarray(padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:])


def stiffness_matrix(mask: Mask, cell_m: float) -> Any:
    """Minus the Laplacian of the open cells with rigid walls, in 1/m^2: symmetric, positive, sparse (open, open).

    A face between two open cells carries flow, any other face none, which is the five-point stencil of `cavity_kernels`.
    """
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(mask.sum())
    pairs = []
    for one, other in ((number[:, :-1], number[:, 1:]), (number[:-1], number[1:])):
        both = (one >= 0) & (other >= 0)
        pairs.append(np.stack([one[both], other[both]]))
    first, second = np.concatenate(pairs, axis=1)
    count = int(mask.sum())
    links = csr_array((np.ones(len(first)), (first, second)), shape=(count, count))
    links = links + links.T
    return (diags_array(links.sum(axis=1)) - links) / cell_m**2


def mode_wavenumbers(mask: Mask, cell_m: float, count: int) -> Floats:
    """The `count` smallest wavenumbers of a cavity in 1/m, rising; the first is 0, the static pressure.

    Levels are found by shifted inverses, a few dozen about each of a row of shifts (all about one shift takes twenty times as
    long), from a start vector that is always the same.

    Raises
    ------
    InputError
        When there are not twice as many open cells.
    """
    matrix = stiffness_matrix(mask, cell_m)
    size = matrix.shape[0]
    check_range("count", count, low=1, high=size // 2, unit="modes")
    if size <= 4 * SLICE:
        return np.asarray(np.sqrt(np.maximum(eigvalsh(matrix.toarray())[:count], 0.0)))
    area = size * cell_m**2
    # begins below the zero level, where the matrix cannot be factored
    levels = _levels_about(matrix, -0.1 / area)
    width = 2.0 * np.pi * SLICE / area
    while len(levels) < count:
        top = levels[-1]
        shift = top + width
        while (found := _levels_about(matrix, shift))[0] >= top:  # a gap between the slices: closer
            shift = 0.5 * (shift + top)
        levels = np.concatenate([levels, found[found > top * (1.0 + 1e-9)]])
    return np.asarray(np.sqrt(np.maximum(levels[:count], 0.0)))


def _levels_about(matrix: Any, shift: float) -> Floats:
    """The `SLICE` eigenvalues nearest a shift, rising."""
    size = matrix.shape[0]
    shifted = (matrix - shift * eye_array(size)).tocsc()
    factors = splu(shifted, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    inverse = LinearOperator(matrix.shape, matvec=factors.solve, dtype=np.float64)
    start = np.random.Generator(np.random.Philox(key=0)).normal(size=size)
    return np.sort(eigsh(matrix, k=SLICE, sigma=shift, OPinv=inverse, v0=start, return_eigenvectors=False))


def weyl_count(wavenumber: Floats, area: float, perimeter: float) -> Floats:
    """Smooth part of the number of modes of rigid walls below a wavenumber k: A k^2/4 pi + P k/4 pi.

    Without the constant that corners and curvature add: 1/4 for a rectangle. H. Weyl, J. reine angew. Math. 143, 177 (1913).
    """
    return np.asarray((area * wavenumber**2 + perimeter * wavenumber) / (4.0 * np.pi))


def unfolded_spacings(wavenumbers: Floats) -> Floats:
    """Distances of neighbouring levels in units of their local mean: the count is fitted by a k^2 + b k + c first."""
    scaled = wavenumbers / wavenumbers.max()
    smooth = np.polynomial.Polynomial.fit(scaled, np.arange(len(scaled), dtype=np.float64), 2)
    gaps = np.diff(smooth(scaled))
    return np.asarray(gaps / gaps.mean())


def wigner_distribution(spacing: Floats) -> Floats:
    """Probability of a smaller spacing for levels that repel: 1 - exp(-pi s^2/4). E. P. Wigner (1957)."""
    return np.asarray(1.0 - np.exp(-0.25 * np.pi * spacing**2))


def poisson_distribution(spacing: Floats) -> Floats:
    """Probability of a smaller spacing for independent levels: 1 - exp(-s). M. V. Berry, M. Tabor, Proc. R. Soc. A 356 (1977)."""
    return np.asarray(1.0 - np.exp(-spacing))


def disc_coverage(shape: tuple[int, int], centres: Floats, radius: float) -> Floats:
    """Share of each cell that discs cover, shape (rows, columns); centres (discs, 2) and radius in cells.

    The rim is one cell wide, so that what a disc covers changes smoothly when it moves by less than a cell.
    """
    y, x = np.arange(shape[0])[:, None] + 0.5, np.arange(shape[1])[None, :] + 0.5
    covered = np.zeros(shape)
    for row, column in centres:
        distance = np.hypot(y - row, x - column)
        covered = np.maximum(covered, np.clip(radius + 0.5 - distance, 0.0, 1.0))
    return covered


def spread_cells(allowed: Mask, count: int, generator: np.random.Generator, taken: Cells | None = None) -> Cells:
    """`count` allowed cells far from each other and from `taken`: the farthest of 20 random candidates, again and again.

    Raises
    ------
    InputError
        When there are fewer allowed cells.
    """
    cells = np.argwhere(allowed)
    check_range("number of places wanted in the cavity", count, low=0, high=len(cells), unit="cells")
    chosen = np.zeros((0, 2), dtype=np.int64) if taken is None else taken
    first = len(chosen)
    free = np.ones(len(cells), dtype=bool)
    for _ in range(count):
        candidates = generator.choice(np.flatnonzero(free), size=min(20, int(free.sum())), replace=False)
        gaps = ((cells[candidates][:, None, :] - chosen[None]) ** 2).sum(axis=2)
        best = candidates[np.argmax(gaps.min(axis=1))] if len(chosen) else candidates[0]
        free[best] = False
        chosen = np.concatenate([chosen, cells[best][None]])
    return chosen[first:]
