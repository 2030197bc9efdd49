"""A slow, obvious twin of experiments/cochlea.py: each stage on the whole sound, filters by scipy."""

import numpy as np
from scipy.signal import lfilter

from inmaterio.experiments.cochlea import Cochlea, centre_frequencies, equivalent_rectangular_bandwidth


def basilar_membrane(wave: np.ndarray, rate_hz: float, centre_hz: float) -> np.ndarray:
    """Real part of a gammatone filter of fourth order, of gain 1 at its centre."""
    pole = np.exp(2 * np.pi * (1j * centre_hz - 1.019 * equivalent_rectangular_bandwidth(centre_hz)) / rate_hz)
    moved = wave.astype(complex)
    for _ in range(4):
        moved = lfilter([1.0], [1.0, -pole], moved)
    return 2 * (1 - abs(pole)) ** 4 * moved.real


def hair_cell(moved: np.ndarray, rate_hz: float, smoothing_s: float) -> np.ndarray:
    """Half-wave rectified and smoothed."""
    share = 1 - np.exp(-1 / (rate_hz * smoothing_s))
    return lfilter([share], [1.0, share - 1.0], np.maximum(moved, 0.0))


def spikes(cochlea: Cochlea, wave: np.ndarray, rate_hz: float, *, step_s: float, steps: int) -> np.ndarray:
    """Numbers of spikes, shape (steps, channels)."""
    counts = np.zeros((steps, cochlea.channels), int)
    for c, centre in enumerate(centre_frequencies(cochlea.channels, cochlea.low_hz, cochlea.high_hz)):
        drive = hair_cell(basilar_membrane(wave, rate_hz, centre), rate_hz, cochlea.smoothing_s) ** 0.25
        membrane, raised = 0.0, 0.0
        for n, one in enumerate(drive):
            membrane += (one - membrane) * (1 - np.exp(-1 / (rate_hz * cochlea.membrane_s)))
            raised *= np.exp(-1 / (rate_hz * cochlea.recovery_s))
            if membrane > cochlea.threshold + raised:
                if int(n / (step_s * rate_hz)) < steps:
                    counts[int(n / (step_s * rate_hz)), c] += 1
                membrane, raised = 0.0, raised + cochlea.adaptation
    return counts
