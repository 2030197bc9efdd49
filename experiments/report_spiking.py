"""What spiking networks take per inference, on a page: events, joules, and the same events at figures of published chips."""

from collections.abc import Mapping, Sequence
from typing import Any

from inmaterio.devices.chip_profiles import ChipProfile
from inmaterio.devices.ledger import Ledger
from inmaterio.experiments.chip_energy import ChipEnergy, Counts, chip_energies, inference_counts
from inmaterio.experiments.chip_tables import TERM_COLUMNS, chip_cells, chip_name, figure_range, table_notes
from inmaterio.experiments.energy import NOT_MODELLED, SPIKING_NOT_MODELLED
from inmaterio.experiments.plots import engineering
from inmaterio.experiments.report_entries import Entry
from inmaterio.experiments.report_physics import trained
from inmaterio.experiments.report_tables import difference_cell
from inmaterio.experiments.report_text import NO_FIGURE, error_text, joules, joules_range
from inmaterio.experiments.run_record import RunRecord
from inmaterio.experiments.silence import named_for_runs
from inmaterio.experiments.spiking_tables import delay_sentences, silence_sentences


def counts_of(runs: Sequence[RunRecord]) -> Counts | None:
    """Events per inference, over all of these runs; None where none spiked."""
    ledger = Ledger(tallies=dict.fromkeys((("infer", "substrate", name) for name in ("sample", "second")), 0.0))
    for run in runs:
        for key, amount in zip(run.rows, run.events[-1], strict=True):
            ledger.events[key] = ledger.events.get(key, 0.0) + float(amount)
        ledger.tallies["infer", "substrate", "sample"] += run.inference_samples
        ledger.tallies["infer", "substrate", "second"] += run.inference_seconds
    return inference_counts(ledger)


def is_spiking(entry: Entry) -> bool:
    """Whether a line's substrate counts synaptic events, in training or inference."""
    return any(row[3] == "synaptic_event" for run in entry.runs for row in run.rows)


def not_modelled_lists(entries: Sequence[Entry]) -> list[tuple[str, Sequence[str]]]:
    """(Of what, sentences); of what is empty where one list holds for the whole page."""
    spiking = any(is_spiking(entry) for entry in entries)
    others = any(not entry.digital and not is_spiking(entry) for entry in entries)
    if not spiking:
        return [("", NOT_MODELLED)]
    if not others:
        return [("", SPIKING_NOT_MODELLED)]
    return [("Of spiking substrates", SPIKING_NOT_MODELLED), ("Of the other substrates", NOT_MODELLED)]


def spiking_context(entries: Sequence[Entry], profiles: Sequence[ChipProfile], single: bool) -> dict[str, Any] | None:
    """What the section takes; None where no network spikes when it infers.

    Parameters
    ----------
    entries : sequence of Entry
        Lines of the page.
    profiles : sequence of ChipProfile
        Chips whose figures are applied to the first run of each line.
    single : bool
        A page about runs: controls have chips too.
    """
    counts = {entry: found for entry in entries if (found := counts_of(entry.runs)) is not None}
    if not counts:
        return None
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.row.data, entry.row.split, entry.row.substrate), []).append(entry)
    plain = [_plain(entry, counts.get(entry)) for entry in entries]
    silence = silence_sentences(plain)
    chips = [_chips(entry, profiles) for entry in counts if single or not entry.row.control]
    return {
        "several": any(_first(entry, group) is not None for group in groups.values() for entry in group),
        "groups": [
            {
                "data": place[0],
                "split": place[1],
                "substrate": place[2],
                "rules": [_line(entry, group, counts.get(entry)) for entry in group if not entry.row.control],
                "controls": [_line(entry, group, counts.get(entry)) for entry in group if entry.row.control],
                "block": "",
            }
            for place, group in groups.items()
        ],
        "sentences": [*(named_for_runs(silence) if single else silence), *delay_sentences(plain)],
        "chips": chips,
        "terms": [heading for heading, _ in TERM_COLUMNS],
        "notes": table_notes(any(one["recalled"] for found in chips for one in found["lines"])),
        "sources": _sources(profiles),
    }


