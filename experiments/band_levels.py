"""Levels of a sound in bands of frequency: what a digital machine would be fed with, beside a medium that hears the waveform."""

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.validation import InputError, check_array, check_range

Floats = NDArray[np.float64]

FLOOR = 1e-8
"""Power, relative to the whole of the sound, below which a band counts as silent: 80 dB."""


def band_levels(waves: Floats, bands: int) -> Floats:
    """Level of each of `bands` equally wide bands from zero to half the sampling rate, in decades of power.

    L_k = log10(sum over the band of |X_f|^2 / sum over all |X_f|^2), X the Fourier transform under a Hann window.

    Parameters
    ----------
    waves : ndarray, shape (n, samples)
    bands : int
        At least 2, and at most an eighth of the samples, so that each holds several frequencies.

    Returns
    -------
    ndarray, shape (n, bands)

    Raises
    ------
    InputError
        When there are too many bands for the samples, or a row is silent.
    """
    rows = np.asarray(check_array("waves", waves, shape=(None, None)), dtype=np.float64)
    check_range("bands", bands, low=2, high=rows.shape[1] // 8)
    power = np.abs(np.fft.rfft(rows * np.hanning(rows.shape[1]), axis=1)) ** 2
    whole = power.sum(axis=1, keepdims=True)
    if not np.all(whole > 0):
        raise InputError(f"row {int(np.argmin(whole))} is silent; expected sound to take levels of")
    edges = np.linspace(0, power.shape[1], bands + 1).astype(int)
    return np.asarray(np.log10(np.maximum(np.add.reduceat(power, edges[:-1], axis=1) / whole, FLOOR)))
