"""Slow, obvious twins of the scalar wave's kernels, and the exact reflection of a plane wave from a discrete absorber."""

import cmath
import math

import numpy as np

from inmaterio.simulators import absorbers
from inmaterio.simulators.scalar_wave import Medium


def depth(medium: Medium, axis: int, position: float) -> float:
    """How deep a place lies in the strips across an axis, in cells; a cell's centre is a whole number."""
    cells, length = medium.absorber.cells, medium.grid.shape[axis]
    low, high = (("top", "bottom"), ("left", "right"))[axis]
    inside = 0.0
    if low in medium.absorber.sides:
        inside = max(inside, cells - 0.5 - position)
    if high in medium.absorber.sides:
        inside = max(inside, position - (length - cells - 0.5))
    return inside


def reference_speed(medium: Medium) -> float:
    """Largest speed in the strips."""
    speeds = [
        float(medium.speed_m_per_s[i, j])
        for i in range(medium.grid.shape[0])
        for j in range(medium.grid.shape[1])
        if depth(medium, 0, i) > 0.0 or depth(medium, 1, j) > 0.0
    ]
    return max(speeds, default=0.0)


def absorber_loss(medium: Medium) -> np.ndarray:
    """b of a graded absorber (rows, columns): the sum of what each axis adds."""
    loss = np.zeros(medium.grid.shape)
    h = medium.grid.spacing_m
    if medium.absorber.kind == "graded":
        thickness, speed = medium.absorber.cells * h, reference_speed(medium)
        peak = absorbers.GRADED_STRENGTH * (absorbers.GRADED_ORDER + 1.0) * speed / thickness
        for i in range(medium.grid.shape[0]):
            for j in range(medium.grid.shape[1]):
                for axis, position in enumerate((i, j)):
                    loss[i, j] += peak * (depth(medium, axis, position) * h / thickness) ** absorbers.GRADED_ORDER
    return loss


def matched_rate(medium: Medium, inside: float) -> float:
    """d of a perfectly matched layer times dt, at a depth in cells."""
    cells, grid = medium.absorber.cells, medium.grid
    if medium.absorber.kind != "cpml" or inside <= 0.0:
        return 0.0
    order = absorbers.CPML_ORDER
    peak = -(order + 1.0) * reference_speed(medium) * math.log(absorbers.CPML_REFLECTION) / (2.0 * cells * grid.spacing_m)
    return peak * (inside / cells) ** order * grid.step_s


