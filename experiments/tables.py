"""Tables for the terminal."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from inmaterio.experiments.energy import EnergyEstimate
from inmaterio.experiments.plots import engineering
from inmaterio.experiments.registry import Pair
from inmaterio.learning_rules.contract import SETTLED

NO_FIGURE = "no figure"


def comparison_table(
    rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], *, width: int = 110
) -> tuple[Table, list[str]]:
    """Rows of a comparison, and the footnotes they need; below 105 characters of `width` ranges take a second line."""
    narrow = width < 105
    budget = "quick: " if settings["quick"] else ""
    counts = (settings["epochs"], len(settings["rate_factors"]), settings["seeds"], settings["chips"])
    size = "{} epochs, {} rates, {} seeds x {} chips".format(*counts)
    title = f"{settings['data']}: {budget}{size}"
    table = Table(title=title, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    layers = list(dict.fromkeys(layer for row in rows for layer in row["cosine"]))
    percent = rows[0]["metric"] == "error"
    table.add_column("rule", overflow="fold", min_width=15)
    table.add_column("error %" if percent else str(rows[0]["metric"]), justify="right", no_wrap=True)
    table.add_column(f"cosine {' '.join(layer.replace('layer_', '') for layer in layers)}", justify="right", no_wrap=True)
    for heading in ("residual", "passes", "seconds", f"J P50{chr(10) if narrow else ' '}[P10-P90]"):
        table.add_column(heading, justify="right", no_wrap=True)
    for substrate in dict.fromkeys(row["substrate"] for row in rows):
        table.add_row()
        table.add_row(f"[bold]{escape(substrate)}[/]")
        for row in rows:
            if row["substrate"] == substrate:
                table.add_row(*_cells(row, layers, 100.0 if percent else 1.0, "\n" if narrow else " "))
    notes = [
        "Rules in brackets are controls. Error: mean ± standard deviation over runs, test rows.",
        "Cosine: to the exact gradient, per layer, mean over probes and runs. Residual: largest of the last epoch.",
        "Passes, modelled seconds and joules (boundary: system) are of training one model; the report has their sources.",
    ]
    if any(row["unsettled_fraction"] for row in rows):
        notes.append(f"! some free phases of the last epoch ended with a residual above {SETTLED:g}: not settled.")
    if any(row["energy_partial"] for row in rows):
        notes.append("* partial: some events have no price.")
    if any(row["rate_at_edge"] for row in rows):
        edge = ", ".join(f"{row['rule']} on {row['substrate']}" for row in rows if row["rate_at_edge"])
        notes.append(f"The best rate lies at the edge of the grid, so a better one may lie outside: {edge}.")
    return table, notes + [note[0].upper() + note[1:] + "." for note in settings["notes"]]


def _cells(row: Mapping[str, Any], layers: Sequence[str], scale: float, gap: str) -> list[str]:
    spread = "" if row["test_error_std"] is None else f" ±{scale * row['test_error_std']:.2f}"
    low, middle, high = (row["energy_J"][point] for point in ("P10", "P50", "P90"))
    mark = "*" if row["energy_partial"] else ""
    return [
        f"  ({row['rule']})" if row["control"] else f"  {row['rule']}",
        f"{scale * row['test_error_mean']:.2f}{spread}",
        " ".join(number(row["cosine"].get(layer)) for layer in layers),
        f"{row['residual_max']:.0e}{'!' if row['unsettled_fraction'] else ''}",
        short(row["device_passes"]),
        "-" if row["modelled_time_s"] is None else short(row["modelled_time_s"]),
        NO_FIGURE if middle is None else f"{short(middle)}{mark}{gap}[{short(low)}-{short(high)}]",
    ]


def short(value: float) -> str:
    """Two digits and a prefix: 64.7e3 is ``65k``."""
    if value == 0:
        return "0"
    power = min(max(math.floor(math.log10(abs(value)) / 3), -6), 4)
    scaled = f"{value / 1000.0**power:.2g}"
    if "e+" in scaled:  # 995 and more round to three digits
        scaled = f"{float(scaled):.0f}"
    return scaled + "afpnµm kMGT"[power + 6].strip()


def number(value: float | None) -> str:
    """Two decimals, or a dash."""
    return "-" if value is None else f"{value:.2f}"


def pairs_table(found: Sequence[Pair]) -> tuple[Table, list[str]]:
    """Rules against substrates, and the reasons that its numbers stand for."""
    table = Table(title="which rule trains which substrate")
    table.add_column("rule", no_wrap=True)
    for substrate in dict.fromkeys(pair.substrate for pair in found):
        table.add_column(substrate.replace("-", "-\n"), justify="center")
    reasons: list[str] = []
    for rule in dict.fromkeys(pair.rule for pair in found):
        cells = []
        for pair in (pair for pair in found if pair.rule == rule):
            why = pair.reason.replace(f"{pair.substrate} ", "")
            if not pair.legal and why not in reasons:
                reasons.append(why)
            cells.append(f"yes {pair.reason}".strip() if pair.legal else f"no ({reasons.index(why) + 1})")
        table.add_row(rule, *cells)
    return table, [f"({place}) {reason}" for place, reason in enumerate(reasons, start=1)]


def names_table(title: str, lines: Mapping[str, Sequence[str]], *headings: str) -> Table:
    """A name and some words per line."""
    table = Table(title=title)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for name, cells in lines.items():
        table.add_row(name, *cells)
    return table


def energy_tables(title: str, whole: EnergyEstimate) -> list[Table]:
    """Joules by boundary and by component, with what the total hangs on most."""
    boundaries = Table(title=f"{title}: by boundary, each containing those above it")
    components = Table(title=f"{title}: by component")
    for table, heading in ((boundaries, "boundary"), (components, "component")):
        table.add_column(heading)
        for point in ("P10", "P50", "P90"):
            table.add_column(point, justify="right")
    for table, figures in ((boundaries, whole.levels), (components, whole.by_component)):
        for name, figure in figures.items():
            table.add_row(name, *([NO_FIGURE] * 3 if figure is None else (engineering(value, "J") for value in figure)))
    for component, event, amount in whole.unpriced:
        components.add_row(component, "not modelled", f"{amount:.4g} x", event)
    sensitivity = Table(title=f"{title}: total with one cost at its low and high point")
    for heading in ("cost", "low", "high", "status", "source"):
        sensitivity.add_column(heading, overflow="fold")
    for item in whole.sensitivity[:5]:
        cost = item.cost
        sensitivity.add_row(cost.id, engineering(item.low, "J"), engineering(item.high, "J"), cost.status, f"{cost.source}")
    return [boundaries, components, *([sensitivity] if whole.sensitivity else [])]
