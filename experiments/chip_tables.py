"""Tables for the terminal of what one inference would take on published chips."""

from collections.abc import Sequence

from rich.table import Table

from inmaterio.experiments.chip_energy import ChipEnergy, Counts, TermEnergy
from inmaterio.experiments.plots import engineering

TERM_COLUMNS = (
    ("synapses", ("synaptic_event", "graded_synaptic_event")),
    ("active updates", ("neuron_update_active",)),
    ("idle updates", ("neuron_update_idle",)),
    ("spikes, hops", ("spike", "hop")),
)
"""Columns of terms."""

RECALLED = "†"
"""Mark of figures that were written down from memory."""

SHORT_GRADES = {
    "measured": "measured",
    "pre-silicon SPICE": "SPICE",
    "calibrated by others": "calibrated",
    "tabulated by others": "tabulated",
    "stated by its makers": "stated",
    "recalled": f"recalled {RECALLED}",
}
"""Grades as a narrow column has them."""


def chip_tables(counts: Counts, energies: Sequence[ChipEnergy]) -> tuple[list[Table], list[str]]:
    """What was counted, what each chip would take, and a note per chip with its sources."""
    counted = Table(title="one inference: what was counted")
    counted.add_column("event")
    counted.add_column("per inference", justify="right")
    for event, amount in {**counts.terms, **counts.other}.items():
        counted.add_row(event.replace("_", " "), f"{amount:,.6g}")
    counted.add_row("modelled time", engineering(counts.seconds, "s"))

    chips = Table(title="one inference: the same events at figures of published chips", box=None, padding=(0, 1, 0, 0))
    # Cells fold rather than lose their ends where a terminal is narrow; names are broken first, figures last.
    chips.add_column("chip", overflow="fold")
    for heading in (*(name.replace(" ", "\n") for name, _ in TERM_COLUMNS), "total"):
        chips.add_column(heading, justify="right", overflow="fold")
    chips.add_column("grade", overflow="fold")
    for one in energies:
        total = (
            figure_range(one.low, one.high)
            + ("\npartial" if one.partial else "")
            + ("\n(scope not\nstated)" if one.scope_not_stated else "")
        )
        chips.add_row(chip_name(one), *chip_cells(one), total, "\n".join(SHORT_GRADES[grade] for grade in _grades(one)))
        for heading, value in (("static power", one.static), ("a reset", one.reset)):
            if value is not None:
                chips.add_row(f"  beside: {heading}", *[""] * len(TERM_COLUMNS), f"({engineering(value, 'J', 2)})", "")
    return [counted, chips], _notes(energies)


def chip_name(one: ChipEnergy) -> str:
    """A chip's name, marked where a figure of it was recalled."""
    return one.profile.chip + (f" {RECALLED}" if one.marked else "")


def chip_cells(one: ChipEnergy) -> list[str]:
    """What stands in each of `TERM_COLUMNS`."""
    if one.profile.scope == "all-in":
        return ["all-in"] + ["" for _ in TERM_COLUMNS[1:]]
    if one.scope_not_stated:
        return ["scope not stated"] + ["" for _ in TERM_COLUMNS[1:]]
    return [_terms(one, names) for _, names in TERM_COLUMNS]


def _terms(one: ChipEnergy, names: Sequence[str]) -> str:
    found = [part for part in one.parts if part.term in names]
    if not found:
        return "no price" if any(name in one.unpriced for name in names) else "-"
    return figure_range(sum(part.low for part in found), sum(part.high for part in found))


def figure_range(low: float, high: float) -> str:
    """One figure, or two on lines of their own where sources differ."""
    least, largest = engineering(low, "J", 3), engineering(high, "J", 3)
    return least if least == largest else f"{least}\nto {largest}"


def _grades(one: ChipEnergy) -> list[str]:
    """How its figures were found, those of a total first."""
    return list(dict.fromkeys(figure.grade for figure in one.figures if figure.scope != "beside"))


def table_notes(recalled: bool) -> list[str]:
    """How to read the table; with what the dagger says where one stands in it."""
    notes = [
        "All-in: everything a chip took, over its synaptic operations; nothing is added to it. Others: a sum of what is priced.",
        "Partial: something was counted that has no price, or has a price and was not counted: it is missing from the total.",
        "Scope not stated: one figure per synaptic operation that does not say what is in it. Nothing is added; always partial.",
        "Beside: static power of one chip over the modelled time, a reset between samples; in no total. A range: figures differ.",
        "Grades: SPICE is simulated before the chip was made; calibrated and tabulated, by others than the chip's makers.",
        "Stated: in the chip's own paper; whether it was measured or simulated is not recorded here.",
    ]
    return [*notes, f"{RECALLED} recalled: written down from memory, not checked against its source."] if recalled else notes


def _notes(energies: Sequence[ChipEnergy]) -> list[str]:
    notes = table_notes(any(one.marked for one in energies))
    for one in energies:
        parts = [_conflict(part) for part in one.parts if len({figure.source for figure in part.figures}) > 1]
        sources = "; ".join(dict.fromkeys(figure.source for figure in one.figures))
        words = [f"{chip_name(one)}: {sources}."]
        words += ["Partial: scope not stated."] if one.scope_not_stated else []
        words += [f"No price: {', '.join(name.replace('_', ' ') for name in one.unpriced)}."] if one.unpriced else []
        words += [f"Not counted: {', '.join(one.uncounted)}."] if one.uncounted else []
        notes.append(" ".join(words + parts))
    return notes


def _conflict(part: TermEnergy) -> str:
    """Sources that do not agree, each with its figure."""
    each = "; ".join(f"{engineering(figure.value, 'J', 3)} ({figure.source})" for figure in part.figures)
    return f"Sources differ on a {part.term.replace('_', ' ')}: {each}."
