"""Learning signals: errors of the outputs, broadcast to every hidden neuron through couplings of their own.

    L_k,j[t] = sum_o B_k,jo a_o[t]        a_o[t] = E_o[t] + kappa a_o[t + 1]

with E the errors of the outputs, kappa the leak of their membranes. On a chip the low-pass by kappa stands on the eligibility
instead, in which time runs forwards: sum_t a[t] e[t] = sum_t E[t] (F_kappa e)[t].

    symmetric   B of the last hidden layer are the readout's own weights, a_o taken when a spike would arrive, at t + delay_oj; of
                layers below it the product of the weights between, without delays
    random      B drawn once, normal with standard deviation 1 / sqrt(width)
    adaptive    random to begin with; B of the last hidden layer then moves as the readout does, by the same estimate, and decays

Where the readout is changed by the same rate and decay, adaptive couplings become its weights; below, they stay random.

Sources: Bellec, Scherr, Subramoney, Hajek, Salaj, Legenstein and Maass, Nature Communications 11, 3625 (2020) (all three);
Kolen and Pollack, ICNN 1994 (adaptive).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.randomness import Key
from inmaterio.learning_rules.eligibility import spread_back
from inmaterio.learning_rules.spiking_measurement import Measured, projections
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.spiking_description import SpikingDescription

FEEDBACKS = ("symmetric", "random", "adaptive")

Couplings = tuple[NDArray[np.float64], ...]
"""B of every hidden layer, (width, outputs); none where they are the weights themselves."""


@dataclass(frozen=True, slots=True)
class Broadcast:
    """How errors reach hidden neurons.

    Attributes
    ----------
    feedback : str
        One of `FEEDBACKS`.
    rate, decay : float
        Of adaptive couplings, per update: B - rate (estimate of the readout's gradient)^T - decay B.
    """

    feedback: str
    rate: float
    decay: float


def initial_couplings(description: SpikingDescription, feedback: str, key: Key) -> Couplings:
    """B to begin with."""
    if feedback == "symmetric":
        return ()
    widths = description.layer_widths
    return tuple(
        key.at("feedback", k).generator().normal(scale=width**-0.5, size=(width, widths[-1]))
        for k, width in enumerate(widths[1:-1], 1)
    )


def learning_signals(measured: Measured, couplings: Couplings, arrived: Array) -> list[Array]:
    """L of every hidden layer, each (batch, steps, width).

    Parameters
    ----------
    measured : Measured
    couplings : tuple of ndarray
        B, or none for the weights themselves.
    arrived : ndarray, shape (batch, steps + pad, outputs)
        a.
    """
    forward, steps, kind = projections(measured.description), measured.steps, arrived.dtype
    found: list[Array] = []
    between: Array | None = None
    for k in range(measured.layers - 1, 0, -1):
        readout, lags = forward[k], 0
        if couplings:
            signal = arrived[:, :steps] @ couplings[k - 1].T.astype(kind)
        elif between is None:
            between, delays = measured.weights(readout), measured.delays(readout)
            signal = spread_back(arrived, between, delays, steps)
            lags = 0 if delays is None else delays.size
        else:
            weights = measured.weights(readout)
            product = between @ weights
            measured.work.add(macs=between.shape[0] * weights.size, words=between.size + weights.size + product.size)
            between = product
            signal = arrived[:, :steps] @ between
        # errors and couplings are read, and delays where they count; signals are stored
        size = signal.shape[0] * steps * arrived.shape[2] + signal.shape[2] * arrived.shape[2] + signal.size
        measured.work.add(macs=signal.size * arrived.shape[2], words=size + lags)
        found.insert(0, np.asarray(signal))
    return found


def next_couplings(broadcast: Broadcast, couplings: Couplings, estimates: Mapping[str, Array], measured: Measured) -> Couplings:
    """B after an update."""
    if broadcast.feedback != "adaptive" or not couplings:
        return couplings
    last = couplings[-1]
    moved = last - broadcast.rate * estimates[f"weight_{measured.layers}"].T - broadcast.decay * last
    measured.work.add(macs=2 * last.size, words=3 * last.size)
    return (*couplings[:-1], np.asarray(moved))
