"""Dual propagation: backpropagation's errors as differences between two compartments of every node.

Every node of a clocked layered network is a dyad (s+, s-); see `inmaterio.learning_rules.dyads`. With bars for means and
u_k = W_{k+1}^T D_{k+1}, or feedback_{k+1} D_{k+1} where the network has couplings of their own for that,

    upwards        a_k = W_k sbar_{k-1} + b_k
    hidden layers  s+_k = f(a_k + c+ u_k),  s-_k = f(a_k - c- u_k)
    outputs        proximal: see `proximal_difference`;  linearised: D_L = -beta dC/ds at the free outputs
    estimates      g_W = -(1/beta) D_k (x) sbar_{k-1},  g_b = -(1/beta) D_k,  batch means

One sweep up with all differences zero, one sweep down: as many products as backpropagation, and no second phase, but the
substrate holds two states per node. Forward-backward rounds go on with sweeps up, of the means, and down.

At alpha = 1/2 one sweep is backpropagation with f'(a) d in place of f(a + d/2) - f(a - d/2): off by O(beta^2) for a smooth
response, exact for a rectifier as long as no kink lies between. At other alpha it is off by O(beta). The original variant is
unstable there: the means themselves move by O(beta), weights carry that on from layer to layer, and rounds diverge once they
amplify it.

A network that shares couplings, as a convolutional one does, offers ``Pullback``: then it forms the estimates itself, the sum
over all places where a coupling is met, and transposes whatever else stands between two layers, such as pooling, on the way
down.

Separate feedback either stays fixed, which aligns with nothing, or learns from the transposed estimate of its weights: then
W - B^T shrinks by 1 - rate x weight decay at each step of plain gradient descent (Kolen and Pollack 1994; Akrout et al., NeurIPS
2019), if both have the same rate.

Sources: those of `inmaterio.learning_rules.dyads`.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.learning_rules.contract import SETTLED, Batch, Diagnostics, Rule, Stateless, Update
from inmaterio.learning_rules.dyads import Dyads, check_dyads, proximal_difference, shares
from inmaterio.learning_rules.in_situ_adjoint import OPERATIONS
from inmaterio.learning_rules.optimisers import Diverged
from inmaterio.simulators.capabilities import LOSSES, Array, Estimate, Outer, Requirement, Samples, requires
from inmaterio.simulators.digital_twin import WORD_BYTES, loss_and_gradient

log = logging.getLogger(__name__)

REQUIRES: Mapping[str, Requirement] = {"substrate": requires("Forward", "Transpose", "Program", "monotone")}
DEFAULTS: Mapping[str, Any] = {
    "rates": 0.3,
    "loss": "mse",
    "alpha": 0.5,
    "variant": "lagrangian",
    "beta": 1.0,
    "output": "linearised",
    "schedule": "one-sweep",
    "rounds": None,
    "feedback_learning": "fixed",
    "allow_unstable": False,
}
PROGRAMS = False
OUTPUTS = ("linearised", "proximal")
SCHEDULES = {"one-sweep": 1, "forward-backward": 5}
"""Rounds of each schedule where none are given."""
FEEDBACK_LEARNING = ("fixed", "kolen-pollack")

RUNAWAY = 1e6
"""Change of a state in one round, in units of activity, beyond which the dyads are running away."""

State = Stateless


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyperparameters of one rule.

    Attributes
    ----------
    loss : str
        One of `capabilities.LOSSES`.
    alpha : float
        Weight of s+ in the mean, in [0, 1].
    variant : str
        One of `dyads.VARIANTS`.
    beta : float
        Strength of the nudge of each sample's own loss, > 0.
    output : str
        ``"linearised"``: the gradient of the loss at the free outputs, held through all rounds. ``"proximal"``: for loss mse,
        the outputs move with their nudge.
    rounds : int
        Sweeps up and down.
    plastic : bool
        Whether separate feedback learns.
    """

    loss: str
    alpha: float
    variant: str
    beta: float
    output: str
    rounds: int
    plastic: bool


@dataclass(frozen=True, slots=True, eq=False)
class Inference:
    """What one batch leaves in the network.

    Attributes
    ----------
    outputs : ndarray, shape (batch, outputs)
        Of the free pass.
    loss : float
        Mean loss there.
    hidden : tuple of Dyads
        Of each hidden layer.
    below : tuple of ndarray
        Mean states that drive layers 1..L: the inputs, then those of the hidden layers.
    differences : tuple of ndarray
        D of layers 1..L.
    residual : ndarray, shape (batch,)
        Largest change of a hidden state in the last round; 0 after a single one.
    """

    outputs: Array
    loss: float
    hidden: tuple[Dyads, ...]
    below: tuple[Array, ...]
    differences: tuple[Array, ...]
    residual: NDArray[np.float64]


