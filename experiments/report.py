"""One HTML page about a comparison or about some runs: it loads nothing, needs no script and says what it does not know.

The page is made from ``comparison.json`` and the run directories alone, priced with the table of costs that is given, so
that a reader can replace a constant and make the page again without running anything.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inmaterio.devices.costs import BOUNDARIES, Cost, CostTable
from inmaterio.devices.validation import InputError
from inmaterio.experiments.configuration import to_toml
from inmaterio.experiments.controls import BP_FEEDFORWARD, READOUT_ONLY
from inmaterio.experiments.energy import NOT_MODELLED, EnergyEstimate
from inmaterio.experiments.plots import engineering
from inmaterio.experiments.report_entries import Entry, compare_runs, entries_of, find_baseline, find_readout, versus
from inmaterio.experiments.report_figures import (
    component_legend,
    component_looks,
    cosine_panels,
    energy_panels,
    learning_panels,
    legend,
    tornado_panel,
)
from inmaterio.experiments.report_inputs import Comparison, read_comparison, read_record
from inmaterio.experiments.report_text import (
    NO_FIGURE,
    cost_text,
    count_text,
    error_text,
    findings,
    headlines,
    interval_text,
    joules,
    joules_range,
    points,
    points_unit,
    spread_text,
)
from inmaterio.learning_rules.contract import SETTLED

QUICK = "--quick: 15 epochs, 3 rates, 2 seeds; settings too small for conclusions"
"""Said in every report made from a quick comparison."""

APART = ("command", "quick", "notes")
"""Settings that stand in a place of their own."""


def write_comparison_report(out_dir: Path, costs: CostTable) -> Path:
    """Write ``OUT/report.html`` about the comparison in a folder.

    Parameters
    ----------
    out_dir : Path
        Folder with ``comparison.json`` and the run directories it names.
    costs : CostTable
        Joules per event.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    InputError
        When the comparison or one of its runs is missing or damaged, or the page cannot be written.
    """
    out_dir = Path(out_dir)
    comparison = read_comparison(out_dir)
    data = ", ".join(dict.fromkeys(row.data for row in comparison.rows))
    return _write(out_dir / "report.html", comparison, costs, title=f"Learning rules compared on {data}", single=False)


def write_run_report(run_dirs: Sequence[Path], out: Path, costs: CostTable) -> Path:
    """Write a page about runs; those that differ only in seed and chip make one line.

    Parameters
    ----------
    run_dirs : sequence of Path
    out : Path
        The HTML file.
    costs : CostTable
        Joules per event.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    InputError
        When there is no run, one is missing or damaged, or the page cannot be written.
    """
    if not run_dirs:
        raise InputError("no run directory is given; expected at least one")
    out = Path(out)
    records = [read_record(Path(folder), out.parent) for folder in run_dirs]
    names = ", ".join(dict.fromkeys(record.config.rule.name for record in records))
    title = f"{names}: {len(records)} run{'s' if len(records) > 1 else ''}"
    return _write(out, compare_runs(records), costs, title=title, single=True)


def _write(out: Path, comparison: Comparison, costs: CostTable, *, title: str, single: bool) -> Path:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).with_name("templates"))
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.get_template("report.html.jinja").render(_context(comparison, costs, title=title, single=single))
    partial = out.with_name(f".{out.name}.partial")
    try:
        partial.write_text(page, encoding="utf-8", newline="\n")
        partial.replace(out)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}") from None
    return out


def _context(comparison: Comparison, costs: CostTable, *, title: str, single: bool) -> dict[str, Any]:
    entries = entries_of(comparison, costs)
    layers = sorted({layer for entry in entries for layer in entry.row.cosine}, key=lambda layer: (len(layer), layer))
    settings = comparison.settings
    has_baseline = any(entry.baseline for entry in entries)
    has_readout = any(find_readout(entry, entries) is not None for entry in entries)
    return {
        "title": title,
        "single": single,
        "quick": QUICK if settings.get("quick") is True else "",
        "lead": _lead(entries, settings, single),
        "findings": findings(entries),
        "headlines": headlines(entries),
        "layers": [layer.replace("_", " ") for layer in layers],
        "groups": [_group(group, entries, layers) for group in _grouped(entries)],
        "chance": _chance(entries),
        "settled": f"{SETTLED:g}",
        "baseline": BP_FEEDFORWARD,
        "readout": READOUT_ONLY,
        "has_baseline": has_baseline,
        "has_readout": has_readout,
        "columns": 3 + len(layers) + has_baseline + has_readout,
        "no_figure": NO_FIGURE,
        "sections": [_section(i, group, entries) for i, group in enumerate(_with_baseline(entries))],
        "levels": BOUNDARIES,
        "energies": [_energy_line(entry) for entry in entries],
        "sources": [_source(cost) for cost in _used(entries, costs)],
        "unpriced": _unpriced(entries),
        "not_modelled": NOT_MODELLED,
        "settings": [(key.replace("_", " "), _plain(value)) for key, value in settings.items() if key not in APART],
        "notes": [str(note) for note in settings.get("notes") or ()],
        "command": str(settings.get("command") or ""),
        "runs": [_run_line(entry) for entry in entries],
        "config": to_toml(entries[0].runs[0].config),
        "tuning": [_tuning_line(line, entries[0].row.metric) for line in comparison.tuning],
        "unit": points_unit(entries[0].row.metric),
    }


def _grouped(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Entries by data, split and substrate, in the order of the comparison; controls after the rules."""
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.row.data, entry.row.split, entry.row.substrate), []).append(entry)
    return [sorted(group, key=lambda entry: entry.row.control) for group in groups.values()]


