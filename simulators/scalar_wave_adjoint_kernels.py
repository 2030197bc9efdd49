"""Kernels of the scalar wave's gradient: runs that keep what the way back needs, and the way back itself, one sample at a time.

Names: u the field, v the adjoint field (both framed, as in `scalar_wave_kernels`), a box a rectangle of cells with a frame of one
cell, h x w without it; `corner` is the grid's cell at its top left. v^m stands in ``adjoint[m % 2]``. Equations:
`scalar_wave_adjoint`.

Loops write one array each: with two, the compiler gives up proving that they do not overlap, and with it the vector unit.
"""

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.compilation import kernel
from inmaterio.devices.subnormals import flush_subnormals, restore_subnormals
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.scalar_wave_kernels import Coefficients, advance, plain_row


@kernel
def save_ring(field: Array, row: int, column: int, h: int, w: int, ring: Array) -> None:
    """Copy the cells around a box, 2 (h + w) of them, out of a field."""
    ring[:w] = field[row, column + 1 : column + 1 + w]
    ring[w : 2 * w] = field[row + h + 1, column + 1 : column + 1 + w]
    for i in range(h):
        ring[2 * w + i] = field[row + 1 + i, column]
        ring[2 * w + h + i] = field[row + 1 + i, column + 1 + w]


@kernel
def load_ring(box: Array, ring: Array) -> None:
    """Copy the cells around a box into its frame."""
    h, w = box.shape[0] - 2, box.shape[1] - 2
    box[0, 1 : 1 + w] = ring[:w]
    box[h + 1, 1 : 1 + w] = ring[w : 2 * w]
    for i in range(h):
        box[1 + i, 0] = ring[2 * w + i]
        box[1 + i, w + 1] = ring[2 * w + h + i]


@kernel
def save_box(field: Array, row: int, column: int, box: Array) -> None:
    """Copy a box with its frame out of a field."""
    for i in range(box.shape[0]):
        box[i, :] = field[row + i, column : column + box.shape[1]]


@kernel(nogil=True)
def run_recorded(
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
    corner: NDArray[np.int64],
    size: NDArray[np.int64],
    rings: Array,
    boxes: Array,
) -> int:
    """All steps of one sample, in place, as `scalar_wave_kernels.run_sample`; the first step with a speed out of bounds, or -1.

    Parameters
    ----------
    corner, size : ndarray of int64, shape (2,)
        Row and column of the box's first cell; h and w.
    rings : ndarray, shape (steps or 0, 2 (h + w))
        Cells around the box in u^n, n = 0 ... steps - 1, when wanted.
    boxes : ndarray, shape (steps + 2 or 0, h + 2, w + 2)
        The box in u^n, n = -1 ... steps, when wanted.
    """
    row, column, h, w = corner[0], corner[1], size[0], size[1]
    steps = traces.shape[1]
    if boxes.shape[0]:
        save_box(fields[1], row, column, boxes[0])
        save_box(fields[0], row, column, boxes[1])
    stopped = -1
    mode = flush_subnormals()
    for n in range(steps):
        now, out = fields[n % 2], fields[1 - n % 2]
        if rings.shape[0]:
            save_ring(now, row, column, h, w, rings[n])
        if advance(coefficients, out, now, psi_rows, zeta_rows, psi_columns, zeta_columns, spare, 0, coefficients.ratio.shape[0]):
            stopped = n
            break
        for k in range(source_cells.shape[0]):
            out[source_cells[k, 0] + 1, source_cells[k, 1] + 1] += source_gains[k] * sources[k, n]
        for k in range(probe_cells.shape[0]):
            traces[k, n] = out[probe_cells[k, 0] + 1, probe_cells[k, 1] + 1]
        if boxes.shape[0]:
            save_box(out, row, column, boxes[n + 2])
    restore_subnormals(mode)
    return stopped


@kernel
def add_product(total: Array, adjoint: Array, box: Array, row: int, column: int) -> None:
    """total += v L u over a box of u."""
    # unsigned: an index that might be negative costs the vector unit, and a slice per row as much again
    one, two, down, right = np.uint64(1), np.uint64(2), np.uint64(row + 1), np.uint64(column + 1)
    for i in range(np.uint64(total.shape[0])):
        for j in range(np.uint64(total.shape[1])):
            u = box[i + one, j + one]
            total[i, j] += adjoint[i + down, j + right] * (
                (box[i, j + one] + box[i + two, j + one]) + (box[i + one, j] + box[i + one, j + two]) - ((u + u) + (u + u))
            )


