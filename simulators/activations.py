"""Responses of a node to its drive, each with the energy whose gradient it inverts.

A node with response s = f(a) rests where its stored energy G balances its drive, G'(s) = a, with G' the inverse of f.
Slopes are given as functions of the *state* s, since that is what can be measured.

============  =======================  ===========================================  ==================
name          f(a)                     G(s)                                         f'(a) in terms of s
============  =======================  ===========================================  ==================
sigmoid       1 / (1 + exp(2 - 4 a))   s/2 + (s ln s + (1 - s) ln(1 - s)) / 4       4 s (1 - s)
hard-sigmoid  min(max(a, 0), 1)        s^2 / 2, s in [0, 1]                         1 inside, 0 at a bound
tanh          tanh(a)                  s artanh s + ln(1 - s^2) / 2                 1 - s^2
linear        a                        s^2 / 2                                      1
============  =======================  ===========================================  ==================

The sigmoid with slope 1 at a = 1/2 is the convention of Laborieux et al., Front. Neurosci. 15 (2021).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, expit

from inmaterio.simulators.capabilities import Array

SIGMOID, HARD_SIGMOID, TANH, LINEAR = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class Activation:
    """A response: its code in kernels and the range of its states."""

    name: str
    code: int
    low: float
    high: float

    def respond(self, drive: Array) -> Array:
        """f(a), any shape."""
        if self.code == SIGMOID:
            return np.asarray(expit(4.0 * drive - 2.0))
        if self.code == HARD_SIGMOID:
            return np.clip(drive, 0.0, 1.0)
        if self.code == TANH:
            return np.tanh(drive)
        return np.array(drive)

    def slope(self, state: Array) -> Array:
        """f'(a) at the drive that gives this state, any shape."""
        if self.code == SIGMOID:
            return np.asarray(4.0 * state * (1.0 - state))
        if self.code == HARD_SIGMOID:
            return np.asarray((state > 0.0) & (state < 1.0), dtype=state.dtype)
        if self.code == TANH:
            return np.asarray(1.0 - state**2)
        return np.ones_like(state)

    def stored_energy(self, state: NDArray[np.float64]) -> NDArray[np.float64]:
        """G(s) with G' = f^-1, any shape, dimensionless; infinite outside the range of f."""
        if self.code == SIGMOID:
            return np.asarray(0.5 * state - 0.25 * (entr(state) + entr(1.0 - state)))
        if self.code == TANH:
            # s artanh s + ln(1 - s^2)/2 = ((1 + s) ln(1 + s) + (1 - s) ln(1 - s)) / 2, finite at both ends
            return np.asarray(-0.5 * (entr(1.0 + state) + entr(1.0 - state)))
        energy = 0.5 * state**2
        return np.where((state < self.low) | (state > self.high), np.inf, energy)


ACTIVATIONS: Mapping[str, Activation] = {
    activation.name: activation
    for activation in (
        Activation("sigmoid", SIGMOID, 0.0, 1.0),
        Activation("hard-sigmoid", HARD_SIGMOID, 0.0, 1.0),
        Activation("tanh", TANH, -1.0, 1.0),
        Activation("linear", LINEAR, -np.inf, np.inf),
    )
}
"""Responses by name."""