def _first(entry: Entry, group: Sequence[Entry]) -> Entry | None:
    """The rule that a line is held against: the first of its substrate; None for that one."""
    first = next((one for one in group if not one.row.control), None)
    return None if first is entry else first


def _line(entry: Entry, group: Sequence[Entry], counts: Counts | None) -> dict[str, Any]:
    row, number = entry.row, trained(entry)
    spread = "" if row.test_error_std is None else f" ± {error_text(row.test_error_std, row.metric)}"
    terms = {} if counts is None else counts.terms
    return {
        "rule": entry.label,
        "control": row.control,
        "unsettled": "",
        "error": f"{error_text(row.test_error_mean, row.metric)}{spread}",
        "against": difference_cell(entry, _first(entry, group)),
        "trained": "–" if number is None else _amount(number),
        "events": "–" if counts is None else _amount(counts.operations),
        "spikes": "–" if counts is None else _amount(terms.get("spike", 0.0)),
        "joules": NO_FIGURE if entry.inference is None else joules(entry.inference.total),
        "range": "" if entry.inference is None else joules_range(entry.inference.total),
        "partial": entry.inference is not None and entry.inference.total is not None and not entry.inference.complete,
    }


def _amount(value: float) -> str:
    """An amount with its thousands apart, never on two lines; small ones with a decimal."""
    return f"{value:,.{1 if 0 < value < 100 and value != round(value) else 0}f}".replace(",", "\N{NO-BREAK SPACE}")


def _plain(entry: Entry, counts: Counts | None) -> Mapping[str, Any]:
    """What sentences take of a line, by the names of ``comparison.json``."""
    row = entry.row
    took = None if counts is None else {"synaptic_events": counts.operations, "spikes": counts.terms.get("spike", 0.0)}
    return {
        "data": row.data,
        "substrate": row.substrate,
        "rule": row.rule,
        "control": row.control,
        "metric": row.metric,
        "test_error_mean": row.test_error_mean,
        "trained_by": entry.runs[0].config.rule.name,
        "work": {"inference": took},
    }


def _chips(entry: Entry, profiles: Sequence[ChipProfile]) -> dict[str, Any]:
    """The published chips for one inference of the first run of a line that spiked."""
    run, counts = next((run, found) for run in entry.runs if (found := counts_of((run,))) is not None)
    return {
        "label": entry.label,
        "substrate": entry.row.substrate,
        "run": run.shown,
        "counts": [(event.replace("_", " "), f"{amount:,.6g}") for event, amount in {**counts.terms, **counts.other}.items()],
        "seconds": engineering(counts.seconds, "s"),
        "lines": [chip_line(one) for one in chip_energies(counts, profiles)],
    }


def chip_line(one: ChipEnergy) -> dict[str, Any]:
    """One chip's line as the page's template takes it."""
    beside = [
        (words, engineering(value, "J", 2)) for words, value in (("static power", one.static), ("a reset", one.reset)) if value
    ]
    return {
        "chip": chip_name(one),
        "recalled": one.marked,
        "scope": one.profile.scope,
        "terms": chip_cells(one),
        "total": figure_range(one.low, one.high) + ("\nscope not stated" if one.scope_not_stated else ""),
        "partial": one.partial,
        "beside": beside,
        "unpriced": ", ".join(name.replace("_", " ") for name in one.unpriced),
        "uncounted": ", ".join(one.uncounted),
        "grades": list(dict.fromkeys(figure.grade for figure in one.figures if figure.scope != "beside")),
        "sources": list(dict.fromkeys(figure.source for figure in one.figures)),
    }


def _sources(profiles: Sequence[ChipProfile]) -> list[dict[str, Any]]:
    """Every figure of every chip, with its grade and its source."""
    return [
        {
            "chip": profile.chip,
            "node": profile.node or "–",
            "scope": figure.scope,
            "term": figure.term.replace("_", " "),
            "value": engineering(figure.value, figure.unit, 3),
            "grade": figure.grade,
            "marked": figure.marked,
            "source": figure.source,
            "notes": figure.notes,
        }
        for profile in profiles
        for figure in profile.figures
    ]
