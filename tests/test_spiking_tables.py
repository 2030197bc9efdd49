"""What is said of spiking networks per inference, and whether data need delays."""

from typing import Any

import pytest
from rich.console import Console

from inmaterio.devices.ledger import Ledger
from inmaterio.experiments.spiking_tables import delay_sentences, has_spikes, silence_sentences, spiking_table
from inmaterio.experiments.summary import work


def row(
    rule: str, error: float, *, control: bool = False, events: float = 100.0, substrate: str = "spiking-ideal"
) -> dict[str, Any]:
    return {
        "rule": rule,
        "trained_by": rule,
        "substrate": substrate,
        "data": "spoken-digits",
        "control": control,
        "metric": "error",
        "test_error_mean": error,
        "test_error_std": 0.01,
        "trained_digital": 0,
        "trained_physical": 2868,
        "work": {"inference": {"synaptic_events": events, "spikes": 24.0}},
        "energy_inference_J": {"P10": 4.7e-7, "P50": 5.2e-7, "P90": 5.8e-7},
        "energy_inference_partial": True,
        "difference_first_rule": None
        if rule == "dcls"
        else {"mean": 0.06, "low": 0.01, "high": 0.11, "decides": True, "pairs": 5},
    }


@pytest.mark.parametrize(("without", "verdict"), [(0.25, "does not need delays"), (0.2501, "needs delays")])
def test_five_points_decide(without: float, verdict: str) -> None:
    rows = [row("dcls", 0.2), row("dcls?delays=fixed", 0.22), row("dcls?delays=none", without), row("dcls", 0.9, control=True)]
    (sentence,) = delay_sentences(rows)
    assert f"spiking-ideal {verdict}: without any, {100 * without:.1f} % of errors, with learned ones 20.0 %" in sentence


def test_too_few_seeds_are_told() -> None:
    rows = [row("dcls", 0.2), row("dcls?delays=none", 0.3)]
    rows[1]["difference_first_rule"] |= {"decides": False, "pairs": 2}
    assert "2 pairs of seeds decide nothing" in delay_sentences(rows)[0]


def test_an_interval_that_holds_five_points_leaves_it_open() -> None:
    rows = [row("dcls", 0.2), row("dcls?delays=none", 0.26)]
    assert "paired difference +6.0 [+1.0, +11.0], which leaves it open" in delay_sentences(rows)[0]
    rows[1]["difference_first_rule"] |= {"low": 0.055}
    assert "leaves it open" not in delay_sentences(rows)[0]


def test_nothing_is_said_without_both() -> None:
    assert delay_sentences([row("dcls", 0.2), row("dcls?delays=fixed", 0.3)]) == []
    assert delay_sentences([row("dcls?delays=none", 0.2), row("dcls", 0.3, substrate="spiking-loihi")]) == []


def test_table_has_every_figure() -> None:
    rows = [row("dcls", 0.2), row("dcls?delays=none", 0.3)]
    console = Console(width=140, record=True)
    console.print(spiking_table(rows, width=140))
    text = console.export_text()
    for figure in ("20.0 ±1.0", "+6.0 [+1.0, +11.0]", "2.9k", "100", "24", "520 nJ* [470 nJ-580 nJ]"):
        assert figure in text


def test_silent_networks_are_named() -> None:
    loud, silent, other = row("dcls", 0.2), row("e-prop", 0.9), row("bp", 0.1, events=0.0)
    silent["work"]["inference"]["spikes"] = 0.0
    other["work"]["inference"]["spikes"] = 0.0
    (sentence,) = silence_sentences([loud, silent, other])
    assert "e-prop on spiking-ideal. First" in sentence
    assert "--gain" in sentence
    assert silence_sentences([loud, other]) == []


def test_one_pair_decides_nothing_and_breaks_nothing() -> None:
    rows = [row("dcls", 0.2), row("e-prop", 0.3)]
    rows[1]["difference_first_rule"] |= {"low": None, "high": None, "decides": False, "pairs": 1}
    console = Console(width=140, record=True)
    console.print(spiking_table(rows, width=140))
    assert "+6.0 (1 pair)" in console.export_text()


def test_rows_without_events_need_no_table() -> None:
    assert has_spikes([row("dcls", 0.2)])
    assert not has_spikes([row("dcls", 0.2, events=0.0)])


def test_work_counts_synaptic_events_of_both_kinds() -> None:
    ledger = Ledger()
    with ledger.phase("infer"):
        ledger.count("substrate", "weight_1", "synaptic_event", 30.0)
        ledger.count("substrate", "weight_1", "graded_synaptic_event", 10.0)
        ledger.count("substrate", "neurons 1", "spike", 4.0)
        ledger.count("substrate", "state ADC", "adc_conversion_8b", 6.0)
        ledger.count("host", "map", "mac_fp32", 8.0)
        ledger.count("host", "map", "byte_sram", 99.0)
        ledger.tally("substrate", "device_pass", 2.0)
    found = work([ledger], "infer", 2.0)
    assert found == {"passes": 1.0, "conversions": 3.0, "macs": 4.0, "synaptic_events": 20.0, "spikes": 2.0}
