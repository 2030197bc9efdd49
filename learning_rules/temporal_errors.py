"""Errors of the outputs of a spiking network in every step: what a loss of the scores, or of each step, asks of the membranes.

With h_k[t] the membrane of output k of T steps, m the scores, y the target, and g = dC/dm: softmax(m) - y for the cross entropy,
m - y for mse (C = 1/2 |m - y|^2),

    scores, mean-membrane   m_k = mean_t h_k[t]                     E_k[t] = g_k / T
    scores, softmax-sum     m_k = sum_t p_k[t], p = softmax(h)      E_k[t] = p_k[t] (g_k - sum_c g_c p_c[t])
    scores, spike-count     m_k = sum_t s_k[t]                      E_k[t] = g_k, to be multiplied by ds_k/dh_k
    steps                   C = mean_t C(h[t])                      E_k[t] = (softmax(h[t]) - y)_k / T, or (h[t] - y)_k / T

The errors of the scores are known when a sample has ended; those of the steps in each of them, as e-prop and spatial learning
through time were published.
"""

import numpy as np
from numpy.typing import NDArray

from inmaterio.learning_rules.delta_rule import Readout, losses_and_error
from inmaterio.simulators.capabilities import Array

ERRORS = ("scores", "steps")
"""Of the loss of a sample's scores, or the mean over steps of the loss of the membranes in each."""


def score_errors(loss: str, scores: Array, targets: Array) -> tuple[float, NDArray[np.float64]]:
    """Mean loss of the scores, and g, shape (batch, outputs), of each sample's own."""
    losses, gradient = losses_and_error(Readout("", "", loss, loss == "cross_entropy"), scores, targets)
    return float(losses.mean()), gradient


def output_errors(readout: str, errors: str, loss: str, membranes: Array, gradient: Array, targets: Array) -> Array:
    """E, shape (batch, steps, outputs), in the membranes' dtype.

    Parameters
    ----------
    readout : str
        One of `inmaterio.simulators.spiking_description.READOUTS`.
    errors : str
        One of `ERRORS`; ``"steps"`` only where the outputs do not spike.
    loss : str
        ``"mse"`` or ``"cross_entropy"``.
    membranes : ndarray, shape (batch, steps, outputs)
    gradient, targets : ndarray, shape (batch, outputs)
        g and y.
    """
    steps = membranes.shape[1]
    if errors == "steps":
        found = (membranes if loss == "mse" else softmax(membranes)) - targets[:, None]
        return np.asarray(found / steps).astype(membranes.dtype)
    across = gradient[:, None]
    if readout == "softmax-sum":
        p = softmax(membranes)
        found = p * (across - np.sum(across * p, axis=2, keepdims=True))
    else:
        found = np.broadcast_to(across / steps if readout == "mean-membrane" else across, membranes.shape)
    return np.ascontiguousarray(found, dtype=membranes.dtype)


def error_operations(readout: str, errors: str, loss: str) -> int:
    """Operations that E takes per output and step: a softmax three, its derivative three, a difference or a scale one each."""
    if errors == "steps":
        return 5 if loss == "cross_entropy" else 2
    return 6 if readout == "softmax-sum" else 1


def softmax(values: Array) -> NDArray[np.float64]:
    """Over the last axis."""
    shifted = np.exp(np.subtract(values, values.max(axis=-1, keepdims=True), dtype=np.float64))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))
