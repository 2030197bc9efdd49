"""Three-factor learning of delays: a trace of how a spike's time of arrival moves the membrane, times a broadcast signal.

With s_i spikes of the sender, G' the derivative of a Gaussian of standard deviation sigma (steps), l the leak of the membrane,
psi the pseudo-derivative of the receiver's spikes and L its learning signal as in `e_prop`,

    d_ji[t] = l_j[t - 1] d_ji[t - 1] - weight_ji (G' * s_i)[t - delay_ji]       trace of dh_j[t] / d delay_ji
    g_ji    = mean over samples of sum_t L_j[t] F_kappa(psi_j d_ji)[t]          per step of delay

Weights and biases learn by e-prop in the same pass, unless ``weights`` is off. Everything a synapse needs is its own: its
weight, its delay, what arrives at it, what its neuron does, and one signal that is broadcast. A sharp spike has no slope; the
Gaussian gives it one, and lets a spike feel a signal up to 5 sigma away from where it arrives. sigma falls by the same factor at
each update, from `sigma_start` to `sigma_end` after a part `annealing` of them; the network itself always runs with sharp, whole
delays, rounded when they are written.

On a chip whose traces are words (`learning_engine`) what is smeared out is the trace, and the part of a Gaussian that lies before
the first step counts too; elsewhere nothing arrives before a sample begins.

It is the gradient that e-prop would take in a network whose synapses smear out spikes by G, at what the sharp network did. It
pulls arrivals to where the membrane is high when L is negative. Below threshold and at constant L the signal that meets a spike
is the membrane's correlation with the kernel of its leak, even in time about each arrival: a spike does not pull on itself.

Sources: the structure is that of Vassallo and TaheriNejad, arXiv:2601.00668 (2026), who put a Gaussian in the eligibility trace
alone; learning signals: Bellec et al., Nature Communications 11, 3625 (2020). Signs and sums were derived for this file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_range
from inmaterio.learning_rules.broadcast import Broadcast, Couplings, initial_couplings, next_couplings
from inmaterio.learning_rules.contract import Batch, Diagnostics, Rule, Update
from inmaterio.learning_rules.e_prop import Settings as Traces
from inmaterio.learning_rules.e_prop import check_settings, trace_signals
from inmaterio.learning_rules.eligibility import slope_reach
from inmaterio.learning_rules.learning_engine import count_learning, online_work
from inmaterio.learning_rules.schedules import Group
from inmaterio.learning_rules.spiking_measurement import bias_gradients, delay_gradients, measure, weight_gradients
from inmaterio.simulators.capabilities import Array, Requirement, Samples, requires

REQUIRES: Mapping[str, Requirement] = {"substrate": requires("Forward", "Spiking", "Program", "ReadBack")}
DEFAULTS: Mapping[str, Any] = {
    "rates": 0.005,
    "loss": "cross_entropy",
    "errors": "scores",
    "weights": True,
    "sigma_start": 0.0,
    "sigma_end": 0.5,
    "annealing": 0.5,
    "feedback": "symmetric",
    "feedback_rate": 0.01,
    "feedback_decay": 0.0,
    "surrogate": "triangle",
    "gamma": 0.3,
    "trace": "membrane",
    "engine": "host",
}
PROGRAMS = False

_DELAYS = Group(rate_factor=20.0, schedule="cosine", decayed=False)  # steps of delay are larger things than weights
GROUPS: Mapping[str, Group] = {"delay": _DELAYS, "recurrent_delay": _DELAYS}


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Couplings of the learning signal, as in `e_prop`; updates made, which say what sigma is."""

    couplings: Couplings = ()
    updates: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyperparameters of one rule.

    Attributes
    ----------
    traces : e_prop.Settings
        Those of the learning signal.
    weights : bool
        Whether weights and biases learn too.
    sigma_start, sigma_end : float
        Standard deviation of the Gaussian in the first update and at the end, steps. `sigma_start` 0 stands for half of the
        largest delay.
    annealing : float
        Part of the updates in which it falls.
    total_updates : int
        Of the whole training; a run says it by itself. 0: not known, and sigma stays what it is at the start.
    """

    traces: Traces
    weights: bool
    sigma_start: float
    sigma_end: float
    annealing: float
    total_updates: int

    def sigma(self, updates: int) -> float:
        """Steps, in the update after this many."""
        past = min(1.0, updates / max(1.0, self.annealing * self.total_updates)) if self.total_updates else 0.0
        return float(self.sigma_start * (self.sigma_end / self.sigma_start) ** past)


def build(
    *,
    substrate: Any,
    loss: str = "cross_entropy",
    errors: str = "scores",
    weights: bool = True,
    sigma_start: float = 0.0,
    sigma_end: float = 0.5,
    annealing: float = 0.5,
    total_updates: int = 0,
    feedback: str = "symmetric",
    feedback_rate: float = 0.01,
    feedback_decay: float = 0.0,
    surrogate: str = "triangle",
    gamma: float = 0.3,
    trace: str = "membrane",
    engine: str = "host",
) -> Rule:
    """The rule on one substrate; parameters as in `Settings` and in `e_prop.Settings`.

    Raises
    ------
    InputError
        When the substrate lacks a capability or has no delays, the outputs cannot have this loss or these errors, or a
        hyperparameter is out of range.
    """
    traces = check_settings(
        substrate,
        "three-factor delay learning",
        Traces(loss, errors, Broadcast(feedback, feedback_rate, feedback_decay), surrogate, gamma, trace, engine),
    )
    description = substrate.nominal()
    if description.delays == "none" or description.max_delay == 0:
        raise InputError(
            f"delays is {description.delays!r} with max_delay {description.max_delay}: there are no delays to learn; "
            "expected 'synaptic' or 'axonal' and a max_delay of at least 1 step"
        )
    check_range("sigma_end", sigma_end, low=0.0, low_open=True, high_open=True, unit="step")
    if sigma_start != 0.0:
        check_range("sigma_start", sigma_start, low=sigma_end, high_open=True, unit="step")
    check_range("annealing", annealing, low=0.0, high=1.0)
    check_range("total_updates", total_updates, low=0, unit="updates")
    first = float(sigma_start) or max(0.5 * description.max_delay, float(sigma_end))
    settings = Settings(traces, bool(weights), first, float(sigma_end), float(annealing), int(total_updates))
    return Rule(partial(init, description, feedback), partial(update, substrate, settings), partial(predict, substrate))


def init(description: Any, feedback: str, key: Key) -> State:
    """Couplings of the learning signal are drawn; no update has been made."""
    return State(initial_couplings(description, feedback, key))


def update(substrate: Any, settings: Settings, state: State, batch: Batch, key: Key) -> Update:
    """One run per sample in phase ``free``; estimates in phase ``backward``.

    Raises
    ------
    InputError
        When the batch does not fit the ports.
    """
    traces, on_chip = settings.traces, settings.traces.engine == "chip"
    measured = measure(substrate, batch, key, on_chip=on_chip)
    sigma = settings.sigma(state.updates)
    reach = slope_reach(sigma)
    signals = trace_signals(measured, traces, state.couplings, key, reach=reach)
    estimates, couplings = delay_gradients(measured, signals.sent, signals.met, sigma), state.couplings
    if settings.weights or traces.broadcast.feedback == "adaptive":
        of_weights = weight_gradients(measured, signals.sent, signals.met)
        couplings = next_couplings(traces.broadcast, couplings, of_weights, measured)
        if settings.weights:
            estimates |= of_weights | bias_gradients(measured, signals.accumulated)
    with substrate.ledger.phase("backward"):
        feedback = traces.broadcast.feedback
        weights = settings.weights or feedback == "adaptive"
        work = online_work(measured, traces, feedback, weights=weights, reach=reach) if on_chip else measured.work
        count_learning(substrate.ledger, traces.engine, work)
    return Update(State(couplings, state.updates + 1), estimates, Diagnostics(signals.loss, signals.scores))


def predict(substrate: Any, state: State, inputs: Array, samples: Samples, key: Key) -> Array:
    """Scores (batch, outputs) of one forward pass."""
    return substrate.forward(inputs, samples=samples, key=key)  # type: ignore[no-any-return]
