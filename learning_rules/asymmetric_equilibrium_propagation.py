"""Equilibrium propagation for couplings that are not symmetric: the nudged phase runs with the Jacobian transposed.

A network without an energy, at rest where F(s) = 0, answers a nudge with ds/dbeta = J^-1 e, e = dC/ds, while the loss has the
gradient -(dF/dtheta)^T J^-T e. So the nudged phase settles

    0 = F(s) - (J - J^T)(s - s_0) - beta dC/ds

about the held free state s_0, which stays a rest point at beta = 0 and has the Jacobian J^T. From the rest points s_beta,

    one-sided   g = -(dF/dtheta)^T (s_beta - s_0) / beta                error O(beta)
    centred     g = -(dF/dtheta)^T (s_beta - s_-beta) / (2 beta)        error O(beta^2)

whatever the Jacobian. What it asks of the hardware is J - J^T: for layers coupled both ways, the difference of each pair of
couplings.

Source: Scurria et al., arXiv 2602.03670 (2026).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_name, check_range
from inmaterio.learning_rules.contract import Batch, Rule, Stateless, Update
from inmaterio.learning_rules.nudged_circle import check_reached
from inmaterio.learning_rules.relaxing_phases import diagnose, predict_free
from inmaterio.simulators.capabilities import LOSSES, Array, Nudge, Requirement, Samples, Settled, requires

REQUIRES: Mapping[str, Requirement] = {"substrate": requires("Relaxing", "TransposedSettling", "Pullback")}
DEFAULTS: Mapping[str, Any] = {
    "rates": (0.4, 0.2),
    "loss": "mse",
    "beta": 0.2,
    "variant": "centred",
    "free_steps": 40,
    "nudged_steps": 15,
    "tolerance": None,
    "shared_noise": False,
}
PROGRAMS = False
VARIANTS = ("one-sided", "centred")

State = Stateless


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyperparameters of one rule.

    Attributes
    ----------
    loss : str
        Loss the nudge belongs to, one of `capabilities.LOSSES`.
    beta : float
        Strength of the nudge, > 0.
    variant : str
        One of `VARIANTS`.
    free_steps, nudged_steps : int
        Updates of the network per phase; the largest numbers where a tolerance is given.
    tolerance : float or None
        Residual at which a phase ends, and which it must then reach.
    shared_noise : bool
        Whether the phases of one update see the same noise, as when it is slower than all of them.
    """

    loss: str
    beta: float
    variant: str
    free_steps: int
    nudged_steps: int
    tolerance: float | None
    shared_noise: bool


def build(
    *,
    substrate: Any,
    loss: str = "mse",
    beta: float = 0.2,
    variant: str = "centred",
    free_steps: int = 40,
    nudged_steps: int = 15,
    tolerance: float | None = None,
    shared_noise: bool = False,
) -> Rule:
    """The rule on one substrate; parameters as in `Settings`.

    Raises
    ------
    InputError
        When the substrate lacks a capability, or a hyperparameter is out of range.
    """
    missing = REQUIRES["substrate"].missing(substrate)
    if missing:
        raise InputError(f"asymmetric equilibrium propagation cannot train this substrate: it {missing}")
    check_name("loss", loss, LOSSES)
    check_name("variant", variant, VARIANTS)
    check_range("beta", beta, low=0.0, low_open=True)
    check_range("free_steps", free_steps, low=1, unit="updates")
    check_range("nudged_steps", nudged_steps, low=1, unit="updates")
    settings = Settings(loss, beta, variant, free_steps, nudged_steps, tolerance, shared_noise)
    return Rule(init, partial(update, substrate, settings), partial(predict, substrate, settings))


def init(key: Key) -> State:
    """No state is kept."""
    return Stateless()


def update(substrate: Any, settings: Settings, state: State, batch: Batch, key: Key) -> Update:
    """Free phase of one batch, then one or two transposed ones, and the difference of states pulled back to parameters.

    Estimates are gradients of the batch-mean loss.

    Raises
    ------
    InputError
        When a tolerance was asked for and a phase does not reach it.
    """
    with substrate.ledger.phase("free"):
        free: Settled = substrate.settle(
            batch.inputs,
            samples=batch.samples,
            key=key.at("shared" if settings.shared_noise else "free"),
            steps=settings.free_steps,
            tolerance=settings.tolerance,
        )
    check_reached(free, None, "beta")
    positive = _transposed(substrate, settings, batch, key, "positive", settings.beta)
    if settings.variant == "centred":
        negative, scale = _transposed(substrate, settings, batch, key, "negative", -settings.beta), 0.5 / settings.beta
    else:
        negative, scale = free, 1.0 / settings.beta
    vectors = tuple(scale * (before - after) for after, before in zip(positive.states, negative.states, strict=True))
    estimates = substrate.pullback(batch.inputs, free.states, vectors)
    return Update(state, estimates, diagnose(settings.loss, batch, free, positive, negative))


def predict(substrate: Any, settings: Settings, state: State, inputs: Array, samples: Samples, key: Key) -> Array:
    """Outputs (batch, outputs) of the free phase; only they are read."""
    return predict_free(substrate, inputs, samples, key, steps=settings.free_steps, tolerance=settings.tolerance)


def _transposed(substrate: Any, settings: Settings, batch: Batch, key: Key, name: str, beta: float) -> Settled:
    with substrate.ledger.phase(name):
        settled: Settled = substrate.settle_transposed(
            batch.inputs,
            samples=batch.samples,
            key=key.at("shared" if settings.shared_noise else name),
            nudge=Nudge(settings.loss, batch.targets, beta),
            steps=settings.nudged_steps,
            tolerance=settings.tolerance,
        )
    return check_reached(settled, beta, "beta")
