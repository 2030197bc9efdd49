"""One leapfrog step of a field in a cavity with membranes, whole passes of a batch, and the adjoint of a pass.

With u the velocity potential (pressure p = rho du/dt), x the displacement of a membrane, both in units of their scale, r the
loss of one step, and S the sum over the four neighbours, which are 0 in walls::

    u+ = keep u + gather S u - r^2 u- - stiff u^3/(1 + u^2) + source - back (x+ - x-)
    (1 + damp) x+ - 2 x + (1 - damp) x- + spring x + bend x (x+ + x + x-)/3 + stretch x^2 (x+ + x-)/2 = push (u+ - u-)/2

Walls are held at 0 by coefficients, not by branches; keep = r (2 - nu^2 n) with n the number of open neighbours makes them
rigid. The membrane's forces are averaged over steps such that its energy has a potential, exactly and for any step; its
equation is linear in x+, so every step is explicit.

Batches are split among threads by `over_threads`, which gives the same as a parallel loop: the latter takes four times as long to
compile.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.compilation import kernel

Reals = NDArray[np.floating]
Cells = NDArray[np.int64]

BACK, DAMP, SPRING, BEND, STRETCH, PUSH = range(6)
"""Columns of a table of membranes."""


@kernel
def sweep(now: Reals, old: Reals, keep: Reals, gather: Reals, forget: np.floating) -> None:
    """Step of a linear medium, all arrays (rows + 2, columns + 2): `old` becomes what comes after `now`."""
    for i in range(1, now.shape[0] - 1):
        above, here, below = now[i - 1, 1:-1], now[i], now[i + 1, 1:-1]
        left, middle, right = here[:-2], here[1:-1], here[2:]
        new, kept, gathered = old[i, 1:-1], keep[i, 1:-1], gather[i, 1:-1]
        for j in range(new.shape[0]):
            new[j] = kept[j] * middle[j] + gathered[j] * ((above[j] + below[j]) + (left[j] + right[j])) - forget * new[j]


@kernel
def copy(field: Reals, out: Reals) -> None:
    """Copy a field; an assignment of arrays takes seconds to compile."""
    for i in range(field.shape[0]):
        for j in range(field.shape[1]):
            out[i, j] = field[i, j]


@kernel
def add_medium(now: Reals, new: Reals, stiff: np.floating) -> None:
    """Subtract the saturable force stiff u^3 / (1 + u^2)."""
    one = stiff / stiff
    for i in range(1, now.shape[0] - 1):
        field, out = now[i, 1:-1], new[i, 1:-1]
        for j in range(out.shape[0]):
            square = field[j] * field[j]
            out[j] -= stiff * field[j] * square / (one + square)


@kernel
def add_medium_slope(field: Reals, adjoint: Reals, new: Reals, stiff: np.floating) -> None:
    """Subtract the slope of the saturable force, stiff (3 u^2 + u^4) / (1 + u^2)^2, times an adjoint field."""
    one = stiff / stiff
    three = one + one + one
    for i in range(1, field.shape[0] - 1):
        at, carried, out = field[i, 1:-1], adjoint[i, 1:-1], new[i, 1:-1]
        for j in range(out.shape[0]):
            square = at[j] * at[j]
            out[j] -= stiff * square * (three + square) / ((one + square) * (one + square)) * carried[j]


@kernel
def move_membranes(old_field: Reals, new: Reals, cells: Cells, table: Reals, x_old: Reals, x_now: Reals, x_new: Reals) -> None:
    """Solve membranes and their cells together; `new` holds the field without them, `old_field` (n,) what it was before."""
    half = np.float32(0.5)
    third = x_now.dtype.type(1.0 / 3.0)
    one = np.float32(1.0)
    for m in range(cells.shape[0]):
        back, damp, push = table[m, BACK], table[m, DAMP], table[m, PUSH]
        spring, bend, stretch = table[m, SPRING], table[m, BEND] * third, table[m, STRETCH] * half
        x, before = x_now[m], x_old[m]
        free = new[cells[m, 0], cells[m, 1]]
        inertia = one + damp + bend * x + stretch * x * x + half * push * back
        force = (one + one - spring) * x - (one - damp) * before - bend * x * (x + before) - stretch * x * x * before
        x_new[m] = (force + half * push * (free + back * before - old_field[m])) / inertia
        new[cells[m, 0], cells[m, 1]] = free - back * (x_new[m] - before)


@kernel
def step(
    now: Reals,
    old: Reals,
    keep: Reals,
    gather: Reals,
    forget: np.floating,
    stiff: np.floating,
    speakers: Cells,
    source: Reals,
    cells: Cells,
    table: Reals,
    x_old: Reals,
    x_now: Reals,
    x_new: Reals,
    scratch: Reals,
) -> None:
    """One step: `old` becomes the next field, `x_new` the next displacements; `source` (speakers,) is what is added."""
    for m in range(cells.shape[0]):
        scratch[m] = old[cells[m, 0], cells[m, 1]]
    sweep(now, old, keep, gather, forget)
    if stiff > 0:
        add_medium(now, old, stiff)
    for s in range(speakers.shape[0]):
        old[speakers[s, 0], speakers[s, 1]] += source[s]
    move_membranes(scratch, old, cells, table, x_old, x_now, x_new)


@kernel
def advance(
    pair: Reals,
    start: int,
    stop: int,
    keep: Reals,
    gather: Reals,
    forget: np.floating,
    stiff: np.floating,
    speakers: Cells,
    sources: Reals,
    cells: Cells,
    table: Reals,
    displacements: Reals,
    microphones: Cells,
    traces: Reals,
    scratch: Reals,
    fields: Reals,
) -> None:
    """Steps `start` ... `stop` - 1 of one pass, in place.

    pair (2, rows + 2, columns + 2) holds the field at step n in place n % 2, the one before in the other. displacements
    (steps + 2, membranes) begins with those before and at step 0; traces (steps, microphones) takes the change of the field
    in each step, a pressure; fields, where it is not empty, the field before each of these steps.
    """
    for n in range(start, stop):
        # views of one array: names that are swapped in the loop would keep the compiler from vectorising
        now, new = pair[n % 2], pair[1 - n % 2]
        if fields.shape[0] > 0:
            copy(now, fields[n - start])
        step(
            now, new, keep, gather, forget, stiff, speakers, sources[n], cells, table,
            displacements[n], displacements[n + 1], displacements[n + 2], scratch,
        )  # fmt: skip
        for k in range(microphones.shape[0]):
            at = microphones[k, 0], microphones[k, 1]
            traces[n, k] = new[at] - now[at]


@kernel
def largest(field: Reals) -> tuple[float, int]:
    """Largest size in a field and its flat place; infinity at the first that is not a number."""
    size, place = 0.0, 0
    for i in range(field.shape[0]):
        for j in range(field.shape[1]):
            value = abs(np.float64(field[i, j]))
            if not value <= size:
                if value != value:
                    return np.inf, i * field.shape[1] + j
                size, place = value, i * field.shape[1] + j
    return size, place


@kernel(nogil=True)
def run_passes(
    begin: int,
    end: int,
    sources: Reals,
    keep: Reals,
    gather: Reals,
    forget: np.floating,
    stiff: np.floating,
    speakers: Cells,
    cells: Cells,
    table: Reals,
    microphones: Cells,
    traces: Reals,
    pairs: Reals,
    displacements: Reals,
    scratch: Reals,
    nothing: Reals,
) -> None:
    """A pass from rest for items `begin` ... `end` - 1 of a batch.

    sources (batch, steps, speakers); traces (batch, steps, microphones); pairs (batch, 2, rows + 2, columns + 2) and
    displacements (batch, steps + 2, membranes) begin with zeros, as `advance` takes them; scratch (batch, membranes). Arrays are
    made by the caller: made here they double the time it takes to compile.
    """
    for b in range(begin, end):
        advance(
            pairs[b], 0, sources.shape[1], keep, gather, forget, stiff, speakers, sources[b], cells, table, displacements[b],
            microphones, traces[b], scratch[b], nothing,
        )  # fmt: skip


@kernel
def adjoint_step(
    n: int,
    carried: Reals,
    older: Reals,
    field: Reals,
    keep: Reals,
    gather: Reals,
    forget: np.floating,
    stiff: np.floating,
    speakers: Cells,
    cells: Cells,
    table: Reals,
    displacements: Reals,
    microphones: Cells,
    toward: Reals,
    motion: Reals,
    waiting: Reals,
    source_gradient: Reals,
    spring_gradient: Reals,
) -> None:
    """Take the adjoint back over step n; fields are multiplied by `gather`, which makes the step its own transpose.

    `carried` is the adjoint of the field after step n, `older` becomes that of the field before it. motion (3, membranes) holds
    the adjoint of displacements after and at the step, and then at and before it, and last what the step leaves for the field
    before its own; `waiting` (membranes,) takes what the step above left.
    """
    for k in range(microphones.shape[0]):
        i, j = microphones[k]
        carried[i, j] += gather[i, j] * toward[n, k]
    for m in range(cells.shape[0]):
        waiting[m] = motion[2, m]
        i, j = cells[m]
        back, damp, push = table[m, BACK], table[m, DAMP], table[m, PUSH]
        bend, stretch = table[m, BEND] / 3.0, table[m, STRETCH] / 2.0
        before, x, after = displacements[n, m], displacements[n + 1, m], displacements[n + 2, m]
        inertia = 1.0 + damp + bend * x + stretch * x * x + 0.5 * push * back
        at_cell = carried[i, j] / gather[i, j]
        shared = (motion[0, m] - back * at_cell) / inertia
        carried[i, j] = gather[i, j] * (at_cell + 0.5 * push * shared)
        onto_before = back * at_cell + shared * (damp - 1.0 - bend * x - stretch * x * x + 0.5 * push * back)
        slope = 2.0 - table[m, SPRING] - bend * (2.0 * x + before + after) - 2.0 * stretch * x * (before + after)
        motion[0, m] = motion[1, m] + shared * slope
        motion[1, m] = onto_before
        spring_gradient[m] -= shared * x
        motion[2, m] = -0.5 * push * shared
    for s in range(speakers.shape[0]):
        source_gradient[n, s] = carried[speakers[s, 0], speakers[s, 1]] / gather[speakers[s, 0], speakers[s, 1]]
    sweep(carried, older, keep, gather, forget)
    if stiff > 0:
        add_medium_slope(field, carried, older, stiff)
    for m in range(cells.shape[0]):
        older[cells[m, 0], cells[m, 1]] += gather[cells[m, 0], cells[m, 1]] * waiting[m]
    for k in range(microphones.shape[0]):
        i, j = microphones[k]
        older[i, j] -= gather[i, j] * toward[n, k]


@kernel(nogil=True)
def run_adjoints(
    begin: int,
    end: int,
    sources: Reals,
    toward: Reals,
    keep: Reals,
    gather: Reals,
    forget: np.floating,
    stiff: np.floating,
    speakers: Cells,
    cells: Cells,
    table: Reals,
    microphones: Cells,
    interval: int,
    source_gradient: Reals,
    spring_gradient: Reals,
    traces: Reals,
    pairs: Reals,
    displacements: Reals,
    scratch: Reals,
    nothing: Reals,
    adjoints: Reals,
    motions: Reals,
    kept: Reals,
    fields: Reals,
) -> None:
    """Vector-Jacobian product of `run_passes`, for items `begin` ... `end` - 1.

    `toward` (batch, steps, microphones) is the gradient with respect to the traces; source_gradient (batch, steps, speakers)
    and spring_gradient (batch, membranes) take that with respect to the sources and to column SPRING of the table. adjoints (as
    `pairs`) and motions (batch, 3, membranes) begin with zeros.

    A saturable medium needs the field of every step, backwards: it is kept every `interval` steps in kept (batch, segments, 2,
    ...) and run again from there into fields (batch, interval, ...), so that steps/interval + interval fields are held instead
    of all. A linear medium needs none: both have then no more than one place, which is not used.
    """
    steps = sources.shape[1]
    segments = (steps + interval - 1) // interval
    bent = stiff > 0
    for b in range(begin, end):
        # forwards over all segments, then backwards; one call of `advance` for both halves the time it takes to compile
        for visit in range(2 * segments):
            backwards = visit >= segments
            segment = 2 * segments - 1 - visit if backwards else visit
            start, stop = segment * interval, min((segment + 1) * interval, steps)
            if bent:
                for parity in range(2):
                    if backwards:
                        copy(kept[b, segment, parity], pairs[b, parity])
                    else:
                        copy(pairs[b, parity], kept[b, segment, parity])
            if bent or not backwards:
                advance(
                    pairs[b], start, stop, keep, gather, forget, stiff, speakers, sources[b], cells, table, displacements[b],
                    microphones, traces[b], scratch[b], fields[b] if bent and backwards else nothing,
                )  # fmt: skip
            if backwards:
                for n in range(stop - 1, start - 1, -1):
                    adjoint_step(
                        n, adjoints[b, 1 - n % 2], adjoints[b, n % 2], fields[b, n - start if bent else 0], keep, gather, forget,
                        stiff, speakers, cells, table, displacements[b], microphones, toward[b], motions[b], scratch[b],
                        source_gradient[b], spring_gradient[b],
                    )  # fmt: skip


def over_threads(batch_kernel: Callable[..., None], batch: int, *arguments: Any) -> None:
    """Run `batch_kernel` (begin, end, ...) over a batch, in as many parts as numba may use threads."""
    parts = min(numba.get_num_threads(), batch)
    edges = [batch * part // parts for part in range(parts + 1)]
    if parts == 1:
        batch_kernel(0, batch, *arguments)
        return
    with ThreadPoolExecutor(parts) as pool:
        for done in [pool.submit(batch_kernel, first, last, *arguments) for first, last in zip(edges, edges[1:], strict=False)]:
            done.result()
