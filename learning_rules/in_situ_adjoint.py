"""In-situ adjoint: the device itself carries the error back, driven at its outputs.

The host has the slope of the loss with respect to the measured outputs, dC/do; the device, driven backwards with it, answers with
the gradient: where the field is linear and reciprocal, dC/dtheta is a product of the forward and the adjoint field, both of which
can be measured. Nothing is perturbed and no model of the field is needed: what this chip's errors do to the fields is measured
with them. The factors that turn products of fields into a gradient (the slope of an element's resonance by its setting, the
strength of a spring, the amount of material made) are known nominally only. Up to noise the gradient is exact on a nominal chip;
on one with static errors it is off by as much as these factors are.

Sources: Hughes, Minkov, Shi and Fan, Optica 5, 864 (2018); Pai et al., Science 380, 398 (2023).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_array
from inmaterio.learning_rules.contract import Batch, Diagnostics, Rule, Stateless, Update
from inmaterio.learning_rules.perturbations import check_loss
from inmaterio.simulators.capabilities import Array, Backward, Requirement, Samples, requires
from inmaterio.simulators.digital_twin import WORD_BYTES, loss_and_gradient

REQUIRES: Mapping[str, Requirement] = {"substrate": requires("Forward", "Adjoint", "Program")}
DEFAULTS: Mapping[str, Any] = {"rates": 0.01, "loss": "mse"}
PROGRAMS = False

OPERATIONS = {"mse": 2, "cross_entropy": 6}
"""Floating-point operations per output for the loss and its slope: a difference and a scaling; an exponential more in softmax."""

State = Stateless


def build(*, substrate: Any, loss: str = "mse") -> Rule:
    """The rule on one substrate.

    Parameters
    ----------
    substrate : Substrate
        With ``Forward``, ``Adjoint`` and ``Program``.
    loss : str
        ``"mse"`` or ``"cross_entropy"``.

    Raises
    ------
    InputError
        When the substrate lacks a capability, or its outputs cannot have this loss.
    """
    missing = REQUIRES["substrate"].missing(substrate)
    if missing:
        raise InputError(f"the in-situ adjoint cannot train this substrate: it {missing}")
    check_loss(loss, substrate.ports["output"])
    return Rule(init, partial(update, substrate, loss), partial(predict, substrate))


def init(key: Key) -> State:
    """No state is kept."""
    return Stateless()


def update(substrate: Any, loss: str, state: State, batch: Batch, key: Key) -> Update:
    """One pass per sample in phase ``free``, then the adjoint experiment in phase ``backward``.

    Raises
    ------
    InputError
        When the batch does not fit the ports.
    """
    output, ledger = substrate.ports["output"], substrate.ledger
    targets = check_array("target", batch.targets, shape=(len(batch), output.size), unit=output.unit)
    with ledger.phase("free"):
        outputs = substrate.forward(batch.inputs, samples=batch.samples, key=key.at("free"))
    with ledger.phase("backward"):
        mean_loss, slope = loss_and_gradient(loss, outputs, targets, output)
        ledger.count("host", "output error", "alu_fp32", OPERATIONS[loss] * outputs.size)
        ledger.count("host", "output error", "byte_sram", 2 * WORD_BYTES * outputs.size)
        found: Backward = substrate.adjoint(batch.inputs, slope, samples=batch.samples, key=key.at("adjoint"))
    estimates = {name: found.parameters[name] for name in substrate.parameters}
    return Update(state, estimates, Diagnostics(mean_loss, outputs))


def predict(substrate: Any, state: State, inputs: Array, samples: Samples, key: Key) -> Array:
    """Outputs (batch, outputs) of one forward pass."""
    return substrate.forward(inputs, samples=samples, key=key)  # type: ignore[no-any-return]
