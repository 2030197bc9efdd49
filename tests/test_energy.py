"""Joules from counts: totals by hand, parts that add up, draws that are shared, and no figure where there is none."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inmaterio.devices.costs import BOUNDARIES, Cost, CostTable, load_costs
from inmaterio.devices.ledger import Ledger
from inmaterio.devices.validation import InputError
from inmaterio.experiments.energy import (
    NOT_MODELLED,
    EventKey,
    conversion_floor,
    cost_draws,
    cumulative,
    difference,
    estimate,
    not_modelled,
    per_sample,
    quantiles,
    ratio,
    to_record,
)


def cost(name: str, event: str, low: float, typical: float, high: float, boundary: str = "chip", source: str = "") -> Cost:
    """A row with only what matters here; each its own source unless one is named."""
    unit = {"ohmic_joule": "1", "amplifier_second": "W"}.get(event, "J")
    return Cost(name, "part", "use", event, low, typical, high, unit, "", boundary, source or f"source of {name}", 2024, "read")


def table(*costs: Cost) -> CostTable:
    return CostTable({each.id: each for each in costs})


# Round constants without a range: every figure below can be worked out in the head.
EXACT = table(
    cost("write", "device_write", 5.0, 5.0, 5.0, "device"),
    cost("ohmic", "ohmic_joule", 2.0, 2.0, 2.0, "array"),
    cost("adc", "adc_conversion_8b", 3.0, 3.0, 3.0, "array+converters"),
    cost("mac", "mac_fp32", 0.5, 0.5, 0.5, "chip"),
    cost("dram", "byte_dram", 100.0, 100.0, 100.0, "system"),
)
RUN: dict[EventKey, float] = {
    ("initialise", "substrate", "array weight_1", "device_write"): 1000.0,
    ("train/free", "substrate", "array weight_1", "ohmic_joule"): 7.0,
    ("train/free", "substrate", "state ADC", "adc_conversion_8b"): 10.0,
    ("train/nudged", "substrate", "state ADC", "adc_conversion_8b"): 20.0,
    ("train/update", "substrate", "array weight_1", "device_write"): 4.0,
    ("train/update", "model", "layer_1", "mac_fp32"): 8.0,
    ("train/update", "host", "host optimiser", "mac_fp32"): 6.0,
    ("train/update", "host", "host optimiser", "byte_dram"): 2.0,
    ("evaluate", "substrate", "state ADC", "adc_conversion_8b"): 1e6,
    ("infer", "substrate", "state ADC", "adc_conversion_8b"): 30.0,
}


def same(value: float) -> Any:
    """Three equal quantiles: a figure without uncertainty."""
    return pytest.approx((value, value, value), rel=1e-12)


def test_totals_by_hand() -> None:
    whole = estimate(RUN, EXACT)
    # device 4 x 5; array + 7 x 2; converters + 30 x 3; chip + 8 x .5; system + 2 x 100 and the host's 6 x .5
    assert {level: figure and figure.P50 for level, figure in whole.levels.items()} == pytest.approx(
        {"device": 20.0, "array": 34.0, "array+converters": 124.0, "chip": 128.0, "system": 331.0}
    )
    assert whole.total == same(331.0)
    assert whole.by_component == {
        "array weight_1": same(34.0),
        "state ADC": same(90.0),
        "model: layer_1": same(4.0),
        "host: host optimiser": same(203.0),
    }
    assert whole.by_phase == {"train/free": same(44.0), "train/nudged": same(60.0), "train/update": same(227.0)}
    assert whole.complete
    assert whole.unpriced == ()
    assert [each.id for each in whole.used] == ["ohmic", "adc", "write", "mac", "dram"]


def test_phases_nest() -> None:
    by_hand = {
        ("train",): 331.0,
        ("train/free",): 44.0,
        ("train/free", "train/nudged"): 104.0,
        ("train", "train/free"): 331.0,  # named twice, charged once
        ("initialise", "train"): 5331.0,
        ("infer",): 90.0,
        ("evaluate",): 3e6,
    }
    for phases, joules in by_hand.items():
        assert estimate(RUN, EXACT, phases=phases).total == same(joules)
    assert estimate(RUN, EXACT, phases=("idle",)).total is None


def test_evaluation_is_not_charged() -> None:
    without = {key: amount for key, amount in RUN.items() if key[0] != "evaluate"}
    assert to_record(estimate(RUN, load_costs())) == to_record(estimate(without, load_costs()))


def test_a_ledger_serves_as_its_events() -> None:
    ledger = Ledger(events=dict(RUN))
    assert estimate(ledger, EXACT) == estimate(RUN, EXACT)


@pytest.mark.parametrize("phase", ["", "training", "free", "free/train"])
def test_events_outside_a_phase_raise(phase: str) -> None:
    with pytest.raises(
        InputError, match=f"event 'mac_fp32' of 'layer_1' stands in phase '{phase}'; expected one inside initialise"
    ):
        estimate(RUN | {(phase, "substrate", "layer_1", "mac_fp32"): 1.0}, EXACT)


def test_bad_arguments() -> None:
    with pytest.raises(InputError, match="unknown phase 'training'; nearest: train"):
        estimate(RUN, EXACT, phases=("training",))
    with pytest.raises(InputError, match="unknown phase 'freed'; nearest: free"):
        estimate(RUN, EXACT, phases=("train/freed",))
    with pytest.raises(InputError, match="draws is 0; expected a number in"):
        estimate(RUN, EXACT, draws=0)
    for amount in (-1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="amount of 'mac_fp32' of 'layer_1' is"):
            estimate({("train", "substrate", "layer_1", "mac_fp32"): amount}, EXACT)
    with pytest.raises(InputError, match="number to divide by is 0"):
        per_sample(estimate(RUN, EXACT), 0)
    with pytest.raises(InputError, match="unknown boundary 'board'"):
        estimate(RUN, EXACT).total_draws("board")


def test_parts_add_up_in_every_draw() -> None:
    whole = estimate(RUN, load_costs(), phases=("initialise", "train", "infer"), draws=500)
    total = whole.total_draws()
    assert total is not None
    parts = np.array([part.joules(whole.draws, whole.seed) for part in whole.parts])
    assert np.ptp(total) > 0
    np.testing.assert_allclose(parts.sum(axis=0), total, rtol=1e-13)
    inner = np.zeros(500)
    for level in BOUNDARIES:
        inside = whole.total_draws(level)
        assert inside is not None
        own = [joules for part, joules in zip(whole.parts, parts, strict=True) if part.boundary == level]
        np.testing.assert_allclose(
            inside, inner + np.sum(own, axis=0), rtol=1e-13
        )  # each level is the last one and its own parts
        inner = inside


def test_points_of_one_cost_are_its_range() -> None:
    for name in ("adc_8b", "rram_pulse", "sample_hold_isaac"):
        row = load_costs()[name]
        points = np.quantile(cost_draws(row, 4096, 0), (0.05, 0.5, 0.95))
        assert points == pytest.approx([row.low, row.typical, row.high], rel=5e-3)


def test_sampled_distribution_is_the_lognormal() -> None:
    # P90 of a lognormal with median 1 and 95 % point e: exp(1.2816 / 1.6449). Mean: exp(sigma^2 / 2), sigma = 1 / 1.6449.
    row = cost("x", "mac_fp32", math.exp(-1), 1.0, math.e)
    draws = cost_draws(row, 4096, 3)
    assert quantiles(draws) == pytest.approx((math.exp(-1.2815516 / 1.6448536), 1.0, math.exp(1.2815516 / 1.6448536)), rel=2e-3)
    assert draws.mean() == pytest.approx(math.exp(0.5 / 1.6448536**2), rel=2e-3)


def test_one_source_one_draw() -> None:
    costs = load_costs()
    eight, twelve = costs["adc_8b"], costs["adc_12b"]
    assert eight.source == twelve.source
    first, second = cost_draws(eight, 1000, 0) / eight.typical, cost_draws(twelve, 1000, 0) / twelve.typical
    np.testing.assert_allclose(first, second, rtol=1e-4)  # the same range in proportion, up to the digits printed
    np.testing.assert_array_equal(np.argsort(first), np.argsort(second))


def test_sources_are_independent_and_so_are_seeds() -> None:
    costs = load_costs()
    logs = [
        np.log(cost_draws(costs[name], 4096, 0))
        for name in ("adc_8b", "dac_8b", "mac_fp32_7nm", "amplifier_static", "rram_pulse")
    ]
    logs.append(np.log(cost_draws(costs["adc_8b"], 4096, 1)))
    correlation = np.corrcoef(logs) - np.eye(len(logs))
    assert np.abs(correlation).max() < 5.5 / math.sqrt(4096)  # 15 pairs at 5.5 sigma: false alarm 6e-7, and the seed is fixed


def test_same_seed_same_bits() -> None:
    assert estimate(RUN, load_costs(), seed=5) == estimate(RUN, load_costs(), seed=5)
    assert estimate(RUN, load_costs(), seed=5).total != estimate(RUN, load_costs(), seed=6).total


def test_a_replaced_constant_changes_its_rows_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(
        "id,component,quantity,event,low,typical,high,unit,node,boundary,source,year,status,notes\n"
        "adc_8b,,,,1e-13,2e-13,4e-13,,,,measured by us,2026,read,\n"
    )
    shipped = load_costs()
    before, after = estimate(RUN, shipped), estimate(RUN, shipped.replaced(path))
    changed = [old.event for old, new in zip(before.parts, after.parts, strict=True) if old.cost != new.cost]
    assert changed == ["adc_conversion_8b", "adc_conversion_8b"]
    for old, new in zip(before.parts, after.parts, strict=True):
        ours, theirs = old.joules(4096, 0), new.joules(4096, 0)
        assert (ours.tobytes() == theirs.tobytes()) == (old.event != "adc_conversion_8b")
    for name, figure in before.by_component.items():
        assert (after.by_component[name] == figure) == (name != "state ADC")
    assert pytest.approx(30 * 2e-13, rel=2e-3) == after.by_component["state ADC"].P50
    assert (after.levels["device"], after.levels["array"]) == (before.levels["device"], before.levels["array"])
    assert after.levels["array+converters"] != before.levels["array+converters"]


def test_unpriced_events_make_it_partial() -> None:
    ideal: dict[EventKey, float] = {
        ("train/free", "substrate", "state ADC", "adc_conversion_ideal"): 3.0,
        ("train/nudged", "substrate", "state ADC", "adc_conversion_ideal"): 4.0,
        ("train/free", "substrate", "input DAC", "dac_conversion_ideal"): 0.0,  # never happened
    }
    partial = estimate(RUN | ideal, EXACT)
    assert partial.total == estimate(RUN, EXACT).total
    assert not partial.complete
    assert partial.unpriced == (("state ADC", "adc_conversion_ideal", 7.0),)
    assert not_modelled(partial)[0] == "state ADC: 7 x adc_conversion_ideal, for which there is no cost."
    assert not_modelled(partial)[1:] == NOT_MODELLED
    assert "state ADC" in partial.by_component  # its priced part

    nothing = estimate(ideal, EXACT)
    assert nothing.total is None
    assert set(nothing.levels.values()) == {None}
    assert nothing.total_draws() is None
    assert not nothing.complete
    assert nothing.by_component == {}
    assert estimate({}, EXACT).total is None
    assert not estimate({}, EXACT).complete


def test_inner_levels_without_a_priced_part_have_no_figure() -> None:
    digital = estimate({("train", "substrate", "layer_1", "mac_fp32"): 10.0}, EXACT)
    assert digital.levels == {"device": None, "array": None, "array+converters": None, "chip": same(5.0), "system": same(5.0)}


def test_counted_zero_is_a_zero() -> None:
    assert estimate({("train", "substrate", "input array", "ohmic_joule"): 0.0}, load_costs()).total == (0.0, 0.0, 0.0)


def test_energy_is_linear_in_counts() -> None:
    whole = estimate(RUN, load_costs())
    share = per_sample(whole, 1437)
    assert whole.total is not None
    assert share.total == pytest.approx(tuple(figure / 1437 for figure in whole.total))
    assert share.used == whole.used
    assert ratio(whole, share) == same(1437.0)


def test_two_estimates_share_their_draws() -> None:
    costs = load_costs()
    analog = estimate({("train", "substrate", "state ADC", "adc_conversion_8b"): 300.0}, costs)
    digital = estimate({("train", "substrate", "layer_1", "mac_fp32"): 100.0}, costs)
    thrice = estimate({("train", "host", "host optimiser", "mac_fp32"): 300.0}, costs)
    # Same source on both sides: the uncertainty cancels, and only then.
    assert ratio(thrice, digital) == same(3.0)
    assert digital.total is not None
    assert difference(thrice, digital) == pytest.approx(tuple(2 * figure for figure in digital.total))
    apart = ratio(analog, digital)
    assert apart is not None
    assert apart.P90 / apart.P10 > 3
    # 300 x 1.71 pJ against 100 x 1.69 pJ: analog loses, and the figures say so.
    assert apart.P10 > 1
    losing = difference(analog, digital)
    assert losing is not None
    assert losing.P10 > 0
    assert ratio(analog, digital, "array") is None
    assert difference(analog, estimate({}, costs)) is None
    zero = estimate({("train", "substrate", "layer_1", "mac_fp32"): 0.0}, costs)
    assert ratio(analog, zero) is None
    assert difference(analog, zero) == analog.total


def test_estimates_that_do_not_share_draws_are_not_compared() -> None:
    first = estimate(RUN, EXACT)
    for other in (estimate(RUN, EXACT, seed=1), estimate(RUN, EXACT, draws=100)):
        for compare in (difference, ratio):
            with pytest.raises(InputError, match="expected the same, to share their draws"):
                compare(first, other)


def test_sensitivity_by_hand() -> None:
    costs = table(
        cost("mac", "mac_fp32", 1.0, 2.0, 4.0),
        cost("sram", "byte_sram", 9.0, 10.0, 11.0),
        cost("dram", "byte_dram", 7.0, 7.0, 7.0),
    )
    events: dict[EventKey, float] = {
        ("train/free", "substrate", "layer_1", "byte_dram"): 1.0,
        ("train/free", "substrate", "layer_1", "byte_sram"): 2.0,
        ("train/free", "substrate", "layer_1", "mac_fp32"): 3.0,
        ("train/free", "substrate", "layer_2", "mac_fp32"): 7.0,
    }
    # typical 7 + 20 + 20 = 47; MACs from 10 to 40 J, SRAM from 18 to 22 J
    ranking = [(item.cost.id, item.low, item.high) for item in estimate(events, costs).sensitivity]
    assert ranking == [("mac", 37.0, 67.0), ("sram", 45.0, 49.0), ("dram", 47.0, 47.0)]


def test_a_total_rests_on_the_cost_that_moves_it_most() -> None:
    wide, narrow = cost("amp", "amplifier_second", 1.0, 10.0, 100.0), cost("mac", "mac_fp32", 1.0, 2.0, 4.0)
    events: dict[EventKey, float] = {
        ("train", "substrate", "neurons", "amplifier_second"): 1.0,
        ("train", "substrate", "layer_1", "mac_fp32"): 30.0,
    }
    # Spans: 99 J against 30 x 3 = 90 J; with 34 MACs 102 J against 99 J.
    assert estimate(events, table(wide, narrow)).rests_on == wide
    more = events | {("train", "substrate", "layer_1", "mac_fp32"): 34.0}
    assert estimate(more, table(wide, narrow)).rests_on == narrow
    # Three equal spans: none carries it.
    equal = table(
        cost("a", "mac_fp32", 1.0, 1.0, 2.0), cost("b", "alu_fp32", 1.0, 1.0, 2.0), cost("c", "byte_sram", 1.0, 1.0, 2.0)
    )
    each: dict[EventKey, float] = {("train", "s", "x", event): 1.0 for event in ("mac_fp32", "alu_fp32", "byte_sram")}
    assert estimate(each, equal).rests_on is None
    assert estimate({}, EXACT).rests_on is None
    assert estimate(RUN, EXACT).rests_on is None, "no cost has a range"


def test_what_is_left_out_is_said() -> None:
    told = " ".join(NOT_MODELLED)
    for part in (
        "drivers that hold the input lines",
        "has settled",
        "one per node",
        "outer product of several rows",
        "endurance",
    ):
        assert part in told


def test_learning_curve_ends_at_the_total() -> None:
    rows = list(RUN)
    epochs = np.outer([0.2, 0.5, 0.3], [RUN[row] for row in rows])
    curve = cumulative(epochs, rows, EXACT)
    assert curve is not None
    np.testing.assert_allclose(curve, 331.0 * np.outer([0.2, 0.7, 1.0], np.ones(3)), rtol=1e-12)
    for level in BOUNDARIES:
        curve = cumulative(epochs, rows, load_costs(), level=level, draws=300, seed=2)
        figure = estimate(RUN, load_costs(), draws=300, seed=2).levels[level]
        assert curve is not None
        assert figure is not None
        np.testing.assert_allclose(curve[-1], figure, rtol=1e-12)
        assert (np.diff(curve, axis=0) > 0).all()
        assert (np.diff(curve, axis=1) > 0).all()


def test_learning_curve_of_nothing_priced() -> None:
    rows: list[EventKey] = [
        ("train/free", "substrate", "state ADC", "adc_conversion_ideal"),
        ("evaluate", "substrate", "layer_1", "mac_fp32"),
    ]
    assert cumulative(np.ones((2, 2)), rows, EXACT) is None
    with pytest.raises(InputError, match=r"events_by_epoch has shape \(2, 3\); expected \(any, 2\)"):
        cumulative(np.ones((2, 3)), rows, EXACT)
    with pytest.raises(InputError, match="events_by_epoch is -1"):
        cumulative(-np.ones((2, 2)), rows, EXACT)


def test_conversion_floor_by_hand() -> None:
    # 8 k T SNR at 8 bits and 300 K is 3.25e-15 J; no shipped converter is below its floor.
    one = estimate({("train", "substrate", "state ADC", "adc_conversion_8b"): 1.0}, EXACT)
    assert conversion_floor(one) == pytest.approx(3.25e-15, rel=3e-3)
    assert conversion_floor(estimate(RUN, EXACT)) == pytest.approx(30 * conversion_floor(one))
    assert (
        conversion_floor(
            estimate({("train", "s", "a", "adc_conversion_ideal"): 1.0, ("train", "s", "a", "mac_fp32"): 1.0}, EXACT)
        )
        == 0.0
    )
    for bits in range(4, 13):
        event = f"adc_conversion_{bits}b"
        row = load_costs().for_event(event)
        assert row is not None
        assert row.low > conversion_floor(estimate({("train", "substrate", "state ADC", event): 1.0}, EXACT))
    with pytest.raises(InputError, match="temperature is 0 K"):
        conversion_floor(one, 0.0)


def test_record_is_json_and_says_where_figures_come_from() -> None:
    events = RUN | {("train", "substrate", "state ADC", "adc_conversion_ideal"): 1.0}
    record = json.loads(json.dumps(to_record(estimate(events, load_costs())), allow_nan=False))
    assert record["complete"] is False
    assert set(record["levels"]["system"]) == {"P10", "P50", "P90"}
    assert len(record["events"]) == 8
    assert record["events"][-1]["cost"] is None
    assert all(each["source"] and each["status"] for each in record["costs"])
    assert {each["id"] for each in record["costs"]} == {each["cost"] for each in record["events"]} - {None}
    assert len(record["not_modelled"]) == len(NOT_MODELLED) + 1
    assert to_record(estimate({}, EXACT))["levels"]["system"] is None


def test_equal_costs_of_two_rows_stay_apart() -> None:
    # Two rows with equal numbers and one source but different ids are two costs in the ranking.
    twin = replace(EXACT["mac"], id="alu", event="alu_fp32")
    events: dict[EventKey, float] = {("train", "host", "o", "mac_fp32"): 1.0, ("train", "host", "o", "alu_fp32"): 1.0}
    assert [each.id for each in estimate(events, table(EXACT["mac"], twin)).used] == ["mac", "alu"]


def test_a_spiking_chip_has_a_list_of_its_own_of_what_is_not_modelled() -> None:
    ledger = Ledger()
    with ledger.phase("infer"):
        ledger.count("substrate", "weight_1", "synaptic_event", 3.0)
    assert any("hops are a stated number" in line for line in not_modelled(estimate(ledger, load_costs(), phases=("infer",))))
    ledger = Ledger()
    with ledger.phase("infer"):
        ledger.count("substrate", "state ADC", "adc_conversion_8b", 3.0)
    assert not any("hops are a stated number" in line for line in not_modelled(estimate(ledger, load_costs(), phases=("infer",))))
