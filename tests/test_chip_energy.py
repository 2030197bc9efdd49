"""Published chips: what their figures cover, and what they make of counted events."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from spiking_examples import programmed

from inmaterio.devices.chip_profiles import COLUMNS, NOT_STATED, ChipProfile, Figure, load_chip_profiles
from inmaterio.devices.ledger import Ledger
from inmaterio.devices.validation import InputError
from inmaterio.experiments import run_directory, summary
from inmaterio.experiments.chip_energy import ChipEnergy, Counts, chip_energies, inference_counts, to_record
from inmaterio.experiments.chip_tables import chip_tables
from inmaterio.experiments.command_line import main
from inmaterio.experiments.report_spiking import chip_line
from inmaterio.simulators.spiking_description import SpikingDescription

PROFILES = {one.chip: one for one in load_chip_profiles()}
PJ = 1e-12


def three_neurons(samples: int = 1, readout: str = "softmax-sum") -> Ledger:
    """A channel, two neurons, an output; four steps of 2 ms, a spike in the first, which one of the two passes on."""
    description = SpikingDescription((4, 2, 1), steps=4, delays="none", leak=0.5, seconds_per_step=2e-3, readout=readout)
    values = {"weight_1": np.array([[1.0], [0.5]]), "weight_2": np.array([[0.25, 0.75]])}
    ledger, present = programmed(description, values)
    present(np.tile([1.0, 0.0, 0.0, 0.0], (samples, 1)), membranes=False)
    return ledger


def energies(counts: Counts) -> dict[str, ChipEnergy]:
    return {one.profile.chip: one for one in chip_energies(counts, tuple(PROFILES.values()))}


@pytest.mark.parametrize("samples", [1, 3])
def test_three_neurons_by_hand(samples: int) -> None:
    counts = inference_counts(three_neurons(samples))
    assert counts is not None
    # one input spike reaches two neurons, one of which fires and reaches the output: 3 events on 2 links, 3 of 12 updates active
    assert dict(counts.terms) == {
        "synaptic_event": 3,
        "neuron_update_active": 3,
        "neuron_update_idle": 9,
        "spike": 1,
        "hop": 2,
        "membrane_read": 4,
    }
    assert counts.other == {} and counts.seconds == pytest.approx(8e-3)
    loihi = energies(counts)["Loihi"]
    by_hand = 3 * 23.6 + 3 * 81 + 9 * 52 + 1 * 1.7
    assert loihi.low == pytest.approx((by_hand + 2 * 3.0) * PJ) and loihi.high == pytest.approx((by_hand + 2 * 4.0) * PJ)
    assert loihi.unpriced == ("membrane_read",) and loihi.partial
    assert loihi.static == pytest.approx(0.104 * 8e-3) and loihi.reset == pytest.approx(5.9e-6)
    sana = energies(counts)["Loihi (SANA-FE)"]
    assert sana.low == pytest.approx((3 * 33.6 + 3 * 72.8 + 9 * 51.2 + 69.3 + 2 * 3.0) * PJ)
    assert sana.high == pytest.approx((3 * 35.5 + 3 * 72.8 + 9 * 51.2 + 69.3 + 2 * 4.2) * PJ)
    assert sana.uncounted == ("message",)


def test_events_of_the_host_are_not_the_chip_s() -> None:
    ledger = three_neurons()
    alone = inference_counts(ledger)
    with ledger.phase("infer"):
        ledger.count("host", "digital twin", "synaptic_event", 1000.0)
        ledger.count("host", "digital twin", "mac_fp32", 500.0)
    counts = inference_counts(ledger)
    assert alone is not None and counts is not None
    assert counts.terms["synaptic_event"] == 3 and counts.operations == 3
    assert dict(counts.terms) == dict(alone.terms) and dict(counts.other) == {}


def test_an_all_in_figure_is_never_added_to() -> None:
    few, many = (Counts({"synaptic_event": 1e3, "graded_synaptic_event": 500.0, **more}, {}, 1.0) for more in ({}, {"hop": 1e9}))
    all_in = [name for name, one in PROFILES.items() if one.scope == "all-in"]
    assert set(all_in) == {"TrueNorth", "ODIN"}
    for name in all_in:
        (figure,) = PROFILES[name].figures
        for counts in (few, many):
            found = energies(counts)[name]
            assert found.low == found.high == 1500.0 * figure.value
            assert not found.partial and [part.term for part in found.parts] == ["synaptic_event"]
    assert energies(many)["TrueNorth active"].low > 100 * energies(few)["TrueNorth active"].low
    # static power stands beside a sum and is in no total
    hour = Counts(few.terms, {}, 3600.0)
    assert energies(hour)["Loihi"].low == energies(few)["Loihi"].low
    assert energies(hour)["Loihi"].static == pytest.approx(0.104 * 3600)


def test_a_figure_whose_scope_is_not_stated_is_always_partial_and_never_added_to() -> None:
    unstated = {name: one for name, one in PROFILES.items() if one.scope == NOT_STATED}
    assert set(unstated) == {"ReckOn", "SENECA", "Darwin3", "uBrain", "Tianjic", "NeuronFlow"}
    more = {"hop": 1e9, "spike": 1e9, "neuron_update_active": 1e9, "neuron_update_idle": 1e9, "membrane_read": 1e9}
    bare = {"synaptic_event": 1e3}
    for name, profile in unstated.items():
        (figure,) = profile.figures
        for terms, operations in ((bare, 1000.0), ({**bare, **more}, 1000.0), ({**bare, "graded_synaptic_event": 500.0}, 1500.0)):
            counts = Counts(terms, {"adc_conversion_8b": 1e9} if len(terms) > 2 else {}, 3600.0)
            found = energies(counts)[name]
            assert found.partial and found.scope_not_stated
            assert found.low == found.high == operations * figure.value
            assert [part.term for part in found.parts] == ["synaptic_event"]
            line = chip_line(found)
            assert line["partial"] and "scope not stated" in line["total"] and line["scope"] == NOT_STATED
            (record,) = to_record(counts, [found])["chips"]
            assert record["partial"] is record["scope_not_stated"] is True and record["scope"] == NOT_STATED
    # the same figure with its scope stated is complete
    stated = ChipProfile("X", "", (Figure("all-in", "synaptic_event", 1e-12, "J", "measured", "someone"),))
    (whole,) = chip_energies(Counts(bare, {}, 0.0), [stated])
    assert not whole.partial and not whole.scope_not_stated
    assert {figure.grade for figure in PROFILES["SENECA"].figures} == {"stated by its makers"}


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ([("all-in", "hop")], "'X' has a figure of scope all-in for hop; expected one for synaptic_event alone"),
        ([("all-in", "synaptic_event"), ("per term", "hop")], "'X' has figures of scope all-in and per term; expected one"),
        ([(NOT_STATED, "spike")], f"'X' has a figure of scope {NOT_STATED} for spike; expected one for synaptic_event alone"),
        (
            [(NOT_STATED, "synaptic_event"), ("per term", "hop")],
            f"'X' has figures of scope {NOT_STATED} and per term; expected one",
        ),
        ([("all-in", "synaptic_event"), (NOT_STATED, "synaptic_event")], f"scope all-in and {NOT_STATED}; expected one"),
        ([("beside", "reset")], "'X' has figures of scope beside alone"),
    ],
)
def test_scopes_do_not_mix(figures: list[tuple[str, str]], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ChipProfile("X", "", tuple(Figure(scope, term, 1e-12, "J", "measured", "someone") for scope, term in figures))


def test_a_figure_is_partial_unless_everything_counted_has_a_price() -> None:
    counts = Counts({"synaptic_event": 10.0, "neuron_update_active": 5.0}, {}, 0.0)
    assert not energies(counts)["Loihi"].partial and not energies(counts)["SpiNNaker"].partial
    assert energies(counts)["ODIN incremental"].unpriced == ("neuron_update_active",)
    graded = Counts({"synaptic_event": 10.0, "graded_synaptic_event": 1.0}, {}, 0.0)
    assert energies(graded)["Loihi"].unpriced == ("graded_synaptic_event",)
    assert energies(graded)["45 nm adders"].low == pytest.approx((10 * 0.9 + 4.6) * PJ)
    other = Counts({"synaptic_event": 10.0}, {"adc_conversion_8b": 3.0}, 0.0)
    assert energies(other)["Loihi"].unpriced == ("adc_conversion_8b",)


def test_idle_neurons_are_most_of_a_small_sparse_network() -> None:
    counts = inference_counts(three_neurons())
    assert counts is not None
    loihi = energies(counts)["Loihi"]
    idle = next(part for part in loihi.parts if part.term == "neuron_update_idle")
    assert idle.low / loihi.low > 0.5


def test_runs_that_inferred_nothing_or_have_no_spikes_have_no_chips() -> None:
    ledger = Ledger()
    assert inference_counts(ledger) is None
    with ledger.phase("infer"):
        ledger.count("substrate", "ADC", "adc_conversion_8b", 7.0)
        ledger.tally("substrate", "sample", 1.0)
    assert inference_counts(ledger) is None


def shown(counts: Counts, width: int = 400) -> str:
    console = Console(width=width, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115  the console's own
    with console.file:
        tables, notes = chip_tables(counts, chip_energies(counts, tuple(PROFILES.values())))
        for table in tables:
            console.print(table)
        for note in notes:
            console.print(note, markup=False, highlight=False)
        return console.export_text()


def test_tables_mark_what_was_recalled_and_what_is_missing() -> None:
    counts = inference_counts(three_neurons())
    assert counts is not None
    text = shown(counts)
    recalled = [name for name, one in PROFILES.items() if any(figure.marked for figure in one.figures)]
    assert "45 nm adders" in recalled and "Loihi" not in recalled
    for name in recalled:
        assert all(f"{name} †" in line for line in text.splitlines() if line.startswith(name))
        assert f"{name} †" in text
    assert "† recalled: written down from memory" in text
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "all-in" in lines["TrueNorth"] and "no price" in lines["ODIN incremental"]
    # every chip priced per term lacks a price for reading membranes; only all-in figures are complete
    marks = [line for line in text.splitlines() if "partial" in line and not line.startswith("Scope") and ":" not in line]
    assert len(marks) == sum(one.scope != "all-in" for one in PROFILES.values())
    unstated = [name for name, one in PROFILES.items() if one.scope == NOT_STATED]
    assert text.count("(scope not") == text.count("Partial: scope not stated.") == len(unstated)
    assert all("scope not stated" in lines[name + " †" * (name in recalled)] for name in unstated)
    assert "No price: membrane read." in text and "Not counted: message." in text
    beside = [line.split() for line in text.splitlines() if "beside:" in line]
    assert [line[-2:] for line in beside] == [["(830", "µJ)"], ["(5.9", "µJ)"]]
    narrow = shown(counts, 80)
    assert max(map(len, narrow.splitlines())) <= 80
    for words in ("static", "power", "calibrated", "no price", "recalled †"):
        assert words in narrow
    assert "…" not in narrow, "cells fold"


def test_conflicting_figures_are_a_range_with_both_sources() -> None:
    low, high = PROFILES["SpiNNaker"].of("synaptic_event")
    assert 290 < high.value / low.value < 310
    counts = Counts({"synaptic_event": 1000.0}, {}, 0.0)
    found = energies(counts)["SpiNNaker"]
    assert (found.low, found.high) == (1000 * low.value, 1000 * high.value)
    text = shown(counts)
    assert f"Sources differ on a synaptic event: 45.0 pJ ({low.source}); 13.3 nJ ({high.source})." in text
    assert "45.0 nJ" in text and "to 13.3 µJ" in text


def test_from_the_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ledger = three_neurons()
    monkeypatch.setattr(run_directory, "read_run", lambda folder: (None, None))
    monkeypatch.setattr(summary, "ledger_of", lambda dataset: ledger)

    def called(*arguments: str) -> tuple[int, Any]:
        with pytest.raises(SystemExit) as end:
            main(["energy", "run", *arguments])
        return int(end.value.code or 0), capsys.readouterr()

    code, printed = called("--json")
    found = json.loads(printed.out)["published_chips"]
    counts = inference_counts(ledger)
    assert code == 0 and counts is not None
    assert found == json.loads(json.dumps(to_record(counts, chip_energies(counts, tuple(PROFILES.values())))))
    adders = next(one for one in found["chips"] if one["chip"] == "45 nm adders")
    assert adders["recalled"] and adders["partial"] and adders["figures"][0]["grade"] == "recalled"
    code, printed = called()
    assert code == 0 and "TrueNorth" in printed.out and "synaptic event" in printed.out
    own = tmp_path / "own.csv"
    own.write_text(",".join(COLUMNS) + "\nMine,7nm,all-in,synaptic_event,1e-15,J,measured,my bench,\n", encoding="utf-8")
    code, printed = called("--json", "--chips", str(own))
    assert [one["chip"] for one in json.loads(printed.out)["published_chips"]["chips"]] == ["Mine"]
    code, printed = called("--chips", str(tmp_path / "none.csv"))
    assert code == 2 and "cannot read chips from" in printed.err and printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("X,,per term,synaptic_event,-1,J,measured,me,", "line 2: value is '-1'; expected a number > 0"),
        ("X,,per term,synaptic_event,one,J,measured,me,", "value is 'one'"),
        ("X,,per synapse,synaptic_event,1,J,measured,me,", "unknown scope 'per synapse'"),
        ("X,,per term,static_power,1,W,measured,me,", "unknown term 'static_power'"),
        ("X,,beside,static_power,1,J,measured,me,", "unknown unit 'J'"),
        ("X,,per term,hop,1,J,guessed,me,", "unknown grade 'guessed'"),
        ("X,,per term,hop,1,J,measured,,", "source is empty"),
        ("X,,per term,hop,1,J,measured", "expected 9 cells"),
        (
            "X,7nm,per term,hop,1,J,measured,me,\nX,5nm,per term,spike,1,J,measured,me,",
            "line 3: node of 'X' is '5nm'; expected '7nm'",
        ),
        ("", "holds no figures"),
    ],
)
def test_bad_files(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "chips.csv"
    file.write_text(",".join(COLUMNS) + "\n" + line + "\n" * bool(line), encoding="utf-8")
    with pytest.raises(InputError, match=words):
        load_chip_profiles(file)
    file.write_text("chip,term\n", encoding="utf-8")
    with pytest.raises(InputError, match="header is chip,term"):
        load_chip_profiles(file)
