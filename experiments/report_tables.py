"""Lines of a report's tables, as the templates take them: every figure already written with its unit."""

from collections.abc import Mapping, Sequence
from typing import Any

from inmaterio.devices.costs import BOUNDARIES, Cost, CostTable
from inmaterio.experiments.energy import EnergyEstimate
from inmaterio.experiments.metrics import DECIDING_PAIRS
from inmaterio.experiments.plots import engineering
from inmaterio.experiments.report_entries import Entry, find_baseline, find_readout, versus
from inmaterio.experiments.report_text import (
    NO_FIGURE,
    cost_text,
    count_text,
    error_text,
    interval_text,
    joules,
    joules_range,
    points,
    range_text,
    spread_text,
    standing_text,
)


def results_group(group: Sequence[Entry], entries: Sequence[Entry], layers: Sequence[str]) -> dict[str, Any]:
    """Lines of one substrate, rules and controls apart."""
    first = group[0].row
    rules = [result_line(entry, entries, layers) for entry in group if not entry.row.control]
    controls = [result_line(entry, entries, layers) for entry in group if entry.row.control]
    return {"data": first.data, "split": first.split, "substrate": first.substrate, "rules": rules, "controls": controls}


def result_line(entry: Entry, entries: Sequence[Entry], layers: Sequence[str]) -> dict[str, Any]:
    """One line of the tables of results and of costs."""
    row = entry.row
    inference = entry.inference
    return {
        "rule": entry.label,
        "control": row.control,
        "write_mode": row.write_mode,
        "loss": row.loss,
        "rows": row.extra.get("evaluated_on", "test"),
        "error": spread_text(row.test_error_mean, row.test_error_std, len(entry.runs), row.metric),
        "wilson": range_text(entry.wilson, row.metric),
        "test_rows": entry.test_rows,
        "against": [difference_cell(entry, other) for other in (find_baseline(entry, entries), find_readout(entry, entries))],
        "cosine": ["–" if row.cosine.get(layer) is None else f"{row.cosine[layer]:.3f}" for layer in layers],
        "residual": "–" if row.residual_max is None else f"{row.residual_max:.2g}",
        "unsettled": f"{100 * row.unsettled_fraction:.2g} %" if row.unsettled_fraction else "",
        "tried": row.extra.get("rates_tried"),
        "at_edge": row.extra.get("rate_at_edge") is True,
        "variants": [(one.label, joules(one.energy.total), joules_range(one.energy.total)) for one in entry.variants],
        "batch": entry.variants[0].batch if entry.variants else None,
        "rate": "–" if row.rate_factor is None else f"{row.rate_factor:g}",
        "seeds": row.seeds,
        "chips": row.chips,
        "updates": "–" if row.updates is None else f"{row.updates:,.0f}".replace(",", " "),
        "passes": "–" if row.device_passes is None else f"{row.device_passes:,.0f}".replace(",", " "),
        "time": "not modelled" if row.modelled_time_s is None else engineering(row.modelled_time_s, "s"),
        "train": joules(entry.train.total),
        "train_range": joules_range(entry.train.total),
        "train_partial": entry.train.total is not None and not entry.train.complete,
        "inference": NO_FIGURE if inference is None else joules(inference.total),
        "inference_range": "" if inference is None else joules_range(inference.total),
        "inference_partial": inference is not None and inference.total is not None and not inference.complete,
    }


def difference_cell(entry: Entry, other: Entry | None) -> dict[str, str] | None:
    """Paired difference of errors against another line, its interval and what that says; None where there is no other."""
    if other is None or other is entry:
        return None
    held = versus(entry, other)
    gap = held.error
    if gap is None:
        return {"estimate": "no common seed", "interval": "", "verdict": ""}
    metric = entry.row.metric
    pairs = f"{gap.count} {held.pair}{'' if gap.count == 1 else 's'}"
    return {
        "estimate": points(gap.estimate, metric),
        # Of fewer pairs the interval is wider than any difference could be, and the verdict says that they decide nothing.
        "interval": f"{interval_text(gap, metric)}, {pairs}" if gap.count >= DECIDING_PAIRS else "",
        "verdict": standing_text(gap, held.pair),
    }


