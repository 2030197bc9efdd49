"""Implicit differentiation of the digital twin at the rest point that the substrate itself reached.

The substrate settles and is measured; the twin, with the requested values, is linearised about the measured states, and
the output error measured on the substrate is carried back through it. What is left of the difference to the true gradient is
the twin's: this chip's errors in the couplings that carry the error back. Control for rules that need no twin.

Sources: Almeida, Proc. ICNN (1987) and Pineda, Phys. Rev. Lett. 59, 2229 (1987) for gradients through a rest point; Wright et
al., Nature 601, 549 (2022) for the physical forward pass with the twin's backward pass.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_name, check_range
from inmaterio.learning_rules.contract import Batch, Rule, Stateless, Update
from inmaterio.learning_rules.relaxing_phases import diagnose, predict_free
from inmaterio.simulators.capabilities import LOSSES, Array, Requirement, Samples, Settled, requires
from inmaterio.simulators.digital_twin import count_twin_pass, twin_gradient

REQUIRES: Mapping[str, Requirement] = {"substrate": requires("Relaxing", "Twin")}
DEFAULTS: Mapping[str, Any] = {"rates": (0.4, 0.2), "loss": "mse", "free_steps": 40, "tolerance": None}
PROGRAMS = False

State = Stateless


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyperparameters of one rule.

    Attributes
    ----------
    loss : str
        One of `capabilities.LOSSES`.
    free_steps : int
        Updates of the network; the largest number where a tolerance is given.
    tolerance : float or None
        Residual at which the phase ends.
    """

    loss: str
    free_steps: int
    tolerance: float | None


def build(*, substrate: Any, loss: str = "mse", free_steps: int = 40, tolerance: float | None = None) -> Rule:
    """The rule on one substrate; parameters as in `Settings`.

    Raises
    ------
    InputError
        When the substrate lacks a capability, or a hyperparameter is out of range.
    """
    missing = REQUIRES["substrate"].missing(substrate)
    if missing:
        raise InputError(f"implicit differentiation cannot train this substrate: it {missing}")
    check_name("loss", loss, LOSSES)
    check_range("free_steps", free_steps, low=1, unit="updates")
    settings = Settings(loss, free_steps, tolerance)
    return Rule(init, partial(update, substrate, settings), partial(predict, substrate, settings))


def init(key: Key) -> State:
    """No state is kept."""
    return Stateless()


def update(substrate: Any, settings: Settings, state: State, batch: Batch, key: Key) -> Update:
    """Free phase of one batch on the substrate, then one solution of the twin's adjoint in the host."""
    with substrate.ledger.phase("free"):
        free: Settled = substrate.settle(
            batch.inputs, samples=batch.samples, key=key.at("free"), steps=settings.free_steps, tolerance=settings.tolerance
        )
    twin = substrate.twin()
    with substrate.ledger.phase("backward"):
        count_twin_pass(substrate.ledger, "host", twin, len(batch), backward=True)
    _, _, gradients = twin_gradient(
        twin, substrate.parameters, batch.inputs, batch.targets, settings.loss, substrate.ports["output"], free.states
    )
    return Update(state, gradients, diagnose(settings.loss, batch, free))


def predict(substrate: Any, settings: Settings, state: State, inputs: Array, samples: Samples, key: Key) -> Array:
    """Outputs (batch, outputs) of the free phase; only they are read."""
    return predict_free(substrate, inputs, samples, key, steps=settings.free_steps, tolerance=settings.tolerance)
