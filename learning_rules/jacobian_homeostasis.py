"""Jacobian homeostasis: a rule for networks without symmetric couplings, and a pull of their Jacobian towards symmetry.

    g = g_base + lambda dL/dtheta,        L = (|J|^2 - tr J^2) / n = |J - J^T|^2 / 2n

with J the Jacobian, in activity coordinates, of the digital twin at the measured free states, n the number of nodes, and L taken
from random vectors (`jacobian_asymmetry`). Generalised equilibrium propagation has J^-1 J^T delta for the true error delta; the
pull takes A = (J - J^T)/2 away, and leaves the symmetric part alone where both couplings of a pair learn at the same rate: at a
plain rate r, a network linear in its activities loses 4 lambda r / n of A in each step. With lambda = 0 nothing is pulled, but
the symmetry is still measured.

Bases: generalised equilibrium propagation, and, as a control that no asymmetry biases, ``exact``: implicit differentiation in the
same twin.

Source: Laborieux and Zenke, ICLR (2024), arXiv 2309.02214.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_name, check_range
from inmaterio.learning_rules import generalised_equilibrium_propagation, implicit_differentiation
from inmaterio.learning_rules.contract import Batch, Rule, Stateless, Update
from inmaterio.learning_rules.jacobian_asymmetry import PRODUCTS, count_asymmetry, jacobian_asymmetry, normal_vectors
from inmaterio.simulators.capabilities import Array, Estimate, Outer, Requirement, requires

REQUIRES: Mapping[str, Requirement] = {"substrate": requires("Relaxing", "Pullback", "Twin")}
DEFAULTS: Mapping[str, Any] = {
    "rates": 0.3,
    "base": "generalised-equilibrium-propagation",
    "strength": 1.0,
    "form": "two-jvp",
    "draws": 5,
    "rows": 0,
    "loss": "mse",
    "derivative": "nudged",
    "points": 2,
    "radius": 0.2,
    "free_steps": 40,
    "nudged_steps": 15,
    "tolerance": None,
    "shared_noise": False,
}
PROGRAMS = False
BASES = ("generalised-equilibrium-propagation", "exact")
NUDGING = ("derivative", "points", "radius", "nudged_steps", "shared_noise")
"""Hyperparameters that only nudged bases have."""

State = Stateless


@dataclass(frozen=True, slots=True, eq=False)
class Settings:
    """Hyperparameters of one rule, beside those of its base.

    Attributes
    ----------
    base : Rule
        Whose estimates the pull is added to. Its diagnostics carry the measured free states.
    strength : float
        lambda, >= 0.
    form : str
        One of `jacobian_asymmetry.PRODUCTS`.
    draws : int
        Random vectors for each row.
    rows : int
        Rows of a batch, drawn anew for each, at whose states J is taken; 0 all of them. Fewer cost less and leave the mean
        as it is. Where J does not depend on the states they are just as many more draws.
    """

    base: Rule
    strength: float
    form: str
    draws: int
    rows: int


def build(
    *,
    substrate: Any,
    base: str = "generalised-equilibrium-propagation",
    strength: float = 1.0,
    form: str = "two-jvp",
    draws: int = 5,
    rows: int = 0,
    loss: str = "mse",
    derivative: str = "nudged",
    points: int = 2,
    radius: float = 0.2,
    free_steps: int = 40,
    nudged_steps: int = 15,
    tolerance: float | None = None,
    shared_noise: bool = False,
) -> Rule:
    """The rule on one substrate.

    Parameters
    ----------
    substrate : substrate
    base : str
        One of `BASES`.
    strength, form, draws, rows
        As in `Settings`.
    loss, derivative, points, radius, free_steps, nudged_steps, tolerance, shared_noise
        The base's: see `generalised_equilibrium_propagation` and `implicit_differentiation`. ``exact`` takes the loss, the
        free steps and the tolerance alone.

    Raises
    ------
    InputError
        When the substrate lacks a capability or trait, a hyperparameter is out of range, or one was set that the base does not
        have.
    """
    missing = REQUIRES["substrate"].missing(substrate)
    if missing:
        raise InputError(f"jacobian homeostasis cannot train this substrate: it {missing}")
    check_name("base", base, BASES)
    check_name("form", form, PRODUCTS)
    check_range("strength", strength, low=0.0, high_open=True)
    check_range("draws", draws, low=1, unit="vectors")
    check_range("rows", rows, low=0, unit="rows")
    nudging: Mapping[str, Any] = dict(zip(NUDGING, (derivative, points, radius, nudged_steps, shared_noise), strict=True))
    free: Mapping[str, Any] = {"substrate": substrate, "loss": loss, "free_steps": free_steps, "tolerance": tolerance}
    if base == "exact":
        for name, value in nudging.items():
            if value != DEFAULTS[name]:
                raise InputError(
                    f"{name} is {value!r}, but base 'exact' has no nudged phase; expected it left at {DEFAULTS[name]!r}"
                )
        rule = implicit_differentiation.build(**free)
    else:
        rule = generalised_equilibrium_propagation.build(**free, **nudging)
    return Rule(rule.init, partial(update, substrate, Settings(rule, strength, form, draws, rows)), rule.predict)


def update(substrate: Any, settings: Settings, state: State, batch: Batch, key: Key) -> Update:
    """The base's update, then L and its gradient at the free states it measured, in phase ``twin``, counted as the host's.

    `Diagnostics.symmetry` is |S| / (|S| + |A|), estimated from the same products.

    Raises
    ------
    InputError
        As the base.
    """
    found = settings.base.update(state, batch, key)
    rows = _rows(settings, len(batch), key)
    states = tuple(layer[rows] for layer in found.diagnostics.states)
    vectors = normal_vectors(key.at("homeostasis"), batch.samples[rows], settings.draws, sum(layer.shape[1] for layer in states))
    with substrate.ledger.phase("twin"):
        twin = substrate.twin()
        asymmetry = jacobian_asymmetry(twin, batch.inputs[rows], states, vectors, form=settings.form)
        count_asymmetry(substrate.ledger, "host", twin, asymmetry, settings.draws * len(rows), form=settings.form)
        estimates = _pulled(found.estimates, asymmetry.gradient, settings.strength, substrate.ledger)
    noticed = replace(found.diagnostics, symmetry=asymmetry.symmetry, of_loss=found.estimates)
    return Update(found.state, estimates, noticed)


def _rows(settings: Settings, batch: int, key: Key) -> np.ndarray[Any, np.dtype[np.int64]]:
    if settings.rows == 0 or settings.rows >= batch:
        return np.arange(batch)
    return np.sort(key.at("rows").generator().choice(batch, settings.rows, replace=False))


def _pulled(
    estimates: Mapping[str, Estimate], gradient: Mapping[str, Array], strength: float, ledger: Ledger
) -> dict[str, Estimate]:
    """Estimates plus strength times the gradient; what J does not depend on, or nothing pulls, stays as it was."""
    pulled = dict(estimates)
    if strength == 0:
        return pulled
    for name, one in gradient.items():
        before = pulled.get(name)
        if isinstance(before, Outer):
            ledger.count("host", "digital twin", "mac_fp32", before.macs)
            before = before.dense()
        ledger.count("host", "digital twin", "mac_fp32", one.size)
        pulled[name] = np.asarray(strength * one if before is None else before + strength * one)
    return pulled
