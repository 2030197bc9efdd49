"""What is asked of a benchmark, and whether what was measured meets it.

Demands are data beside the benchmark that they are of. Timings come from its rounds, in which ours and the references take turns.
A missed demand is said and changes nothing else: a machine with other work to do misses what it would meet alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from inmaterio.devices.validation import InputError, check_name

Verdict = dict[str, Any]
"""A demand and what became of it: see `verdicts`."""

PER_SAMPLE = "ms/sample"
OF_LIMIT = "of limit"


def ratio_to(reference: str) -> str:
    """The quantity: seconds of a reference by those of ours."""
    return f"ratio to {reference}"


@dataclass(frozen=True, slots=True)
class Demand:
    """A bound of one measured quantity.

    Attributes
    ----------
    quantity : str
        `PER_SAMPLE` of ours; `OF_LIMIT`, limit / ours; `ratio_to` a reference; the name of a fact; or, for what a call of ours
        has so much of, the name of that fact followed by ``/s``.
    least, most : float or None
        One of them: the smallest, or the largest, value that meets the demand.

    Raises
    ------
    InputError
        When both bounds are given, or none.
    """

    quantity: str
    least: float | None = None
    most: float | None = None

    def __post_init__(self) -> None:
        if (self.least is None) == (self.most is None):
            raise InputError(f"demand on {self.quantity!r} has least {self.least} and most {self.most}; expected one of them")

    def met_by(self, value: float) -> bool:
        """Whether a value lies within the bound; NaN does not."""
        return value >= self.least if self.least is not None else self.most is not None and value <= self.most


def check_demands(demands: Sequence[Demand], facts: Iterable[str], references: Iterable[str]) -> None:
    """Check that all quantities will be known once the rounds are done.

    Parameters
    ----------
    demands : sequence of Demand
    facts : iterable of str
    references : iterable of str
        Those that cannot be had on this machine too.

    Raises
    ------
    InputError
        With the first that will not.
    """
    names = list(facts)
    known = [PER_SAMPLE, OF_LIMIT, *map(ratio_to, references), *names, *(f"{name}/s" for name in names)]
    for demand in demands:
        check_name("quantity", demand.quantity, known)


def verdicts(
    demands: Sequence[Demand],
    seconds: float,
    limit: float,
    samples: int,
    facts: Mapping[str, float],
    references: Mapping[str, float],
) -> list[Verdict]:
    """Hold what was measured against what was asked.

    Parameters
    ----------
    demands : sequence of Demand
    seconds, limit : float
        Of a call of ours, and of the limit.
    samples : int
        Of a call of ours.
    facts : mapping of str to float
    references : mapping of str to float
        Seconds of a call of each that could be had.

    Returns
    -------
    list of dict
        Each demand's ``quantity``, ``least`` and ``most``, with ``measured`` and ``met``; both None where the reference could not
        be had.
    """
    known = {f"{name}/s": value / seconds for name, value in facts.items()}
    known |= facts
    known |= {ratio_to(name): value / seconds for name, value in references.items()}
    known |= {PER_SAMPLE: 1e3 * seconds / samples, OF_LIMIT: limit / seconds}
    found = []
    for demand in demands:
        measured = known.get(demand.quantity)
        found.append(asdict(demand) | {"measured": measured, "met": None if measured is None else demand.met_by(measured)})
    return found


def said(verdict: Verdict) -> str:
    """A verdict in words."""
    bound = f"at least {verdict['least']:.4g}" if verdict["least"] is not None else f"at most {verdict['most']:.4g}"
    if verdict["met"] is None:
        return f"not measured: {verdict['quantity']}, asked {bound}"
    return f"{'met' if verdict['met'] else 'MISSED'}: {verdict['quantity']} is {verdict['measured']:.4g}, asked {bound}"
