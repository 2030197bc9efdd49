"""Synaptic operations as we count them against NeuroBench's, in a file that a script of the golden folder makes."""

import json
from typing import Any

import numpy as np
import pytest
from golden import make_neurobench_counts as golden
from spiking_examples import programmed


def ours(largest: int) -> tuple[float, float, list[int]]:
    """Plain and graded synaptic events of all samples; spikes per layer."""
    ledger, present = programmed(golden.DESCRIPTION, golden.network())
    shown = present(golden.inputs(largest), membranes=False)
    counted = {
        event: sum(amount for (phase, _, _, name), amount in ledger.events.items() if phase == "infer" and name == event)
        for event in ("synaptic_event", "graded_synaptic_event")
    }
    return *counted.values(), [int(train.sum()) for train in shown.spikes]  # type: ignore[return-value]


@pytest.fixture(scope="module")
def theirs() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(golden.FILE.read_text(encoding="utf-8"))
    assert found["made_by"]["neurobench"] == "2.3.0"
    return found


def test_operations_equal_neurobench_on_binary_inputs(theirs: dict[str, Any]) -> None:
    plain, graded, spikes = ours(1)
    wanted = theirs["binary"]
    assert spikes == wanted["spikes"] and min(spikes) > 100
    assert plain == wanted["Effective_ACs"] * wanted["samples"]
    assert graded == wanted["Effective_MACs"] == 0
    # every second figure of the file can be computed: all pairs of layers in every step
    widths = golden.DESCRIPTION.layer_widths
    assert wanted["Dense"] == golden.STEPS * sum(a * b for a, b in zip(widths, widths[1:], strict=False))


def test_counts_as_inputs_are_the_same_operations_split_otherwise(theirs: dict[str, Any]) -> None:
    """NeuroBench calls a whole step multiplications when one of its inputs is; here an event is one when it is not 1."""
    plain, graded, spikes = ours(3)
    wanted = theirs["counts_up_to_3"]
    assert spikes == wanted["spikes"]
    assert plain + graded == (wanted["Effective_ACs"] + wanted["Effective_MACs"]) * wanted["samples"]
    assert 0 < graded < wanted["Effective_MACs"] * wanted["samples"]


def test_operations_are_nonzero_weights_of_what_was_sent() -> None:
    values, events = golden.network(), golden.inputs(1)
    shown = programmed(golden.DESCRIPTION, values)[1](events, membranes=False)
    sent = [events.reshape(golden.SAMPLES, golden.STEPS, -1), *shown.spikes]
    by_hand = sum(
        float((train.sum(axis=(0, 1)) * np.count_nonzero(values[f"weight_{k}"], axis=0)).sum()) for k, train in enumerate(sent, 1)
    )
    assert ours(1)[0] == by_hand
