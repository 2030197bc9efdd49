"""From counted events to joules: an estimate with a range, its sources, and what it leaves out.

energy = sum over events of amount x cost. The amounts are exact; the costs are uncertain, so a total is a distribution,
reported by its 10, 50 and 90 % points. Costs from one source err together: one standard normal deviate per source and
draw serves all its rows, and it depends on nothing but seed and source, so that two estimates (an analog network and its
digital baseline) share their draws and can be compared draw by draw.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from inmaterio.devices.costs import BOUNDARIES, Cost, CostTable
from inmaterio.devices.ledger import RULE_PHASES, RUN_PHASES, Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_array, check_name, check_range

EventKey = tuple[str, str, str, str]
"""(phase, role, component, event), as in `Ledger.events`."""

BOLTZMANN = 1.380649e-23
"""J/K, exact (SI, 2019)."""

NOT_MODELLED = (
    "Clock generation and distribution, control logic and instruction fetch: a digital operation is priced as its bare "
    "arithmetic unit, so digital baselines are priced too low rather than too high.",
    "Leakage and standby power of anything but the amplifiers counted as events.",
    "Power conversion, cooling and anything else between the wall and the chip.",
    "Wires: charging of array lines, voltage drop along them, on-chip and off-chip links.",
    "Voltage references, bias generation, digital interfaces of converters and their calibration.",
    "Static power of the drivers that hold the input lines at their voltages while a network settles.",
    "Detection that a network has settled: it is taken to be known when to read.",
    "Sharing of A/D converters: one per node is assumed, all working in parallel; sharing takes multiplexers and time.",
    "How many pulses an outer product of several rows really takes, and how many a change of one device: each device is "
    "counted as programmed once per update.",
    "Write endurance: devices wear out, and the number of updates is not held against it.",
    "Half-selected devices and the verification reads of a programming scheme, unless a simulator counts them as events.",
    "DRAM refresh and background power; reading the data set from storage.",
    "Differences of technology node between rows: figures stand at the node of their source and are not scaled to a common one.",
    "The time a digital host takes: modelled seconds are the substrate's alone.",
    "Making, testing and idling the hardware; choosing hyperparameters.",
)
"""What no estimate of this package contains, in plain sentences for reports."""

ANY_HARDWARE = (
    "Clock generation",
    "Power conversion",
    "DRAM refresh",
    "Differences of technology node",
    "The time a digital host",
    "Making, testing",
)
"""Beginnings of the sentences of `NOT_MODELLED` that hold for spiking chips too, and for digital networks beside them."""

SPIKING_NOT_MODELLED = (
    "Where neurons lie on a chip: hops are a stated number for every spike (hops_per_spike), and a spike that goes to several "
    "cores is not counted once for each.",
    "Cores, and limits of fan-in, fan-out and tables: nothing checks that a network fits, or counts the neurons and synapses "
    "that a chip would have to double.",
    "Integer membranes and their saturation (Loihi's have 24 bits), synaptic currents with a time constant of their own, "
    "adaptive thresholds.",
    "A learning engine on the chip, and the memory of its traces: rules run on the host unless they were asked to count one.",
    "Time within a step: all arrivals of a step count at once.",
    "The host's link: sending input spikes to the chip and fetching what it answers.",
    "Leakage, static power and clocks of the chip: static power stands beside published figures, in no total.",
    "Memory outside the chip.",
    *(sentence for sentence in NOT_MODELLED if sentence.startswith(ANY_HARDWARE)),
)
"""What no figure of a spiking network contains, in plain sentences."""

SPIKING_EVENTS = ("synaptic_event", "synapse_write")
"""Events of which an estimate has one when its substrate is a spiking chip."""


class Quantiles(NamedTuple):
    """10, 50 and 90 % points, in J unless a function says otherwise."""

    P10: float
    P50: float
    P90: float


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
    return _build(tuple(Part(*key, float(amounts[key]), costs.for_event(key[3])) for key in charged), int(draws), seed)


def per_sample(whole: EnergyEstimate, n: float) -> EnergyEstimate:
    """The estimate divided by a number: of samples, of MACs, of anything; draws, sources and ranking stay.

    Raises
    ------
    InputError
        When `n` is not a number > 0.
    """
    check_range("number to divide by", n, low=0.0, low_open=True, high=math.inf, high_open=True)
    return _build(
        tuple(Part(p.phase, p.role, p.component, p.event, p.amount / n, p.cost) for p in whole.parts), whole.draws, whole.seed
    )


def difference(a: EnergyEstimate, b: EnergyEstimate, level: str = "system") -> Quantiles | None:
    """Quantiles of a - b draw by draw (J); None when either has no figure at this level.

    Raises
    ------
    InputError
        When the two do not share seed and number of draws.
    """
    pair = _pair(a, b, level)
    return None if pair is None else quantiles(pair[0] - pair[1])


def ratio(a: EnergyEstimate, b: EnergyEstimate, level: str = "system") -> Quantiles | None:
    """Quantiles of a / b draw by draw (dimensionless); None when either has no figure at this level or b is 0.

    Above 1: `a` takes more. What is not modelled in either is missing here too: see `EnergyEstimate.complete`.

    Raises
    ------
    InputError
        When the two do not share seed and number of draws.
    """
    pair = _pair(a, b, level)
    return None if pair is None or not pair[1].all() else quantiles(pair[0] / pair[1])


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


def quantiles(draws: ArrayLike) -> Quantiles:
    """10, 50 and 90 % points of a sample."""
    low, middle, high = np.quantile(np.asarray(draws, dtype=np.float64), (0.1, 0.5, 0.9))
    return Quantiles(float(low), float(middle), float(high))


def cost_draws(cost: Cost, draws: int, seed: int) -> NDArray[np.float64]:
    """A Monte-Carlo sample of one cost, shape (draws,), in its unit; rows of one source move together."""
    return cost.at(_deviates(cost.source, draws, seed))


def conversion_floor(whole: EnergyEstimate, temperature_K: float = 300.0) -> float:
    """Thermal floor of the A/D conversions in an estimate: 8 k T SNR each, SNR = 10^((6.02 bits + 1.76) / 10).

    Source: Murmann, ADC performance survey. No converter gets below it; a total that does is wrong.

    Returns
    -------
    float
        J; 0 when there are no conversions.
    """
    check_range("temperature", temperature_K, low=0.0, unit="K", low_open=True)
    floor = 0.0
    for part in whole.parts:
        kind, _, resolution = part.event.rpartition("_")
        if kind == "adc_conversion" and resolution[:-1].isdigit():
            snr = 10.0 ** ((6.02 * int(resolution[:-1]) + 1.76) / 10.0)
            floor += part.amount * 8.0 * BOLTZMANN * temperature_K * snr
    return floor


def not_modelled(whole: EnergyEstimate) -> tuple[str, ...]:
    """What is missing from an estimate: its unpriced events first, then `NOT_MODELLED`, or of a spiking chip its own list."""
    missing = tuple(
        f"{component}: {amount:.4g} x {event}, for which there is no cost." for component, event, amount in whole.unpriced
    )
    spiking = any(part.event in SPIKING_EVENTS for part in whole.parts)
    return missing + (SPIKING_NOT_MODELLED if spiking else NOT_MODELLED)


def to_record(whole: EnergyEstimate) -> dict[str, Any]:
    """An estimate as plain dicts, lists, strings and numbers, for JSON. Energies in J."""

    def plain(figure: Quantiles | None) -> dict[str, float] | None:
        return None if figure is None else figure._asdict()

    return {
        "complete": whole.complete,
        "levels": {level: plain(figure) for level, figure in whole.levels.items()},
        "components": {name: plain(figure) for name, figure in whole.by_component.items()},
        "phases": {name: plain(figure) for name, figure in whole.by_phase.items()},
        "events": [
            {
                "phase": part.phase,
                "role": part.role,
                "component": part.component,
                "event": part.event,
                "amount": part.amount,
                "cost": part.cost.id if part.cost else None,
                "boundary": part.boundary or None,
            }
            for part in whole.parts
        ],
        "costs": [
            {
                name: getattr(cost, name)
                for name in ("id", "event", "low", "typical", "high", "unit", "source", "year", "status", "notes")
            }
            for cost in whole.used
        ],
        "sensitivity": [{"cost": item.cost.id, "low": item.low, "high": item.high} for item in whole.sensitivity],
        "not_modelled": list(not_modelled(whole)),
        "draws": whole.draws,
        "seed": whole.seed,
    }


@lru_cache(maxsize=512)
def _deviates(source: str, draws: int, seed: int) -> NDArray[np.float64]:
    """Standard normal deviates of a source, shape (draws,).

    The midpoints of equal slices of probability, in the source's own random order (a Latin hypercube): quantiles of a
    single cost come out exact to the width of a slice, and different sources stay independent.
    """
    order = Key(seed, ("cost", source)).generator().permutation(draws)
    deviates: NDArray[np.float64] = ndtri((order + 0.5) / draws)
    deviates.flags.writeable = False
    return deviates


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


def _build(parts: tuple[Part, ...], draws: int, seed: int) -> EnergyEstimate:
    """An estimate from its parts."""
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


def _pair(a: EnergyEstimate, b: EnergyEstimate, level: str) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Draws of two estimates that share them."""
    if (a.seed, a.draws) != (b.seed, b.draws):
        raise InputError(
            f"estimates have seed {a.seed} and {b.seed}, draws {a.draws} and {b.draws}; expected the same, to share their draws"
        )
    first, second = a.total_draws(level), b.total_draws(level)
    return None if first is None or second is None else (first, second)
