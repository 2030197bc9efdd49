"""How the neurons of a chip differ from what they were meant to be: frozen errors of time constant, threshold and gain.

With n_1 ... n_3 standard normals of a neuron, drawn once per chip, a neuron that was meant to have time constant tau, threshold
theta and gain 1 has

    tau (1 + tau_spread n_1),   theta (1 + threshold_spread n_2),   1 + gain_spread n_3

each no smaller than 0. The leak per step is exp(-1/tau), with tau in steps: a leak of 0 has tau = 0 and stays as it is. A
neuron whose threshold became 0 fires at rest, one whose gain became 0 hears nothing. Some neurons, a given fraction on average,
are stuck: they never fire.

Mismatch of this form is what analog neurons are simulated with, for instance in Rockpool, whose default is a standard deviation
of 10 %.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.randomness import Key, normal_array, uniforms
from inmaterio.devices.validation import check_range

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class NeuronMismatch:
    """Relative standard deviations, and how many neurons are stuck. All zero by default.

    Attributes
    ----------
    tau_spread, threshold_spread, gain_spread : float
        Of each neuron's time constant, threshold and gain.
    stuck_fraction : float
        Probability of a neuron that it never fires, in [0, 1).

    Raises
    ------
    InputError
        When a value is out of its limits.
    """

    tau_spread: float = 0.0
    threshold_spread: float = 0.0
    gain_spread: float = 0.0
    stuck_fraction: float = 0.0

    def __post_init__(self) -> None:
        for name in ("tau_spread", "threshold_spread", "gain_spread"):
            check_range(name, getattr(self, name), low=0.0, high_open=True)
        check_range("stuck_fraction", self.stuck_fraction, low=0.0, high=1.0, high_open=True)

    def leaks(self, leak: float, count: int, key: Key) -> Float:
        """Leak of each neuron (count,), key being the chip's stream for a layer."""
        if self.tau_spread == 0.0 or leak == 0.0:
            return np.full(count, leak)
        taus = -_spread(1.0, self.tau_spread, count, key.at("tau")) / np.log(leak)
        with np.errstate(divide="ignore"):
            return np.asarray(np.exp(-1.0 / taus))

    def thresholds(self, threshold: float, count: int, key: Key) -> Float:
        """Threshold of each neuron (count,)."""
        return _spread(threshold, self.threshold_spread, count, key.at("threshold"))

    def gains(self, count: int, key: Key) -> Float:
        """Factor of each neuron's synaptic drive (count,)."""
        return _spread(1.0, self.gain_spread, count, key.at("gain"))

    def stuck(self, count: int, key: Key) -> NDArray[np.bool_]:
        """Which neurons never fire (count,)."""
        if self.stuck_fraction == 0.0:
            return np.zeros(count, dtype=bool)
        draws: NDArray[Any] = uniforms(key.at("stuck"), np.zeros(1, np.int64), count)[0]
        return np.asarray(draws < self.stuck_fraction)


def _spread(mean: float, deviation: float, count: int, key: Key) -> Float:
    if deviation == 0.0:
        return np.full(count, float(mean))
    return np.maximum(mean * (1.0 + deviation * normal_array(key, (count,))), 0.0)
