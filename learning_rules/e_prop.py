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
Here the same sum is made in another order, from the record: see `eligibility`. With ``engine="chip"`` the work counted is that of
a learning engine on the chip, its traces are words where the chip's are, and settings that it could not run are refused:
`learning_engine`.

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
from inmaterio.learning_rules.eligibility import SURROGATES, Events, accumulate, padded
from inmaterio.learning_rules.learning_engine import check_engine, count_learning, find_traced, online_work
from inmaterio.learning_rules.spiking_measurement import (
    Measured,
    bias_gradients,
    check_spiking,
    driven,
    find_sent,
    measure,
    membrane_factors,
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
        One of `learning_engine.ENGINES`: whose work is counted.
    """

    loss: str
    errors: str
    broadcast: Broadcast
    surrogate: str
    gamma: float
    trace: str
    engine: str


class Signals(NamedTuple):
    """What the neurons have to say; loss and scores in the order of the batch.

    Attributes
    ----------
    sent : mapping of str to Events
        What meets the signals at each projection: spikes, or traces of a chip that has words for them.
    met : list of ndarray, each (batch, steps + pad, width)
        Of layers 1, 2, ..., L: what it meets, a_j[t] = L_j[t] psi_j[t] + l_j[t] a_j[t + 1] for spikes, L psi for traces.
    accumulated : list of ndarray
        a of every layer.
    loss : float
    scores : ndarray
    """

    sent: Mapping[str, Events]
    met: list[Array]
    accumulated: list[Array]
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
    check_spiking(substrate, REQUIRES["substrate"], rule, loss=settings.loss, errors=settings.errors)
    feedback = check_name("feedback", settings.broadcast.feedback, FEEDBACKS)
    check_range("feedback_rate", settings.broadcast.rate, low=0.0, high_open=True)
    check_range("feedback_decay", settings.broadcast.decay, low=0.0, high=1.0)
    check_name("surrogate", settings.surrogate, SURROGATES)
    check_range("gamma", settings.gamma, low=0.0, low_open=True, high_open=True)
    check_name("trace", settings.trace, TRACES)
    check_engine(substrate, settings.engine, errors=settings.errors, feedback=feedback, trace=settings.trace)
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
    on_chip = settings.engine == "chip"
    measured = measure(substrate, batch, key, on_chip=on_chip)
    signals = trace_signals(measured, settings, state.couplings, key)
    estimates = weight_gradients(measured, signals.sent, signals.met) | bias_gradients(measured, signals.accumulated)
    couplings = next_couplings(settings.broadcast, state.couplings, estimates, measured)
    with substrate.ledger.phase("backward"):
        work = online_work(measured, settings, settings.broadcast.feedback) if on_chip else measured.work
        count_learning(substrate.ledger, settings.engine, work)
    return Update(State(couplings), estimates, Diagnostics(signals.loss, signals.scores))


def trace_signals(measured: Measured, settings: Settings, couplings: Couplings, key: Key, *, reach: int = 0) -> Signals:
    """What the spikes or traces of every projection meet at the neurons, L filtered by kappa; traces `reach` steps longer."""
    loss, gradient = score_errors(settings.loss, measured.scores, measured.targets)
    membranes, last = measured.membranes[-1], measured.layers
    found = output_errors(measured.description.readout, settings.errors, settings.loss, membranes, gradient, measured.targets)
    # membranes are read, errors stored
    each = error_operations(measured.description.readout, settings.errors, settings.loss)
    measured.work.add(operations=each * found.size, words=2 * found.size)
    arrived = _accumulated(measured, settings, last, _sloped(measured, settings, last, found))
    direct = [
        _sloped(measured, settings, k, signal) for k, signal in enumerate(learning_signals(measured, couplings, arrived), 1)
    ]
    accumulated = [*(_accumulated(measured, settings, k, signal) for k, signal in enumerate(direct, 1)), arrived]
    scores = measured.unsorted(measured.scores)
    if settings.engine == "chip" and measured.description.trace_bits is not None:
        met = [padded(one, measured.pad + reach) for one in (*direct, found)]
        return Signals(find_traced(measured, key, reach=reach), met, accumulated, loss, scores)
    return Signals(find_sent(measured), accumulated, accumulated, loss, scores)


def predict(substrate: Any, state: State, inputs: Array, samples: Samples, key: Key) -> Array:
    """Scores (batch, outputs) of one forward pass."""
    return substrate.forward(inputs, samples=samples, key=key)  # type: ignore[no-any-return]


def _sloped(measured: Measured, settings: Settings, layer: int, signal: Array) -> Array:
    """Times psi, where the neurons spike."""
    if not measured.spiking(layer):
        return signal
    measured.work.add(macs=signal.size)
    return signal * slopes(measured, layer, settings.surrogate, settings.gamma)


def _accumulated(measured: Measured, settings: Settings, layer: int, signal: Array) -> Array:
    """a[t] = signal[t] + l[t] a[t + 1]: read and stored in the same stage as the slope is taken."""
    factors = membrane_factors(measured, layer, emptied=settings.trace == "membrane")
    measured.work.add(macs=signal.size, words=2 * signal.size)
    return driven(measured, layer, accumulate(np.ascontiguousarray(signal), factors, measured.pad))
