"""Holomorphic equilibrium propagation: the gradient of a loss from nudges on a circle in the complex plane.

The network settles freely, then under each of N nudges beta_k = r exp(2 pi i k / N), with complex activities where the nudge is
complex. With s_k its rest points there,

    energies   g = Re (1/N) sum_k dE/dtheta(s_k) / beta_k
    states     g = -(dF/dtheta)^T v at the free state,   v = Re (1/N) sum_k s_k / beta_k

Both err by O(r^N), with different factors, so long as r lies inside the nearest singularity of s(beta): N = 2 is centred
equilibrium propagation, more points allow stronger nudges, which noise and rounding hide less. F is the vector field in activity
coordinates; where the feedback has a gain other than 1 its Jacobian is not symmetric, and the form over states has the bias of
`generalised_equilibrium_propagation`, that over energies none.

Source: Laborieux and Zenke, NeurIPS 35 (2022), arXiv 2209.00530.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_name, check_range
from inmaterio.learning_rules.contract import Batch, Rule, Stateless, Update
from inmaterio.learning_rules.nudged_circle import Circle, check_reached, settle_around
from inmaterio.learning_rules.relaxing_phases import diagnose, predict_free
from inmaterio.simulators.capabilities import LOSSES, Array, Requirement, Samples, Settled, requires

REQUIRES: Mapping[str, Requirement] = {"substrate": requires("Relaxing", "LocalContrast", "symmetric", "holomorphic")}
DEFAULTS: Mapping[str, Any] = {
    "rates": (0.4, 0.2),
    "loss": "mse",
    "points": 4,
    "radius": 0.2,
    "form": "energies",
    "free_steps": 40,
    "nudged_steps": 15,
    "tolerance": None,
    "shared_noise": False,
}
PROGRAMS = False
FORMS = ("energies", "states")

State = Stateless


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyperparameters of one rule.

    Attributes
    ----------
    loss : str
        Loss the nudge belongs to, one of `capabilities.LOSSES`.
    circle : Circle
        Number of nudges and their strength.
    form : str
        One of `FORMS`.
    free_steps, nudged_steps : int
        Updates of the network per phase; the largest numbers where a tolerance is given.
    tolerance : float or None
        Residual at which a phase ends, and which it must then reach.
    shared_noise : bool
        Whether the phases of one update see the same noise, as when it is slower than all of them.
    """

    loss: str
    circle: Circle
    form: str
    free_steps: int
    nudged_steps: int
    tolerance: float | None
    shared_noise: bool


def build(
    *,
    substrate: Any,
    loss: str = "mse",
    points: int = 4,
    radius: float = 0.2,
    form: str = "energies",
    free_steps: int = 40,
    nudged_steps: int = 15,
    tolerance: float | None = None,
    shared_noise: bool = False,
) -> Rule:
    """The rule on one substrate; parameters as in `Settings` and `Circle`.

    Raises
    ------
    InputError
        When the substrate lacks a capability or trait, or a hyperparameter is out of range.
    """
    check_name("form", form, FORMS)
    missing = REQUIRES["substrate"].missing(substrate)
    if not missing and form == "states":
        missing = requires("Pullback").missing(substrate)
    if missing:
        raise InputError(f"holomorphic equilibrium propagation over {form} cannot train this substrate: it {missing}")
    check_name("loss", loss, LOSSES)
    check_range("free_steps", free_steps, low=1, unit="updates")
    check_range("nudged_steps", nudged_steps, low=1, unit="updates")
    settings = Settings(loss, Circle(points, radius), form, free_steps, nudged_steps, tolerance, shared_noise)
    return Rule(init, partial(update, substrate, settings), partial(predict, substrate, settings))


def init(key: Key) -> State:
    """No state is kept."""
    return Stateless()


def update(substrate: Any, settings: Settings, state: State, batch: Batch, key: Key) -> Update:
    """Free phase of one batch, a nudged one for each point that has no conjugate before it, and the derivative from them.

    Every nudged phase starts from the held free state. Estimates are gradients of the batch-mean loss.

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
    check_reached(free, None, "radius")
    nudged = settle_around(
        substrate,
        batch,
        key,
        settings.circle,
        loss=settings.loss,
        steps=settings.nudged_steps,
        tolerance=settings.tolerance,
        shared_noise=settings.shared_noise,
    )
    measured = settings.circle.measure(free, nudged)
    if settings.form == "energies":
        estimates = measured.contrast_derivatives(substrate, batch.inputs)
    else:
        vectors = tuple(np.negative(vector) for vector in measured.state_derivatives())
        estimates = substrate.pullback(batch.inputs, free.states, vectors)
    return Update(state, estimates, diagnose(settings.loss, batch, free, *nudged))


def predict(substrate: Any, settings: Settings, state: State, inputs: Array, samples: Samples, key: Key) -> Array:
    """Outputs (batch, outputs) of the free phase; only they are read."""
    return predict_free(substrate, inputs, samples, key, steps=settings.free_steps, tolerance=settings.tolerance)
