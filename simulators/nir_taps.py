"""What a chain of linear maps and delays does, as taps: which sender reaches which receiver, how late, with what weight.

A tap is one path: receiver j gets weight x of sender i, so many steps late. A chain begins as the identity on its senders;
a `Delay` makes the taps of a row later, a `Linear` joins its weights with the taps of its columns.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.validation import InputError
from inmaterio.simulators.capabilities import Array


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """Paths from senders to receivers, and what receivers get besides.

    Attributes
    ----------
    rows, senders, steps : ndarray of int64, shape (paths,)
        Receiver, sender, and how many steps late.
    weights : ndarray of float64, shape (paths,)
    bias : ndarray of float64, shape (receivers,)
    """

    rows: NDArray[np.int64]
    senders: NDArray[np.int64]
    steps: NDArray[np.int64]
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]

    @classmethod
    def identity(cls, width: int) -> "Taps":
        """Every sender reaches a receiver of its own at once."""
        places = np.arange(width)
        return cls(places, places, np.zeros(width, dtype=np.int64), np.ones(width), np.zeros(width))

    def mapped(self, weight: Array, bias: Array | float) -> "Taps":
        """Followed by y = weight x + bias; weight (to, receivers). Weights of zero have no tap."""
        matrix = np.asarray(weight, dtype=np.float64)
        to, through = np.nonzero(matrix)
        order = np.argsort(self.rows, kind="stable")
        starts = np.searchsorted(self.rows[order], np.arange(len(self.bias) + 1))
        counts = np.diff(starts)[through]
        # every weight stands once for each tap of its column
        entry = np.repeat(np.arange(len(to)), counts)
        place = np.arange(len(entry)) - np.repeat(np.cumsum(counts) - counts, counts)
        tap = order[starts[through[entry]] + place]
        return Taps(
            to[entry],
            self.senders[tap],
            self.steps[tap],
            matrix[to[entry], through[entry]] * self.weights[tap],
            matrix @ self.bias + bias,
        )

    def scaled(self, scale: Array) -> "Taps":
        """Followed by y = scale * x; scale (receivers,)."""
        factor = np.asarray(scale, dtype=np.float64)
        return Taps(self.rows, self.senders, self.steps, factor[self.rows] * self.weights, factor * self.bias)

    def delayed(self, steps: NDArray[np.int64]) -> "Taps":
        """Followed by a delay of each receiver, shape (receivers,), in steps."""
        return Taps(self.rows, self.senders, self.steps + steps[self.rows], self.weights, self.bias)

    def beside(self, other: "Taps") -> "Taps":
        """Added to what other taps bring to the same receivers."""
        pairs = ((self.rows, other.rows), (self.senders, other.senders), (self.steps, other.steps))
        rows, senders, steps = (np.concatenate(pair) for pair in pairs)
        return Taps(rows, senders, steps, np.concatenate((self.weights, other.weights)), self.bias + other.bias)

    def matrices(self, senders: int, name: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Weights and delays in steps, (receivers, senders): one delay per pair; delay 0 where there is no weight.

        Raises
        ------
        InputError
            When a pair is joined by several delays.
        """
        shape = (len(self.bias), senders)
        weights, delays = np.zeros(shape), np.full(shape, -1, dtype=np.int64)
        np.maximum.at(delays, (self.rows, self.senders), self.steps)
        several = self.steps != delays[self.rows, self.senders]
        if several.any():
            first = int(np.argmax(several))
            to, sender = int(self.rows[first]), int(self.senders[first])
            met = sorted({int(one) for one in self.steps[(self.rows == to) & (self.senders == sender)]})
            raise InputError(
                f"{name}: sender {sender} reaches receiver {to} with delays of {met} steps; expected one per synapse"
            )
        np.add.at(weights, (self.rows, self.senders), self.weights)
        return weights, np.maximum(delays, 0)
