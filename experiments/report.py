"""One HTML page about a comparison or about some runs: it loads nothing, needs no script and says what it does not know.

The page is made from ``comparison.json`` and the run directories alone, priced with the table of costs that is given, so
that a reader can replace a constant and make the page again without running anything. Only the pictures of a wave medium, on
a page about runs, load the trained chip and its data.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inmaterio.devices.chip_profiles import load_chip_profiles
from inmaterio.devices.costs import BOUNDARIES, CostTable
from inmaterio.devices.validation import InputError
from inmaterio.experiments.configuration import to_toml
from inmaterio.experiments.controls import BP_FEEDFORWARD, READOUT_ONLY, ablation_of
from inmaterio.experiments.digital_inference import INT8_NOTE
from inmaterio.experiments.field_pictures import medium_context
from inmaterio.experiments.left_out import split_notes
from inmaterio.experiments.metrics import DECIDING_PAIRS
from inmaterio.experiments.report_entries import Entry, compare_runs, entries_of, find_baseline, find_readout
from inmaterio.experiments.report_figures import (
    component_legend,
    component_looks,
    cosine_panels,
    energy_panels,
    learning_panels,
    legend,
    tornado_panel,
)
from inmaterio.experiments.report_inputs import Comparison, Row, read_comparison
from inmaterio.experiments.report_physics import ablated, by_block, first_of_block, physics_context, shown, work_context
from inmaterio.experiments.report_spiking import is_spiking, not_modelled_lists, spiking_context
from inmaterio.experiments.report_tables import (
    chance_levels,
    energy_line,
    plain,
    result_line,
    results_group,
    run_line,
    source_line,
    tuning_line,
    unpriced_events,
    used_costs,
)
from inmaterio.experiments.report_text import (
    NO_FIGURE,
    findings,
    headlines,
    margin_text,
    points_unit,
)
from inmaterio.experiments.run_record import RunRecord, read_record
from inmaterio.learning_rules.contract import SETTLED

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
    comparison = compare_runs(records)
    named = (run_name(row, runs[0]) for row, runs in zip(comparison.rows, comparison.runs, strict=True))
    title = f"{', '.join(dict.fromkeys(named))}: {len(records)} run{'s' if len(records) > 1 else ''}"
    return _write(out, comparison, costs, title=title, single=True)


def run_name(row: Row, run: RunRecord) -> str:
    """A rule's name; where a run is a control, the rule that trained it and the control it is."""
    if not row.control or ablation_of(row.rule) is not None:
        return row.rule
    return f"{run.config.rule.name} ({row.rule})"


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
    everything = entries_of(comparison, costs)
    entries = shown(everything)
    titled = by_block(_grouped(entries), everything)
    block_titles = first_of_block([title for title, _ in titled])
    ordered = [group for _, group in titled]
    drawn = by_block(_with_baseline(entries), everything)
    drawn_titles = first_of_block([title for title, _ in drawn])
    layers = sorted({layer for entry in everything for layer in entry.row.cosine}, key=lambda layer: (len(layer), layer))
    settings = comparison.settings
    left_out, notes = split_notes(str(note) for note in settings.get("notes") or ())
    has_baseline = any(find_baseline(entry, entries) not in (None, entry) for entry in entries)
    has_readout = any(find_readout(entry, entries) not in (None, entry) for entry in entries)
    spiking = spiking_context(everything, load_chip_profiles(), single)
    return {
        "title": title,
        "single": single,
        "quick": quick_note(settings),
        "lead": _lead(everything, settings, single),
        "data_notes": data_notes(everything),
        "findings": findings(entries),
        "headlines": headlines(entries),
        "layers": [layer.replace("_", " ") for layer in layers],
        "groups": [
            results_group(group, entries, layers) | {"block": title} for title, group in zip(block_titles, ordered, strict=True)
        ],
        "ablated": [
            results_group(group, entries, layers) | {"block": ""}
            for _, group in by_block(_grouped(ablated(everything)), everything)
        ],
        "physics": physics_context(everything, settings),
        "work": work_context(everything, settings),
        "medium": medium_context([record for line in comparison.runs for record in line]) if single else None,
        "chance": chance_levels(entries),
        "settled": f"{SETTLED:g}",
        "baseline": BP_FEEDFORWARD,
        "readout": READOUT_ONLY,
        "has_baseline": has_baseline,
        "has_readout": has_readout,
        "several_runs": any(len(entry.runs) > 1 for entry in everything),
        "several_lines": len(everything) > 1,
        "compared": has_baseline or has_readout or len(entries) > 1,
        "beside_baseline": any(entry.baseline for entry in entries) and not all(entry.digital for entry in entries),
        "has_converters": any(not entry.digital and not is_spiking(entry) for entry in entries),
        "spiking": spiking,
        "columns": 3 + len(layers) + has_baseline + has_readout,
        "pairing": pairing_note(entries),
        "margin": margin_text(entries[0].row.metric),
        "rules_legend": legend([entry for _, group in drawn for entry in group]),
        "parts_legend": component_legend(component_looks(entries), entries),
        "variants": [line for entry in entries if (line := result_line(entry, entries, layers))["variants"]],
        "int8_note": INT8_NOTE,
        "no_figure": NO_FIGURE,
        "sections": [
            _section(i, group, entries) | {"block": title}
            for i, (title, (_, group)) in enumerate(zip(drawn_titles, drawn, strict=True))
        ],
        "levels": BOUNDARIES,
        "energies": [energy_line(entry) for group in ordered for entry in group],
        "sources": [source_line(cost) for cost in used_costs(everything, costs)],
        "unpriced": unpriced_events(everything),
        "not_modelled": not_modelled_lists(everything),
        "settings": [(key.replace("_", " "), plain(value)) for key, value in settings.items() if key not in APART],
        "left_out": left_out,
        "notes": notes,
        "command": str(settings.get("command") or ""),
        "runs": [run_line(entry) for group in _grouped(everything) for entry in group],
        "config": to_toml(entries[0].runs[0].config),
        "tuning": [tuning_line(line, entries[0].row.metric) for line in comparison.tuning],
        "unit": points_unit(entries[0].row.metric),
    }


