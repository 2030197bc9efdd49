"""Equilibrium propagation: the gradient of a loss from two rest points of the same energy.

The network settles freely, then again with its outputs pulled weakly down the gradient of the loss, starting from the
free state. With E the energy, s_beta the rest point under the nudge beta,

    one-sided    g = (dE/dtheta(s_beta) - dE/dtheta(s_0)) / beta                  error O(beta)
    centred      g = (dE/dtheta(s_beta) - dE/dtheta(s_-beta)) / (2 beta)          error O(beta^2)
    random-sign  one-sided with beta's sign drawn for each batch                  O(beta) each time, O(beta^2) in the mean

Sources: Scellier and Bengio, Front. Comput. Neurosci. 11, 24 (2017) (one-sided and random sign); Laborieux, Ernoult, Scellier,
Bengio, Grollier and Querlioz, Front. Neurosci. 15, 633674 (2021) (centred).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_name, check_range
from inmaterio.learning_rules.contract import Batch, Rule, Stateless, Update
from inmaterio.learning_rules.contrast import contrast
from inmaterio.learning_rules.relaxing_phases import diagnose, predict_free
from inmaterio.simulators.capabilities import LOSSES, Array, Nudge, Requirement, Samples, Settled, requires

REQUIRES: Mapping[str, Requirement] = {"substrate": requires("Relaxing", "LocalContrast", "symmetric")}
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
VARIANTS = ("one-sided", "centred", "random-sign")

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
        Residual at which a phase ends.
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
        When the substrate lacks a capability or trait, or a hyperparameter is out of range.
    """
    missing = REQUIRES["substrate"].missing(substrate)
    if missing:
        raise InputError(f"equilibrium propagation cannot train this substrate: it {missing}")
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
    """Free and nudged phases of one batch, and the contrast of what is measured in them.

    Every nudged phase starts from the held free state. Estimates are gradients of the batch-mean loss.
    """
    free = _phase(substrate, settings, batch, key, "free", None)
    if settings.variant == "centred":
        positive = _phase(substrate, settings, batch, key, "positive", settings.beta)
        negative = _phase(substrate, settings, batch, key, "negative", -settings.beta)
        after, before, scale = positive, negative, 0.5 / settings.beta
    else:
        flip = settings.variant == "random-sign" and key.at("sign").words()[0] % 2 == 1
        beta = -settings.beta if flip else settings.beta
        after, before, scale = _phase(substrate, settings, batch, key, "nudged", beta), free, 1.0 / beta
    estimates = contrast(
        substrate.local_contrast(batch.inputs, after.states), substrate.local_contrast(batch.inputs, before.states), scale=scale
    )
    return Update(state, estimates, diagnose(settings.loss, batch, free, after, before))


def predict(substrate: Any, settings: Settings, state: State, inputs: Array, samples: Samples, key: Key) -> Array:
    """Outputs (batch, outputs) of the free phase; only they are read."""
    return predict_free(substrate, inputs, samples, key, steps=settings.free_steps, tolerance=settings.tolerance)


def _phase(substrate: Any, settings: Settings, batch: Batch, key: Key, name: str, beta: float | None) -> Settled:
    with substrate.ledger.phase(name):
        settled: Settled = substrate.settle(
            batch.inputs,
            samples=batch.samples,
            key=key.at("shared" if settings.shared_noise else name),
            nudge=None if beta is None else Nudge(settings.loss, batch.targets, beta),
            start="rest" if beta is None else "free",
            steps=settings.free_steps if beta is None else settings.nudged_steps,
            tolerance=settings.tolerance,
        )
    return settled
