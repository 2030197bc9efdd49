"""Spatial learning through time (SLTT): errors run back through the layers, not through the membranes.

With psi the pseudo-derivative of a spike, h membranes and E[t] the error of the outputs in step t (`temporal_errors`),

    delta_L[t] = E[t]                                                             (times psi_L[t] where outputs spike)
    delta_k,i[t] = psi_k,i[t] sum_j weight_ji delta_k+1,j[t + delay_ji]
    g_weight_k = mean over samples of sum_t delta_k[t] (x) s_k-1[t - delay]       g_bias_k = mean of sum_t delta_k[t]

This is the gradient of the loss with v[t - 1] taken as given in every neuron, and what recurrent synapses carry too. Memory for
it does not grow with the number of steps where there are no delays; with delays the errors are held for as many steps as the
largest. Delays stay as they are. K random steps of T (SLTT-K): errors of the others are zero, those of the K times T / K.

The rule is local in time and not in space: errors need the transposed weights, which the host reads back in every update.

Source: Meng, Xiao, Yan, Wang, Lin and Luo, ICCV 2023, arXiv:2302.14311.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_name, check_range
from inmaterio.learning_rules.contract import Batch, Diagnostics, Rule, Stateless, Update
from inmaterio.learning_rules.eligibility import SURROGATES, padded, spread_back
from inmaterio.learning_rules.learning_engine import count_learning
from inmaterio.learning_rules.spiking_measurement import (
    Measured,
    bias_gradients,
    check_spiking,
    driven,
    find_sent,
    measure,
    projections,
    slopes,
    weight_gradients,
)
from inmaterio.learning_rules.temporal_errors import error_operations, output_errors, score_errors
from inmaterio.simulators.capabilities import Array, Requirement, Samples, requires

REQUIRES: Mapping[str, Requirement] = {"substrate": requires("Forward", "Spiking", "Program", "ReadBack")}
DEFAULTS: Mapping[str, Any] = {
    "rates": 0.005,
    "loss": "cross_entropy",
    "errors": "scores",
    "surrogate": "arctangent",
    "gamma": 1.0,
    "random_steps": 0,
}
PROGRAMS = False

State = Stateless


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyperparameters of one rule.

    Attributes
    ----------
    loss : str
        ``"mse"`` or ``"cross_entropy"``.
    errors : str
        One of `temporal_errors.ERRORS`.
    surrogate : str
        One of `eligibility.SURROGATES`.
    gamma : float
        Height of the triangle.
    random_steps : int
        K; 0 for all steps.
    """

    loss: str
    errors: str
    surrogate: str
    gamma: float
    random_steps: int


def build(
    *,
    substrate: Any,
    loss: str = "cross_entropy",
    errors: str = "scores",
    surrogate: str = "arctangent",
    gamma: float = 1.0,
    random_steps: int = 0,
) -> Rule:
    """The rule on one substrate; parameters as in `Settings`.

    Raises
    ------
    InputError
        When the substrate lacks a capability, the outputs cannot have this loss or these errors, or a hyperparameter is out of
        range.
    """
    check_spiking(substrate, REQUIRES["substrate"], "spatial learning through time", loss=loss, errors=errors)
    check_name("surrogate", surrogate, SURROGATES)
    check_range("gamma", gamma, low=0.0, low_open=True, high_open=True)
    check_range("random_steps", random_steps, low=0, high=substrate.nominal().total_steps, unit="step")
    if int(random_steps) != random_steps:
        raise InputError(f"random_steps is {random_steps}; expected a whole number")
    settings = Settings(loss, errors, surrogate, float(gamma), int(random_steps))
    return Rule(init, partial(update, substrate, settings), partial(predict, substrate))


def init(key: Key) -> State:
    """No state is kept."""
    return Stateless()


def update(substrate: Any, settings: Settings, state: State, batch: Batch, key: Key) -> Update:
    """One run per sample in phase ``free``; errors and estimates by the host in phase ``backward``.

    Raises
    ------
    InputError
        When the batch does not fit the ports.
    """
    measured = measure(substrate, batch, key)
    loss, gradient = score_errors(settings.loss, measured.scores, measured.targets)
    found = output_errors(
        measured.description.readout, settings.errors, settings.loss, measured.membranes[-1], gradient, measured.targets
    )
    # membranes are read, errors stored
    each = error_operations(measured.description.readout, settings.errors, settings.loss)
    measured.work.add(operations=each * found.size, words=2 * found.size)
    if settings.random_steps:
        found = _sampled(found, settings.random_steps, key)
    signals = layer_errors(measured, found, settings)
    estimates = weight_gradients(measured, find_sent(measured), signals) | bias_gradients(measured, signals)
    with substrate.ledger.phase("backward"):
        count_learning(substrate.ledger, "host", measured.work)
    return Update(state, estimates, Diagnostics(loss, measured.unsorted(measured.scores)))


def layer_errors(measured: Measured, errors: Array, settings: Settings) -> list[Array]:
    """delta of layers 1, 2, ..., L, each (batch, steps + pad, width), from the outputs' errors (batch, steps, outputs)."""
    if measured.description.spiking_outputs:
        errors = errors * slopes(measured, measured.layers, settings.surrogate, settings.gamma)
        measured.work.add(macs=errors.size, words=2 * errors.size)
    deltas = [driven(measured, measured.layers, errors)]
    forward = projections(measured.description)
    for k in range(measured.layers - 1, 0, -1):
        projection = forward[k]
        delays, weights = measured.delays(projection), measured.weights(projection)
        back = spread_back(deltas[0], weights, delays, measured.steps)
        # errors are read with weights and delays, what comes of them is stored; slopes read membranes
        # a product for every error, or, through delays, for those that are not zero
        products = (deltas[0].size if delays is None else int(np.count_nonzero(deltas[0]))) * back.shape[2]
        words = deltas[0].size + weights.size + (0 if delays is None else delays.size) + back.size
        measured.work.add(macs=products + back.size, words=words)
        deltas.insert(0, back * slopes(measured, k, settings.surrogate, settings.gamma))
    return [padded(one, measured.pad) for one in deltas]


def predict(substrate: Any, state: State, inputs: Array, samples: Samples, key: Key) -> Array:
    """Scores (batch, outputs) of one forward pass."""
    return substrate.forward(inputs, samples=samples, key=key)  # type: ignore[no-any-return]


def _sampled(errors: Array, count: int, key: Key) -> Array:
    """Errors of some steps, the same of all samples, weighted so that their mean over draws is that of all steps."""
    steps = errors.shape[1]
    chosen = key.at("steps").generator().choice(steps, count, replace=False)
    kept = np.zeros_like(errors)
    kept[:, chosen] = errors[:, chosen] * errors.dtype.type(steps / count)
    return kept