def build(
    *,
    substrate: Any,
    loss: str = "mse",
    alpha: float = 0.5,
    variant: str = "lagrangian",
    beta: float = 1.0,
    output: str = "linearised",
    schedule: str = "one-sweep",
    rounds: int | None = None,
    feedback_learning: str = "fixed",
    allow_unstable: bool = False,
) -> Rule:
    """The rule on one substrate.

    Parameters
    ----------
    substrate : Substrate
        With what `REQUIRES` names; its outputs are linear.
    loss, alpha, variant, beta, output
        As in `Settings`.
    schedule : str
        ``"one-sweep"`` or ``"forward-backward"``.
    rounds : int, optional
        Of forward-backward: at least 1, which is one sweep; 5 where it is not given.
    feedback_learning : str
        ``"fixed"``, or ``"kolen-pollack"`` on a substrate with separate feedback.
    allow_unstable : bool
        Take the original variant at alpha other than 1/2, with a warning in the log.

    Raises
    ------
    InputError
        When the substrate lacks a capability or trait, or a hyperparameter is out of range or does not fit the others.
    """
    missing = REQUIRES["substrate"].missing(substrate)
    if missing:
        raise InputError(f"dual propagation cannot train this substrate: it {missing}")
    port = substrate.ports["output"]
    if (port.low, port.high) != (-np.inf, np.inf):
        raise InputError(f"outputs lie in [{port.low:g}, {port.high:g}]; expected linear outputs, which dual propagation nudges")
    check_name("loss", loss, LOSSES)
    check_dyads(variant, alpha, beta)
    check_name("output", output, OUTPUTS)
    check_name("schedule", schedule, SCHEDULES)
    check_name("feedback_learning", feedback_learning, FEEDBACK_LEARNING)
    number = check_range("rounds", SCHEDULES[schedule] if rounds is None else rounds, low=1)
    if schedule == "one-sweep" and number != 1:
        raise InputError(f"rounds is {number:g} for schedule 'one-sweep'; expected 1, or schedule 'forward-backward'")
    if output == "proximal":
        _check_proximal(loss, variant, alpha, beta)
    if feedback_learning != "fixed" and "Feedback" not in substrate.capabilities:
        raise InputError(
            f"feedback_learning is {feedback_learning!r}; expected 'fixed' for this substrate, which lacks capability Feedback"
        )
    if variant == "original" and alpha != 0.5:
        _check_unstable(alpha, allow_unstable)
    settings = Settings(loss, alpha, variant, beta, output, int(number), feedback_learning == "kolen-pollack")
    return Rule(init, partial(update, substrate, settings), partial(predict, substrate))


def _check_proximal(loss: str, variant: str, alpha: float, beta: float) -> None:
    if loss != "mse":
        raise InputError(f"output is 'proximal' for loss {loss!r}; expected loss 'mse', or output 'linearised'")
    minus = shares(variant, alpha)[1]
    if minus * beta >= 1.0:
        raise InputError(
            f"beta is {beta:g}, of which s- hears {minus:g}: their product is {minus * beta:g}; expected below 1, "
            "or a proximal output runs away from its target"
        )


def _check_unstable(alpha: float, allowed: bool) -> None:
    if not allowed:
        raise InputError(
            f"alpha is {alpha:g} for variant 'original', whose activities then move with the feedback and may diverge; "
            "expected 0.5, variant 'lagrangian', or allow_unstable true"
        )
    log.warning(
        "dual propagation: alpha is %g for variant 'original': activities move with the feedback, and rounds diverge where "
        "weights amplify that; variant 'lagrangian' does not have this instability",
        alpha,
    )


def init(key: Key) -> State:
    """No state is kept."""
    return Stateless()


def update(substrate: Any, settings: Settings, state: State, batch: Batch, key: Key) -> Update:
    """The sweeps of one batch, and products of the differences and means that they leave.

    Raises
    ------
    InputError
        When the batch does not fit the ports, or the dyads run away. `Diverged` when the network itself has.
    """
    found = infer(substrate, settings, batch, key)
    scale = -1.0 / settings.beta
    products = _local_products(substrate, found)
    estimates = {name: _times(scale, product) for name, product in products.items()}
    if settings.plastic:
        for name in (name for name in substrate.parameters if name.startswith("feedback_")):
            estimates[name] = _transposed(estimates[name.replace("feedback", "weight")])
    diagnostics = Diagnostics(found.loss, found.outputs, float(found.residual.max()), float(np.mean(found.residual > SETTLED)))
    return Update(state, estimates, diagnostics)


def _local_products(substrate: Any, found: Inference) -> Mapping[str, Estimate]:
    """Batch mean of (da_k/dtheta)^T D_k of every parameter: by the network where its couplings are shared, else here."""
    if "Pullback" in substrate.capabilities:
        states = (*found.below[1:], found.outputs)
        return substrate.pullback(found.below[0], states, found.differences)  # type: ignore[no-any-return]
    products: dict[str, Estimate] = {}
    for k, (difference, below) in enumerate(zip(found.differences, found.below, strict=True), start=1):
        products[f"weight_{k}"] = Outer(difference, below)
        if f"bias_{k}" in substrate.parameters:
            products[f"bias_{k}"] = difference.mean(axis=0)
    return products


