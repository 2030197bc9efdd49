"""Responses of a node to its drive, each with the energy whose gradient it inverts.

A node with response s = f(a) rests where its stored energy G balances its drive, G'(s) = a, with G' the inverse of f.
Slopes are given as functions of the *state* s, since that is what can be measured, and of the drive for all.

============  =======================  ===========================================  ==================
name          f(a)                     G(s)                                         f'(a) in terms of s
============  =======================  ===========================================  ==================
sigmoid       1 / (1 + exp(2 - 4 a))   s/2 + (s ln s + (1 - s) ln(1 - s)) / 4       4 s (1 - s)
hard-sigmoid  min(max(a, 0), 1)        s^2 / 2, s in [0, 1]                         1 inside, 0 at a bound
tanh          tanh(a)                  s artanh s + ln(1 - s^2) / 2                 1 - s^2
linear        a                        s^2 / 2                                      1
dsilu         a/2 l(a)                 none: f has no inverse                       none
              + (1 - a/2) l(a - 2)
============  =======================  ===========================================  ==================

with l(a) = 1 / (1 + exp(-a)). The sigmoid with slope 1 at a = 1/2 is the convention of Laborieux et al., Front. Neurosci. 15
(2021). dsilu is a smooth hard sigmoid, half the difference of two sigmoid-weighted units, of Laborieux and Zenke, NeurIPS
(2022); it dips below 0 on its way up from it and above 1 on its way to it, so that one state belongs to two drives. All but the
hard sigmoid are analytic, and their responses and slopes take complex drives and states.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, expit

from inmaterio.devices.validation import InputError
from inmaterio.simulators.capabilities import Array

SIGMOID, HARD_SIGMOID, TANH, LINEAR, DSILU = 0, 1, 2, 3, 4

DSILU_DIP = 0.08669632994251039
"""How far dsilu goes below 0, at a = -1.6689182178716, and above 1, at 2 - a, by its symmetry f(2 - a) = 1 - f(a)."""


@dataclass(frozen=True, slots=True)
class Activation:
    """A response: its code in kernels and the range of its states."""

    name: str
    code: int
    low: float
    high: float

    @property
    def analytic(self) -> bool:
        """Whether the response is a holomorphic function of its drive."""
        return self.code != HARD_SIGMOID

    @property
    def monotone(self) -> bool:
        """Whether the response never falls, so that the state tells the slope and there is a stored energy."""
        return self.code != DSILU

    def respond(self, drive: Array) -> Array:
        """f(a), any shape; complex where the drive is, unless it is the hard sigmoid."""
        if self.code == SIGMOID:
            return _logistic(4.0 * drive - 2.0)
        if self.code == HARD_SIGMOID:
            return np.clip(drive, 0.0, 1.0)
        if self.code == TANH:
            return np.tanh(drive)
        if self.code == DSILU:
            return np.asarray(0.5 * drive * _logistic(drive) + (1.0 - 0.5 * drive) * _logistic(drive - 2.0))
        return np.array(drive)

    def slope(self, state: Array) -> Array:
        """f'(a) at the drive that gives this state, any shape.

        Raises
        ------
        InputError
            When the state does not tell it: see `slope_at`.
        """
        if self.code == SIGMOID:
            return np.asarray(4.0 * state * (1.0 - state))
        if self.code == HARD_SIGMOID:
            return np.asarray((state > 0.0) & (state < 1.0), dtype=state.dtype)
        if self.code == TANH:
            return np.asarray(1.0 - state**2)
        if not self.monotone:
            raise InputError(f"activation {self.name!r} is not monotone: its slope is known from the drive, not from the state")
        return np.ones_like(state)

    def slope_at(self, drive: Array) -> Array:
        """f'(a) at this drive, any shape."""
        if self.code == HARD_SIGMOID:
            return np.asarray((drive > 0.0) & (drive < 1.0), dtype=drive.dtype)
        if self.code == DSILU:
            first, second = _logistic(drive), _logistic(drive - 2.0)
            rising = 0.5 * drive * first * (1.0 - first) + (1.0 - 0.5 * drive) * second * (1.0 - second)
            return np.asarray(0.5 * (first - second) + rising)
        return self.slope(self.respond(drive))

    def stored_energy(self, state: NDArray[np.float64]) -> NDArray[np.float64]:
        """G(s) with G' = f^-1, any shape, dimensionless; infinite outside the range of f.

        Raises
        ------
        InputError
            When f is not monotone and has no inverse.
        """
        if not self.monotone:
            raise InputError(
                f"activation {self.name!r} is not monotone: it has no inverse and no stored energy; expected another"
            )
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
        Activation("dsilu", DSILU, -DSILU_DIP, 1.0 + DSILU_DIP),
    )
}
"""Responses by name."""


def _logistic(drive: Array) -> Array:
    """1 / (1 + exp(-a)) of real or complex drives; exp never overflows."""
    if not np.iscomplexobj(drive):
        return np.asarray(expit(drive))
    falling = np.real(drive) < 0.0
    small = np.exp(np.where(falling, drive, -drive))
    return np.asarray(np.where(falling, small, 1.0) / (1.0 + small))
