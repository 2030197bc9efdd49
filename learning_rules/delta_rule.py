"""The delta rule: the last linear map learns from the error behind it and the activity before it; nothing else learns.

With z what is measured before the readout o = W z + b and e the error of its outputs,

    g_W = mean e (x) z,   g_b = mean e

    mse              e = o - y
    cross_entropy    e = softmax(o) - y   unbounded outputs, read as logits: logistic regression
                     e = o - y            outputs in [0, 1], read as probabilities of logistic units

These are the gradients of the loss for a readout that is linear (mse) or whose link is that of its loss (cross entropy), and
that does not act back on z. Elsewhere the rule knows no slope and no feedback, and its estimate is only what it is.

Sources: Widrow and Hoff, IRE WESCON Convention Record 4, 96 (1960) (mse); Bishop, Pattern Recognition and Machine Learning
(2006), section 4.3 (softmax).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_array, check_name
from inmaterio.learning_rules.contract import Batch, Diagnostics, Rule, Stateless, Update
from inmaterio.simulators.capabilities import LOSSES, Array, Estimate, Outer, Port, Requirement, Samples, requires
from inmaterio.simulators.fixed_point import loss_values

REQUIRES: Mapping[str, Requirement] = {"substrate": requires("Forward", "ReadStates", "Program")}
DEFAULTS: Mapping[str, Any] = {"rates": 0.1, "loss": "mse"}
PROGRAMS = False

State = Stateless


@dataclass(frozen=True, slots=True)
class Readout:
    """What the rule trains, and on what loss.

    Attributes
    ----------
    weight : str
        Name of the coupling to the outputs.
    bias : str
        Name of their bias; empty when there is none.
    loss : str
        One of `capabilities.LOSSES`.
    softmax : bool
        Whether the error is that of the softmax of the outputs.
    """

    weight: str
    bias: str
    loss: str
    softmax: bool


def build(*, substrate: Any, loss: str = "mse") -> Rule:
    """The rule on one substrate.

    Parameters
    ----------
    substrate : Substrate
        With ``Forward``, ``ReadStates`` and ``Program``, and one coupling that drives its outputs (`Parameter.readout`).
    loss : str
        ``"mse"`` or ``"cross_entropy"``.

    Raises
    ------
    InputError
        When the substrate lacks a capability or has no such coupling, the loss is unknown, or cross entropy is asked of
        outputs that are neither probabilities nor logits.
    """
    missing = REQUIRES["substrate"].missing(substrate)
    if missing:
        raise InputError(f"the delta rule cannot train this substrate: it {missing}")
    check_name("loss", loss, LOSSES)
    output: Port = substrate.ports["output"]
    softmax = loss == "cross_entropy" and output.low == -np.inf and output.high == np.inf
    if loss == "cross_entropy" and not softmax and (output.low, output.high) != (0.0, 1.0):
        raise InputError(
            f"cross_entropy needs outputs in [0, 1] or unbounded; these lie in [{output.low:g}, {output.high:g}]; "
            "expected loss 'mse'"
        )
    # delays of the synapses to the outputs are no coupling
    last = {name: one for name, one in substrate.parameters.items() if one.readout and one.unit != "step"}
    weights = [name for name, one in last.items() if len(one.shape) == 2]
    biases = [name for name, one in last.items() if len(one.shape) == 1]
    if len(weights) != 1 or len(biases) > 1:
        raise InputError(
            f"substrate has {len(weights)} couplings and {len(biases)} biases that drive its outputs; "
            "the delta rule expected 1 coupling and at most 1 bias"
        )
    readout = Readout(weights[0], biases[0] if biases else "", loss, softmax)
    return Rule(init, partial(update, substrate, readout), partial(predict, substrate))


def init(key: Key) -> State:
    """No state is kept."""
    return Stateless()


def update(substrate: Any, readout: Readout, state: State, batch: Batch, key: Key) -> Update:
    """One reading of every layer in phase ``free``; estimates for the readout alone.

    Raises
    ------
    InputError
        When the batch does not fit the ports.
    """
    with substrate.ledger.phase("free"):
        measured = substrate.states(batch.inputs, samples=batch.samples, key=key.at("free"))
    outputs = measured[-1]
    targets = check_array("target", batch.targets, shape=outputs.shape, unit=substrate.ports["output"].unit)
    before = measured[-2] if len(measured) > 1 else np.asarray(batch.inputs)
    losses, error = losses_and_error(readout, outputs, targets)
    estimates: dict[str, Estimate] = {readout.weight: Outer(error, before)}
    if readout.bias:
        estimates[readout.bias] = error.mean(axis=0)
    return Update(state, estimates, Diagnostics(float(losses.mean()), outputs))


def losses_and_error(readout: Readout, outputs: Array, targets: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Loss of each sample, shape (batch,), and error e of each output, shape (batch, outputs)."""
    o = np.asarray(outputs, dtype=np.float64)
    if not readout.softmax:
        return loss_values(o, targets, readout.loss), o - targets
    shifted = o - o.max(axis=1, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -np.sum(targets * logarithms, axis=1), np.exp(logarithms) - targets


def predict(substrate: Any, state: State, inputs: Array, samples: Samples, key: Key) -> Array:
    """Outputs (batch, outputs) of one forward pass."""
    return substrate.forward(inputs, samples=samples, key=key)  # type: ignore[no-any-return]