def energy_line(entry: Entry) -> dict[str, Any]:
    """Joules inside each boundary, counts and phases of one line."""

    def levels(energy: EnergyEstimate | None) -> list[tuple[str, str]]:
        figures = [None if energy is None else energy.levels[level] for level in BOUNDARIES]
        return [(joules(figure), joules_range(figure)) for figure in figures]

    counted: dict[tuple[str, str], tuple[float, Cost | None]] = {}
    for part in entry.train.parts:
        if part.amount > 0.0:
            before = counted.get((part.label, part.event), (0.0, None))[0]
            counted[part.label, part.event] = (before + part.amount, part.cost)
    typical = {key: amount * cost.typical if cost else -1.0 for key, (amount, cost) in counted.items()}
    counts = [
        {
            "component": key[0],
            "event": key[1],
            "amount": count_text(counted[key][0], key[1]),
            "cost": cost.id if (cost := counted[key][1]) else "",
            "joules": engineering(typical[key], "J") if cost else NO_FIGURE,
        }
        for key in sorted(counted, key=lambda key: (-typical[key], key))
    ]
    phases = [(name, joules(figure), joules_range(figure)) for name, figure in entry.train.by_phase.items()]
    return {
        "label": entry.label,
        "substrate": entry.row.substrate,
        "control": entry.row.control,
        "training": levels(entry.train),
        "inference": levels(entry.inference),
        "partial": {
            "training": entry.train.total is not None and not entry.train.complete,
            "inference": entry.inference is not None and entry.inference.total is not None and not entry.inference.complete,
        },
        "counts": counts,
        "phases": phases,
    }


def used_costs(entries: Sequence[Entry], costs: CostTable) -> list[Cost]:
    """Every constant that entered, in the order of the table of costs."""
    energies = [energy for entry in entries for energy in (entry.train, entry.inference) if energy is not None]
    used = {cost.id for energy in energies for cost in energy.used}
    return [cost for cost in costs if cost.id in used]


def source_line(cost: Cost) -> dict[str, Any]:
    """One constant with its marks."""
    marks = [cost.status] if cost.marked else []
    # A figure read in its source may still have an assumed range: its notes say so.
    if "assumed range" in cost.notes and "assumed range" not in marks:
        marks.append("assumed range")
    values = {name: cost_text(getattr(cost, name), cost) for name in ("low", "typical", "high")}
    return values | {
        "id": cost.id,
        "component": cost.component,
        "quantity": cost.quantity,
        "event": cost.event,
        "node": cost.node or "–",
        "boundary": cost.boundary,
        "source": cost.source,
        "year": cost.year or "",
        "status": "" if cost.marked else cost.status,
        "marks": marks,
        "notes": cost.notes,
    }


def unpriced_events(entries: Sequence[Entry]) -> list[tuple[str, str, str]]:
    """(component, event, lines it happened in) of what has no cost."""
    found: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        for energy in (entry.train, entry.inference):
            for component, event, _ in () if energy is None else energy.unpriced:
                lines = found.setdefault((component, event), [])
                line = f"{entry.label} on {entry.row.substrate}"
                if line not in lines:
                    lines.append(line)
    return [(component, event, "; ".join(lines)) for (component, event), lines in found.items()]


def run_line(entry: Entry) -> dict[str, Any]:
    """Where the runs of a line lie."""
    folders = [run.shown for run in entry.runs]
    return {"label": entry.label, "control": entry.row.control, "substrate": entry.row.substrate, "folders": folders}


def tuning_line(line: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """What a grid of rates found."""

    def error(value: Any) -> str:
        return error_text(value, metric) if isinstance(value, (int, float)) else "failed"

    tried = [one for one in line.get("tried") or () if isinstance(one, Mapping)]
    return {
        "rule": str(line.get("rule", "–")),
        "substrate": str(line.get("substrate", "–")),
        "chosen": plain(line.get("rate_factor")),
        "error": error(line.get("validation_error")),
        "tried": "; ".join(f"{plain(one.get('rate_factor'))}: {error(one.get('validation_error'))}" for one in tried)
        or "not kept",
        "edge": line.get("at_edge") is True,
        "origin": "kept from before" if line.get("reused") else "found now",
    }


def plain(value: Any) -> str:
    """A setting as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain(one)}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(one) for one in value)
    return str(value)


def chance_levels(entries: Sequence[Entry]) -> list[str]:
    """Error of guessing for each data set."""
    levels = {}
    for entry in entries:
        if entry.row.chance_error is not None:
            levels[entry.row.data] = error_text(entry.row.chance_error, entry.row.metric, 1)
    return [f"{level} ({data})" for data, level in levels.items()]
