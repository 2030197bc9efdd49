"""What one event costs: joules with a range and a source, from ``costs.csv`` or from the user's own file.

The ledger counts events, this table prices them. `low`, `typical` and `high` are the 5 %, 50 % and 95 % points of a
cost whose logarithm is normal on either side of its median.
"""

import csv
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inmaterio.devices.validation import InputError, check_name

BOUNDARIES = ("device", "array", "array+converters", "chip", "system")
"""What a figure covers, from the inside out. Each level contains those before it: *device* is what a single device takes
to be programmed or read; *array* adds the dissipation of whole arrays; *array+converters* adds DACs, ADCs, amplifiers and
sample-and-holds; *chip* adds digital arithmetic and on-chip memory; *system* adds off-chip memory and the host."""

STATUSES = ("read", "computed", "recalled", "assumed range")
"""How a figure came here: read in its source, computed from one, recalled without the source at hand, or assumed."""

MARKED = ("recalled", "assumed range")
"""Statuses that every report marks."""

CONVERTER_BITS = range(4, 13)
"""Resolutions of the converters that the shipped table prices."""

EVENTS = (
    *(f"dac_conversion_{bits}b" for bits in CONVERTER_BITS),
    *(f"adc_conversion_{bits}b" for bits in CONVERTER_BITS),
    "ohmic_joule",  # joules dissipated in a conductance array, from V^2 G t
    "amplifier_second",  # seconds x amplifiers under bias
    "sample_hold",  # one sample stored
    "device_write",  # one device programmed once
    "device_read",  # one device read back singly
    "mac_fp32",
    "alu_fp32",  # a float operation other than a multiply-accumulate
    "mac_int8",  # an 8-bit multiply-accumulate with a 32-bit sum; no simulator counts it: reports reprice a baseline
    "alu_int32",  # an integer addition; as above
    "byte_sram",
    "byte_dram",
    "synaptic_event",  # a synapse of weight other than zero that a spike reaches
    "neuron_update_active",  # a neuron in a step in which it is driven or spikes
    "neuron_update_idle",  # a neuron in any other step
    "spike",  # made by a neuron
    "hop",  # of a spike from router to router
    "membrane_read",  # membrane of a neuron read out once
    "synapse_write",  # one word of synapse memory written
)
"""Events the shipped table prices. Ideal converters (``adc_conversion_ideal``) have no price: they cannot be built."""

UNPRICED_EVENTS = (
    "graded_synaptic_event",  # a synaptic event whose spike has an amplitude, which takes a multiplication
    "source_second",  # seconds x sources (loudspeaker, antenna, laser) under drive: the power is that of one apparatus
)
"""Events without a price of general use: reported as not modelled, until a table of one's own prices them."""

EVENT_UNITS: Mapping[str, str] = {"ohmic_joule": "1", "amplifier_second": "W", "source_second": "W"}
"""Unit of an event's cost where it is not J per event: joules per joule, and joules per second."""

Z95 = 1.6448536269514722
"""95 % point of the standard normal distribution."""

COLUMNS = (
    "id",
    "component",
    "quantity",
    "event",
    "low",
    "typical",
    "high",
    "unit",
    "node",
    "boundary",
    "source",
    "year",
    "status",
    "notes",
)

_CONVERSION = re.compile(r"(dac|adc)_conversion_([1-9][0-9]?b|ideal)")


@dataclass(frozen=True, slots=True)
class Cost:
    """One row of the table.

    Attributes
    ----------
    id : str
        Name of the row, unique in its table.
    component, quantity : str
        What takes the energy, and for doing what.
    event : str
        Event of the ledger that this row prices; empty for figures kept for comparison.
    low, typical, high : float
        5 %, 50 % and 95 % points, in `unit`. All equal: a constant.
    unit : str
        ``"J"`` per event where nothing else is said.
    node : str
        Technology node.
    boundary : str
        One of `BOUNDARIES`.
    source : str
        Rows with the same source err together: one draw serves all of them.
    year : int or None
        Of the source.
    status : str
        One of `STATUSES`.
    notes : str
    """

    id: str
    component: str
    quantity: str
    event: str
    low: float
    typical: float
    high: float
    unit: str
    node: str
    boundary: str
    source: str
    year: int | None
    status: str
    notes: str = ""

    @property
    def marked(self) -> bool:
        """Whether reports mark this figure: it was recalled, or a range was assumed."""
        return self.status in MARKED

    def at(self, z: ArrayLike) -> NDArray[np.float64]:
        """Cost at standard normal deviates: ``exp(ln typical + z ln(high/typical)/Z95)``, below 0 with ``typical/low``.

        Parameters
        ----------
        z : array_like
            -Z95 gives `low`, 0 gives `typical`, Z95 gives `high`.

        Returns
        -------
        ndarray, shape of `z`
            In `unit`.
        """
        deviates = np.asarray(z, dtype=np.float64)
        slope = np.where(deviates < 0.0, math.log(self.typical / self.low), math.log(self.high / self.typical))
        values: NDArray[np.float64] = self.typical * np.exp(deviates * slope / Z95)
        return values


