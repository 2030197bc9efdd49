"""Backpropagation through the digital twin of a substrate, at the values requested of it.

On a digital network this is plain backpropagation. On a physical substrate it trains a model of it: the gradient knows
nothing of this chip's errors, and no pass of the device is made to find it.

Source: Rumelhart, Hinton and Williams, Nature 323, 533 (1986).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_array, check_name
from inmaterio.learning_rules.contract import Batch, Diagnostics, Rule, Stateless, Update
from inmaterio.simulators.capabilities import LOSSES, Array, Requirement, Samples, requires
from inmaterio.simulators.digital import DigitalSubstrate
from inmaterio.simulators.digital_twin import count_twin_pass, differentiable, twin_gradient
from inmaterio.simulators.substrate import check_batch

REQUIRES: Mapping[str, Requirement] = {"substrate": requires("Forward", "Twin", "Program")}
DEFAULTS: Mapping[str, Any] = {"rates": 0.3, "loss": "mse"}
PROGRAMS = False

State = Stateless


def build(*, substrate: Any, loss: str = "mse") -> Rule:
    """The rule on one substrate.

    Parameters
    ----------
    substrate : Substrate
        With ``Forward``, ``Twin`` and ``Program``.
    loss : str
        ``"mse"`` or ``"cross_entropy"``: see `inmaterio.simulators.digital_twin.batch_loss`.

    Raises
    ------
    InputError
        When the substrate lacks a capability or the loss is unknown.
    """
    missing = REQUIRES["substrate"].missing(substrate)
    if missing:
        raise InputError(f"backpropagation cannot train this substrate: it {missing}")
    check_name("loss", loss, LOSSES)
    return Rule(init, partial(update, substrate, loss), partial(predict, substrate))


def init(key: Key) -> State:
    """No state is kept."""
    return Stateless()


def update(substrate: Any, loss: str, state: State, batch: Batch, key: Key) -> Update:
    """dC/dtheta of the batch-mean loss C in ``substrate.twin()``, made anew at the values requested by now.

    Forward in phase ``twin``, backward in phase ``backward``. A digital substrate counts both as its own work; for a
    physical one they are the host's (`inmaterio.simulators.digital_twin.count_twin_pass`). Loss and outputs in the diagnostics
    are the twin's: no device is read. Parameters that the twin's gradient says nothing of have no estimate, and stay as they are,
    whatever decay weights have.

    Raises
    ------
    InputError
        When the batch does not fit the ports.
    """
    output = substrate.ports["output"]
    inputs = check_batch(batch.inputs, batch.samples, substrate.ports["input"])
    targets = check_array("target", batch.targets, shape=(len(inputs), output.size), unit=output.unit)
    twin = substrate.twin()
    mean_loss, outputs, gradients = twin_gradient(twin, differentiable(twin, substrate.parameters), inputs, targets, loss, output)
    with substrate.ledger.phase("twin"):
        _count(substrate, twin, len(inputs), backward=False)
    with substrate.ledger.phase("backward"):
        _count(substrate, twin, len(inputs), backward=True)
    return Update(state, gradients, Diagnostics(mean_loss, outputs))


def predict(substrate: Any, state: State, inputs: Array, samples: Samples, key: Key) -> Array:
    """Outputs (batch, outputs) of one forward pass of the substrate itself."""
    return substrate.forward(inputs, samples=samples, key=key)  # type: ignore[no-any-return]


def _count(substrate: Any, twin: Any, batch: int, *, backward: bool) -> None:
    if isinstance(substrate, DigitalSubstrate):
        if backward:
            substrate.count_backward(batch, twin=twin)
        else:
            substrate.count_forward(batch, twin=twin)
    else:
        count_twin_pass(substrate.ledger, "host", twin, batch, backward=backward)