@kernel
def read_sources(
    adjoint: Array,
    source_cells: NDArray[np.int64],
    sources: Array,
    square: float,
    n: int,
    row: int,
    column: int,
    total: Array,
    source_gradient: Array,
) -> None:
    """h^2 v of the sources of step n: their gradient; and what they add to total at their cells."""
    for k in range(source_cells.shape[0]):
        i, j = source_cells[k, 0], source_cells[k, 1]
        value = square * adjoint[i + 1, j + 1]
        source_gradient[k, n] = value
        if row <= i < row + total.shape[0] and column <= j < column + total.shape[1]:
            total[i - row, j - column] += value * sources[k, n]


@kernel
def drive_probes(adjoint: Array, probe_cells: NDArray[np.int64], probe_gains: Array, trace_gradient: Array, n: int) -> None:
    """Add g C dL/dy^n at the probes."""
    for k in range(probe_cells.shape[0]):
        adjoint[probe_cells[k, 0] + 1, probe_cells[k, 1] + 1] += probe_gains[k] * trace_gradient[k, n]


@kernel
def step_back(
    now: Array,
    after: Array,
    ratio: Array,
    source_cells: NDArray[np.int64],
    source_gains: Array,
    sources: Array,
    n: int,
    row: int,
    column: int,
) -> None:
    """u^(n-1) over u^(n+1) in a lossless linear box, whose frame holds u^n."""
    h, w = ratio.shape
    for i in range(h):
        plain_row(after, now, ratio, i)
    for k in range(source_cells.shape[0]):
        i, j = source_cells[k, 0] - row, source_cells[k, 1] - column
        if 0 <= i < h and 0 <= j < w:
            after[i + 1, j + 1] += source_gains[k] * sources[k, n]


@kernel(nogil=True)
def pull_linear(
    coefficients: Coefficients,
    adjoint: Array,
    psi_rows: Array,
    zeta_rows: Array,
    psi_columns: Array,
    zeta_columns: Array,
    spare: Array,
    sources: Array,
    source_cells: NDArray[np.int64],
    source_gains: Array,
    square: float,
    probe_cells: NDArray[np.int64],
    probe_gains: Array,
    trace_gradient: Array,
    corner: NDArray[np.int64],
    ratio: Array,
    rings: Array,
    boxes: Array,
    first: int,
    last: int,
    total: Array,
    source_gradient: Array,
) -> None:
    """Steps last - 1 ... first backwards in a linear medium.

    Parameters
    ----------
    adjoint : ndarray, shape (2, rows + 2, columns + 2)
        v^last and v^(last+1), zero before the last step of all; v^first and v^(first+1) in the end. v^0 is as if no probe had
        read u^0. The memories of the absorber go with it.
    sources, source_cells, source_gains
        As for `scalar_wave_kernels.run_sample`.
    square : floating
        h^2, in m^2.
    probe_gains : ndarray, shape (probes,)
        g C at the probes.
    trace_gradient : ndarray, shape (probes, steps)
    ratio : ndarray, shape (h, w)
        C of the box.
    rings : ndarray, shape (steps, 2 (h + w)) or (0, any)
        When there are any, the field runs backwards beside the adjoint field, and the box must be lossless.
    boxes : ndarray, shape (2, h + 2, w + 2), else (last - first + 2, h + 2, w + 2)
        With rings u^n stands in ``boxes[n % 2]``: u^last and u^(last-1) at first, u^first and u^(first-1) in the end. Without
        they are u^(first-1) ... u^last.
    total : ndarray, shape (h, w)
        Gains sum over n of v^(n+1) (L u^n + h^2 s^n).
    source_gradient : ndarray, shape (sources, steps)
    """
    mode = flush_subnormals()
    row, column = corner[0], corner[1]
    if last == trace_gradient.shape[1]:
        drive_probes(adjoint[last % 2], probe_cells, probe_gains, trace_gradient, last - 1)
    for m in range(last - first):
        n = last - 1 - m
        v, v_before = adjoint[1 - n % 2], adjoint[n % 2]
        now = boxes[n % 2 if rings.shape[0] else n - first + 1]
        if rings.shape[0]:
            load_ring(now, rings[n])
        add_product(total, v, now, row, column)
        read_sources(v, source_cells, sources, square, n, row, column, total, source_gradient)
        if rings.shape[0]:
            step_back(now, boxes[1 - n % 2], ratio, source_cells, source_gains, sources, n, row, column)
        advance(coefficients, v_before, v, psi_rows, zeta_rows, psi_columns, zeta_columns, spare, 0, coefficients.ratio.shape[0])
        if n > 0:
            drive_probes(v_before, probe_cells, probe_gains, trace_gradient, n - 1)
    restore_subnormals(mode)