def propagate(
    medium: Medium,
    sources: np.ndarray,
    source_cells: list[tuple[int, int]],
    steps: int,
    field: np.ndarray | None = None,
    previous: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Fields u^(-1), u^0, u^1, ... of one sample, cell by cell, with memory variables everywhere."""
    grid = medium.grid
    rows, columns = grid.shape
    h, dt = grid.spacing_m, grid.step_s
    graded = absorber_loss(medium)
    u = np.zeros(grid.shape) if field is None else np.array(field, dtype=float)
    before = np.zeros(grid.shape) if previous is None else np.array(previous, dtype=float)
    psi = [np.zeros((rows + 1, columns)), np.zeros((rows, columns + 1))]
    zeta = [np.zeros(grid.shape), np.zeros(grid.shape)]
    rate_nodes = [[matched_rate(medium, depth(medium, axis, k)) for k in range(grid.shape[axis])] for axis in (0, 1)]
    rate_halves = [[matched_rate(medium, depth(medium, axis, k - 0.5)) for k in range(grid.shape[axis] + 1)] for axis in (0, 1)]
    path = [before, u]

    def at(i: int, j: int) -> float:
        return float(u[i, j]) if 0 <= i < rows and 0 <= j < columns else 0.0

    for n in range(steps):
        for i in range(rows + 1):
            for j in range(columns):
                q = math.exp(-rate_halves[0][i])
                psi[0][i, j] = q * psi[0][i, j] + (q - 1.0) * (at(i, j) - at(i - 1, j))
        for i in range(rows):
            for j in range(columns + 1):
                q = math.exp(-rate_halves[1][j])
                psi[1][i, j] = q * psi[1][i, j] + (q - 1.0) * (at(i, j) - at(i, j - 1))
        after = np.zeros(grid.shape)
        for i in range(rows):
            for j in range(columns):
                bends = (at(i - 1, j) - 2.0 * at(i, j) + at(i + 1, j), at(i, j - 1) - 2.0 * at(i, j) + at(i, j + 1))
                spread = (psi[0][i + 1, j] - psi[0][i, j], psi[1][i, j + 1] - psi[1][i, j])
                total = 0.0
                for axis, k in enumerate((i, j)):
                    q = math.exp(-rate_nodes[axis][k])
                    zeta[axis][i, j] = q * zeta[axis][i, j] + (q - 1.0) * (bends[axis] + spread[axis])
                    total += bends[axis] + spread[axis] + zeta[axis][i, j]
                c, b = float(medium.speed_m_per_s[i, j]), graded[i, j]
                if medium.loss_per_s is not None:
                    b += medium.loss_per_s[i, j]
                if medium.nonlinearity is not None:
                    extra, d = medium.nonlinearity, medium.nonlinearity.density[i, j]
                    c += d * extra.speed_slope_m_per_s * u[i, j] ** 2
                    b += d * extra.loss_per_s / (1.0 + (u[i, j] / extra.saturation) ** 2)
                drive = sum(sources[k, n] for k, cell in enumerate(source_cells) if tuple(cell) == (i, j))
                wave = (c * dt / h) ** 2 * (total + h**2 * drive)
                after[i, j] = (2.0 * u[i, j] - (1.0 - b * dt) * before[i, j] + wave) / (1.0 + b * dt)
        before, u = u, after
        path.append(u)
    return path


def energy(medium: Medium, after: np.ndarray, before: np.ndarray) -> float:
    """E^(n+1/2) = 1/2 sum (u^(n+1) - u^n)^2 / (c dt)^2 + 1/2 <u^(n+1), -L u^n> / h^2 of two fields that follow one another."""
    h, dt = medium.grid.spacing_m, medium.grid.step_s
    framed = np.pad(before, 1)
    laplacian = framed[:-2, 1:-1] + framed[2:, 1:-1] + framed[1:-1, :-2] + framed[1:-1, 2:] - 4.0 * before
    kinetic = 0.5 * np.sum(((after - before) / (dt * np.asarray(medium.speed_m_per_s))) ** 2)
    return float(kinetic - 0.5 * np.sum(after * laplacian) / h**2)


def reflection(kind: str, cells: int, courant: float, wavenumber: float, across: float) -> float:
    """Amplitude that comes back from a discrete strip when a plane wave of amplitude 1 meets it.

    Every field is a constant times exp(i (omega t + k_x x + k_y y)), so that the scheme becomes one equation per column of the
    strip. It is marched from the wall, where the field is zero, to the interior, and taken apart there into a wave that comes and
    one that goes. None of the simulator's recursions or arrays is used.

    Parameters
    ----------
    kind : {"graded", "cpml"}
    cells : int
    courant : float
        c dt / h.
    wavenumber, across : float
        |k| and k_y in radians per cell.
    """
    order, depths = (absorbers.GRADED_ORDER, absorbers.CPML_ORDER)[kind == "cpml"], [cells - 0.5 - j for j in range(cells)]
    along = math.sqrt(wavenumber**2 - across**2)
    omega = 2.0 * math.asin(courant * math.hypot(math.sin(along / 2.0), math.sin(across / 2.0)))
    z = cmath.exp(1j * omega)

    def stretch(inside: float) -> complex:
        """1 / s: how a convolutional layer scales a difference."""
        if kind != "cpml" or inside <= 0.0:
            return 1.0
        peak = -(order + 1.0) * courant * math.log(absorbers.CPML_REFLECTION) / (2.0 * cells)
        q = math.exp(-peak * (inside / cells) ** order)
        return 1.0 + (q - 1.0) / (1.0 - q / z)

    def damping(inside: float) -> float:
        return (
            absorbers.GRADED_STRENGTH * (order + 1.0) * courant / cells * (inside / cells) ** order if kind == "graded" else 0.0
        )

    before, u = 0.0 + 0.0j, 1.0 + 0.0j
    for j in range(cells + 1):
        inside = depths[j] if j < cells else 0.0
        b = damping(inside)
        inertia = ((1.0 + b) * z - 2.0 + (1.0 - b) / z) / courant**2 + 4.0 * math.sin(across / 2.0) ** 2
        low, high = stretch(cells - j), stretch(cells - j - 1.0)
        before, u = u, u + (inertia * u / stretch(inside) + low * (u - before)) / high
    turn = cmath.exp(1j * along)
    arriving, leaving = u - before / turn, before * turn - u
    return abs(leaving / arriving)
