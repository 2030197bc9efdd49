"""What published spiking chips take per event: each figure with what it covers, how it was found, and where it stands.

A figure has a scope. *Per term*: it prices one kind of event, and a total is the sum over kinds. *All-in*: all the energy of a
chip over its synaptic operations; everything else is in it already, and nothing may be added. *Per
operation, scope not stated*: one figure per synaptic operation whose source does not say what is in it. Nothing may be added,
since it may be in it already, and no total of it is complete, since it may not. *Beside*: power that runs whatever the chip does,
or the energy of a reset; shown next to a total and never in it.

Published figures for one chip differ, by up to 300 times. All of them are kept; a chip's energy is then a range from the least to
the largest, and both sources are named.
"""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inmaterio.devices.validation import InputError, check_name

NOT_STATED = "per operation, scope not stated"
"""Scope of one figure per synaptic operation that does not say what it includes."""

SCOPES = ("per term", "all-in", NOT_STATED, "beside")

PER_OPERATION = ("all-in", NOT_STATED)
"""Scopes of figures that are divided by synaptic operations; nothing is added to them."""

TERMS = (
    "synaptic_event",
    "graded_synaptic_event",
    "neuron_update_active",
    "neuron_update_idle",
    "spike",
    "message",  # a spike sent to one core; no simulator counts it
    "hop",
    "membrane_read",
)
"""Kinds of event that have prices, by the ledger's names."""

BESIDE = ("static_power", "reset")
"""W of a chip that is on; J of putting a chip's state back between two samples."""

OPERATION = "synaptic_event"
"""What figures of `PER_OPERATION` are divided by: synaptic operations, graded ones included."""

GRADES = ("measured", "pre-silicon SPICE", "calibrated by others", "tabulated by others", "stated by its makers", "recalled")
"""How a figure was found. *Tabulated by others*: read in the table of another paper or program, not in the chip's own paper.
*Stated by its makers*: read in the chip's own paper; whether it was measured or simulated is not recorded."""

MARKED = ("recalled",)
"""Grades that every table marks: the figure was written down from memory."""

COLUMNS = ("chip", "node", "scope", "term", "value", "unit", "grade", "source", "notes")


@dataclass(frozen=True, slots=True)
class Figure:
    """One published figure.

    Attributes
    ----------
    scope : str
        One of `SCOPES`.
    term : str
        One of `TERMS`, or of `BESIDE`.
    value : float
        In `unit`.
    unit : str
        ``"J"``, or ``"W"`` for static power.
    grade : str
        One of `GRADES`.
    source, notes : str
    """

    scope: str
    term: str
    value: float
    unit: str
    grade: str
    source: str
    notes: str = ""

    @property
    def marked(self) -> bool:
        """Whether tables mark this figure."""
        return self.grade in MARKED


@dataclass(frozen=True, slots=True)
class ChipProfile:
    """All figures of one chip and one scope, and what stands beside them.

    Raises
    ------
    InputError
        When figures of several scopes stand under one name, or one of `PER_OPERATION` prices anything but synaptic operations.
    """

    chip: str
    node: str
    figures: tuple[Figure, ...]

    def __post_init__(self) -> None:
        scopes = {figure.scope for figure in self.figures} - {"beside"}
        if len(scopes) != 1:
            found = " and ".join(sorted(scopes)) or "beside alone"
            raise InputError(f"{self.chip!r} has figures of scope {found}; expected one of {'; '.join(SCOPES[:-1])}")
        for figure in self.figures:
            if figure.scope in PER_OPERATION and figure.term != OPERATION:
                raise InputError(
                    f"{self.chip!r} has a figure of scope {figure.scope} for {figure.term}; expected one for {OPERATION} alone"
                )

    @property
    def scope(self) -> str:
        """One of `SCOPES`, but not ``"beside"``."""
        return next(figure.scope for figure in self.figures if figure.scope != "beside")

    def of(self, term: str) -> tuple[Figure, ...]:
        """Figures of a term, least first; empty where it has none."""
        return tuple(sorted((one for one in self.figures if one.term == term), key=lambda one: one.value))

    @property
    def terms(self) -> tuple[str, ...]:
        """Terms that have a price."""
        return tuple(dict.fromkeys(one.term for one in self.figures if one.scope != "beside"))


def load_chip_profiles(path: Path | str | None = None) -> tuple[ChipProfile, ...]:
    """Profiles of chips, in the order of their file.

    Parameters
    ----------
    path : path, optional
        CSV file with the columns of the shipped ``devices/chip_profiles.csv``; None reads that one.

    Raises
    ------
    InputError
        File and line, the value and what was expected.
    """
    file = Path(__file__).with_name("chip_profiles.csv") if path is None else Path(path)
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            header = tuple(reader.fieldnames or ())
            records = [(reader.line_num, record) for record in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise InputError(f"cannot read chips from {file}: {reason}; expected a CSV file in UTF-8") from None
    if header != COLUMNS:
        raise InputError(f"{file}: header is {','.join(header)}; expected {','.join(COLUMNS)}")
    figures: dict[str, list[Figure]] = {}
    nodes: dict[str, str] = {}
    for line, record in records:
        place = f"{file}, line {line}"
        if any(record.get(name) is None for name in COLUMNS) or None in record:
            raise InputError(f"{place}: expected {len(COLUMNS)} cells, one for each column")
        figures.setdefault(record["chip"], []).append(_parse(record, place))
        if nodes.setdefault(record["chip"], record["node"]) != record["node"]:
            raise InputError(f"{place}: node of {record['chip']!r} is {record['node']!r}; expected {nodes[record['chip']]!r}")
    if not figures:
        raise InputError(f"{file} holds no figures; expected rows below its header")
    return tuple(ChipProfile(chip, nodes[chip], tuple(found)) for chip, found in figures.items())


def _parse(record: Mapping[str, str], place: str) -> Figure:
    try:
        value = float(record["value"])
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise InputError(f"{place}: value is {record['value']!r}; expected a number > 0")
    beside = record["scope"] == "beside"
    wanted = "W" if record["term"] == "static_power" else "J"
    try:
        check_name("scope", record["scope"], SCOPES)
        check_name("term", record["term"], BESIDE if beside else TERMS)
        check_name("grade", record["grade"], GRADES)
        check_name("unit", record["unit"], (wanted,))
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    for name in ("chip", "source"):
        if not record[name]:
            raise InputError(f"{place}: {name} is empty; expected text")
    return Figure(record["scope"], record["term"], value, record["unit"], record["grade"], record["source"], record["notes"])