@kernel
def local_response(
    courant: Array, density: Array, damping: Array, constants: Array, box: Array, saturation: Array, speed: Array, gain: Array
) -> None:
    """1 / (1 + (u / u_th)^2), c dt / h and 1 / (1 + b dt) at the field u of a box."""
    one = courant.dtype.type(1)
    slope, saturable, inverse_square = constants[0], constants[1], constants[2]
    h, w = courant.shape
    for i in range(h):
        for j in range(w):
            u = box[i + 1, j + 1]
            saturation[i, j] = one / (one + u * u * inverse_square)
        for j in range(w):
            u = box[i + 1, j + 1]
            speed[i, j] = courant[i, j] + density[i, j] * slope * (u * u)
        for j in range(w):
            gain[i, j] = one / (one + (damping[i, j] + density[i, j] * saturable * saturation[i, j]))


@kernel
def laplacian(box: Array, out: Array) -> None:
    """L u of a box."""
    h, w = out.shape
    for i in range(h):
        for j in range(w):
            u = box[i + 1, j + 1]
            out[i, j] = (box[i, j + 1] + box[i + 2, j + 1]) + (box[i + 1, j] + box[i + 1, j + 2]) - ((u + u) + (u + u))


@kernel
def add_nonlinear_products(
    constants: Array,
    before: Array,
    now: Array,
    after: Array,
    spread: Array,
    saturation: Array,
    speed: Array,
    q: Array,
    total: Array,
    dense: Array,
) -> None:
    """One step's part of the gradients by c_lin dt / h and by the density; q = g lambda, spread = L u."""
    slope, saturable = constants[0], constants[1]
    h, w = q.shape
    for i in range(h):
        for j in range(w):
            total[i, j] += (speed[i, j] + speed[i, j]) * spread[i, j] * q[i, j]
        for j in range(w):
            u = now[i + 1, j + 1]
            dense[i, j] += (speed[i, j] + speed[i, j]) * slope * (u * u) * spread[i, j] * q[i, j]
        for j in range(w):
            dense[i, j] -= saturable * saturation[i, j] * (after[i + 1, j + 1] - before[i + 1, j + 1]) * q[i, j]


@kernel
def add_local_slope(
    constants: Array,
    density: Array,
    before: Array,
    now: Array,
    after: Array,
    spread: Array,
    saturation: Array,
    speed: Array,
    q: Array,
    out: Array,
) -> None:
    """What lambda^(n+1) adds to lambda^n in its own cell, added to out."""
    one, two = constants.dtype.type(1), constants.dtype.type(2)
    slope, saturable = constants[0] + constants[0], constants[1] * constants[2]
    h, w = q.shape
    for i in range(h):
        for j in range(w):
            out[i, j] += two * q[i, j] * (density[i, j] * now[i + 1, j + 1] * (slope * speed[i, j] * spread[i, j]) + one)
        for j in range(w):
            out[i, j] += (
                two
                * q[i, j]
                * (density[i, j] * now[i + 1, j + 1] * saturable * (saturation[i, j] * saturation[i, j]))
                * (after[i + 1, j + 1] - before[i + 1, j + 1])
            )


@kernel
def drive_nonlinear_probes(
    v: Array,
    probe_cells: NDArray[np.int64],
    probe_gains: Array,
    trace_gradient: Array,
    n: int,
    row: int,
    column: int,
    speed: Array,
    gain: Array,
    multiplier: Array,
) -> None:
    """Add dL/dy^n at the probes: to lambda where one stands in the box, and to v with the gain its cell has there."""
    h, w = multiplier.shape
    for k in range(probe_cells.shape[0]):
        i, j = probe_cells[k, 0] - row, probe_cells[k, 1] - column
        if 0 <= i < h and 0 <= j < w:
            multiplier[i, j] += trace_gradient[k, n]
            v[row + i + 1, column + j + 1] += speed[i, j] ** 2 * gain[i, j] * trace_gradient[k, n]
        else:
            v[row + i + 1, column + j + 1] += probe_gains[k] * trace_gradient[k, n]


