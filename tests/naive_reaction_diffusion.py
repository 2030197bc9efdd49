"""Slow, obvious twins of the kernels of the two reaction-diffusion media: cell by cell, one sample."""

import numpy as np


def inflow(u: np.ndarray, across: np.ndarray, along: np.ndarray) -> np.ndarray:
    """What flows into each cell from its neighbours."""
    rows, columns = u.shape
    out = np.zeros_like(u)
    for i in range(rows):
        for j in range(columns):
            if j + 1 < columns:
                out[i, j] += across[i, j] * (u[i, j + 1] - u[i, j])
            if j > 0:
                out[i, j] += across[i, j - 1] * (u[i, j - 1] - u[i, j])
            if i + 1 < rows:
                out[i, j] += along[i, j] * (u[i + 1, j] - u[i, j])
            if i > 0:
                out[i, j] += along[i - 1, j] * (u[i - 1, j] - u[i, j])
    return out


def carried(u: np.ndarray, across: np.ndarray, along: np.ndarray) -> np.ndarray:
    """What a flow brings into each cell; velocities through faces, each carrying the mean of its two cells."""
    rows, columns = u.shape
    out = np.zeros_like(u)
    for i in range(rows):
        for j in range(columns - 1):
            through = across[i, j] * (u[i, j] + u[i, j + 1]) / 2
            out[i, j] -= through
            out[i, j + 1] += through
    for i in range(rows - 1):
        for j in range(columns):
            through = along[i, j] * (u[i, j] + u[i + 1, j]) / 2
            out[i, j] -= through
            out[i + 1, j] += through
    return out


def relax(
    u: np.ndarray,
    force: np.ndarray,
    pull: np.ndarray,
    across: np.ndarray,
    along: np.ndarray,
    quartic: float,
    quadratic: float,
    dt: float,
    steps: int,
) -> np.ndarray:
    """The Allen-Cahn flow by explicit Euler."""
    for _ in range(steps):
        u = u + dt * (inflow(u, across, along) - quartic * u**3 - quadratic * u - pull * u + force)
    return u


def grow(
    u: np.ndarray,
    across: np.ndarray,
    along: np.ndarray,
    flow: tuple[np.ndarray, np.ndarray],
    growth: np.ndarray,
    dt: float,
    steps: int,
) -> np.ndarray:
    """The stirred Fisher-KPP flow by explicit Euler."""
    for _ in range(steps):
        u = u + dt * (inflow(u, across, along) + carried(u, *flow) + growth * u * (1 - u))
    return u
