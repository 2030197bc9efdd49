"""Other ways to run the digital baseline: the counts of its own simulator in another batch, and int8 by hand."""

import numpy as np
import pytest

from inmaterio.devices.costs import load_costs
from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.experiments.digital_inference import rows_per_call, variants
from inmaterio.experiments.energy import EnergyEstimate, estimate, per_sample
from inmaterio.simulators.digital import build

WIDTHS = (8, 6, 5, 3)
SHAPES = {f"{kind}_{k}": shape for k, (n, m) in enumerate(zip(WIDTHS[1:], WIDTHS[:-1], strict=True), start=1)
          for kind, shape in (("weight", (n, m)), ("bias", (n,)))}  # fmt: skip


def inferred(rows: int, batch: int) -> Ledger:
    """What the simulator counts for so many rows in batches of this size."""
    substrate, ledger = build(WIDTHS, chip=Key(0)), Ledger()
    substrate.attach(ledger, "substrate")
    with ledger.phase("infer"):
        for start in range(0, rows, batch):
            substrate.states(np.zeros((batch, WIDTHS[0])), samples=np.arange(start, start + batch), key=Key(1))
    return ledger


def amounts(whole: EnergyEstimate) -> dict[tuple[str, str], float]:
    return {(part.component, part.event): part.amount for part in whole.parts}


@pytest.mark.parametrize("batch", [1, 4, 20])
def test_one_row_per_call_is_what_the_simulator_counts_then(batch: int) -> None:
    ledger = inferred(20, batch)
    assert rows_per_call(ledger.events, SHAPES, 20) == pytest.approx(batch)
    found = {(one.precision, round(one.batch)): one for one in variants(ledger, SHAPES, 20, load_costs())}
    single = amounts(per_sample(estimate(inferred(20, 1), load_costs(), phases=("infer",)), 20))
    assert amounts(found["fp32", 1].energy) == pytest.approx(single)
    if batch > 1:
        assert amounts(found["fp32", batch].energy) == pytest.approx(
            amounts(per_sample(estimate(ledger, load_costs(), phases=("infer",)), 20))
        )
        assert len(found) == 4


def test_int8_has_as_many_operations_and_a_quarter_of_the_bytes() -> None:
    found = {one.label: amounts(one.energy) for one in variants(inferred(20, 20), SHAPES, 20, load_costs())}
    for rows in ("20 rows", "1 row"):
        fp32, int8 = found[f"fp32, {rows} per call"], found[f"int8, {rows} per call"]
        for layer in ("layer_1", "layer_2", "layer_3"):
            assert int8[layer, "mac_int8"] == fp32[layer, "mac_fp32"]
            assert int8[layer, "alu_int32"] == fp32[layer, "alu_fp32"]
            assert int8[layer, "byte_sram"] == pytest.approx(fp32[layer, "byte_sram"] / 4)
    # 8 x 6 weights and 6 biases of 4 bytes, 8 inputs and 6 states: read once per row.
    assert found["fp32, 1 row per call"]["layer_1", "byte_sram"] == pytest.approx(4 * (54 + 14))


def test_counts_of_another_network_give_nothing() -> None:
    ledger = inferred(20, 20)
    assert variants(ledger, {}, 20, load_costs()) == ()
    assert variants(ledger, SHAPES | {"weight_1": (6, 9)}, 20, load_costs()) == ()
    assert variants(ledger, SHAPES, 0, load_costs()) == ()
    assert rows_per_call({}, SHAPES, 20) is None
