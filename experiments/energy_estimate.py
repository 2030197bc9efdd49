"""An estimate of energy: what was counted, at what cost, and the joules that come of it with their range."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.costs import BOUNDARIES, Cost
from inmaterio.devices.validation import check_name
from inmaterio.experiments.cost_draws import Quantiles, cost_draws, quantiles


@dataclass(frozen=True, slots=True)
class Part:
    """One counted event and its energy.

    Attributes
    ----------
    phase, role, component, event : str
        As in the ledger.
    amount : float
        In the event's own unit.
    cost : Cost or None
        None when nothing prices the event: it is not modelled.
    """

    phase: str
    role: str
    component: str
    event: str
    amount: float
    cost: Cost | None

    @property
    def label(self) -> str:
        """The component, after its role where that is not the substrate."""
        return self.component if self.role == "substrate" else f"{self.role}: {self.component}"

    @property
    def boundary(self) -> str:
        """Level the part belongs to: the cost's own; ``"system"`` for the host; empty when not priced."""
        if self.cost is None:
            return ""
        return "system" if self.role == "host" else self.cost.boundary

    def joules(self, draws: int, seed: int) -> NDArray[np.float64]:
        """Energy in each draw, shape (draws,), J; zeros when not priced."""
        return np.zeros(draws) if self.cost is None else self.amount * cost_draws(self.cost, draws, seed)


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Total (J) with one cost at its `low` and at its `high`, every other cost at `typical`."""

    cost: Cost
    low: float
    high: float


DOMINANT = 0.5
"""A total rests on one cost when that cost alone moves it by more than this share of what all costs together do."""


@dataclass(frozen=True, slots=True)
class EnergyEstimate:
    """Joules of a run or of a part of it.

    Attributes
    ----------
    parts : tuple of Part
        Every event charged, in the ledger's order: counts and joules side by side.
    draws, seed : int
        Of the Monte-Carlo sample.
    levels : mapping of str to Quantiles or None
        For each of `BOUNDARIES`, everything inside it; None where nothing inside it is priced ("no figure", not 0).
    by_component, by_phase : mapping of str to Quantiles
        Priced parts by component (``Part.label``) and by phase, over all levels.
    unpriced : tuple of (component, event, amount)
        What happened and is not modelled.
    used : tuple of Cost
        Costs that entered, in order of first use.
    sensitivity : tuple of Sensitivity
        The cost the total depends on most comes first.
    """

    parts: tuple[Part, ...]
    draws: int
    seed: int
    levels: Mapping[str, Quantiles | None]
    by_component: Mapping[str, Quantiles]
    by_phase: Mapping[str, Quantiles]
    unpriced: tuple[tuple[str, str, float], ...]
    used: tuple[Cost, ...]
    sensitivity: tuple[Sensitivity, ...]

    @property
    def total(self) -> Quantiles | None:
        """Everything priced; None when nothing is."""
        return self.levels["system"]

    @property
    def rests_on(self) -> Cost | None:
        """The cost that alone moves the total by more than `DOMINANT` of what all move it; None when there is no such."""
        spans = [item.high - item.low for item in self.sensitivity]
        return self.sensitivity[0].cost if spans and spans[0] > DOMINANT * math.fsum(spans) else None

    @property
    def complete(self) -> bool:
        """Whether there is a figure and no event is missing from it. An incomplete one must be marked partial."""
        return bool(self.used) and not self.unpriced

    def total_draws(self, level: str = "system") -> NDArray[np.float64] | None:
        """Energy inside a level in each draw, shape (draws,), J; None when nothing inside it is priced.

        Raises
        ------
        InputError
            When `level` is not one of `BOUNDARIES`.
        """
        check_name("boundary", level, BOUNDARIES)
        inside = BOUNDARIES[: BOUNDARIES.index(level) + 1]
        return _sum(tuple(part for part in self.parts if part.boundary in inside), self.draws, self.seed)


def build_estimate(parts: tuple[Part, ...], draws: int, seed: int) -> EnergyEstimate:
    """An estimate from its parts: sums inside each boundary, by component and by phase, and what they depend on most."""
    priced = tuple(part for part in parts if part.cost is not None)
    weights = _weights(priced)
    typical = math.fsum(amount * cost.typical for cost, amount in weights.items())
    ranking = [
        Sensitivity(cost, typical - amount * (cost.typical - cost.low), typical + amount * (cost.high - cost.typical))
        for cost, amount in weights.items()
    ]

    def grouped(name: Callable[[Part], str]) -> dict[str, Quantiles]:
        groups: dict[str, list[Part]] = {}
        for part in priced:
            groups.setdefault(name(part), []).append(part)
        sums = {label: _sum(tuple(group), draws, seed) for label, group in groups.items()}
        return {label: quantiles(total) for label, total in sums.items() if total is not None}

    levels: dict[str, Quantiles | None] = {}
    for place, level in enumerate(BOUNDARIES):
        total = _sum(tuple(part for part in priced if part.boundary in BOUNDARIES[: place + 1]), draws, seed)
        levels[level] = None if total is None else quantiles(total)
    missing: dict[tuple[str, str], float] = {}
    for part in parts:
        if part.cost is None and part.amount > 0.0:
            missing[part.label, part.event] = missing.get((part.label, part.event), 0.0) + part.amount
    return EnergyEstimate(
        parts=parts,
        draws=draws,
        seed=seed,
        levels=levels,
        by_component=grouped(lambda part: part.label),
        by_phase=grouped(lambda part: part.phase),
        unpriced=tuple((component, event, amount) for (component, event), amount in missing.items()),
        used=tuple(weights),
        sensitivity=tuple(sorted(ranking, key=lambda item: item.low - item.high)),
    )


def _weights(priced: Iterable[Part]) -> dict[Cost, float]:
    """Total amount charged at each cost, in order of first use."""
    amounts: dict[Cost, list[float]] = {}
    for part in priced:
        if part.cost is not None:
            amounts.setdefault(part.cost, []).append(part.amount)
    return {cost: math.fsum(each) for cost, each in amounts.items()}


def _sum(priced: tuple[Part, ...], draws: int, seed: int) -> NDArray[np.float64] | None:
    """Energy of parts in each draw (J), None when there are none."""
    if not priced:
        return None
    total = np.zeros(draws)
    for cost, amount in _weights(priced).items():
        total += amount * cost_draws(cost, draws, seed)
    return total
