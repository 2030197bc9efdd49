"""Contrastive Hebbian learning: the outputs are clamped to the targets instead of nudged towards them.

With s^ the rest point under the clamp, started from the free rest point s, the estimate is dE/dtheta(s^) - dE/dtheta(s).
On a network with feedback gain gamma, dE/dW_k = -gamma^(k-L) s_k (x) s_{k-1}, which makes the estimate for layer k

    g_k = -gamma^(k-L) (s^_k (x) s^_{k-1} - s_k (x) s_{k-1})

With a linear output it equals the backprop gradient of 1/2 |d - s_L|^2 up to a relative error O(gamma). With gamma = 1 it
descends E(s^) - E(s), which is not that loss. The signal in layer k is of order gamma^(L-k): weak feedback needs float64,
and read noise is amplified by gamma^(k-L).

Sources: Movellan, Proc. 1990 Connectionist Models Summer School (1991); Xie and Seung, Neural Computation 15, 441 (2003).
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
from inmaterio.simulators.capabilities import Array, Clamp, Requirement, Samples, Settled, requires

REQUIRES: Mapping[str, Requirement] = {"substrate": requires("Relaxing", "ClampOutput", "LocalContrast", "symmetric")}
DEFAULTS: Mapping[str, Any] = {
    "rates": (0.4, 0.2),
    "loss": "mse",
    "free_steps": 40,
    "clamped_steps": 15,
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
    free_steps, clamped_steps : int
        Updates of the network per phase; the largest numbers where a tolerance is given.
    tolerance : float or None
        Residual at which a phase ends.
    shared_noise : bool
        Whether both phases of one update see the same noise.
    """

    free_steps: int
    clamped_steps: int
    tolerance: float | None
    shared_noise: bool


def build(
    *,
    substrate: Any,
    loss: str = "mse",
    free_steps: int = 40,
    clamped_steps: int = 15,
    tolerance: float | None = None,
    shared_noise: bool = False,
) -> Rule:
    """The rule on one substrate; parameters as in `Settings`. The clamp belongs to ``loss="mse"`` alone.

    Raises
    ------
    InputError
        When the substrate lacks a capability or trait, or a hyperparameter is out of range.
    """
    missing = REQUIRES["substrate"].missing(substrate)
    if missing:
        raise InputError(f"contrastive Hebbian learning cannot train this substrate: it {missing}")
    check_name("loss of contrastive Hebbian learning", loss, ("mse",))
    check_range("free_steps", free_steps, low=1, unit="updates")
    check_range("clamped_steps", clamped_steps, low=1, unit="updates")
    settings = Settings(free_steps, clamped_steps, tolerance, shared_noise)
    return Rule(init, partial(update, substrate, settings), partial(predict, substrate, settings))


def init(key: Key) -> State:
    """No state is kept."""
    return Stateless()


def update(substrate: Any, settings: Settings, state: State, batch: Batch, key: Key) -> Update:
    """Free and clamped phase of one batch; the clamped one starts from the held free state."""
    with substrate.ledger.phase("free"):
        free: Settled = substrate.settle(
            batch.inputs,
            samples=batch.samples,
            key=key.at("shared" if settings.shared_noise else "free"),
            steps=settings.free_steps,
            tolerance=settings.tolerance,
        )
    with substrate.ledger.phase("positive"):
        clamped: Settled = substrate.settle(
            batch.inputs,
            samples=batch.samples,
            key=key.at("shared" if settings.shared_noise else "clamped"),
            nudge=Clamp(batch.targets),
            start="free",
            steps=settings.clamped_steps,
            tolerance=settings.tolerance,
        )
    estimates = contrast(
        substrate.local_contrast(batch.inputs, clamped.states), substrate.local_contrast(batch.inputs, free.states), scale=1.0
    )
    return Update(state, estimates, diagnose("mse", batch, free, clamped))


def predict(substrate: Any, settings: Settings, state: State, inputs: Array, samples: Samples, key: Key) -> Array:
    """Outputs (batch, outputs) of the free phase; only they are read."""
    return predict_free(substrate, inputs, samples, key, steps=settings.free_steps, tolerance=settings.tolerance)
