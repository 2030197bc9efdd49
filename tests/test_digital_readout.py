"""A digital map behind a physical substrate that is never trained, and what a rule may see of a substrate."""

import io
from typing import Any

import numpy as np
import pytest
from doubles.random_medium import RandomMedium

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.experiments.registry import find_substrate
from inmaterio.learning_rules import equilibrium_propagation
from inmaterio.simulators.capabilities import Add, Outer, Parameter, Port, Write
from inmaterio.simulators.digital_readout import BIAS, WEIGHT, DigitalReadout
from inmaterio.simulators.measurable import ABOUT, Measurable
from inmaterio.simulators.substrate import AbstractSubstrate

KEY = Key(7)
WIDTHS = (6, 5, 3)
SAMPLES = np.array([4, 0, 7, 2, 9, 1, 3, 8])
INPUTS = np.random.default_rng(0).uniform(-1, 1, (8, 6))


def physical(name: str = "hopfield-imperfect", widths: tuple[int, ...] = WIDTHS) -> Any:
    substrate = find_substrate(name).build(widths, chip=Key(0, ("chip",)))
    rng = np.random.default_rng(1)
    with substrate.ledger.phase("initialise"):
        substrate.program({one: Write(rng.uniform(-1, 1, about.shape)) for one, about in substrate.parameters.items()}, key=KEY)
    return substrate


def readout(name: str = "hopfield-imperfect") -> DigitalReadout:
    """Calibrated, with a map of its own, on a fresh ledger."""
    substrate = DigitalReadout(physical(name))
    substrate.attach(Ledger(), "substrate")
    rng = np.random.default_rng(2)
    with substrate.ledger.phase("initialise"):
        substrate.calibrate(INPUTS, SAMPLES, KEY)
        substrate.program({WEIGHT: Write(rng.normal(size=(3, 5))), BIAS: Write(rng.normal(size=3))}, key=KEY)
    return substrate


def counts(ledger: Ledger, phase: str) -> dict[tuple[str, str, str], float]:
    return {key[1:]: amount for key, amount in ledger.events.items() if key[0] == phase}


