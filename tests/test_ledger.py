"""The ledger: counts go under the phase that caused them, and nowhere else."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inmaterio.devices.ledger import RULE_PHASES, RUN_PHASES, TALLIES, Ledger
from inmaterio.devices.validation import InputError


def test_amounts_add_under_their_own_key() -> None:
    ledger = Ledger()
    with ledger.phase("train"):
        ledger.count("host", "optimiser", "mac_fp32", 3)
        with ledger.phase("free"):
            ledger.count("substrate", "input DAC", "dac_conversion_8b", 4)
            ledger.count("substrate", "input DAC", "dac_conversion_8b", 0.5)
        with ledger.phase("nudged"):
            ledger.count("substrate", "input DAC", "dac_conversion_8b", 7)
    with ledger.phase("infer"):
        ledger.count("substrate", "input DAC", "dac_conversion_8b", 1)
    assert ledger.events == {
        ("train", "host", "optimiser", "mac_fp32"): 3.0,
        ("train/free", "substrate", "input DAC", "dac_conversion_8b"): 4.5,
        ("train/nudged", "substrate", "input DAC", "dac_conversion_8b"): 7.0,
        ("infer", "substrate", "input DAC", "dac_conversion_8b"): 1.0,
    }


def test_tallies_sum_over_roles_and_inner_phases() -> None:
    ledger = Ledger()
    with ledger.phase("train"):
        ledger.tally("substrate", "sample", 20)
        with ledger.phase("free"):
            ledger.tally("substrate", "device_pass", 20)
        with ledger.phase("nudged"):
            ledger.tally("model", "device_pass", 40)
    with ledger.phase("evaluate"):
        ledger.tally("substrate", "device_pass", 100)
    assert ledger.total("device_pass", "train") == 60
    assert ledger.total("device_pass", "evaluate") == 100
    assert ledger.total("device_pass") == 160
    assert ledger.total("sample", "infer") == 0
    assert ledger.events == {}


@pytest.mark.parametrize("name", TALLIES)
def test_outside_a_phase_nothing_is_counted(name: str) -> None:
    ledger = Ledger()
    with pytest.raises(InputError, match="outside a phase"):
        ledger.tally("substrate", name, 1)
    with pytest.raises(InputError, match="'mac_fp32' of 'host optimiser' happened outside a phase"):
        ledger.count("host", "host optimiser", "mac_fp32", 1)
    with ledger.phase("train"):
        pass
    with pytest.raises(InputError, match="outside a phase"):
        ledger.count("host", "host optimiser", "mac_fp32", 1)
    assert not ledger.events
    assert not ledger.tallies


@pytest.mark.parametrize("run", RUN_PHASES)
@pytest.mark.parametrize("rule", RULE_PHASES)
def test_rule_phases_stand_inside_train_and_evaluate_only(run: str, rule: str) -> None:
    ledger = Ledger()
    with pytest.raises(InputError, match=f"phase '{rule}' is not one a run opens"), ledger.phase(rule):
        pass
    with ledger.phase(run):
        if run in ("train", "evaluate"):
            with ledger.phase(rule):
                assert ledger.current == f"{run}/{rule}"
                with pytest.raises(InputError, match=f"cannot be opened inside {run}/{rule}"), ledger.phase("update"):
                    pass
        else:
            with pytest.raises(InputError, match=f"cannot be opened inside {run}"), ledger.phase(rule):
                pass
        with pytest.raises(InputError, match="cannot be opened inside"), ledger.phase("infer"):
            pass
        assert ledger.current == run
    assert ledger.current == ""


def test_unknown_names_are_refused() -> None:
    ledger = Ledger()
    with (
        pytest.raises(InputError, match="phase 'training' is not one a run opens; expected one of initialise, train"),
        ledger.phase("training"),
    ):
        pass
    with ledger.phase("train"), pytest.raises(InputError, match="tally 'passes' is unknown; expected one of device_pass"):
        ledger.tally("substrate", "passes", 1)


@pytest.mark.parametrize("amount", [-1.0, math.nan, math.inf])
def test_amounts_are_numbers_from_zero_up(amount: float) -> None:
    ledger = Ledger()
    with ledger.phase("train"):
        with pytest.raises(InputError, match="amount of 'mac_fp32' is"):
            ledger.count("substrate", "layer_1", "mac_fp32", amount)
        with pytest.raises(InputError, match="amount of 'second' is"):
            ledger.tally("substrate", "second", amount)
    assert not ledger.events
    assert not ledger.tallies


def test_a_phase_closes_when_an_error_passes_through() -> None:
    ledger = Ledger()
    with pytest.raises(RuntimeError), ledger.phase("train"), ledger.phase("free"):
        raise RuntimeError
    assert ledger.current == ""


AMOUNTS = st.floats(min_value=0.0, max_value=1e300, allow_nan=False)
PLACES = st.one_of(
    st.sampled_from(RUN_PHASES).map(lambda run: (run,)),
    st.tuples(st.sampled_from(["train", "evaluate"]), st.sampled_from(RULE_PHASES)),
)
COUNTS = st.lists(st.tuples(PLACES, st.text(max_size=5), st.text(max_size=5), st.text(max_size=5), AMOUNTS), max_size=12)
PASSES = st.lists(st.tuples(PLACES, st.text(max_size=5), st.sampled_from(TALLIES), AMOUNTS), max_size=8)


@given(COUNTS, PASSES)
def test_records_round_trip_through_json(
    counts: list[tuple[tuple[str, ...], str, str, str, float]], passes: list[tuple[tuple[str, ...], str, str, float]]
) -> None:
    ledger = Ledger()
    for place, role, component, event, amount in counts:
        with ledger.phase(place[0]):
            if len(place) == 1:
                ledger.count(role, component, event, amount)
            else:
                with ledger.phase(place[1]):
                    ledger.count(role, component, event, amount)
    for place, role, name, amount in passes:
        with ledger.phase(place[0]):
            ledger.tally(role, name, amount)
    back = Ledger.from_records(json.loads(json.dumps(ledger.to_records())))
    assert back.events == ledger.events
    assert back.tallies == ledger.tallies
    assert list(back.events) == list(ledger.events)  # order too: it decides the order of sums in a report


def test_loading_keeps_the_object_and_drops_what_was_counted() -> None:
    ledger, other = Ledger(), Ledger()
    with ledger.phase("train"):
        ledger.count("substrate", "layer_1", "mac_fp32", 5)
        ledger.tally("substrate", "step", 5)
    with other.phase("infer"):
        other.count("substrate", "layer_1", "mac_fp32", 2)
    ledger.load_records(other.to_records())
    assert ledger.events == {("infer", "substrate", "layer_1", "mac_fp32"): 2.0}
    assert ledger.tallies == {}
    with other.phase("infer"):
        other.count("substrate", "layer_1", "mac_fp32", 2)
    assert ledger.events == {("infer", "substrate", "layer_1", "mac_fp32"): 2.0}  # no memory is shared
