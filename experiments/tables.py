"""Tables for the terminal."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from inmaterio.experiments.controls import ablation_of
from inmaterio.experiments.energy import EnergyEstimate
from inmaterio.experiments.left_out import left_out_lines, split_notes
from inmaterio.experiments.metrics import DECIDING_PAIRS
from inmaterio.experiments.plots import engineering
from inmaterio.experiments.registry import Pair
from inmaterio.learning_rules.contract import SETTLED

NO_FIGURE = "no figure"

NAME_WIDTH = 16
"""Characters of a name on one line of a narrow terminal: ``equilibrium-`` and ``differentiation)`` fit."""

DIFFERENCES = ("difference_bp_feedforward", "difference_readout_only", "difference_first_rule")


def comparison_table(
    rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], *, width: int = 110
) -> tuple[Table, list[str]]:
    """Rows of a comparison, and the footnotes they need; below 105 characters of `width` it takes more lines and no more columns.

    Then cosines go below each other, ranges take a second line, and a name breaks at a hyphen. Rules without physics and with
    linear physics stand in a table of their own (`inmaterio.experiments.physics_tables.physics_table`).
    """
    narrow = width < 105
    everything, rows = rows, [row for row in rows if not (row["control"] and ablation_of(row["rule"]))]
    budget = "quick: " if settings["quick"] else ""
    counts = (settings["epochs"], len(settings["rate_factors"]), settings["seeds"], settings["chips"])
    names = ("epoch", "rate", "seed", "chip")
    size = "{}, {}, {} x {}".format(
        *(f"{count} {name}{'s' if count != 1 else ''}" for count, name in zip(counts, names, strict=True))
    )
    title = "\n".join([f"{settings['data']}: {budget}{size}", *dict.fromkeys(filter(None, map(_data_notes, rows)))])
    table = Table(title=title, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    layers = list(dict.fromkeys(layer for row in rows for layer in row["cosine"]))
    percent = rows[0]["metric"] == "error"
    table.add_column("rule", no_wrap=True)
    table.add_column("error %" if percent else str(rows[0]["metric"]), justify="right", no_wrap=True)
    gap = "\n" if narrow else " "
    numbers = " ".join(layer.replace("layer_", "") for layer in layers)
    for heading in (f"cosine{gap}{numbers}", "residual", "passes", "time", f"energy P50{gap}[P10-P90]"):
        table.add_column(heading, justify="right", no_wrap=True)
    for substrate in dict.fromkeys(row["substrate"] for row in rows):
        table.add_row()
        table.add_row(f"[bold]{escape(chr(10).join(broken(substrate, 20)) if narrow else substrate)}[/]")
        for row in rows:
            if row["substrate"] == substrate:
                table.add_row(*(Text(cell) for cell in _cells(row, layers, 100.0 if percent else 1.0, gap)))
    notes = ["Rules in brackets are controls. Error: mean ± standard deviation over runs, test rows."]
    notes += _test_rows_notes(rows)
    notes += [
        "Cosine: to the exact gradient, per layer, mean over probes and runs. Residual: largest of the last epoch.",
        "Passes, modelled time and energy (boundary: system) are of training one model; the report has their sources.",
    ]
    losses = {
        loss: [row["rule"] for row in rows if row.get("loss") == loss] for loss in dict.fromkeys(row.get("loss") for row in rows)
    }
    if len(losses) > 1:
        told = "; ".join(f"{loss}: {', '.join(dict.fromkeys(rules))}" for loss, rules in losses.items())
        notes.append(
            f"Losses differ, so that rows of different losses differ in both rule and loss: {told} (--loss sets one for all)."
        )
    if any(row["unsettled_fraction"] for row in rows):
        notes.append(f"! some phases of the last epoch ended with a residual above {SETTLED:g}: not settled.")
    held = [(row, row.get("symmetry")) for row in rows]
    if symmetric := [f"{row['rule']} on {row['substrate']} {value:.3f}" for row, value in held if value is not None]:
        notes.append(f"Symmetry |S| / (|S| + |A|) of the Jacobian, last epoch: {'; '.join(symmetric)}.")
    notes += _first_rule_notes(rows) + _other_errors_notes(rows)
    if any(row["energy_partial"] for row in rows):
        notes.append("* partial: some events have no price.")
    if edge := _edges(everything):
        notes.append(f"The best rate lies at the edge of the rates tried, so a better one may lie beyond: {edge}.")
    left, rest = split_notes(settings["notes"])
    return table, notes + left_out_lines(left) + [note[0].upper() + note[1:] + "." for note in rest]


def _edges(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lines whose best rate lies at an edge, by substrate; the rule's name once for itself and its ablations."""
    found: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        if row["rate_at_edge"]:
            rule, words = (ablation_of(row["rule"]) if row["control"] else None) or (row["rule"], "")
            found.setdefault(row["substrate"], {}).setdefault(rule, []).append(words)

    def named(rule: str, forms: Sequence[str]) -> str:
        if list(forms) == [""]:
            return rule
        words = ", ".join("with" if not form else form.removesuffix(" physics").removeprefix("with ") for form in forms)
        return f"{rule} ({words} physics)"

    places = (f"{', '.join(named(*one) for one in rules.items())} on {substrate}" for substrate, rules in found.items())
    return "; ".join(places)