@dataclass(frozen=True, slots=True)
class CostTable:
    """Costs by id and by the event they price.

    Raises
    ------
    InputError
        When an id stands under another name or two rows price the same event.
    """

    rows: Mapping[str, Cost]
    _by_event: Mapping[str, Cost] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_event: dict[str, Cost] = {}
        for name, cost in self.rows.items():
            if name != cost.id:
                raise InputError(f"cost {cost.id!r} stands under the name {name!r}; expected its id")
            if cost.event and cost.event in by_event:
                raise InputError(
                    f"event {cost.event!r} is priced by {by_event[cost.event].id!r} and {cost.id!r}; expected one row"
                )
            if cost.event:
                by_event[cost.event] = cost
        object.__setattr__(self, "_by_event", by_event)

    def __iter__(self) -> Iterator[Cost]:
        return iter(self.rows.values())

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> Cost:
        """The row with this id.

        Raises
        ------
        InputError
            When there is none; the nearest are named.
        """
        return self.rows[check_name("cost", name, self.rows)]

    def for_event(self, event: str) -> Cost | None:
        """The row that prices an event; None when nothing does."""
        return self._by_event.get(event)

    def replaced(self, path: Path | str) -> "CostTable":
        """This table with the rows of the user's file in place of its own.

        A row of the file replaces the row with its id; a new id with an event takes over that event, and the row that
        priced it stays as a figure for comparison. Component, quantity, node, boundary and unit may be left empty: they
        are taken from the row replaced. A new figure names its own source and status.

        Parameters
        ----------
        path : path
            CSV file with the columns of ``costs.csv`` and only the rows it replaces.

        Raises
        ------
        InputError
            As `load_costs`, or when neither id nor event is known, or the unit differs from that of the row replaced.
        """
        rows = dict(self.rows)
        taken: dict[str, str] = {}  # event -> id of the row of this file that prices it
        for place, cells in _read_cells(Path(path)):
            old = rows.get(cells["id"])
            if old is None and not cells["event"]:
                raise InputError(f"{place}: {_unknown('id', cells['id'], rows)}; a new id needs the event it prices")
            if old is not None and old.event and cells["event"] not in ("", old.event):
                raise InputError(
                    f"{place}: {cells['id']!r} prices event {old.event!r}, not {cells['event']!r}; expected that or a new id"
                )
            event = cells["event"] or (old.event if old else "")
            pricing = next((cost for cost in rows.values() if event and cost.event == event), None)
            template = old or pricing
            if template is not None:
                for name in ("component", "quantity", "node", "boundary", "unit"):
                    cells[name] = cells[name] or getattr(template, name)
                if cells["unit"] != template.unit:
                    raise InputError(f"{place}: unit of {cells['id']!r} is {cells['unit']!r}; expected {template.unit!r}")
            new = _parse({**cells, "event": event}, place)
            if event and taken.setdefault(event, new.id) != new.id:
                raise InputError(f"{place}: event {event!r} is priced by {taken[event]!r} and {new.id!r}; expected one row")
            if pricing is not None and pricing.id != new.id:
                rows[pricing.id] = replace(pricing, event="")
            rows[new.id] = new
        return CostTable(rows)


def known_event(name: str) -> bool:
    """Whether `name` belongs to the ledger's vocabulary: `EVENTS`, or a converter of any other resolution."""
    return name in EVENTS or name in UNPRICED_EVENTS or _CONVERSION.fullmatch(name) is not None


