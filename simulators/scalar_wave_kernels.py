"""Kernels of the scalar wave: rows, absorbing strips, one step of a range of rows. Equations: `scalar_wave`.

A field is an array (rows + 2, columns + 2) whose frame is zero and stays so; maps have no frame, so cell (i, j) of a map is
(i + 1, j + 1) of a field. More zero columns may follow, so that rows begin on cache lines. A step overwrites u^(n-1) with
u^(n+1).

Each row is updated whole, over the shape of the map, which is what lets the compiler use the vector unit; what an absorber adds
in its strips is put right afterwards, while the row is in the nearest cache. Inner loops take whole arrays and never swap them:
a swap carried through a loop makes the compiler give the vector unit up (a factor of six).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.compilation import kernel
from inmaterio.simulators.capabilities import Array

LINEAR, LOSSY, NONLINEAR = 0, 1, 2
OPEN, GRADED, CPML = 0, 1, 2

BLOCK = 128
"""Rows that are updated before their strips are put right: their ends are then still in a core's own cache."""


class Coefficients(NamedTuple):
    """What the kernels need of a medium: dimensionless, in the medium's precision. An array that is not used has no elements.

    Attributes
    ----------
    medium, absorber : int
        ``LINEAR`` (b = 0 outside the strips), ``LOSSY`` or ``NONLINEAR``; ``OPEN`` (none), ``GRADED`` or ``CPML``.
    sides : ndarray of int64, shape (4,)
        1 where top, bottom, left, right have a strip.
    ratio : ndarray, shape (rows, columns)
        C = (c_lin dt / h)^2.
    gain : ndarray, shape (rows, columns)
        g = 1 / (1 + b_lin dt) of a lossy medium; 1 in the strips.
    courant, density, damping : ndarray, shape (rows, columns)
        c_lin dt / h, d, and b_lin dt of a nonlinear medium.
    active_rows : ndarray of int64, shape (2,)
        First row with density and first one after; other rows of a nonlinear medium are updated as a lossy one's.
    speed_slope, saturable_damping, inverse_saturation, largest_courant : floating
        c_nl dt / h, b_0 dt, 1 / u_th^2, and the limit of c dt / h.
    gain_rows : ndarray, shape (2 * cells, columns)
        g in the top strip of a graded absorber and then in the bottom one, rows in the grid's order.
    gain_columns : ndarray, shape (2, cells)
        g in its left and right strips, in rows that no top or bottom strip covers.
    ratio_columns : ndarray, shape (2, cells, rows)
        C in the left and right strips of a CPML, as their memory variables lie.
    half_decay, half_gain : ndarray, shape (2, cells + 1)
        q and a at the half nodes before each cell of the low (top, left) and high strip and after its last one.
    node_decay, node_gain : ndarray, shape (2, cells)
        q and a at its cells.
    """

    medium: int
    absorber: int
    sides: NDArray[np.int64]
    ratio: Array
    gain: Array
    courant: Array
    density: Array
    damping: Array
    active_rows: NDArray[np.int64]
    speed_slope: float
    saturable_damping: float
    inverse_saturation: float
    largest_courant: float
    gain_rows: Array
    gain_columns: Array
    ratio_columns: Array
    half_decay: Array
    half_gain: Array
    node_decay: Array
    node_gain: Array


@kernel
def plain_row(out: Array, now: Array, ratio: Array, i: int) -> None:
    """Row i of 2 u - u_before + C L u, written over u_before."""
    for j in range(ratio.shape[1]):
        u = now[i + 1, j + 1]
        out[i + 1, j + 1] = (
            (u + u)
            - out[i + 1, j + 1]
            + ratio[i, j] * ((now[i, j + 1] + now[i + 2, j + 1]) + (now[i + 1, j] + now[i + 1, j + 2]) - ((u + u) + (u + u)))
        )


@kernel
def lossy_row(out: Array, now: Array, ratio: Array, gain: Array, i: int, k: int) -> None:
    """Row i of g (2 u - 2 u_before + C L u) + u_before with row k of `gain`, written over u_before."""
    for j in range(ratio.shape[1]):
        u = now[i + 1, j + 1]
        before = out[i + 1, j + 1]
        out[i + 1, j + 1] = before + gain[k, j] * (
            ((u + u) - (before + before))
            + ratio[i, j] * ((now[i, j + 1] + now[i + 2, j + 1]) + (now[i + 1, j] + now[i + 1, j + 2]) - ((u + u) + (u + u)))
        )


