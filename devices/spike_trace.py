"""Traces of spikes in words of a few bits, as learning engines keep them beside synapses.

In whole levels, with s the spikes (or amplitudes) of a step and leak the factor from step to step,

    x[t] = min(2^bits - 1, R(leak x[t - 1]) + nearest whole number to impulse s[t])

R rounds at random, up with the probability of what is cut off: on average a trace decays as one without words, until it
saturates. Rounded to the nearest level it would stand still wherever a step takes off less than half of one.

Draws are made by step, sample and sender, and only where something is cut off: a trace is the same wherever its sample stands in
a batch. Source of traces of 7 bits with rounding at random: Davies et al., IEEE Micro 38, 82 (2018).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from inmaterio.devices.compilation import kernel
from inmaterio.devices.randomness import Key, uniform_block
from inmaterio.devices.validation import InputError, check_range


@kernel(parallel=True)
def _fill(
    spikes: NDArray[Any],
    samples: NDArray[np.int64],
    leak: float,
    impulse: float,
    most: float,
    k0: np.uint64,
    k1: np.uint64,
    out: NDArray[np.int32],
) -> None:
    """Levels of every step; arrays (batch, steps, senders)."""
    batch, steps, senders = spikes.shape
    for b in prange(batch):
        level = np.zeros(senders)
        for t in range(steps):
            for block in range((senders + 3) // 4):
                draws = uniform_block(k0, k1, block, t, samples[b])
                for i in range(4 * block, min(senders, 4 * block + 4)):
                    # in (floor, floor + 1) a draw below what is cut off rounds up
                    decayed = leak * level[i]
                    kept = np.floor(decayed)
                    if draws[i - 4 * block] < decayed - kept:
                        kept += 1.0
                    level[i] = min(most, kept + np.rint(impulse * spikes[b, t, i]))
                    out[b, t, i] = np.int32(level[i])


@dataclass(frozen=True, slots=True)
class SpikeTrace:
    """The words of traces.

    Attributes
    ----------
    bits : int
        1 to 16.
    impulse : int
        Levels that a spike adds, from 1 to 2^bits - 1.

    Raises
    ------
    InputError
        When a value is out of its limits.
    """

    bits: int
    impulse: int

    def __post_init__(self) -> None:
        check_range("trace bits", self.bits, low=1, high=16)
        check_range("trace impulse", self.impulse, low=1, high=2**self.bits - 1, unit="levels")
        for name, value in (("trace bits", self.bits), ("trace impulse", self.impulse)):
            if int(value) != value:
                raise InputError(f"{name} is {value}; expected a whole number")

    def traces(self, spikes: NDArray[Any], leak: float, *, samples: NDArray[np.int64], key: Key) -> NDArray[np.float64]:
        """Traces of all senders, in units of one spike.

        Parameters
        ----------
        spikes : ndarray, shape (batch, steps, senders)
            >= 0.
        leak : float
            In [0, 1).
        samples : ndarray of int64, shape (batch,)
            Index of each row in the data set.
        key : Key

        Returns
        -------
        ndarray of float64, shape (batch, steps, senders)
            Multiples of 1 / impulse, the spike of a step included.
        """
        out = np.empty(spikes.shape, np.int32)
        held = np.ascontiguousarray(samples, dtype=np.int64)
        k0, k1 = (np.uint64(word) for word in key.words())
        most = float(2**self.bits - 1)
        _fill(np.ascontiguousarray(spikes), held, float(leak), float(self.impulse), most, k0, k1, out)
        return out / float(self.impulse)
