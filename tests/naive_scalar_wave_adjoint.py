"""A slow, obvious twin of simulators/scalar_wave_adjoint.py: the scheme in torch on whole arrays, differentiated by autograd."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from inmaterio.simulators.scalar_wave import Medium, coefficients


def shifted(field: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """field[i + rows, j + columns], zero outside the grid."""
    height, width = field.shape
    padded = torch.nn.functional.pad(field, (1, 1, 1, 1))
    return padded[1 + rows : 1 + rows + height, 1 + columns : 1 + columns + width]


def on_grid(medium: Medium, strips: np.ndarray, along: int, at_half: bool) -> torch.Tensor:
    """Strip coefficients (2, cells or cells + 1) of one axis, spread over it; zero elsewhere. Half node k: before cell k."""
    low, high = ("top", "left")[along], ("bottom", "right")[along]
    length, cells = medium.grid.shape[along], medium.absorber.cells
    values = np.zeros(length + 1)
    more = 1 if at_half else 0
    if low in medium.absorber.sides:
        values[: cells + more] = strips[0]
    if high in medium.absorber.sides:
        values[length - cells : length + more] = strips[1]
    shape = (-1, 1) if along == 0 else (1, -1)
    return torch.tensor(values if at_half else values[:-1]).reshape(shape)


def traces(
    medium: Medium,
    speed: torch.Tensor,
    density: torch.Tensor | None,
    sources: torch.Tensor,
    source_cells: np.ndarray,
    probe_cells: np.ndarray,
    field: torch.Tensor,
    previous: torch.Tensor,
) -> torch.Tensor:
    """(probes, steps) of one sample: every step on whole arrays, from `speed`, `density`, `sources` and the two start fields."""
    grid, nonlinearity = medium.grid, medium.nonlinearity
    dt, h = grid.step_s, grid.spacing_m
    linear: Any = coefficients(replace(medium, nonlinearity=None))
    loss = torch.zeros(grid.shape, dtype=torch.float64)
    if medium.loss_per_s is not None:
        loss = loss + torch.tensor(np.asarray(medium.loss_per_s))
    if medium.absorber.kind == "graded":
        rows, columns = grid.shape
        n = medium.absorber.cells
        gain = np.ones(grid.shape)
        gain[:, :n], gain[:, columns - n :] = linear.gain_columns[0], linear.gain_columns[1]
        gain[:n], gain[rows - n :] = linear.gain_rows[:n], linear.gain_rows[n:]
        loss = loss + torch.tensor((1.0 / gain - 1.0) / dt)
    matched = medium.absorber.kind == "cpml"
    names = (("half_decay", True), ("half_gain", True), ("node_decay", False), ("node_gain", False))
    strips = (
        [[on_grid(medium, getattr(linear, name), along, half) for name, half in names] for along in range(2)] if matched else []
    )
    height, width = grid.shape
    psi = [torch.zeros(height + 1, width, dtype=torch.float64), torch.zeros(height, width + 1, dtype=torch.float64)]
    zeta = [torch.zeros(height, width, dtype=torch.float64) for _ in range(2)]
    out = []
    for n in range(sources.shape[1]):
        u = field
        around = shifted(u, -1, 0) + shifted(u, 1, 0) + shifted(u, 0, -1) + shifted(u, 0, 1) - 4 * u
        for along in range(2):
            if not matched:
                continue
            q_half, a_half, q, a = strips[along]
            padded = torch.nn.functional.pad(u, (0, 0, 1, 1) if along == 0 else (1, 1, 0, 0))
            difference = torch.diff(padded, dim=along)
            psi[along] = q_half * psi[along] + a_half * difference
            inner = torch.diff(psi[along], dim=along)
            zeta[along] = q * zeta[along] + a * (torch.diff(difference, dim=along) + inner)
            around = around + inner + zeta[along]
        c, b = speed, loss
        if nonlinearity is not None and density is not None:
            c = speed + density * nonlinearity.speed_slope_m_per_s * u**2
            b = loss + density * nonlinearity.loss_per_s / (1 + (u / nonlinearity.saturation) ** 2)
        driven = torch.zeros(grid.shape, dtype=sources.dtype)
        places = (torch.tensor(source_cells[:, 0]), torch.tensor(source_cells[:, 1]))
        driven = driven.index_put(places, dt**2 * sources[:, n], accumulate=True)
        ratio = (c * dt / h) ** 2
        field, previous = (2 * u - (1 - b * dt) * previous + ratio * around) / (1 + b * dt), u
        field = field + speed**2 * driven / (1 + loss * dt)  # sources stand where the medium is linear
        out.append(torch.stack([field[i, j] for i, j in probe_cells.tolist()]))
    return torch.stack(out, dim=1)


def gradients(
    medium: Medium, sources: np.ndarray, source_cells: np.ndarray, probe_cells: np.ndarray, start: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Of sum(weights * traces), one sample: traces, and gradients by speed, density, sources, field and previous field."""
    held = {
        "speed": np.asarray(medium.speed_m_per_s),
        "sources": sources,
        "field": start[0],
        "previous": start[1],
    }
    if medium.nonlinearity is not None:
        held["density"] = np.asarray(medium.nonlinearity.density)
    tensors = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in held.items()}
    found = traces(
        medium,
        tensors["speed"],
        tensors.get("density"),
        tensors["sources"],
        source_cells,
        probe_cells,
        tensors["field"],
        tensors["previous"],
    )
    loss = torch.sum(torch.tensor(weights) * found)
    slopes = torch.autograd.grad(loss, list(tensors.values()))
    return {"traces": found.detach().numpy()} | {name: one.numpy() for name, one in zip(tensors, slopes, strict=True)}