def _times(factor: float, estimate: Estimate) -> Estimate:
    if isinstance(estimate, Outer):
        return Outer(estimate.left, estimate.right, factor * estimate.scale)
    return np.asarray(factor * estimate)


def _transposed(estimate: Estimate) -> Estimate:
    return Outer(estimate.right, estimate.left, estimate.scale) if isinstance(estimate, Outer) else np.array(estimate.T)


def predict(substrate: Any, state: State, inputs: Array, samples: Samples, key: Key) -> Array:
    """Outputs (batch, outputs) of one forward pass."""
    return substrate.forward(inputs, samples=samples, key=key)  # type: ignore[no-any-return]


def infer(substrate: Any, settings: Settings, batch: Batch, key: Key) -> Inference:
    """Free sweep up in phase ``free``; the nudge, the sweep down and all further rounds in phase ``nudged``.

    The first layer's drive depends on nothing but the inputs: it is measured once and held.

    Raises
    ------
    InputError
        As `update`.
    """
    layers = max(one.layer for one in substrate.parameters.values())
    port, samples, ledger = substrate.ports["output"], batch.samples, substrate.ledger
    targets = check_array("target", batch.targets, shape=(len(batch), port.size), unit=port.unit)
    # index k is layer k; drives[0] and differences[0] stay empty
    drives: list[Array] = [np.zeros(0)] * (layers + 1)
    means: list[Array] = [np.asarray(batch.inputs)] + [np.zeros(0)] * (layers - 1)
    feedback, differences = list(drives), list(drives)
    dyads: list[Dyads] = [Dyads(drives[0], drives[0])] * layers
    with ledger.phase("free"):
        free = key.at("free")
        for k in range(1, layers + 1):
            drives[k] = substrate.product(k, means[k - 1], samples=samples, key=free)
            _check_finite(f"drive of layer {k}", drives[k])
            if k < layers:
                means[k] = substrate.respond(k, drives[k])
    outputs = drives[layers]
    means[0] = np.asarray(batch.inputs, dtype=outputs.dtype)

    def hold(k: int) -> None:
        """Both compartments of layer k, its mean and its difference, for its present drive and feedback."""
        plus, minus = shares(settings.variant, settings.alpha)
        up, down = plus * feedback[k], minus * feedback[k]
        up += drives[k]
        np.subtract(drives[k], down, out=down)
        dyads[k] = Dyads(substrate.respond(k, up), substrate.respond(k, down))
        means[k], differences[k] = dyads[k].mean(settings.alpha), dyads[k].difference()
        # a + c+ u and a - c- u: two multiply-accumulates; the mean one and one operation; the difference one
        _count(ledger, macs=3 * up.size, operations=2 * up.size, words=8 * up.size)

    residual = np.zeros(len(batch))
    with ledger.phase("nudged"):
        loss, slope = loss_and_gradient(settings.loss, outputs, targets, port)
        differences[layers] = np.asarray(-settings.beta * slope, dtype=outputs.dtype)
        _count(ledger, macs=0, operations=(OPERATIONS[settings.loss] + 1) * outputs.size, words=3 * outputs.size)
        for turn in range(settings.rounds):
            sweep, before = key.at("nudged", turn), tuple(dyads)
            for k in range(2, layers + 1) if turn else ():
                drives[k] = substrate.product(k, means[k - 1], samples=samples, key=sweep)
                if k < layers:
                    hold(k)
            if settings.output == "proximal":
                pulled = proximal_difference(drives[layers], targets, settings.beta, *shares(settings.variant, settings.alpha))
                differences[layers] = np.asarray(pulled, dtype=outputs.dtype)
            for k in range(layers - 1, 0, -1):
                _check_finite(f"error of layer {k + 1}", differences[k + 1])
                feedback[k] = substrate.transposed_product(k + 1, differences[k + 1], samples=samples, key=sweep)
                hold(k)
            if turn and layers > 1:
                residual = np.max([now.moved(then) for now, then in zip(dyads[1:], before[1:], strict=True)], axis=0)
                _check_bounded(residual, turn, settings)
    return Inference(outputs, loss, tuple(dyads[1:]), tuple(means), tuple(differences[1:]), residual)


def _check_finite(name: str, values: Array) -> None:
    if not np.isfinite(values).all():
        raise Diverged(f"{name} is not finite everywhere; expected finite numbers; lower the learning rate")


def _check_bounded(residual: NDArray[np.float64], turn: int, settings: Settings) -> None:
    if not residual.max() < RUNAWAY:
        raise InputError(
            f"the dyads run away: a state moved by {residual.max():.3g} in round {turn + 1}; expected below {RUNAWAY:g}, "
            f"try fewer rounds, a beta below {settings.beta:g}, or variant 'lagrangian' at alpha 0 or 1"
        )


def _count(ledger: Any, *, macs: int, operations: int, words: int) -> None:
    """The host's work on the dyads."""
    for event, amount in (("mac_fp32", macs), ("alu_fp32", operations), ("byte_sram", WORD_BYTES * words)):
        ledger.count("host", "dyads", event, amount)
