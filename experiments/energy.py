"""From counted events to joules: an estimate with a range, its sources, and what it leaves out.

energy = sum over events of amount x cost. The amounts are exact; the costs are uncertain, so a total is a distribution,
reported by its 10, 50 and 90 % points. Costs from one source err together: one standard normal deviate per source and
draw serves all its rows, and it depends on nothing but seed and source, so that two estimates (an analog network and its
digital baseline) share their draws and can be compared draw by draw.

This is where to import from: what an estimate is, how two are compared and what none contains stand in files of their own.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inmaterio.devices.costs import BOUNDARIES, CostTable
from inmaterio.devices.ledger import RULE_PHASES, RUN_PHASES, Ledger
from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.experiments.conversion_floor import BOLTZMANN, conversion_floor
from inmaterio.experiments.cost_draws import Quantiles, cost_draws, quantiles
from inmaterio.experiments.energy_comparison import difference, ratio
from inmaterio.experiments.energy_estimate import DOMINANT, EnergyEstimate, Part, Sensitivity, build_estimate
from inmaterio.experiments.energy_record import to_record
from inmaterio.experiments.not_modelled import ANY_HARDWARE, NOT_MODELLED, SPIKING_EVENTS, SPIKING_NOT_MODELLED, not_modelled

__all__ = [
    "ANY_HARDWARE",
    "BOLTZMANN",
    "DOMINANT",
    "NOT_MODELLED",
    "SPIKING_EVENTS",
    "SPIKING_NOT_MODELLED",
    "EnergyEstimate",
    "EventKey",
    "Part",
    "Quantiles",
    "Sensitivity",
    "conversion_floor",
    "cost_draws",
    "cumulative",
    "difference",
    "estimate",
    "not_modelled",
    "per_sample",
    "quantiles",
    "ratio",
    "to_record",
]

EventKey = tuple[str, str, str, str]
"""(phase, role, component, event), as in `Ledger.events`."""


def estimate(
    events: Ledger | Mapping[EventKey, float],
    costs: CostTable,
    *,
    phases: Sequence[str] = ("train",),
    draws: int = 4096,
    seed: int = 0,
) -> EnergyEstimate:
    """Price events.

    Parameters
    ----------
    events : Ledger or mapping
        Amounts by (phase, role, component, event).
    costs : CostTable
    phases : sequence of str
        What is charged: ``"train"`` with all that rules opened inside it, ``"train/free"`` for that alone. `evaluate` is
        charged to nobody; name it to show what it would have cost.
    draws : int
        Size of the Monte-Carlo sample.
    seed : int
        Estimates to be compared must share it.

    Returns
    -------
    EnergyEstimate

    Raises
    ------
    InputError
        When an event stands outside a phase, an amount is negative or not finite, or a phase is unknown.
    """
    amounts = events.events if isinstance(events, Ledger) else events
    check_range("draws", draws, low=1)
    charged = _charged(amounts, phases)
    for key in charged:
        check_range(f"amount of {key[3]!r} of {key[2]!r}", amounts[key], low=0.0, high=math.inf, high_open=True)
    return build_estimate(tuple(Part(*key, float(amounts[key]), costs.for_event(key[3])) for key in charged), int(draws), seed)


def per_sample(whole: EnergyEstimate, n: float) -> EnergyEstimate:
    """The estimate divided by a number: of samples, of MACs, of anything; draws, sources and ranking stay.

    Raises
    ------
    InputError
        When `n` is not a number > 0.
    """
    check_range("number to divide by", n, low=0.0, low_open=True, high=math.inf, high_open=True)
    return build_estimate(
        tuple(Part(p.phase, p.role, p.component, p.event, p.amount / n, p.cost) for p in whole.parts), whole.draws, whole.seed
    )


def cumulative(
    events_by_epoch: ArrayLike,
    rows: Sequence[EventKey],
    costs: CostTable,
    *,
    phases: Sequence[str] = ("train",),
    level: str = "system",
    draws: int = 4096,
    seed: int = 0,
) -> NDArray[np.float64] | None:
    """Joules spent up to the end of each epoch, for a learning curve against energy.

    Parameters
    ----------
    events_by_epoch : array_like, shape (epochs, rows)
        Amounts that came in each epoch (not running totals).
    rows : sequence of (phase, role, component, event)
        What each column counts.
    costs, phases, draws, seed
        As in `estimate`: the last row equals the estimate of the whole run.
    level : str
        One of `BOUNDARIES`.

    Returns
    -------
    ndarray, shape (epochs, 3), or None
        P10, P50, P90 in J; None when nothing inside the level is priced.

    Raises
    ------
    InputError
        As `estimate`; when shapes do not fit.
    """
    amounts = np.cumsum(
        check_array("events_by_epoch", events_by_epoch, shape=(None, len(rows)), low=0.0), axis=0, dtype=np.float64
    )
    check_name("boundary", level, BOUNDARIES)
    check_range("draws", draws, low=1)
    inside = BOUNDARIES[: BOUNDARIES.index(level) + 1]
    charged = set(_charged(rows, phases))
    joules: NDArray[np.float64] | None = None
    for column, key in enumerate(rows):
        part = Part(*key, 1.0, costs.for_event(key[3]))
        if key in charged and part.boundary in inside:
            grown = amounts[:, column, None] * part.joules(int(draws), seed)
            joules = grown if joules is None else joules + grown
    return None if joules is None else np.quantile(joules, (0.1, 0.5, 0.9), axis=1).T


def _charged(keys: Iterable[EventKey], phases: Sequence[str]) -> list[EventKey]:
    """The keys whose phase is one of `phases` or was opened inside one."""
    for phase in phases:
        run, _, rule = phase.partition("/")
        check_name("phase", run, RUN_PHASES)
        if rule:
            check_name("phase", rule, RULE_PHASES)
    charged = []
    for key in keys:
        if key[0].split("/")[0] not in RUN_PHASES:
            raise InputError(
                f"event {key[3]!r} of {key[2]!r} stands in phase {key[0]!r}; expected one inside {', '.join(RUN_PHASES)}"
            )
        if any(key[0] == phase or key[0].startswith(phase + "/") for phase in phases):
            charged.append(key)
    return charged
