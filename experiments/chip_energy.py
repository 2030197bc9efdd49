"""What the counted events of a spiking run would take on published chips, per inference.

For a chip priced per term, E = sum over terms of amount x price; a term that has been counted and has no price makes the figure
partial, and so does a price for something that is not counted. For a chip with an all-in figure, E = synaptic operations x that
figure, and no term is added. The same for a figure per operation whose source does not say what is in it; that is always
partial. Static power and resets stand beside: power is taken for one chip over the modelled time of an
inference, which is real time at `seconds_per_step`; a chip that runs faster takes less.

Counts are of the network as simulated: a chip may need several cores for a neuron or a synapse, and updates every neuron it
holds, used or not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inmaterio.devices.chip_profiles import NOT_STATED, OPERATION, PER_OPERATION, TERMS, ChipProfile, Figure
from inmaterio.devices.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Counts:
    """Events of one inference.

    Attributes
    ----------
    terms : mapping of str to float
        By `TERMS`; those that were counted.
    other : mapping of str to float
        Everything else that was counted while inferring, by event.
    seconds : float
        Modelled time.
    """

    terms: Mapping[str, float]
    other: Mapping[str, float]
    seconds: float

    @property
    def operations(self) -> float:
        """Synaptic operations: plain and graded."""
        return self.terms.get("synaptic_event", 0.0) + self.terms.get("graded_synaptic_event", 0.0)


@dataclass(frozen=True, slots=True)
class TermEnergy:
    """One priced term: `low` and `high` J from the least and the largest of `figures`."""

    term: str
    amount: float
    low: float
    high: float
    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class ChipEnergy:
    """What one inference takes on a chip.

    Attributes
    ----------
    profile : ChipProfile
    parts : tuple of TermEnergy
        The only one of an all-in figure is all of it; of a figure whose scope is not stated, an unknown share.
    unpriced : tuple of str
        Events that were counted and have no price.
    uncounted : tuple of str
        Terms that have a price and were not counted.
    static : float or None
        J of one chip's static power over the modelled time; in no total.
    reset : float or None
        J of one reset of a chip; in no total.
    """

    profile: ChipProfile
    parts: tuple[TermEnergy, ...]
    unpriced: tuple[str, ...]
    uncounted: tuple[str, ...]
    static: float | None
    reset: float | None

    @property
    def low(self) -> float:
        """J, with the least figure of each term."""
        return sum(part.low for part in self.parts)

    @property
    def high(self) -> float:
        """J, with the largest figure of each term."""
        return sum(part.high for part in self.parts)

    @property
    def partial(self) -> bool:
        """Whether something is missing from the figure, or may be."""
        return bool(self.unpriced or self.uncounted or self.scope_not_stated)

    @property
    def scope_not_stated(self) -> bool:
        """Whether its source does not say what the figure includes."""
        return self.profile.scope == NOT_STATED

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Every figure that enters, in a total or beside it."""
        used = [figure for part in self.parts for figure in part.figures]
        return tuple(used + [figure for figure in self.profile.figures if figure.scope == "beside"])

    @property
    def marked(self) -> bool:
        """Whether any of them was recalled."""
        return any(figure.marked for figure in self.figures)


def inference_counts(ledger: Ledger) -> Counts | None:
    """Events per inference of a run; None where it made no inference or none on a spiking chip."""
    samples = ledger.total("sample", "infer")
    amounts: dict[str, float] = {}
    for (phase, role, _, event), amount in ledger.events.items():
        if phase.split("/")[0] == "infer" and role != "host":
            amounts[event] = amounts.get(event, 0.0) + amount
    if not samples or "synaptic_event" not in amounts:
        return None
    per = {event: amount / samples for event, amount in amounts.items() if amount}
    return Counts(
        {term: per[term] for term in TERMS if term in per},
        {event: amount for event, amount in per.items() if event not in TERMS},
        ledger.total("second", "infer") / samples,
    )


def chip_energies(counts: Counts, profiles: Sequence[ChipProfile]) -> tuple[ChipEnergy, ...]:
    """What one inference takes on each chip, in their order."""
    return tuple(_one(counts, profile) for profile in profiles)


def to_record(counts: Counts, energies: Sequence[ChipEnergy]) -> dict[str, Any]:
    """Counts and energies as plain dicts, lists, strings and numbers, for JSON; J and s."""
    return {
        "counts_per_inference": {**counts.terms, **counts.other},
        "synaptic_operations": counts.operations,
        "seconds": counts.seconds,
        "chips": [
            {
                "chip": one.profile.chip,
                "node": one.profile.node,
                "scope": one.profile.scope,
                "low": one.low,
                "high": one.high,
                "partial": one.partial,
                "scope_not_stated": one.scope_not_stated,
                "unpriced": list(one.unpriced),
                "uncounted": list(one.uncounted),
                "recalled": one.marked,
                "terms": [{"term": part.term, "amount": part.amount, "low": part.low, "high": part.high} for part in one.parts],
                "beside": {"static": one.static, "reset": one.reset},
                "figures": [
                    {name: getattr(figure, name) for name in ("scope", "term", "value", "unit", "grade", "source", "notes")}
                    for figure in one.figures
                ],
            }
            for one in energies
        ],
    }


def _one(counts: Counts, profile: ChipProfile) -> ChipEnergy:
    parts: tuple[TermEnergy, ...]
    unpriced: tuple[str, ...] = ()
    uncounted: tuple[str, ...] = ()
    if profile.scope in PER_OPERATION:
        parts = (_term(OPERATION, counts.operations, profile.of(OPERATION)),)
    else:
        parts = tuple(_term(term, counts.terms[term], profile.of(term)) for term in profile.terms if term in counts.terms)
        unpriced = tuple(event for event in (*counts.terms, *counts.other) if event not in profile.terms)
        # graded events that never came and a message that is never counted are not the same
        uncounted = tuple(term for term in profile.terms if term == "message" and term not in counts.terms)
    power, reset = profile.of("static_power"), profile.of("reset")
    return ChipEnergy(
        profile,
        parts,
        unpriced,
        uncounted,
        power[-1].value * counts.seconds if power else None,
        reset[-1].value if reset else None,
    )


def _term(term: str, amount: float, figures: tuple[Figure, ...]) -> TermEnergy:
    return TermEnergy(term, amount, amount * figures[0].value, amount * figures[-1].value, figures)