@kernel(nogil=True)
def pull_nonlinear(
    linear: Coefficients,
    adjoint: Array,
    psi_rows: Array,
    zeta_rows: Array,
    psi_columns: Array,
    zeta_columns: Array,
    spare: Array,
    sources: Array,
    source_cells: NDArray[np.int64],
    square: float,
    probe_cells: NDArray[np.int64],
    probe_gains: Array,
    trace_gradient: Array,
    corner: NDArray[np.int64],
    boxes: Array,
    first: int,
    last: int,
    courant: Array,
    density: Array,
    damping: Array,
    constants: Array,
    multiplier: Array,
    carried: Array,
    total: Array,
    dense: Array,
    source_gradient: Array,
) -> None:
    """Steps last - 1 ... first backwards; all density stands in the box. Otherwise as `pull_linear` without rings.

    Parameters
    ----------
    linear : Coefficients
        Of the medium without its nonlinearity, which the adjoint field obeys outside the box.
    courant, density, damping : ndarray, shape (h, w)
        c_lin dt / h, d and b_lin dt of the box.
    constants : ndarray, shape (3,)
        c_nl dt / h, b_0 dt, 1 / u_th^2.
    multiplier, carried : ndarray, shape (h, w)
        lambda^last and (1 - 2 g) lambda^(last+1), both zero before the last step of all; lambda^first and its follower in the
        end.
    total, dense : ndarray, shape (h, w)
        Gain the gradients with respect to c_lin dt / h and to the density.
    """
    mode = flush_subnormals()
    row, column = corner[0], corner[1]
    h, w = total.shape
    # what follows from the field that the step below starts from, then room for what the step needs
    saturation, speed, gain = np.empty((h, w), total.dtype), np.empty((h, w), total.dtype), np.empty((h, w), total.dtype)
    spread, q, around = np.empty((h, w), total.dtype), np.empty((h, w), total.dtype), np.empty((h + 2, w + 2), total.dtype)
    local_response(courant, density, damping, constants, boxes[last - first], saturation, speed, gain)
    if last == trace_gradient.shape[1]:
        v = adjoint[last % 2]
        drive_nonlinear_probes(v, probe_cells, probe_gains, trace_gradient, last - 1, row, column, speed, gain, multiplier)
    for m in range(last - first):
        n = last - 1 - m
        v, v_before = adjoint[1 - n % 2], adjoint[n % 2]
        before, now, after = boxes[n - first], boxes[n - first + 1], boxes[n - first + 2]
        for k in range(source_cells.shape[0]):
            i, j = source_cells[k, 0], source_cells[k, 1]
            source_gradient[k, n] = square * v[i + 1, j + 1]
            value = source_gradient[k, n] * sources[k, n]
            i, j = i - row, j - column
            if 0 <= i < h and 0 <= j < w:
                total[i, j] += (value + value) / courant[i, j]
        advance(linear, v_before, v, psi_rows, zeta_rows, psi_columns, zeta_columns, spare, 0, linear.ratio.shape[0])
        save_box(v, row, column, around)
        laplacian(now, spread)
        for i in range(h):
            for j in range(w):
                q[i, j] = gain[i, j] * multiplier[i, j]
        add_nonlinear_products(constants, before, now, after, spread, saturation, speed, q, total, dense)
        for i in range(h):
            # lambda^(n+1) gives way to what was carried, and leaves what it carries itself
            for j in range(w):
                carried[i, j], multiplier[i, j] = multiplier[i, j] - (q[i, j] + q[i, j]), carried[i, j]
        add_local_slope(constants, density, before, now, after, spread, saturation, speed, q, multiplier)
        laplacian(around, spread)
        local_response(courant, density, damping, constants, before, saturation, speed, gain)
        for i in range(h):
            for j in range(w):
                multiplier[i, j] += spread[i, j]
            for j in range(w):
                around[i + 1, j + 1] = speed[i, j] * speed[i, j] * gain[i, j] * multiplier[i, j]
            v_before[row + i + 1, column + 1 : column + 1 + w] = around[i + 1, 1 : 1 + w]
        if n > 0:
            drive_nonlinear_probes(
                v_before, probe_cells, probe_gains, trace_gradient, n - 1, row, column, speed, gain, multiplier
            )
    restore_subnormals(mode)