def data_notes(entries: Sequence[Entry]) -> list[str]:
    """What has to be known of the data, once per data set; its name stands before it where there are several."""
    notes = {entry.row.data: run.data_notes for entry in entries for run in entry.runs if run.data_notes}
    several = len({entry.row.data for entry in entries}) > 1
    return [f"{data}: {note}" if several else note for data, note in notes.items()]


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


def quick_note(settings: Mapping[str, Any]) -> str:
    """What is said of a comparison made with ``--quick``; empty for any other."""
    if settings.get("quick") is not True:
        return ""
    rates = settings.get("rate_factors")
    counts = (
        ("epoch", settings.get("epochs")),
        ("rate", len(rates) if isinstance(rates, list) else None),
        ("seed", settings.get("seeds")),
    )
    told = [f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts if isinstance(count, int)]
    return f"--quick: {', '.join(told)}; settings too small for conclusions"


def pairing_note(entries: Sequence[Entry]) -> str:
    """What a pair is, and what the intervals of differences therefore cover."""
    splits = max(entry.splits for entry in entries)
    few = f" At least {DECIDING_PAIRS} pairs are needed to decide, and no interval is narrower than one test row either way."
    if splits > 1:
        text = f"A pair is a split: there are {splits}, and seeds and chips are averaged within each, because runs on one split"
        return f"{text} are not independent of each other.{few}"
    counts = {entry.test_rows for entry in entries if entry.test_rows is not None}
    rows = f"these {counts.pop()} test rows" if len(counts) == 1 else "these test rows"
    text = "All runs are on one split: a pair is a seed, chips averaged. The intervals cover seeds only and hold for"
    text += f" {rows}; how far other test rows could have moved an error stands under it as a 95 % (Wilson) range."
    return f"{text}{few} Several splits (--splits) cover both where test rows differ from split to split."


def _lead(entries: Sequence[Entry], settings: Mapping[str, Any], single: bool) -> str:
    runs, ablations = sum(len(entry.runs) for entry in entries), bool(ablated(entries))
    entries = shown(entries)
    rules = list(dict.fromkeys(entry.row.rule for entry in entries if not entry.row.control and not entry.baseline))
    controls = list(dict.fromkeys(entry.row.rule for entry in entries if entry.row.control or entry.baseline))
    substrates = list(dict.fromkeys(entry.row.substrate for entry in entries if not entry.baseline))
    data = list(dict.fromkeys(entry.row.data for entry in entries))
    names = rules or controls
    if single:
        names = list(dict.fromkeys(run_name(entry.row, entry.runs[0]) for entry in entries))
    places = _listed(substrates or [entries[0].row.substrate])
    count = f"{runs} run{'s' if runs > 1 else ''}"
    text = f"Trained by {_listed(names)}: {places}, with the data {_listed(data)}, in {count}."
    if not single:
        text += " Architecture, data order and number of updates are the same for every rule, and so is the size of the rate grid"
        extra = settings.get("extra_rates_allowed")
        text += f", which may move on from its edge by {extra} rates at most." if extra else "."
        text += " Rates were chosen on validation rows; the test rows were used once, with fresh seeds."
        further = ["every rule without physics and with linear physics"] if ablations else []
        text += f" Controls: {_listed([*controls, *further])}." if controls or further else ""
    simulated = " Everything here is simulated. Counts of events are exact for these simulations; joules are estimates, "
    return text + simulated + "each constant with its range and source below."


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _section(index: int, group: Sequence[Entry], entries: Sequence[Entry]) -> dict[str, Any]:
    row = group[0].row
    name = f"g{index}"
    looks = component_looks(entries)
    return {
        "title": row.substrate if len({entry.row.data for entry in entries}) == 1 else f"{row.substrate}, {row.data}",
        "learning": learning_panels(group, f"{name}-learning"),
        "cosine": cosine_panels(group, f"{name}-cosine"),
        "training": energy_panels(group, looks, f"{name}-train", False),
        "inference": energy_panels(group, looks, f"{name}-infer", True),
        "tornado": [
            panel
            for i, entry in enumerate(group)
            if not entry.row.control and (panel := tornado_panel(entry, f"{name}-tornado{i}")).svg
        ],
    }