def test_map_of_the_last_hidden_layer_as_measured() -> None:
    substrate = readout()
    with substrate.ledger.phase("evaluate"):
        features, outputs = substrate.states(INPUTS, samples=SAMPLES, key=Key(3))
        again = substrate.forward(INPUTS, samples=SAMPLES, key=Key(3))
        held = substrate.read_back(key=KEY)
        measured = substrate.physical.states(INPUTS, samples=SAMPLES, key=KEY)[-2].astype(np.float64)
        hidden = substrate.physical.states(INPUTS, samples=SAMPLES, key=Key(3))[-2]
    # calibrated on the same rows, with key KEY
    np.testing.assert_allclose(features, (hidden - measured.mean(axis=0)) / measured.std(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(outputs, features @ held[WEIGHT].T + held[BIAS], rtol=1e-12)
    np.testing.assert_array_equal(outputs, again)
    assert substrate.ports["output"] == Port(3, "1", -np.inf, np.inf)
    assert substrate.ports["input"] == substrate.physical.ports["input"]
    assert {name: (one.shape, one.layer, one.readout) for name, one in substrate.parameters.items()} == {
        WEIGHT: ((3, 5), 2, True),
        BIAS: ((3,), 2, True),
    }
    assert substrate.capabilities == {"Forward", "ReadStates", "Program", "ReadBack"}


def test_deeper_networks_feed_their_last_hidden_layer() -> None:
    substrate = DigitalReadout(physical("digital-feedforward", (6, 5, 4, 3)))
    with substrate.ledger.phase("initialise"):
        first, features, _ = substrate.states(INPUTS, samples=SAMPLES, key=KEY)
        whole = substrate.physical.states(INPUTS, samples=SAMPLES, key=KEY)
    # before it is calibrated, a feature is what is measured
    np.testing.assert_array_equal(first, whole[0])
    np.testing.assert_array_equal(features, whole[1])
    assert substrate.parameters[WEIGHT].layer == 3


def test_one_layer_feeds_its_inputs() -> None:
    substrate = DigitalReadout(physical("hopfield-ideal", (6, 3)))
    with substrate.ledger.phase("initialise"):
        substrate.calibrate(INPUTS, SAMPLES, KEY)
        features, _ = substrate.states(INPUTS, samples=SAMPLES, key=KEY)
    np.testing.assert_allclose(features, (INPUTS - INPUTS.mean(axis=0)) / INPUTS.std(axis=0), rtol=1e-12)


def test_a_feature_that_does_not_vary_is_held_at_zero() -> None:
    substrate = DigitalReadout(physical("digital-feedforward"))
    with substrate.ledger.phase("initialise"):
        # a rectified node far below its threshold, and one with nothing but its bias and rounding
        weight, bias = np.random.default_rng(3).uniform(-1, 1, (5, 6)), np.zeros(5)
        weight[1], bias[0], bias[1] = 2e-8, -100.0, 0.3
        substrate.physical.program({"weight_1": Write(weight), "bias_1": Write(bias)}, key=KEY)
        substrate.calibrate(INPUTS, SAMPLES, KEY)
        features, _ = substrate.states(np.clip(INPUTS + 0.1, -1, 1), samples=SAMPLES, key=KEY)
    assert not features[:, :2].any()
    assert (features[:, 2:].std(axis=0) > 0.1).all()
    with pytest.raises(InputError, match="rows to calibrate on is 1"):
        substrate.calibrate(INPUTS[:1], SAMPLES[:1], KEY)


def test_only_the_map_is_ever_written() -> None:
    substrate = readout()
    with substrate.ledger.phase("evaluate"):
        before = substrate.physical.oracle().states(INPUTS)
        held = dict(substrate.read_back(key=KEY))
    rng = np.random.default_rng(4)
    outer = Outer(rng.normal(size=(4, 3)), rng.normal(size=(4, 5)), 0.3)
    with substrate.ledger.phase("train"):
        substrate.program({WEIGHT: outer, BIAS: Add(np.ones(3))}, key=KEY)
        after = substrate.read_back(key=KEY)
    np.testing.assert_allclose(after[WEIGHT], held[WEIGHT] + 0.3 * (outer.left.T @ outer.right) / 4, rtol=1e-12)
    np.testing.assert_allclose(after[BIAS], held[BIAS] + 1.0, rtol=1e-12)
    for a, b in zip(before, substrate.physical.oracle().states(INPUTS), strict=True):
        np.testing.assert_array_equal(a, b)
    with substrate.ledger.phase("train"), pytest.raises(InputError, match=r"unknown parameter 'weight_2'"):
        substrate.program({WEIGHT: Write(np.zeros((3, 5))), "weight_2": Write(np.zeros((3, 5)))}, key=KEY)
    with substrate.ledger.phase("train"), pytest.raises(InputError, match=r"readout/weight is nan"):
        substrate.program({BIAS: Write(np.zeros(3)), WEIGHT: Write(np.full((3, 5), np.nan))}, key=KEY)
    with substrate.ledger.phase("train"):
        substrate.program({BIAS: Add(np.full(3, 1e308))}, key=KEY)
        with pytest.raises(InputError, match=r"readout/bias is inf"):
            substrate.program({BIAS: Add(np.full(3, 1e308))}, key=KEY)
        substrate.program({BIAS: Write(after[BIAS])}, key=KEY)
    with substrate.ledger.phase("evaluate"):
        unchanged = substrate.read_back(key=KEY)
    assert all(np.array_equal(unchanged[name], after[name]) for name in after)


def test_host_is_counted_apart_and_the_device_once() -> None:
    substrate, alone = readout(), physical()
    alone.attach(Ledger(), "substrate")
    with substrate.ledger.phase("infer"):
        substrate.forward(INPUTS, samples=SAMPLES, key=Key(3))
    with alone.ledger.phase("infer"):
        alone.states(INPUTS, samples=SAMPLES, key=Key(3))
    spent = counts(substrate.ledger, "infer")
    host = {key[1:]: amount for key, amount in spent.items() if key[0] == "host"}
    # 8 samples, 5 features, 3 outputs: z-scores and the map; gain, mean, map and, per sample, 5 measured values read, 5 features
    # written and read, 3 outputs written
    assert host == {
        ("digital readout", "mac_fp32"): 8 * (5 + 15),
        ("digital readout", "alu_fp32"): 8 * 3,
        ("digital readout", "byte_sram"): 4 * (10 + 15 + 3 + 8 * (15 + 3)),
    }
    assert {key: amount for key, amount in spent.items() if key[0] != "host"} == counts(alone.ledger, "infer")
    assert {key: n for key, n in substrate.ledger.tallies.items() if key[0] == "infer"} == alone.ledger.tallies
    initialise = counts(substrate.ledger, "initialise")
    # calibration: 2 MACs per number; every number written and read, mean and gain written. Then the map is written.
    assert initialise["host", "digital readout", "mac_fp32"] == 2 * 8 * 5
    assert initialise["host", "digital readout", "byte_sram"] == 4 * (2 * 8 * 5 + 10) + 4 * 18
    assert substrate.ledger.tallies["initialise", "substrate", "device_pass"] == 8
    assert substrate.ledger.tallies["initialise", "host", "program_call"] == 1
    with substrate.ledger.phase("train"):
        substrate.program({WEIGHT: Outer(np.ones((4, 3)), np.ones((4, 5))), BIAS: Add(np.ones(3))}, key=KEY)
    assert counts(substrate.ledger, "train") == {
        ("host", "digital readout", "mac_fp32"): 4 * 15,
        ("host", "digital readout", "alu_fp32"): 3,
        ("host", "digital readout", "byte_sram"): 4 * 2 * 18,
    }
    clock = substrate.clock_s
    with substrate.ledger.phase("idle"):
        substrate.wait(1e-3)
    assert substrate.clock_s == substrate.physical.clock_s == pytest.approx(clock + 1e-3)


def test_snapshot_goes_through_a_file_and_back_to_the_same_bits() -> None:
    substrate = readout()
    buffer = io.BytesIO()
    np.savez(buffer, **substrate.snapshot())
    buffer.seek(0)
    other = DigitalReadout(find_substrate("hopfield-imperfect").build(WIDTHS, chip=Key(0, ("chip",))))
    snapshot = dict(np.load(buffer))
    other.restore(snapshot)
    with substrate.ledger.phase("evaluate"), other.ledger.phase("evaluate"):
        for a, b in zip(*(one.states(INPUTS, samples=SAMPLES, key=Key(3)) for one in (substrate, other)), strict=True):
            np.testing.assert_array_equal(a, b)
    assert other.clock_s == substrate.clock_s
    changed = substrate.snapshot()
    assert all(changed[name] is not substrate.snapshot()[name] for name in (WEIGHT, "mean", "gain"))
    del snapshot["gain"]
    with pytest.raises(InputError, match="entry of the snapshot 'gain'"):
        other.restore(snapshot)


def test_what_it_cannot_stand_behind_is_refused() -> None:
    class Unreadable(Reader):
        capabilities = frozenset({"LinearSolving"})

    with pytest.raises(InputError, match="lacks capability ReadStates"):
        DigitalReadout(Unreadable())

    class Misreading(Reader):
        @property
        def parameters(self) -> dict[str, Parameter]:
            return {"map": Parameter((3, 9), readout=True)}

    with pytest.raises(InputError, match="0 couplings to its outputs"):
        DigitalReadout(Reader())
    with pytest.raises(InputError, match=r"reads as shape \(8, 5\); expected \(8, 9\)"):
        DigitalReadout(Misreading()).forward(INPUTS, samples=SAMPLES, key=KEY)


class Reader(AbstractSubstrate):
    """Reads as two layers, and nothing else."""

    capabilities = frozenset({"ReadStates"})
    traits = frozenset({"linear"})

    def __init__(self) -> None:
        super().__init__({}, {"input": Port(6, "1", -1.0, 1.0)})

    def states(self, inputs: Any, *, samples: Any, key: Key) -> Any:
        return np.zeros((8, 5)), np.zeros((8, 3))

    def snapshot(self) -> dict[str, Any]:
        return {}

    def restore(self, snapshot: Any) -> None: ...

    def oracle(self) -> Any:
        return self


def test_a_rule_sees_what_can_be_measured_and_nothing_else() -> None:
    substrate = physical()
    seen = Measurable(substrate)
    with substrate.ledger.phase("evaluate"):
        for a, b in zip(*(one.states(INPUTS, samples=SAMPLES, key=KEY) for one in (substrate, seen)), strict=True):
            np.testing.assert_array_equal(a, b)
        held = seen.read_back(key=KEY)
        seen.program({"weight_1": Write(np.ones((5, 6)))}, key=KEY)
        assert not np.array_equal(substrate.read_back(key=KEY)["weight_1"], held["weight_1"])
        seen.wait(2.0)
    for name in ABOUT[:-1]:
        assert getattr(seen, name) == getattr(substrate, name), name
    assert seen.clock_s > 2.0
    ledger = Ledger()
    substrate.attach(ledger, "substrate")
    assert seen.ledger is ledger, "what changes in the substrate shows"
    for name in (
        "oracle",
        "snapshot",
        "restore",
        "attach",
        "description",
        "_arrays",
        "_state",
        "_substrate",
        "solve",
        "physical",
    ):
        with pytest.raises(InputError, match=f"a rule asked for '{name}', which cannot be measured"):
            getattr(seen, name)
    assert not hasattr(seen.settle, "__self__"), "a bound method would lead back to the substrate"
    assert seen._Measurable__about("oracle") is None, "nor does what it is made of"
    assert not hasattr(seen, "__array__")


def test_a_call_beyond_the_capabilities_is_refused() -> None:
    reader = Measurable(Reader())
    assert reader.states(INPUTS, samples=SAMPLES, key=KEY)[0].shape == (8, 5)
    with pytest.raises(InputError, match="a rule asked for 'forward', .* expected one of states, capabilities"):
        _ = reader.forward

    class Promising(Reader):
        capabilities = frozenset({"ReadStates", "Forward"})

    with pytest.raises(InputError, match="Promising has no forward, which one of its capabilities promises"):
        Measurable(Promising())


def test_a_rule_learns_the_same_through_what_it_is_handed() -> None:
    from inmaterio.learning_rules.contract import Batch

    batch = Batch(INPUTS, np.eye(3)[SAMPLES % 3], SAMPLES)
    estimates = []
    for wrap in (lambda one: one, Measurable):
        substrate = physical()
        rule = equilibrium_propagation.build(substrate=wrap(substrate))
        with substrate.ledger.phase("train"):
            estimates.append(rule.update(rule.init(KEY), batch, KEY).estimates["weight_1"].dense())  # type: ignore[union-attr]
    np.testing.assert_array_equal(*estimates)


def test_features_of_what_can_only_be_driven_are_its_outputs() -> None:
    physical = RandomMedium((6, 4), Key(0))
    readout = DigitalReadout(physical)
    ledger = Ledger()
    readout.attach(ledger, "substrate")
    x, rows = np.random.default_rng(0).uniform(-1, 1, (50, 6)), np.arange(50)
    with ledger.phase("initialise"):
        readout.calibrate(x, rows, Key(1))
        measured = physical.forward(x, samples=rows, key=Key(2))
        features, outputs = readout.states(x, samples=rows, key=Key(2))
    assert features == pytest.approx((measured - measured.mean(axis=0)) / measured.std(axis=0))
    assert outputs.shape == (50, 4)
