"""E-prop: eligibility traces of the synapses, times a learning signal that is broadcast to each neuron.

With psi_j the pseudo-derivative of a spike of neuron j, E_o[t] the error of output o (`temporal_errors`), kappa its leak,

    z_ji[t] = l_j[t - 1] z_ji[t - 1] + s_i[t - delay_ji]      presynaptic spikes, as held by the membrane
    e_ji[t] = psi_j[t] z_ji[t]                                eligibility
    L_j[t]  = sum_o B_jo E_o[t]                               learning signal, `broadcast`
    g_ji    = mean over samples of sum_t L_j[t] F_kappa(e_ji)[t],      F_kappa(e)[t] = kappa F_kappa(e)[t - 1] + e[t]
    readout   the same with psi = 1 and its own error
    bias      as a synapse whose sender spikes in every step

l_j is the leak of the membrane. With ``trace="membrane"`` a trace is emptied by a hard reset, as the membrane is; with
``"presynaptic"`` it never is, and is one per sender where there are no synaptic delays, as published. Synapses onto the same
layer learn alike; what a spike does through them later is not followed, nor through a reset. For one hidden layer and symmetric
feedback this is the gradient of backpropagation through time without these two paths.

A chip keeps a trace, a filtered eligibility and a sum per synapse, whatever the number of steps. Delays stay as they are.
Here the same sum is made in another order, from the record: see `eligibility`.

Source: Bellec, Scherr, Subramoney, Hajek, Salaj, Legenstein and Maass, Nature Communications 11, 3625 (2020).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import check_name, check_range
from inmaterio.learning_rules.broadcast import (
    FEEDBACKS,
    Broadcast,
    Couplings,
    initial_couplings,
    learning_signals,
    next_couplings,
)
from inmaterio.learning_rules.contract import Batch, Diagnostics, Rule, Update
from inmaterio.learning_rules.eligibility import SURROGATES, accumulate
from inmaterio.learning_rules.spiking_measurement import (
    Measured,
    Work,
    check_spiking,
    driven,
    measure,
    membrane_factors,
    projections,
    sender_events,
    slopes,
    weight_gradients,
)
from inmaterio.learning_rules.temporal_errors import output_errors, score_errors
from inmaterio.simulators.capabilities import Array, Requirement, Samples, requires

REQUIRES: Mapping[str, Requirement] = {"substrate": requires("Forward", "Spiking", "Program", "ReadBack")}
DEFAULTS: Mapping[str, Any] = {
    "rates": 0.005,
    "loss": "cross_entropy",
    "errors": "scores",
    "feedback": "symmetric",
    "feedback_rate": 0.01,
    "feedback_decay": 0.0,
    "surrogate": "triangle",
    "gamma": 0.3,
    "trace": "membrane",
    "engine": "host",
}
PROGRAMS = False

TRACES = ("membrane", "presynaptic")


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Couplings of the learning signal, per hidden layer (width, outputs); none where they are the weights themselves."""

    couplings: Couplings = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyperparameters of one rule.

    Attributes
    ----------
    loss : str
        ``"mse"`` or ``"cross_entropy"``.
    errors : str
        One of `temporal_errors.ERRORS`.
    broadcast : Broadcast
    surrogate : str
        One of `eligibility.SURROGATES`.
    gamma : float
        Height of the triangle.
    trace : str
        One of `TRACES`.
    engine : str
        One of `spiking_measurement.ENGINES`: whose work is counted.
    """

    loss: str
    errors: str
    broadcast: Broadcast
    surrogate: str
    gamma: float
    trace: str
    engine: str


class Signals(NamedTuple):
    """What meets the traces: of layers 1, 2, ..., L (batch, steps + pad, width); loss and scores in the order of the batch."""

    layers: list[Array]
    loss: float
    scores: Array


def build(
    *,
    substrate: Any,
    loss: str = "cross_entropy",
    errors: str = "scores",
    feedback: str = "symmetric",
    feedback_rate: float = 0.01,
    feedback_decay: float = 0.0,
    surrogate: str = "triangle",
    gamma: float = 0.3,
    trace: str = "membrane",
    engine: str = "host",
) -> Rule:
    """The rule on one substrate; parameters as in `Settings`, those of the feedback as in `broadcast.Broadcast`.

    Raises
    ------
    InputError
        When the substrate lacks a capability, the outputs cannot have this loss or these errors, or a hyperparameter is out of
        range.
    """
    settings = check_settings(
        substrate,
        "e-prop",
        Settings(loss, errors, Broadcast(feedback, feedback_rate, feedback_decay), surrogate, gamma, trace, engine),
    )
    return Rule(partial(init, substrate.nominal(), feedback), partial(update, substrate, settings), partial(predict, substrate))


def check_settings(substrate: Any, rule: str, settings: Settings) -> Settings:
    """Return settings that a rule of this kind can have on this substrate.

    Raises
    ------
    InputError
        As `build`.
    """
    check_spiking(substrate, REQUIRES["substrate"], rule, loss=settings.loss, errors=settings.errors, engine=settings.engine)
    check_name("feedback", settings.broadcast.feedback, FEEDBACKS)
    check_range("feedback_rate", settings.broadcast.rate, low=0.0, high_open=True)
    check_range("feedback_decay", settings.broadcast.decay, low=0.0, high=1.0)
    check_name("surrogate", settings.surrogate, SURROGATES)
    check_range("gamma", settings.gamma, low=0.0, low_open=True, high_open=True)
    check_name("trace", settings.trace, TRACES)
    return settings


def init(description: Any, feedback: str, key: Key) -> State:
    """Couplings of the learning signal are drawn."""
    return State(initial_couplings(description, feedback, key))


def update(substrate: Any, settings: Settings, state: State, batch: Batch, key: Key) -> Update:
    """One run per sample in phase ``free``; estimates in phase ``backward``.

    Raises
    ------
    InputError
        When the batch does not fit the ports.
    """
    measured = measure(substrate, batch, key)
    signals = trace_signals(measured, settings, state.couplings)
    estimates = weight_gradients(measured, sender_events(measured), signals.layers)
    with substrate.ledger.phase("backward"):
        (measured.work if settings.engine == "host" else online_work(measured, settings)).count(substrate.ledger, settings.engine)
    couplings = next_couplings(settings.broadcast, state.couplings, estimates, measured.layers)
    return Update(State(couplings), estimates, Diagnostics(signals.loss, signals.scores))


def trace_signals(measured: Measured, settings: Settings, couplings: Couplings) -> Signals:
    """a_j[t] = L_j[t] psi_j[t] + l_j[t] a_j[t + 1], L filtered by kappa, of every layer."""
    loss, gradient = score_errors(settings.loss, measured.scores, measured.targets)
    membranes, last = measured.membranes[-1], measured.layers
    found = output_errors(measured.description.readout, settings.errors, settings.loss, membranes, gradient, measured.targets)
    measured.work.operations += 3 * found.size
    arrived = _accumulated(measured, settings, last, found)
    signals = [
        _accumulated(measured, settings, k, signal) for k, signal in enumerate(learning_signals(measured, couplings, arrived), 1)
    ]
    return Signals([*signals, arrived], loss, measured.unsorted(measured.scores))


def online_work(measured: Measured, settings: Settings, *, delays: bool = False) -> Work:
    """What a learning engine beside the synapses takes for a batch while the network runs.

    Per sample and step: an error per output (3 operations), a learning signal per neuron (a product per output), a
    pseudo-derivative per neuron (3 operations); per synapse the eligibility, its low-pass and its product with the learning
    signal (a multiply-accumulate each), and its trace, where one per sender does not do. With `delays` a second set of these.
    A word is read and stored for each that is kept: trace, filtered eligibility and sum.
    """
    description, samples = measured.description, len(measured.scores) * measured.steps
    outputs, neurons = measured.scores.shape[1], sum(one.shape[2] for one in measured.membranes)
    synapses = sum(measured.held[one.weight].size for one in projections(description))
    own = description.delays == "synaptic" or (description.reset == "hard" and settings.trace == "membrane")
    traces = synapses if own else sum(one.shape[2] for one in measured.senders)
    sets = 2 if delays else 1
    return Work(
        macs=samples * (sets * (3 * synapses + traces) + outputs * (neurons - outputs)),
        operations=samples * 3 * (neurons + outputs),
        words=samples * sets * 2 * (2 * synapses + traces),
    )


def predict(substrate: Any, state: State, inputs: Array, samples: Samples, key: Key) -> Array:
    """Scores (batch, outputs) of one forward pass."""
    return substrate.forward(inputs, samples=samples, key=key)  # type: ignore[no-any-return]


def _accumulated(measured: Measured, settings: Settings, layer: int, signal: Array) -> Array:
    if measured.spiking(layer):
        signal = signal * slopes(measured, layer, settings.surrogate, settings.gamma)
        measured.work.macs += signal.size
    factors = membrane_factors(measured, layer, emptied=settings.trace == "membrane")
    measured.work.macs += signal.size
    measured.work.words += 3 * signal.size
    return driven(measured, layer, accumulate(np.ascontiguousarray(signal), factors, measured.pad))