@kernel
def nonlinear_row(
    out: Array,
    now: Array,
    courant: Array,
    density: Array,
    damping: Array,
    i: int,
    speed_slope: float,
    saturable_damping: float,
    inverse_saturation: float,
    largest_courant: float,
) -> int:
    """Row i with the speed and the loss that its field gives, written over u_before; cells whose speed is out of bounds.

    Not-a-number compares false, so that a field that has blown up is counted too.
    """
    bad = 0
    one = courant.dtype.type(1)
    for j in range(courant.shape[1]):
        u = now[i + 1, j + 1]
        before = out[i + 1, j + 1]
        square = u * u
        speed = courant[i, j] + density[i, j] * speed_slope * square
        loss = damping[i, j] + density[i, j] * saturable_damping / (one + square * inverse_saturation)
        bad += not (speed > 0 and speed <= largest_courant)
        laplacian = (now[i, j + 1] + now[i + 2, j + 1]) + (now[i + 1, j] + now[i + 1, j + 2]) - ((u + u) + (u + u))
        out[i + 1, j + 1] = before + (((u + u) - (before + before)) + speed * speed * laplacian) / (one + loss)
    return bad


@kernel
def match_columns(
    out: Array,
    now: Array,
    ratio_columns: Array,
    psi: Array,
    zeta: Array,
    half_decay: Array,
    half_gain: Array,
    node_decay: Array,
    node_gain: Array,
    side: int,
    first_row: int,
    last_row: int,
    first: int,
    across: Array,
) -> None:
    """Add C X_x to rows of a left or right strip that begins at column `first`, after its memory variables have moved on.

    A strip is too narrow for loops along its rows. So a block of it is turned into `across`, where columns lie along memory as
    they do in psi and zeta, and C X is turned back. Unsigned indices: with signed ones each access asks first whether to count
    from the end, and the loops are not vectorised.
    """
    one, two, start, length = np.uint64(1), np.uint64(2), np.uint64(first), np.uint64(zeta.shape[1])
    s, begin, count = np.uint64(side), np.uint64(first_row), np.uint64(last_row - first_row)
    total = length + two  # rows of `across` from here on hold C X
    for k in range(length + two):
        for i in range(count):
            across[k, i] = now[begin + i + one, start + k]
    for k in range(length + one):
        q, a = half_decay[s, k], half_gain[s, k]
        for i in range(count):
            psi[s, k, begin + i] = q * psi[s, k, begin + i] + a * (across[k + one, i] - across[k, i])
    for k in range(length):
        q, a = node_decay[s, k], node_gain[s, k]
        for i in range(count):
            u = across[k + one, i]
            spread = psi[s, k + one, begin + i] - psi[s, k, begin + i]
            bend = (across[k, i] + across[k + two, i]) - (u + u) + spread
            stretched = q * zeta[s, k, begin + i] + a * bend
            zeta[s, k, begin + i] = stretched
            across[total + k, i] = ratio_columns[s, k, begin + i] * (spread + stretched)
    for k in range(length):
        for i in range(count):
            out[begin + i + one, start + k + one] += across[total + k, i]


@kernel
def match_half_row(psi: Array, now: Array, half_decay: Array, half_gain: Array, strip: int, k: int, i: int) -> None:
    """Move psi on at the half nodes before row i, which are row k of a top or bottom strip's."""
    q, a = half_decay[strip, k], half_gain[strip, k]
    for j in range(psi.shape[2]):
        psi[strip, k, j] = q * psi[strip, k, j] + a * (now[i + 1, j + 1] - now[i, j + 1])


@kernel
def match_row(
    out: Array, now: Array, ratio: Array, psi: Array, zeta: Array, node_decay: Array, node_gain: Array, strip: int, k: int, i: int
) -> None:
    """Add C X_y to row i, which is row k of a top or bottom strip; psi has moved on, on both sides of the row."""
    q, a = node_decay[strip, k], node_gain[strip, k]
    for j in range(ratio.shape[1]):
        u = now[i + 1, j + 1]
        bend = (now[i, j + 1] + now[i + 2, j + 1]) - (u + u) + (psi[strip, k + 1, j] - psi[strip, k, j])
        zeta[strip, k, j] = q * zeta[strip, k, j] + a * bend
    for j in range(ratio.shape[1]):
        out[i + 1, j + 1] += ratio[i, j] * ((psi[strip, k + 1, j] - psi[strip, k, j]) + zeta[strip, k, j])


