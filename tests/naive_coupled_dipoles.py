"""Slow, obvious twins of simulators/coupled_dipoles.py: Bessel functions by quadrature, W element by element."""

import numpy as np
from scipy.integrate import quad


def bessel_j0(x: float) -> float:
    """Mean of cos(x sin t) over a half turn."""
    return quad(lambda t: np.cos(x * np.sin(t)), 0.0, np.pi, epsabs=1e-13)[0] / np.pi


def bessel_y0(x: float) -> float:
    """4/pi^2 times the integral of cos(x cos t) (Euler's gamma + ln(2 x sin^2 t)) over a quarter turn."""
    smooth = quad(lambda t: np.cos(x * np.cos(t)) * (np.euler_gamma + np.log(2.0 * x)), 0.0, np.pi / 2, epsabs=1e-13)[0]
    singular = quad(lambda t: np.cos(x * np.cos(t)) * 2.0 * np.log(np.sin(t)), 0.0, np.pi / 2, epsabs=1e-12, limit=200)[0]
    return 4.0 / np.pi**2 * (smooth + singular)


def interaction(
    places: np.ndarray, resonance: np.ndarray, strength: np.ndarray, loss: np.ndarray, frequency: float, speed: float
) -> np.ndarray:
    """W, from the formulas as they are printed."""
    k = 2.0 * np.pi * frequency / speed
    w = np.zeros((len(places), len(places)), complex)
    for i in range(len(places)):
        for j in range(len(places)):
            if i == j:
                real = ((2.0 * np.pi * resonance[i]) ** 2 - (2.0 * np.pi * frequency) ** 2) / strength[i] ** 2
                w[i, j] = real + 1j * (k**2 / 4.0 + 2.0 * np.pi * frequency * loss[i] / strength[i] ** 2)
            else:
                r = k * np.sqrt((places[i, 0] - places[j, 0]) ** 2 + (places[i, 1] - places[j, 1]) ** 2)
                w[i, j] = 1j * k**2 / 4.0 * (bessel_j0(r) - 1j * bessel_y0(r))
    return w