def _first_rule_notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Paired differences to the first rule, in points, a sentence per substrate with several rules."""
    notes = []
    for substrate in dict.fromkeys(row["substrate"] for row in rows):
        own = [row for row in rows if row["substrate"] == substrate and not row["control"] and row["metric"] == "error"]
        told = [(row["rule"], found) for row in own[1:] if (found := row.get("difference_first_rule"))]
        if told:
            each = "; ".join(f"{rule} {difference_in_points(one)}" for rule, one in told)
            notes.append(f"Against {own[0]['rule']} on {substrate}, points of error, paired, 95 %: {each}.")
    return notes


def _other_errors_notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What rules end on that are asked in other ways, a sentence per rule and substrate."""
    notes = []
    for row in rows:
        scale = 100.0 if row["metric"] == "error" else 1.0
        told = [
            f"{name} {scale * one['mean']:.2f}" + ("" if one["std"] is None else f" ±{scale * one['std']:.2f}")
            for name, one in (row.get("other_errors") or {}).items()
        ]
        if told:
            notes.append(f"{row['rule']} on {row['substrate']}, otherwise predicted: {', '.join(told)}.")
    return notes


def difference_in_points(found: Mapping[str, Any], scale: float = 100.0, gap: str = " ") -> str:
    """A paired difference with its interval; with too few pairs to decide anything, their number in its place."""
    if not found["decides"]:
        pairs = found["pairs"]
        return f"{scale * found['mean']:+.1f}{gap}({pairs} pair{'s' if pairs > 1 else ''})"
    return f"{scale * found['mean']:+.1f}{gap}[{scale * found['low']:+.1f}, {scale * found['high']:+.1f}]"


def _data_notes(row: Mapping[str, Any]) -> str:
    """What a reader has to know of the data of a row."""
    return f"data: {row['data_notes']}" if row.get("data_notes") else ""


