"""Simultaneous perturbation (SPSA): every parameter is nudged at once, by a random sign; the change of the loss tells the rest.

With v = +1 or -1 per element, drawn anew for each update, c the typical scale of the element's parameter and s the size,

    two-sided     g = [C(theta + s c v) - C(theta - s c v)] / (2 s c) v
    one-sided     g = [C(theta + s c v) - C(theta)] / (s c) v

averaged over q directions. Both are the directional derivative times v, up to O(s^2) and O(s). The mean over directions is the
gradient up to O(s^2) in both: what is first order in s in the one-sided difference is even in v. It is noise then, on top of
the noise that any direction carries: for one scale and P elements E|g|^2 = P |grad C|^2 / q + (1 - 1/q) |grad C|^2.

Nothing but the loss is measured, so anything that can be changed for the time of a pass can be trained. Whatever is in the
loss besides the change (read noise, drift) enters g divided by s. A parameter held at the end of its range is clipped on one
side, which halves its part of the difference; a write grid coarser than s c hides it.

Sources: Spall, IEEE Trans. Autom. Control 37, 332 (1992) (two-sided) and Automatica 33, 109 (1997) (one measurement less);
Jabri and Flower, IEEE Trans. Neural Netw. 3, 154 (1992) (weight perturbation of an analog chip).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.learning_rules.contract import Batch, Diagnostics, Rule, Stateless, Update
from inmaterio.learning_rules.perturbations import (
    VARIANTS,
    check_loss,
    count_correlation,
    counted_losses,
    parameter_count,
    random_signs,
    typical_scales,
)
from inmaterio.simulators.capabilities import Array, Requirement, Samples, requires

REQUIRES: Mapping[str, Requirement] = {"substrate": requires("Forward", "PerturbParameters", "Program")}
DEFAULTS: Mapping[str, Any] = {
    "rates": 0.005,
    "loss": "mse",
    "size": 0.1,
    "pairs": 1,
    "variant": "two-sided",
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
        ``"mse"`` or ``"cross_entropy"``.
    size : float
        s, in units of each parameter's typical scale (`perturbations.typical_scales`).
    pairs : int
        q, directions per update.
    variant : str
        One of `perturbations.VARIANTS`.
    shared_noise : bool
        Whether all evaluations of an update see the same noise, as two read at the same instant would; read one after the
        other they do not.
    """

    loss: str
    size: float
    pairs: int
    variant: str
    shared_noise: bool


def build(
    *,
    substrate: Any,
    loss: str = "mse",
    size: float = 0.1,
    pairs: int = 1,
    variant: str = "two-sided",
    shared_noise: bool = False,
) -> Rule:
    """The rule on one substrate; parameters as in `Settings`.

    Raises
    ------
    InputError
        When the substrate lacks a capability, a hyperparameter is out of range, or the outputs cannot have this loss.
    """
    missing = REQUIRES["substrate"].missing(substrate)
    if missing:
        raise InputError(f"simultaneous perturbation cannot train this substrate: it {missing}")
    check_loss(loss, substrate.ports["output"])
    check_range("size", size, low=0.0, low_open=True, high_open=True)
    check_range("pairs", pairs, low=1, unit="directions")
    check_name("variant", variant, VARIANTS)
    settings = Settings(loss, float(size), int(pairs), variant, shared_noise)
    return Rule(init, partial(update, substrate, settings), partial(predict, substrate))


def init(key: Key) -> State:
    """No state is kept."""
    return Stateless()


def update(substrate: Any, settings: Settings, state: State, batch: Batch, key: Key) -> Update:
    """2 q passes per sample in phase ``perturbed``; one-sided q, and one in phase ``free``.

    Two-sided there is no free pass: outputs and loss in the diagnostics are means over the perturbed passes, the free ones up to
    O(s^2).

    Raises
    ------
    InputError
        When the batch does not fit the ports.
    """
    parameters, output = substrate.parameters, substrate.ports["output"]
    targets = check_array("target", batch.targets, shape=(len(batch), output.size), unit=output.unit)
    scales, elements = typical_scales(parameters), parameter_count(parameters)
    one_sided = settings.variant == "one-sided"

    def noise(*place: str | int) -> Key:
        return key.at("noise") if settings.shared_noise else key.at("noise", *place)

    seen, measured = [], []
    if one_sided:
        with substrate.ledger.phase("free"):
            seen.append(substrate.forward(batch.inputs, samples=batch.samples, key=noise("free")))
            measured.append(counted_losses(substrate, settings.loss, seen[0], targets))
    estimates: dict[str, Array] = {name: np.zeros(one.shape) for name, one in parameters.items()}
    with substrate.ledger.phase("perturbed"):
        for q in range(settings.pairs):
            signs = random_signs(key.at("direction", q), parameters)
            sides = []
            for side, size in (("plus", settings.size), ("minus", -settings.size))[: 1 if one_sided else 2]:
                changes = {name: size * scales[name] * one for name, one in signs.items()}
                outputs = substrate.perturbed(batch.inputs, changes, samples=batch.samples, key=noise(side, q))
                sides.append(counted_losses(substrate, settings.loss, outputs, targets))
                if not one_sided:
                    seen.append(outputs)
                    measured.append(sides[-1])
            change = sides[0] - (measured[0] if one_sided else sides[1])
            slope = float(change.mean()) / (settings.size * (1 if one_sided else 2) * settings.pairs)
            for name, one in signs.items():
                estimates[name] += slope / scales[name] * one
            count_correlation(substrate, elements)
    diagnostics = Diagnostics(float(np.mean(measured)), np.mean(seen, axis=0))
    return Update(state, estimates, diagnostics)


def predict(substrate: Any, state: State, inputs: Array, samples: Samples, key: Key) -> Array:
    """Outputs (batch, outputs) of one forward pass."""
    return substrate.forward(inputs, samples=samples, key=key)  # type: ignore[no-any-return]