def _with_baseline(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Groups to draw: each substrate with the digital baseline; a group of baselines alone only when there is no other."""
    groups = _grouped(entries)
    drawn = [group for group in groups if any(not entry.baseline for entry in group)] or groups
    completed = []
    for group in drawn:
        base = find_baseline(group[0], entries)
        completed.append(group if base is None or base in group else [*group, base])
    return completed


def _lead(entries: Sequence[Entry], settings: Mapping[str, Any], single: bool) -> str:
    rules = list(dict.fromkeys(entry.row.rule for entry in entries if not entry.row.control and not entry.baseline))
    controls = list(dict.fromkeys(entry.row.rule for entry in entries if entry.row.control or entry.baseline))
    substrates = list(dict.fromkeys(entry.row.substrate for entry in entries if not entry.baseline))
    data = list(dict.fromkeys(entry.row.data for entry in entries))
    runs = sum(len(entry.runs) for entry in entries)
    places = _listed(substrates or [entries[0].row.substrate])
    count = f"{runs} run{'s' if runs > 1 else ''}"
    text = f"Trained by {_listed(rules or controls)}: {places}, with the data {_listed(data)}, in {count}."
    if not single:
        text += " Architecture, data order, number of updates and size of the rate grid are the same for every rule."
        text += " Rates were chosen on validation rows; the test rows were used once, with fresh seeds."
        text += f" Controls: {_listed(controls)}." if controls else ""
    simulated = " Everything here is simulated. Counts of events are exact for these simulations; joules are estimates, "
    return text + simulated + "each constant with its range and source below."


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _chance(entries: Sequence[Entry]) -> list[str]:
    levels = {}
    for entry in entries:
        if entry.row.chance_error is not None:
            levels[entry.row.data] = error_text(entry.row.chance_error, entry.row.metric, 1)
    return [f"{level} ({data})" for data, level in levels.items()]


def _group(group: Sequence[Entry], entries: Sequence[Entry], layers: Sequence[str]) -> dict[str, Any]:
    first = group[0].row
    rules = [_line(entry, entries, layers) for entry in group if not entry.row.control]
    controls = [_line(entry, entries, layers) for entry in group if entry.row.control]
    return {"data": first.data, "split": first.split, "substrate": first.substrate, "rules": rules, "controls": controls}


def _line(entry: Entry, entries: Sequence[Entry], layers: Sequence[str]) -> dict[str, Any]:
    row = entry.row
    inference = entry.inference
    return {
        "rule": entry.label,
        "control": row.control,
        "write_mode": row.write_mode,
        "loss": row.loss,
        "rows": row.extra.get("evaluated_on", "test"),
        "error": spread_text(row.test_error_mean, row.test_error_std, len(entry.runs), row.metric),
        "against": [_difference(entry, other) for other in (find_baseline(entry, entries), find_readout(entry, entries))],
        "cosine": ["–" if row.cosine.get(layer) is None else f"{row.cosine[layer]:.3f}" for layer in layers],
        "residual": "–" if row.residual_max is None else f"{row.residual_max:.2g}",
        "unsettled": f"{100 * row.unsettled_fraction:.2g} %" if row.unsettled_fraction else "",
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


def _difference(entry: Entry, other: Entry | None) -> dict[str, str] | None:
    if other is None or other is entry:
        return None
    gap = versus(entry, other).error
    if gap is None:
        return {"estimate": "no common seed", "interval": "", "verdict": ""}
    verdict = "" if not gap.decides else "worse" if gap.estimate > 0 else "better"
    metric = entry.row.metric
    return {"estimate": points(gap.estimate, metric), "interval": interval_text(gap, metric), "verdict": verdict}


def _section(index: int, group: Sequence[Entry], entries: Sequence[Entry]) -> dict[str, Any]:
    row = group[0].row
    name = f"g{index}"
    looks = component_looks(entries)
    return {
        "title": row.substrate if len({entry.row.data for entry in entries}) == 1 else f"{row.substrate}, {row.data}",
        "legend": legend(group),
        "learning": learning_panels(group, f"{name}-learning"),
        "cosine": cosine_panels(group, f"{name}-cosine"),
        "components": component_legend(looks, group),
        "training": energy_panels(group, looks, f"{name}-train", False),
        "inference": energy_panels(group, looks, f"{name}-infer", True),
        "tornado": [
            panel
            for i, entry in enumerate(group)
            if not entry.row.control and (panel := tornado_panel(entry, f"{name}-tornado{i}")).svg
        ],
    }


def _energy_line(entry: Entry) -> dict[str, Any]:
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


def _used(entries: Sequence[Entry], costs: CostTable) -> list[Cost]:
    energies = [energy for entry in entries for energy in (entry.train, entry.inference) if energy is not None]
    used = {cost.id for energy in energies for cost in energy.used}
    return [cost for cost in costs if cost.id in used]


def _source(cost: Cost) -> dict[str, Any]:
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


def _unpriced(entries: Sequence[Entry]) -> list[tuple[str, str, str]]:
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


def _run_line(entry: Entry) -> dict[str, Any]:
    folders = [run.shown for run in entry.runs]
    return {"label": entry.label, "control": entry.row.control, "substrate": entry.row.substrate, "folders": folders}


def _tuning_line(line: Mapping[str, Any], metric: str) -> dict[str, str]:
    def error(value: Any) -> str:
        return error_text(value, metric) if isinstance(value, (int, float)) else "failed"

    tried = [one for one in line.get("tried") or [line] if isinstance(one, Mapping)]
    return {
        "rule": str(line.get("rule", "–")),
        "substrate": str(line.get("substrate", "–")),
        "chosen": _plain(line.get("rate_factor")),
        "error": error(line.get("validation_error")),
        "tried": "; ".join(f"{_plain(one.get('rate_factor'))}: {error(one.get('validation_error'))}" for one in tried),
        "origin": "kept from before" if line.get("reused") else "found now",
    }


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(one)}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(one) for one in value)
    return str(value)
