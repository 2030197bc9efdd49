"""Kernels of the scalar wave: many steps of one sample, of a batch. Equations: `scalar_wave`.

A step reads three maps and writes one. Where they do not fit a core's own cache, a run that goes through them once per step waits
for memory. So rows, from left to right below, are taken in tiles, and each tile through several steps while it is there, one row
further up at every step; the first tile ends at the top edge and the last one at the bottom::

    step n      |   tile 0   |   tile 1   |  tile 2  |
    step n + 1  |  tile 0   |   tile 1   |  tile 2   |
    step n + 2  |  tile 0  |   tile 1   |   tile 2   |

Row r of a step needs rows r - 1, r and r + 1 of the step before, and overwrites row r of the one before that, which only they
needed: all are done when it is its turn. Each number comes from the same operations as without tiles, to the bit.
"""

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.compilation import kernel
from inmaterio.devices.subnormals import flush_subnormals, restore_subnormals
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.scalar_wave_kernels import NONLINEAR, Coefficients, advance

FINE, TOO_FAST, NOT_FINITE = 0, 1, 2

TILE_STEPS = 16
"""Steps that a tile is taken through at a time."""

TILE_BYTES = 1 << 19
"""Of the maps' rows that a tile touches: half of a small core's own cache."""

LEAST_ROWS = 16
"""Of a tile: with fewer, its absorbing strips have loops too short for the vector unit."""


@kernel
def tile_rows(row_bytes: int) -> int:
    """Rows of a tile, when the maps' rows are so many bytes long together."""
    return max(LEAST_ROWS, TILE_BYTES // max(row_bytes, 1) - TILE_STEPS)


@kernel
def tile_range(rows: int, height: int, tile: int, shift: int) -> tuple[int, int]:
    """First row of a tile, and first one after, `shift` steps after its first; the last tile goes down to the edge."""
    first = tile * height
    end = rows if first + height >= rows else max(0, first + height - shift)
    return max(0, first - shift), end


@kernel
def count_not_finite(field: Array) -> int:
    """Cells that are infinite or not a number: their difference from themselves is not zero. Free of branches."""
    bad = 0
    for i in range(field.shape[0]):
        for j in range(field.shape[1]):
            bad += field[i, j] - field[i, j] != 0
    return bad


@kernel
def find_fault(coefficients: Coefficients, now: Array, fault: NDArray[np.int64], seen: NDArray[np.float64]) -> None:
    """First cell that is not finite or else gives a speed out of bounds: its place in fault[2:4], the kind in fault[0].

    seen[0] becomes the field there, or c dt / h.
    """
    c = coefficients
    courant, density, largest = c.courant, c.density, c.largest_courant
    for blown_up in (True, False):
        for i in range(c.ratio.shape[0]):
            for j in range(c.ratio.shape[1]):
                u = now[i + 1, j + 1]
                if blown_up:
                    if not np.isfinite(u):
                        fault[0], fault[2], fault[3], seen[0] = NOT_FINITE, i, j, u
                        return
                elif c.medium == NONLINEAR:
                    speed = courant[i, j] + density[i, j] * c.speed_slope * (u * u)
                    if not (speed > 0 and speed <= largest):
                        fault[0], fault[2], fault[3], seen[0] = TOO_FAST, i, j, speed
                        return


@kernel
def run_sample(
    coefficients: Coefficients,
    fields: Array,
    psi_rows: Array,
    zeta_rows: Array,
    psi_columns: Array,
    zeta_columns: Array,
    spare: Array,
    sources: Array,
    source_cells: NDArray[np.int64],
    source_gains: Array,
    probe_cells: NDArray[np.int64],
    traces: Array,
    check_every: int,
    fault: NDArray[np.int64],
    seen: NDArray[np.float64],
) -> None:
    """All steps of one sample, in place; it stops where the field is not finite or its speed is out of bounds.

    Parameters
    ----------
    coefficients : Coefficients
    fields : ndarray, shape (2, rows + 2, columns + 2)
        u^0 and u^(-1). After an even number of steps they are u^n and u^(n-1), after an odd number the other way round.
    psi_rows, zeta_rows, psi_columns, zeta_columns, spare
        As for `advance`.
    sources : ndarray, shape (sources, steps)
    source_cells : ndarray, shape (sources, 2)
    source_gains : ndarray, shape (sources,)
        What one unit of a source adds to its cell in a step.
    probe_cells : ndarray, shape (probes, 2)
    traces : ndarray, shape (probes, steps)
        Field at the probes after each step, written here.
    check_every : int
        Steps between looks at whether a field is finite; it is looked at after the last step too. With 1, tiles are taken through
        one step at a time, and the step and place of any fault are its first; otherwise those of a speed out of bounds are not.
    fault, seen : ndarray, shape (4,) and (1,)
        Kind, step, row and column of what stopped the run, and the value found there; kind ``FINE`` when it did not.
    """
    steps, rows = traces.shape[1], coefficients.ratio.shape[0]
    height = tile_rows(3 * fields.shape[2] * fields.itemsize)
    fault[:] = FINE
    n = 0
    while n < steps:
        length = min(TILE_STEPS, steps - n, check_every - n % check_every)
        bad = 0
        for tile in range((rows + height - 1) // height):
            for shift in range(length):
                begin, end = tile_range(rows, height, tile, shift)
                now, out = fields[(n + shift) % 2], fields[1 - (n + shift) % 2]
                bad += advance(coefficients, out, now, psi_rows, zeta_rows, psi_columns, zeta_columns, spare, begin, end)
                for k in range(source_cells.shape[0]):
                    if begin <= source_cells[k, 0] < end:
                        out[source_cells[k, 0] + 1, source_cells[k, 1] + 1] += source_gains[k] * sources[k, n + shift]
                for k in range(probe_cells.shape[0]):
                    if begin <= probe_cells[k, 0] < end:
                        traces[k, n + shift] = out[probe_cells[k, 0] + 1, probe_cells[k, 1] + 1]
        n += length
        if bad:
            # whose step and place are sure only when every step is looked at
            fault[0], fault[1] = TOO_FAST, n - 1
            find_fault(coefficients, fields[(n - 1) % 2], fault, seen)
            return
        if (n % check_every == 0 or n == steps) and count_not_finite(fields[n % 2]):
            fault[1] = n - 1
            find_fault(coefficients, fields[n % 2], fault, seen)
            return


@kernel(nogil=True)
def run_batch(
    coefficients: Coefficients,
    fields: Array,
    psi_rows: Array,
    zeta_rows: Array,
    psi_columns: Array,
    zeta_columns: Array,
    spare: Array,
    sources: Array,
    source_cells: NDArray[np.int64],
    source_gains: Array,
    probe_cells: NDArray[np.int64],
    traces: Array,
    check_every: int,
    fault: NDArray[np.int64],
    seen: NDArray[np.float64],
) -> None:
    """`run_sample` for each sample; arrays but coefficients, cells and gains have a batch axis. Threads take a part each."""
    mode = flush_subnormals()
    for b in range(fields.shape[0]):
        run_sample(
            coefficients,
            fields[b],
            psi_rows[b],
            zeta_rows[b],
            psi_columns[b],
            zeta_columns[b],
            spare[b],
            sources[b],
            source_cells,
            source_gains,
            probe_cells,
            traces[b],
            check_every,
            fault[b],
            seen[b],
        )
    restore_subnormals(mode)
