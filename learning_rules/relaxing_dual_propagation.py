"""Dual propagation on a network that relaxes: its two compartments as two nudged settlings.

From the held free state the network settles once with its outputs pulled towards lower loss and once away from it, by the
shares c+ and c- of `inmaterio.learning_rules.dyads`. With E the energy and F = E + beta' C under a nudge beta',

    s+ at beta' = c+ beta,   s- at beta' = -c- beta,   g = (dE/dtheta(s+) - dE/dtheta(s-)) / beta

At alpha = 1/2 that is centred equilibrium propagation with beta / 2, off by O(beta^2); at alpha = 0 and 1 it is one-sided, off
by O(beta), and a compartment that hears no nudge is the free state, for which nothing settles again. Each settling feeds back its
own states, not the mean of both: there is no dyad inside the network, and the instability of the original variant does not
arise.

Sources: those of `inmaterio.learning_rules.dyads`, and of `inmaterio.learning_rules.equilibrium_propagation` for the energies.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_name, check_range
from inmaterio.learning_rules.contract import Batch, Rule, Stateless, Update
from inmaterio.learning_rules.contrast import contrast
from inmaterio.learning_rules.dyads import check_dyads, shares
from inmaterio.learning_rules.relaxing_phases import diagnose, predict_free
from inmaterio.simulators.capabilities import LOSSES, Array, Nudge, Requirement, Samples, Settled, requires

REQUIRES: Mapping[str, Requirement] = {"substrate": requires("Relaxing", "LocalContrast", "symmetric")}
DEFAULTS: Mapping[str, Any] = {
    "rates": (0.4, 0.2),
    "loss": "mse",
    "alpha": 0.5,
    "variant": "lagrangian",
    "beta": 0.4,
    "free_steps": 40,
    "nudged_steps": 15,
    "tolerance": None,
    "shared_noise": False,
}
PROGRAMS = False

State = Stateless


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyperparameters of one rule.

    Attributes
    ----------
    loss : str
        Loss the nudge belongs to, one of `capabilities.LOSSES`.
    plus, minus : float
        c+ and c-, the shares of the nudge.
    beta : float
        Strength of both nudges together, > 0.
    free_steps, nudged_steps : int
        Updates of the network per phase; the largest numbers where a tolerance is given.
    tolerance : float or None
        Residual at which a phase ends.
    shared_noise : bool
        Whether the phases of one update see the same noise, as when it is slower than all of them.
    """

    loss: str
    plus: float
    minus: float
    beta: float
    free_steps: int
    nudged_steps: int
    tolerance: float | None
    shared_noise: bool


def build(
    *,
    substrate: Any,
    loss: str = "mse",
    alpha: float = 0.5,
    variant: str = "lagrangian",
    beta: float = 0.4,
    free_steps: int = 40,
    nudged_steps: int = 15,
    tolerance: float | None = None,
    shared_noise: bool = False,
) -> Rule:
    """The rule on one substrate.

    Parameters
    ----------
    substrate : Substrate
        With what `REQUIRES` names.
    alpha : float
        Weight of s+ in the mean, in [0, 1].
    variant : str
        One of `dyads.VARIANTS`.
    loss, beta, free_steps, nudged_steps, tolerance, shared_noise
        As in `Settings`.

    Raises
    ------
    InputError
        When the substrate lacks a capability or trait, or a hyperparameter is out of range.
    """
    missing = REQUIRES["substrate"].missing(substrate)
    if missing:
        raise InputError(f"relaxing dual propagation cannot train this substrate: it {missing}")
    check_name("loss", loss, LOSSES)
    check_dyads(variant, alpha, beta)
    check_range("free_steps", free_steps, low=1, unit="updates")
    check_range("nudged_steps", nudged_steps, low=1, unit="updates")
    plus, minus = shares(variant, alpha)
    settings = Settings(loss, plus, minus, beta, free_steps, nudged_steps, tolerance, shared_noise)
    return Rule(init, partial(update, substrate, settings), partial(predict, substrate, settings))


def init(key: Key) -> State:
    """No state is kept."""
    return Stateless()


def update(substrate: Any, settings: Settings, state: State, batch: Batch, key: Key) -> Update:
    """Free phase, then ``positive`` for s+ and ``negative`` for s-, each from the held free state."""
    free = _phase(substrate, settings, batch, key, "free", 0.0)
    plus = _phase(substrate, settings, batch, key, "positive", settings.plus * settings.beta) if settings.plus else free
    minus = _phase(substrate, settings, batch, key, "negative", -settings.minus * settings.beta) if settings.minus else free
    estimates = contrast(
        substrate.local_contrast(batch.inputs, plus.states),
        substrate.local_contrast(batch.inputs, minus.states),
        scale=1.0 / settings.beta,
    )
    return Update(state, estimates, diagnose(settings.loss, batch, free, plus, minus))


def predict(substrate: Any, settings: Settings, state: State, inputs: Array, samples: Samples, key: Key) -> Array:
    """Outputs (batch, outputs) of the free phase; only they are read."""
    return predict_free(substrate, inputs, samples, key, steps=settings.free_steps, tolerance=settings.tolerance)


def _phase(substrate: Any, settings: Settings, batch: Batch, key: Key, name: str, beta: float) -> Settled:
    with substrate.ledger.phase(name):
        settled: Settled = substrate.settle(
            batch.inputs,
            samples=batch.samples,
            key=key.at("shared" if settings.shared_noise else name),
            nudge=Nudge(settings.loss, batch.targets, beta) if beta else None,
            start="free" if beta else "rest",
            steps=settings.nudged_steps if beta else settings.free_steps,
            tolerance=settings.tolerance,
        )
    return settled
