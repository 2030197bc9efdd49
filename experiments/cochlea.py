"""From sound to spikes: a small cochlea.

Per channel with centre frequency f, on the sound x[n] of sampling rate r, z_0 = x:

    z_k[n] = z_(k-1)[n] + p z_k[n - 1],  k = 1 ... 4,  p = exp(2 pi (-b + i f) / r)        gammatone filter of fourth order
    u[n] = u[n - 1] + (max(0, 2 (1 - |p|)^4 Re z_4[n]) - u[n - 1]) (1 - exp(-1 / (r s)))   inner hair cell: rectified, smoothed
    v[n] = v[n - 1] + (u[n]^(1/4) - v[n - 1]) (1 - exp(-1 / (r m)))                        nerve: compressed drive of a membrane
    spike and v = 0 where v[n] > threshold + a[n];  a decays by exp(-1 / (r c)) per sample and grows by `adaptation` per spike

with b = 1.019 ERB(f), ERB(f) = 24.7 Hz + 0.108 f, and centre frequencies at equal distances on the scale whose slope is 1 / ERB.
So a steady tone soon spikes at a low rate, and what begins spikes at once.

Sources: R. D. Patterson et al., "Complex sounds and auditory images", in Auditory Physiology and Perception (1992), for the
filter; V. Hohmann, Acta Acustica united with Acustica 88, 433 (2002), for its complex form; B. R. Glasberg, B. C. J. Moore,
Hear. Res. 47, 103 (1990), for ERB; rectification, smoothing and compression as in models of R. Meddis, J. Acoust. Soc. Am. 79,
702 (1986) and later, much simplified: the fourth root stands for the compression of the basilar membrane, and the adapting
threshold for the depletion of transmitter. Constants of the neuron are our choice.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inmaterio.devices.compilation import kernel
from inmaterio.devices.validation import InputError, check_array, check_range

Floats = NDArray[np.float64]


@kernel
def _hear(
    wave: Floats,
    poles: NDArray[np.complex128],
    smoothing: float,
    leak: float,
    recovery: float,
    threshold: float,
    adaptation: float,
    samples_per_step: float,
    counts: NDArray[np.int64],
) -> None:
    """Add the spikes of a wave to `counts`, shape (steps, channels); samples after the last step are not heard."""
    steps, channels = counts.shape
    for c in range(channels):
        pole = poles[c]
        rest = 1.0 - abs(pole)
        gain = 2.0 * rest * rest * rest * rest
        z1 = 0j
        z2 = 0j
        z3 = 0j
        z4 = 0j
        hair = 0.0
        membrane = 0.0
        raised = 0.0
        for n in range(wave.shape[0]):
            z1 = wave[n] + pole * z1
            z2 = z1 + pole * z2
            z3 = z2 + pole * z3
            z4 = z3 + pole * z4
            hair += (max(0.0, gain * z4.real) - hair) * smoothing
            # the fourth root as two square roots, which every machine rounds alike
            membrane += (np.sqrt(np.sqrt(hair)) - membrane) * leak
            raised *= recovery
            if membrane > threshold + raised:
                step = int(n / samples_per_step)
                if step < steps:
                    counts[step, c] += 1
                membrane = 0.0
                raised += adaptation


@dataclass(frozen=True, slots=True)
class Cochlea:
    """A cochlea and its nerve.

    Attributes
    ----------
    channels : int
    low_hz, high_hz : float
        Centre frequencies of the first and last channel.
    smoothing_s, membrane_s, recovery_s : float
        Time constants of the hair cell, the membrane and the adapting threshold.
    threshold : float
        In fourth roots of the sound's unit.
    adaptation : float
        What a spike adds to the threshold.

    Raises
    ------
    InputError
        When a number is out of range.
    """

    channels: int = 24
    low_hz: float = 120.0
    high_hz: float = 6000.0
    smoothing_s: float = 2e-3
    membrane_s: float = 5e-3
    recovery_s: float = 200e-3
    threshold: float = 0.3
    adaptation: float = 0.15

    def __post_init__(self) -> None:
        check_range("channels of the cochlea", self.channels, low=2, high=1000)
        check_range("lowest centre frequency", self.low_hz, low=20.0, high=self.high_hz, high_open=True, unit="Hz")
        for name in ("smoothing_s", "membrane_s", "recovery_s"):
            check_range(name, getattr(self, name), low=0.0, low_open=True, high_open=True, unit="s")
        check_range("threshold", self.threshold, low=0.0, low_open=True, high_open=True)
        check_range("adaptation", self.adaptation, low=0.0, high_open=True)

    def spikes(self, wave: ArrayLike, rate_hz: float, *, step_s: float, steps: int) -> NDArray[np.int64]:
        """Numbers of spikes of a sound.

        Parameters
        ----------
        wave : array_like, shape (samples,)
            Sound pressure; thresholds are for a mean square of 1.
        rate_hz : float
            Samples per second, more than twice the highest centre frequency.
        step_s : float
            Duration of a step, s.
        steps : int
            How many; the sound behind them is not heard.

        Returns
        -------
        ndarray of int64, shape (steps, channels)

        Raises
        ------
        InputError
            When the rate is too low or a number out of range.
        """
        sound = np.ascontiguousarray(check_array("sound", wave, shape=(None,)), dtype=np.float64)
        check_range("step", step_s, low=1.0 / check_range("sampling rate", rate_hz, low=1.0, unit="Hz"), high_open=True, unit="s")
        check_range("steps", steps, low=1)
        if rate_hz <= 2.0 * self.high_hz:
            raise InputError(
                f"sampling rate is {rate_hz:g} Hz for channels up to {self.high_hz:g} Hz; expected more than twice that"
            )
        centres = centre_frequencies(self.channels, self.low_hz, self.high_hz)
        poles = np.exp(2.0 * np.pi * (-1.019 * equivalent_rectangular_bandwidth(centres) + 1j * centres) / rate_hz)
        counts = np.zeros((steps, self.channels), np.int64)
        smoothing, leak = (-np.expm1(-1.0 / (rate_hz * one)) for one in (self.smoothing_s, self.membrane_s))
        recovery = np.exp(-1.0 / (rate_hz * self.recovery_s))
        _hear(sound, poles, smoothing, leak, recovery, self.threshold, self.adaptation, step_s * rate_hz, counts)
        return counts


def equivalent_rectangular_bandwidth(hertz: ArrayLike) -> Floats:
    """Bandwidth of the auditory filter at some frequencies, in hertz: 24.7 (4.37 f / kHz + 1)."""
    return np.asarray(24.7 * (4.37e-3 * np.asarray(hertz, dtype=np.float64) + 1.0))


def centre_frequencies(channels: int, low_hz: float, high_hz: float) -> Floats:
    """Frequencies at equal distances on the scale 21.4 log10(4.37 f / kHz + 1), shape (channels,), in hertz."""
    low, high = 21.4 * np.log10(4.37e-3 * np.array([low_hz, high_hz]) + 1.0)
    return np.asarray((10.0 ** (np.linspace(low, high, channels) / 21.4) - 1.0) / 4.37e-3)
