"""From a medium in SI units to the dimensionless maps that the scalar wave's kernels take."""

import math
from typing import Any

import numpy as np

from inmaterio.simulators import scalar_wave_kernels as kernels
from inmaterio.simulators.absorbers import cpml_coefficients, graded_loss
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.scalar_wave_kernels import Coefficients
from inmaterio.simulators.scalar_wave_medium import ROUNDING, Cells, Floats, Medium

CACHE_LINE = 64
"""Bytes."""

ABSORBERS = {"none": kernels.OPEN, "graded": kernels.GRADED, "cpml": kernels.CPML}


def aligned(shape: tuple[int, ...], dtype: str | np.dtype[Any], lead: int = 0) -> Array:
    """Zeros whose element `lead` begins a cache line."""
    kind, count = np.dtype(dtype), math.prod(shape)
    line = CACHE_LINE // kind.itemsize
    room = np.zeros(count + line, dtype=kind)
    first = (-(room.ctypes.data // kind.itemsize) - lead) % line
    return room[first : first + count].reshape(shape)


def coefficients(medium: Medium) -> Coefficients:
    """What the kernels need of a medium, in its precision; made once, not to be written to."""
    if not medium._prepared:
        medium._prepared.append(_prepare(medium))
    return medium._prepared[0]


def _prepare(medium: Medium) -> Coefficients:
    grid, absorber, nonlinearity = medium.grid, medium.absorber, medium.nonlinearity
    real = np.dtype(medium.dtype).type
    unused: Floats = np.empty((0, 0))

    def cast(values: Array) -> Any:
        array = aligned(values.shape, medium.dtype)
        array[...] = values
        return array

    speed = medium.speed_m_per_s
    courant = speed * (grid.step_s / grid.spacing_m)
    damping: Floats = unused
    if nonlinearity is not None:
        damping = np.zeros(grid.shape)
    if medium.loss_per_s is not None:
        damping = medium.loss_per_s * grid.step_s
    lossy = medium.loss_per_s is not None or nonlinearity is not None
    density: Floats = unused if nonlinearity is None else nonlinearity.density
    dense_rows = np.flatnonzero(density.any(axis=1))
    active = (int(dense_rows[0]), int(dense_rows[-1]) + 1) if len(dense_rows) else (0, 0)
    kind = kernels.NONLINEAR if nonlinearity is not None else kernels.LOSSY if lossy else kernels.LINEAR
    return Coefficients(
        medium=kind,
        absorber=ABSORBERS[absorber.kind if absorber.sides else "none"],
        sides=np.array([side in absorber.sides for side in ("top", "bottom", "left", "right")], dtype=np.int64),
        ratio=cast(np.square(courant)),
        gain=cast(1.0 / (1.0 + damping) if lossy else unused),
        courant=cast(courant if nonlinearity is not None else unused),
        density=cast(density),
        damping=cast(damping if nonlinearity is not None else unused),
        active_rows=np.array(active, dtype=np.int64),
        speed_slope=real(0.0 if nonlinearity is None else nonlinearity.speed_slope_m_per_s * grid.step_s / grid.spacing_m),
        saturable_damping=real(0.0 if nonlinearity is None else nonlinearity.loss_per_s * grid.step_s),
        inverse_saturation=real(0.0 if nonlinearity is None else nonlinearity.saturation**-2.0),
        largest_courant=real((1.0 + ROUNDING) / math.sqrt(2.0)),
        ratio_columns=cast(_ratio_columns(np.square(courant), absorber.cells if absorber.kind == "cpml" else 0)),
        **{name: cast(values) for name, values in _strip_coefficients(medium, speed).items()},
    )


def _ratio_columns(ratio: Floats, cells: int) -> Floats:
    """The left and right strips of a map, columns along memory: (2, cells, rows)."""
    return np.stack([ratio[:, :cells].T, ratio[:, ratio.shape[1] - cells :].T])


def _strip_coefficients(medium: Medium, speed: Floats) -> dict[str, Floats]:
    """Damping gains or memory coefficients by depth. Both are made, because a kernel's argument has one type."""
    cells, columns, spacing, step = medium.absorber.cells, medium.grid.shape[1], medium.grid.spacing_m, medium.grid.step_s
    thickness = max(cells, 1) * spacing
    strips = {"top": speed[:cells], "bottom": speed[-cells:], "left": speed[:, :cells], "right": speed[:, -cells:]}
    reference = max((float(strips[side].max()) for side in medium.absorber.sides), default=0.0)
    nodes: Floats = (np.arange(cells, 0, -1, dtype=np.float64) - 0.5) * spacing
    halves: Floats = np.arange(cells, -1, -1, dtype=np.float64) * spacing
    across = np.zeros((2, columns))
    for row, side in enumerate(("left", "right")):
        if side in medium.absorber.sides:
            loss = graded_loss(nodes, thickness, reference)
            across[row, np.s_[:cells] if row == 0 else np.s_[columns - cells :]] = loss if row == 0 else loss[::-1]
    down = graded_loss(nodes, thickness, reference)
    loss_rows = np.stack([down, down[::-1]])[:, :, None] + across.sum(axis=0)
    loss_columns = np.stack([across[0, :cells], across[1, columns - cells :]])
    both = {}
    for name, depth in (("half", halves), ("node", nodes)):
        decay, gain = cpml_coefficients(depth, thickness, reference, step)
        both[f"{name}_decay"], both[f"{name}_gain"] = np.stack([decay, decay[::-1]]), np.stack([gain, gain[::-1]])
    return {
        "gain_rows": (1.0 / (1.0 + loss_rows * step)).reshape(2 * cells, columns),
        "gain_columns": 1.0 / (1.0 + loss_columns * step),
        **both,
    }


def source_gains(medium: Medium, cells: Cells) -> Array:
    """What one unit of a source adds to each of these cells in a step: g C h^2, with the linear speed and loss."""
    rows, columns = cells[:, 0], cells[:, 1]
    gains = (medium.speed_m_per_s[rows, columns] * medium.grid.step_s) ** 2
    if medium.loss_per_s is not None:
        gains = gains / (1.0 + medium.grid.step_s * medium.loss_per_s[rows, columns])
    return np.ascontiguousarray(gains, dtype=medium.dtype)