def load_costs(path: Path | str | None = None) -> CostTable:
    """A whole table of costs.

    Parameters
    ----------
    path : path, optional
        CSV file with the columns of the shipped ``devices/costs.csv``; None reads that one. For a file with a few rows
        to replace, see `CostTable.replaced`.

    Returns
    -------
    CostTable

    Raises
    ------
    InputError
        File and line, the value and what was expected: unreadable file, missing column, number that is not positive,
        low above typical or typical above high, unknown boundary, status or event, duplicate id, no source.
    """
    file = Path(__file__).with_name("costs.csv") if path is None else Path(path)
    rows: dict[str, Cost] = {}
    priced: dict[str, str] = {}
    for place, cells in _read_cells(file):
        cost = _parse(cells, place)
        if cost.event and priced.setdefault(cost.event, cost.id) != cost.id:
            raise InputError(
                f"{place}: event {cost.event!r} is priced by {priced[cost.event]!r} and {cost.id!r}; expected one row"
            )
        rows[cost.id] = cost
    return CostTable(rows)


def _read_cells(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Each record as (``"file, line n"``, cells by column), stripped; ids unique."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            records = [(reader.line_num, record) for record in reader if any(cell.strip() for cell in record)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise InputError(f"cannot read costs from {path}: {reason}; expected a CSV file in UTF-8") from None
    if len(records) < 2:
        raise InputError(
            f"{path} holds {'no rows' if records else 'nothing'}; expected a header {','.join(COLUMNS)} and rows below it"
        )
    line, header = records[0][0], [cell.strip() for cell in records[0][1]]
    missing = [name for name in COLUMNS if name not in header]
    unknown = [name for name in header if name not in COLUMNS]
    if missing or unknown or len(set(header)) < len(header):
        what = f"lacks column {missing[0]!r}" if missing else f"has column {unknown[0]!r}" if unknown else "names a column twice"
        raise InputError(f"{path}, line {line}: header {what}; expected {','.join(COLUMNS)}")
    seen: set[str] = set()
    for line, record in records[1:]:
        place = f"{path}, line {line}"
        if len(record) != len(header):
            raise InputError(f"{place}: {len(record)} cells; expected {len(header)}, one for each column")
        cells = dict(zip(header, (cell.strip() for cell in record), strict=True))
        if not cells["id"]:
            raise InputError(f"{place}: id is empty; expected a name")
        if cells["id"] in seen:
            raise InputError(f"{place}: id {cells['id']!r} stands twice; expected each once")
        seen.add(cells["id"])
        yield place, cells


def _parse(cells: Mapping[str, str], place: str) -> Cost:
    """A `Cost` from text."""
    number = {name: _positive(name, cells[name], place) for name in ("low", "typical", "high")}
    for lower, upper in (("low", "typical"), ("typical", "high")):
        if number[lower] > number[upper]:
            raise InputError(f"{place}: {lower} {cells[lower]} is above {upper} {cells[upper]}; expected low <= typical <= high")
    for name, allowed in (("boundary", BOUNDARIES), ("status", STATUSES)):
        if cells[name] not in allowed:
            raise InputError(f"{place}: {_unknown(name, cells[name], allowed)}")
    if cells["event"] and not known_event(cells["event"]):
        raise InputError(f"{place}: {_unknown('event', cells['event'], (*EVENTS, *UNPRICED_EVENTS))}")
    for name in ("source", "unit"):
        if not cells[name]:
            raise InputError(f"{place}: {name} of {cells['id']!r} is empty; expected text")
    unit = EVENT_UNITS.get(cells["event"], "J")
    if cells["event"] and cells["unit"] != unit:
        raise InputError(f"{place}: unit of {cells['id']!r} is {cells['unit']!r}; expected {unit!r} for event {cells['event']!r}")
    if cells["year"] and not re.fullmatch(r"[12][0-9]{3}", cells["year"]):
        raise InputError(f"{place}: year is {cells['year']!r}; expected four digits or nothing")
    return Cost(
        id=cells["id"],
        component=cells["component"],
        quantity=cells["quantity"],
        event=cells["event"],
        **number,
        unit=cells["unit"],
        node=cells["node"],
        boundary=cells["boundary"],
        source=cells["source"],
        year=int(cells["year"]) if cells["year"] else None,
        status=cells["status"],
        notes=cells["notes"],
    )


def _positive(name: str, text: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise InputError(f"{place}: {name} is {text!r}; expected a number > 0")
    return value


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """What `check_name` says of an unknown name."""
    try:
        check_name(kind, name, known)
    except InputError as error:
        return str(error)
    return ""