def _test_rows_notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What differences rest on, and how far the test rows can tell."""
    notes = []
    pairs = {found["pair"] for row in rows for name in DIFFERENCES if (found := row.get(name)) and "pair" in found}
    if pairs:
        one = pairs == {"seed"}
        cover = "seeds on one split, not the choice of test rows" if one else "splits, averaged over seeds and chips"
        notes.append(f"Intervals of differences (in the report) cover {cover}; fewer than {DECIDING_PAIRS} pairs decide nothing.")
    best = min((row for row in rows if row.get("wilson")), key=lambda row: row["test_error_mean"], default=None)
    if best is not None:
        low, high = 100 * best["wilson"]["low"], 100 * best["wilson"]["high"]
        notes.append(
            f"{best['test_rows']} test rows alone leave {low:.2f} to {high:.2f} % (95 %) around "
            f"{100 * best['test_error_mean']:.2f} %, the smallest error here."
        )
    return notes


def _cells(row: Mapping[str, Any], layers: Sequence[str], scale: float, gap: str) -> list[str]:
    spread = "" if row["test_error_std"] is None else f" ±{scale * row['test_error_std']:.2f}"
    low, middle, high = (row["energy_J"][point] for point in ("P10", "P50", "P90"))
    mark = "*" if row["energy_partial"] else ""
    name = f"({row['rule']})" if row["control"] else str(row["rule"])
    return [
        "\n".join(f"  {line}" for line in (broken(name) if gap == "\n" else [name])),
        f"{scale * row['test_error_mean']:.2f}{spread}",
        " ".join(number(row["cosine"].get(layer)) for layer in layers),
        f"{row['residual_max']:.0e}{'!' if row['unsettled_fraction'] else ''}",
        short(row["device_passes"]),
        "-" if row["modelled_time_s"] is None else short(row["modelled_time_s"], "s"),
        NO_FIGURE if middle is None else f"{short(middle, 'J')}{mark}{gap}[{short(low, 'J')}-{short(high, 'J')}]",
    ]


def broken(name: str, width: int = NAME_WIDTH) -> list[str]:
    """A name in lines of at most `width` characters, broken after hyphens; a part that is longer stays whole."""
    lines = [""]
    for part in re.findall(r"[^-]+-*|-+", name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return lines


def short(value: float, unit: str = "") -> str:
    """Two digits, a prefix and the unit: 64.7e3 is ``65k``, 0.18 in seconds is ``180 ms``."""
    gap = " " if unit else ""
    if value == 0:
        return f"0{gap}{unit}"
    power = min(max(math.floor(math.log10(abs(value)) / 3), -6), 4)
    scaled = f"{value / 1000.0**power:.2g}"
    if "e+" in scaled:  # 995 and more round to three digits
        scaled = f"{float(scaled):.0f}"
    return scaled + gap + "afpnµm kMGT"[power + 6].strip() + unit


def number(value: float | None) -> str:
    """Two decimals, or a dash."""
    return "-" if value is None else f"{value:.2f}"


def pairs_table(found: Sequence[Pair]) -> tuple[Table, list[str]]:
    """Substrates against rules, whose columns are numbered: a plus, or letters that stand for what is missing.

    Also the numbers' and the letters' meanings, a line each.
    """
    table = Table(
        title="which rule trains which substrate (+), or what is missing", box=None, padding=(0, 1, 0, 0), pad_edge=False
    )
    table.add_column("substrate", overflow="fold")
    rules = list(dict.fromkeys(pair.rule for pair in found))
    for place, _ in enumerate(rules, start=1):
        table.add_column(str(place), justify="center", no_wrap=True)
    legend = [f"{place}: {rule}" for place, rule in enumerate(rules, start=1)]
    reasons: list[str] = []
    verdicts = {(pair.substrate, pair.rule): pair for pair in found}
    for substrate in dict.fromkeys(pair.substrate for pair in found):
        cells = []
        for rule in rules:
            pair = verdicts[substrate, rule]
            why = pair.reason.replace(f"{pair.substrate} ", "")
            if why and why not in reasons:
                reasons.append(why)
            mark = _letter(reasons.index(why)) if why else ""
            cells.append(f"{'+' if pair.legal else ''}{mark}")
        table.add_row(substrate, *cells)
    return table, legend + [f"{_letter(place)}: {reason}" for place, reason in enumerate(reasons)]


def _letter(place: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    return (_letter(place // 26 - 1) if place >= 26 else "") + chr(ord("a") + place % 26)


def names_table(title: str, lines: Mapping[str, Sequence[str]], *headings: str) -> Table:
    """A name and some words per line."""
    table = Table(title=title)
    for place, heading in enumerate(headings):
        # Names are what is looked for: they keep their line, and what is said of them wraps.
        table.add_column(heading, overflow="fold", no_wrap=place == 0)
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
        sensitivity.add_column(heading, overflow="fold", no_wrap=heading in ("cost", "low", "high"))
    for item in whole.sensitivity[:5]:
        cost = item.cost
        sensitivity.add_row(cost.id, engineering(item.low, "J"), engineering(item.high, "J"), cost.status, f"{cost.source}")
    return [boundaries, components, *([sensitivity] if whole.sensitivity else [])]
