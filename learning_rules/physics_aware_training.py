"""Physics-aware training: the physical system computes forward, a twin fitted to it carries the error back.

    forward     z_k = what was measured behind the physics of layer k, o = what was measured at the output
    backward    dC/do at the measured o, carried through the twin linearised about the measured z_k

Errors of the twin's values do not add up from layer to layer, since every layer is linearised where the physics really was; only
the error of its slopes is left in the gradient. A twin that is the physics gives the exact gradient. The twin is fitted to
measured pairs when it is first needed; physics that drifts or is knocked leaves it behind, unless it is fitted again.

Source: Wright, Onodera, Stein, Wang, Schachter, Hu and McMahon, Nature 601, 549 (2022).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_array, check_range
from inmaterio.learning_rules.contract import Batch, Diagnostics, Rule, Update
from inmaterio.learning_rules.perturbations import check_loss
from inmaterio.simulators.capabilities import Array, Requirement, Samples, requires
from inmaterio.simulators.digital_twin import count_twin_pass, loss_and_gradient, twin_gradient

REQUIRES: Mapping[str, Requirement] = {"substrate": requires("Forward", "ReadStates", "Twin", "Identification", "Program")}
DEFAULTS: Mapping[str, Any] = {"rates": 0.01, "loss": "mse", "refresh_every": 0}
PROGRAMS = False


@dataclass(frozen=True, slots=True)
class State:
    """How many updates have been made: when to fit the twin again."""

    updates: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyperparameters of one rule.

    Attributes
    ----------
    loss : str
        ``"mse"`` or ``"cross_entropy"``.
    refresh_every : int
        Updates after which the twin is fitted to fresh measurements again; 0 never.
    """

    loss: str
    refresh_every: int


def build(*, substrate: Any, loss: str = "mse", refresh_every: int = 0) -> Rule:
    """The rule on one substrate; parameters as in `Settings`.

    Raises
    ------
    InputError
        When the substrate lacks a capability, a hyperparameter is out of range, or the outputs cannot have this loss.
    """
    missing = REQUIRES["substrate"].missing(substrate)
    if missing:
        raise InputError(f"physics-aware training cannot train this substrate: it {missing}")
    check_loss(loss, substrate.ports["output"])
    check_range("refresh_every", refresh_every, low=0, unit="updates")
    return Rule(init, partial(update, substrate, Settings(loss, int(refresh_every))), partial(predict, substrate))


def init(key: Key) -> State:
    """No update has been made."""
    return State()


def update(substrate: Any, settings: Settings, state: State, batch: Batch, key: Key) -> Update:
    """One pass per sample in phase ``free``; forward through the twin in phase ``twin``, backward in phase ``backward``.

    What fitting the twin takes, the passes it is fitted to included, is counted in phase ``twin``. Loss and outputs in the
    diagnostics are measured ones.

    Raises
    ------
    InputError
        When the batch does not fit the ports.
    """
    output = substrate.ports["output"]
    targets = check_array("target", batch.targets, shape=(len(batch), output.size), unit=output.unit)
    with substrate.ledger.phase("free"):
        measured: tuple[Array, ...] = substrate.states(batch.inputs, samples=batch.samples, key=key.at("free"))
    with substrate.ledger.phase("twin"):
        if settings.refresh_every and state.updates and state.updates % settings.refresh_every == 0:
            substrate.identify(key=key.at("identify"))
        twin = substrate.twin()
        count_twin_pass(substrate.ledger, "host", twin, len(batch), backward=False)
    with substrate.ledger.phase("backward"):
        count_twin_pass(substrate.ledger, "host", twin, len(batch), backward=True)
    _, _, gradients = twin_gradient(twin, substrate.parameters, batch.inputs, targets, settings.loss, output, states=measured)
    mean_loss, _ = loss_and_gradient(settings.loss, measured[-1], targets, output)
    return Update(State(state.updates + 1), gradients, Diagnostics(mean_loss, measured[-1]))


def predict(substrate: Any, state: State, inputs: Array, samples: Samples, key: Key) -> Array:
    """Outputs (batch, outputs) of one forward pass of the substrate itself."""
    return substrate.forward(inputs, samples=samples, key=key)  # type: ignore[no-any-return]
