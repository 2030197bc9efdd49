"""Slow, obvious twin of simulators/diffraction.py: the Rayleigh-Sommerfeld integral of the first kind as a sum over pixels."""

import numpy as np


def rayleigh_sommerfeld(field: np.ndarray, pitch: float, wavelength: float, distance: float, points: np.ndarray) -> np.ndarray:
    """Field at `points` (n, 2), (y, x) in m from the middle of the window, a `distance` behind it."""
    k = 2.0 * np.pi / wavelength
    rows, columns = field.shape
    y = (np.arange(rows) - rows // 2) * pitch
    x = (np.arange(columns) - columns // 2) * pitch
    out = np.zeros(len(points), complex)
    for n, (at_y, at_x) in enumerate(points):
        r = np.sqrt((at_y - y[:, None]) ** 2 + (at_x - x[None, :]) ** 2 + distance**2)
        kernel = distance / r * (1.0 / r - 1j * k) * np.exp(1j * k * r) / (2.0 * np.pi * r)
        out[n] = np.sum(field * kernel) * pitch**2
    return out