@kernel
def keep_columns(spare: Array, out: Array, i: int, columns: int) -> None:
    """Copy row i of the left and right strips to `spare`."""
    length, start = np.uint64(spare.shape[1]), np.uint64(columns + 1 - spare.shape[1])
    for k in range(length):
        spare[0, k] = out[i + 1, k + np.uint64(1)]
    for k in range(length):
        spare[1, k] = out[i + 1, start + k]


@kernel
def damp_columns(out: Array, spare: Array, gain: Array, side: int, i: int, first: int) -> None:
    """Turn row i of a strip that was updated without loss into g (undamped - before) + before."""
    start = np.uint64(first + 1)
    for k in range(np.uint64(spare.shape[1])):
        out[i + 1, start + k] = spare[side, k] + gain[side, k] * (out[i + 1, start + k] - spare[side, k])


@kernel
def strip_row(sides: NDArray[np.int64], rows: int, cells: int, i: int) -> tuple[int, int]:
    """Which strip row i is in (0 top, 1 bottom, -1 none), and which row of that strip it is."""
    if sides[0] and i < cells:
        return 0, i
    if sides[1] and i >= rows - cells:
        return 1, i - (rows - cells)
    return -1, 0


@kernel
def advance(
    coefficients: Coefficients,
    out: Array,
    now: Array,
    psi_rows: Array,
    zeta_rows: Array,
    psi_columns: Array,
    zeta_columns: Array,
    spare: Array,
    begin: int,
    end: int,
) -> int:
    """One step of one sample's rows, without its sources; the number of cells whose speed is out of bounds.

    What an absorber remembers of a row moves on with it: at the half nodes below it, and above it in a strip's first row.

    Parameters
    ----------
    coefficients : Coefficients
    out, now : ndarray, shape (rows + 2, columns + 2)
        u^(n-1), overwritten with u^(n+1); u^n.
    psi_rows, zeta_rows : ndarray, shape (2, cells + 1, columns) and (2, cells, columns)
        Memory of the top and bottom strips of a ``CPML``.
    psi_columns, zeta_columns : ndarray, shape (2, cells + 1, rows) and (2, cells, rows)
        Memory of its left and right strips.
    spare : ndarray, shape (2, cells)
        Room for what a ``GRADED`` absorber's strips held before.
    begin, end : int
        First row, and first one after.
    """
    c = coefficients
    ratio, sides, medium, absorber = c.ratio, c.sides, c.medium, c.absorber
    rows, columns = ratio.shape
    cells = spare.shape[1]
    across = np.empty((2 * cells + 2 if absorber == CPML else 0, BLOCK), out.dtype)
    bad = 0
    for first_row in range(begin, end, BLOCK):
        last_row = min(first_row + BLOCK, end)
        for i in range(first_row, last_row):
            strip, k = strip_row(sides, rows, cells, i)
            if absorber == GRADED:
                keep_columns(spare, out, i, columns)
            if medium == NONLINEAR and c.active_rows[0] <= i < c.active_rows[1]:
                bad += nonlinear_row(
                    out,
                    now,
                    c.courant,
                    c.density,
                    c.damping,
                    i,
                    c.speed_slope,
                    c.saturable_damping,
                    c.inverse_saturation,
                    c.largest_courant,
                )
            elif absorber == GRADED and strip >= 0:
                lossy_row(out, now, ratio, c.gain_rows, i, strip * cells + k)
            elif medium == LINEAR:
                plain_row(out, now, ratio, i)
            else:
                lossy_row(out, now, ratio, c.gain, i, i)
            if absorber == GRADED and strip < 0:
                for side in range(2):
                    if sides[2 + side]:
                        damp_columns(out, spare, c.gain_columns, side, i, side * (columns - cells))
        if absorber != CPML:
            continue
        for side in range(2):
            if sides[2 + side]:
                match_columns(
                    out,
                    now,
                    c.ratio_columns,
                    psi_columns,
                    zeta_columns,
                    c.half_decay,
                    c.half_gain,
                    c.node_decay,
                    c.node_gain,
                    side,
                    first_row,
                    last_row,
                    side * (columns - cells),
                    across,
                )
        for i in range(first_row, last_row):
            strip, k = strip_row(sides, rows, cells, i)
            if strip >= 0:
                # the half nodes before a strip's first row come on their own; those after a row with the row
                for half in range(k + (k > 0), k + 2):
                    match_half_row(psi_rows, now, c.half_decay, c.half_gain, strip, half, i - k + half)
                match_row(out, now, ratio, psi_rows, zeta_rows, c.node_decay, c.node_gain, strip, k, i)
    return bad
