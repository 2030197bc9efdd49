"""Clocked layers on crossbars: products both ways, devices, converters, counts, bad input."""

from typing import Any

import numpy as np
import pytest

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.simulators import clocked_layers, digital
from inmaterio.simulators.capabilities import PROTOCOLS, Add, Outer, Write
from inmaterio.simulators.clocked_layers import PRESETS, ClockedLayers
from inmaterio.simulators.perceptron import RESPONSES

WIDTHS = (5, 4, 3, 2)
KEY = Key(0)


def chip(widths: tuple[int, ...] = WIDTHS, seed: int = 0, **options: Any) -> ClockedLayers:
    substrate = clocked_layers.build(widths, chip=Key(seed), **{"dtype": "float64", **options})
    rng = np.random.default_rng(seed)
    values = {name: rng.normal(scale=0.5, size=one.shape) for name, one in substrate.parameters.items()}
    substrate.attach(Ledger(), "substrate")
    with substrate.ledger.phase("initialise"):
        substrate.program({name: Write(value) for name, value in values.items()}, key=Key(seed, ("write",)))
    return substrate


def held(substrate: ClockedLayers) -> dict[str, np.ndarray]:
    """What the devices hold, from conductances: (G+ - G-) weight_max / (g_max - g_min)."""
    description, values = substrate.description, {}
    for name, one in substrate.parameters.items():
        array = substrate._arrays._arrays[name]
        scale = description.weight_max / (description.g_max - description.g_min)
        values[name] = ((array.g_plus - array.g_minus) * scale).reshape(one.shape)
    return values


def call(substrate: ClockedLayers, method: str, layer: int, values: np.ndarray, key: Key = KEY) -> np.ndarray:
    with substrate.ledger.phase("evaluate"):
        found: np.ndarray = getattr(substrate, method)(layer, values, samples=np.arange(len(values)), key=key)
    return found


def drive(width: int, rows: int = 3, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (rows, width))


@pytest.mark.parametrize("feedback", ["transposed", "separate"])
@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_products_are_those_of_what_the_devices_hold(feedback: str, spread: float) -> None:
    substrate = chip(feedback=feedback, device_spread=spread, g_min=1e-6)
    values = held(substrate)
    for k in (1, 2, 3):
        wanted = drive(WIDTHS[k - 1]) @ values[f"weight_{k}"].T + values[f"bias_{k}"]
        np.testing.assert_allclose(call(substrate, "product", k, drive(WIDTHS[k - 1])), wanted, rtol=1e-12, atol=1e-13)
    for k in (2, 3):
        back = values[f"weight_{k}"] if feedback == "transposed" else values[f"feedback_{k}"].T
        # small vectors come back as exactly as large ones
        for size in (1.0, 1e-9):
            found = call(substrate, "transposed_product", k, size * drive(WIDTHS[k]))
            np.testing.assert_allclose(found, size * drive(WIDTHS[k]) @ back, rtol=1e-12, atol=1e-13 * size)
    if spread == 0.0:
        # and ideal devices hold what was asked of them
        asked = {name: one.detach().numpy() for name, one in substrate.twin().named_parameters()}
        assert set(asked) == set(values)
        for name, one in asked.items():
            np.testing.assert_allclose(values[name], one, rtol=1e-12, atol=1e-13)


def test_one_device_serves_both_directions_and_separate_ones_do_not() -> None:
    """Reciprocity: v . (W s) = (W^T v) . s, exactly the same weights with all their errors."""
    errors = {"device_spread": 0.2, "programming_noise": 0.05}
    for feedback, reciprocal in (("transposed", True), ("separate", False)):
        substrate = chip(feedback=feedback, feedback_angle=0.0, **errors)
        assert ("reciprocal" in substrate.traits) is reciprocal
        assert ("Feedback" in substrate.capabilities) is not reciprocal
        with substrate.ledger.phase("initialise"):
            weights = np.random.default_rng(1).normal(scale=0.5, size=(3, 4))
            writes = {"weight_2": Write(weights), "bias_2": Write(np.zeros(3))}
            substrate.program(writes if reciprocal else {**writes, "feedback_2": Write(weights.T)}, key=KEY)
        bias = held(substrate)["bias_2"]
        up = np.sum(drive(3, seed=6) * (call(substrate, "product", 2, drive(4)) - bias), axis=1)
        down = np.sum(call(substrate, "transposed_product", 2, drive(3, seed=6)) * drive(4), axis=1)
        assert np.allclose(up, down, rtol=1e-12, atol=1e-13) is reciprocal


@pytest.mark.parametrize("activation", RESPONSES)
def test_ideal_crossbars_are_the_digital_network(activation: str) -> None:
    substrate = chip(activation=activation)
    other = digital.build(WIDTHS, chip=KEY, activation=activation, dtype="float64")
    values = {name: one.detach().numpy() for name, one in substrate.twin().named_parameters()}
    with other.ledger.phase("initialise"):
        other.program({name: Write(one) for name, one in values.items()}, key=KEY)
    x, y, samples = drive(5), np.eye(2)[[0, 1, 1]], np.arange(3)
    with substrate.ledger.phase("evaluate"):
        states, outputs = (getattr(substrate, name)(x, samples=samples, key=KEY) for name in ("states", "forward"))
    with other.ledger.phase("evaluate"):
        wanted = other.states(x, samples=samples, key=KEY)
    for one, two in zip(states, wanted, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(outputs, states[-1])
    np.testing.assert_allclose(substrate.oracle().outputs(x), wanted[-1], rtol=1e-12, atol=1e-13)
    assert ("monotone" in substrate.traits) == ("monotone" in other.traits) == (activation != "silu")
    for name, gradient in substrate.oracle().loss_gradient(x, y, "mse").items():
        np.testing.assert_allclose(gradient, other.oracle().loss_gradient(x, y, "mse")[name], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", RESPONSES)
def test_monotone_says_whether_a_response_ever_falls(name: str) -> None:
    response = RESPONSES[name]
    values = response.respond(np.linspace(-8, 8, 100_001))
    assert (np.diff(values).min() >= 0) == response.monotone
    assert values.min() >= response.low
    assert values.max() <= response.high
    assert values.min() == pytest.approx(response.low, abs=4e-4)  # and no wider than it is
    assert response.respond(np.zeros(1, dtype=np.float32)).dtype == np.float32


def test_the_oracle_holds_what_the_chip_holds_and_the_twin_what_was_asked() -> None:
    substrate = chip(device_spread=0.1)
    asked = {name: one.detach().numpy() for name, one in substrate.twin().named_parameters()}
    assert np.abs(held(substrate)["weight_1"] - asked["weight_1"]).max() > 1e-3
    outputs = call(substrate, "product", 3, substrate_states(substrate)[1])
    np.testing.assert_allclose(substrate.oracle().outputs(drive(5)), outputs, rtol=1e-12)


def substrate_states(substrate: ClockedLayers) -> tuple[np.ndarray, ...]:
    with substrate.ledger.phase("evaluate"):
        return substrate.states(drive(5), samples=np.arange(3), key=KEY)


def test_counts_and_heat_by_hand() -> None:
    substrate = chip((3, 2, 2), activation="relu", dac_bits=6, adc_bits=7, g_min=1e-6, volts_per_activity=0.1, drive_range=8.0)
    substrate.attach(ledger := Ledger(), "chip")
    x, v = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]]), np.array([[0.0, 2.0], [0.0, 0.0]])
    with ledger.phase("infer"):
        drives = substrate.product(1, x, samples=np.arange(2), key=KEY)
        substrate.respond(1, drives)
    counts = {(part, event): n for (_, role, part, event), n in ledger.events.items() if role == "chip"}
    assert counts.pop(("line DAC", "dac_conversion_6b")) == 2 * 3
    assert counts.pop(("product ADC", "adc_conversion_7b")) == 2 * 2
    assert counts.pop(("node DAC", "dac_conversion_6b")) == 2 * 2
    assert counts.pop(("state ADC", "adc_conversion_7b")) == 2 * 2
    # a product and a response take 100 ns each, with a conversion before and one behind; 2 nodes are always on
    assert counts.pop(("read amplifiers", "amplifier_second")) == pytest.approx(2 * 300e-9 * 2, rel=1e-12)
    assert counts.pop(("neurons", "amplifier_second")) == pytest.approx(2 * 600e-9 * 2, rel=1e-12)
    assert substrate.clock_s == pytest.approx(2 * 600e-9 + 8 * 100e-9, rel=1e-12)  # and 8 rows were written
    # V^2 G t of both devices of every pair on the third column, then on the first; -1 is a level of the DAC, as 1 is
    arrays = substrate._arrays._arrays
    both = {name: array.g_plus + array.g_minus for name, array in arrays.items()}
    per_square = 0.1**2 * 100e-9
    heat = per_square * (both["weight_1"][:, 2].sum() + both["weight_1"][:, 0].sum())
    assert counts.pop(("array weight_1", "ohmic_joule")) == pytest.approx(heat, rel=1e-12)
    assert counts.pop(("array bias_1", "ohmic_joule")) == pytest.approx(per_square * 2 * both["bias_1"].sum(), rel=1e-12)
    assert not counts
    assert ledger.tallies.pop(("infer", "chip", "second")) == pytest.approx(2 * 600e-9, rel=1e-12)
    assert ledger.tallies == {("infer", "chip", "step"): 2, ("infer", "chip", "sample"): 2}

    ledger.events.clear()
    ledger.tallies.clear()
    with ledger.phase("infer"):
        substrate.transposed_product(2, v, samples=np.arange(2), key=KEY)
    counts = {(part, event): n for (_, role, part, event), n in ledger.events.items() if role == "chip"}
    assert counts.pop(("vector DAC", "dac_conversion_6b")) == 2 * 2
    assert counts.pop(("product ADC", "adc_conversion_7b")) == 2 * 2
    assert counts.pop(("read amplifiers", "amplifier_second")) == pytest.approx(2 * 300e-9 * 2, rel=1e-12)
    assert counts.pop(("neurons", "amplifier_second")) == pytest.approx(2 * 300e-9 * 2, rel=1e-12)
    # the second row of the array at full drive for the first sample, nothing for the other
    assert counts.pop(("array weight_2", "ohmic_joule")) == pytest.approx(per_square * both["weight_2"][1].sum(), rel=1e-12)
    assert not counts
    assert ledger.events["infer", "host", "vector scaling", "alu_fp32"] == 2 * (2 * 2 + 2)
    assert ledger.total("device_pass") == ledger.total("step") == 2
    assert ledger.total("sample") == 0


def test_counts_of_writing_and_reading_by_hand() -> None:
    substrate = chip((3, 2, 2), feedback="separate", adc_bits=8)
    substrate.attach(ledger := Ledger(), "substrate")
    clock = substrate.clock_s
    with ledger.phase("train"):
        substrate.program({"weight_1": Write(np.ones((2, 3))), "feedback_2": Add(np.eye(2)), "bias_1": Add(np.ones(2))}, key=KEY)
        left, right = np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([[0.0, 1.0], [1.0, 1.0]])
        substrate.program({"weight_2": Outer(left, right, 0.1)}, key=KEY)
    writes = {part: n for (_, _, part, event), n in ledger.events.items() if event == "device_write"}
    # of the outer product the first row reaches one pair, the second all four
    assert writes == {"array weight_1": 12, "array feedback_2": 4, "array bias_1": 4, "array weight_2": 2 * (1 + 4)}
    assert ledger.total("program_call") == 2
    assert substrate.clock_s - clock == pytest.approx((2 + 2 + 2 + 2) * 1e-7, rel=1e-12)
    with ledger.phase("idle"):
        substrate.read_back(key=KEY)
    assert sum(n for (_, _, _, event), n in ledger.events.items() if event == "device_read") == 2 * (6 + 2 + 4 + 2 + 4)
    assert ledger.events["idle", "substrate", "product ADC", "adc_conversion_8b"] == 18
    with ledger.phase("idle"):
        substrate.wait(2.0)
    assert ledger.events["idle", "substrate", "neurons", "amplifier_second"] == pytest.approx(4.0)


def test_a_forward_pass_is_one_pass_and_one_sample() -> None:
    substrate = chip()
    substrate_states(substrate)
    assert substrate.ledger.tallies["evaluate", "substrate", "device_pass"] == 3
    assert substrate.ledger.tallies["evaluate", "substrate", "sample"] == 3


@pytest.mark.parametrize(("method", "width"), [("product", 4), ("transposed_product", 3)])
def test_read_noise_is_that_of_every_device_on_the_line(method: str, width: int) -> None:
    # false alarm below 1e-6: standard deviation of 3 x 4000 draws within 5 of its own standard errors
    substrate = chip(read_noise=0.02)
    quiet = chip()
    rows = np.repeat(drive(width, 1), 4000, axis=0)
    noise = call(substrate, method, 2, rows) - call(quiet, method, 2, rows)
    scale = np.abs(rows[0]).max() if method == "transposed_product" else 1.0
    length = np.sqrt(np.sum(rows[0] ** 2) + (1.0 if method == "product" else 0.0))  # the bias line is at 1
    wanted = np.sqrt(2) * 0.02 * 4.0 * length
    assert noise.std() == pytest.approx(wanted, rel=5 / np.sqrt(2 * noise.size))
    assert abs(noise.mean()) < 5 * wanted / np.sqrt(noise.size)
    assert scale > 0
    other = call(substrate, method, 2, rows, Key(1)) - call(quiet, method, 2, rows)
    assert abs(np.corrcoef(noise.ravel(), other.ravel())[0, 1]) < 5 / np.sqrt(noise.size)


def test_converters_round_and_clip_what_they_should() -> None:
    substrate = chip(dac_bits=5, adc_bits=6, drive_range=2.0, state_range=3.0, activation="relu")
    found = call(substrate, "product", 2, 3 * np.abs(drive(4)))
    step = 2.0 / 31  # of six bits in two's complement
    np.testing.assert_allclose(found / step, np.rint(found / step), atol=1e-9)
    assert np.abs(found).max() <= 2.0 * 32 / 31
    with substrate.ledger.phase("evaluate"):
        states = substrate.respond(2, np.array([[5.0, 0.7, -1.0]]))
    assert states.min() == 0.0
    assert states.max() <= 2.0  # the node is driven no further than the range of its drive
    np.testing.assert_allclose(states * 63 / 3.0, np.rint(states * 63 / 3.0), atol=1e-9)
    # nothing in, nothing back
    assert not call(substrate, "transposed_product", 2, np.zeros((2, 3))).any()


def test_converter_noise_belongs_to_a_sample() -> None:
    substrate = chip(dac_noise=0.05, adc_noise=0.05)
    for method, width in (("product", 4), ("transposed_product", 3)):
        values, samples = drive(width), np.array([7, 2, 9])
        with substrate.ledger.phase("evaluate"):
            first, turned = (
                getattr(substrate, method)(2, values[order], samples=samples[order], key=KEY) for order in ([0, 1, 2], [2, 0, 1])
            )
        np.testing.assert_allclose(turned, first[[2, 0, 1]], rtol=1e-12)
        assert np.abs(first - call(chip(), method, 2, values)).max() > 1e-3


def test_outputs_have_no_nodes() -> None:
    substrate = chip(adc_bits=8)
    events = dict(substrate.ledger.events)
    with substrate.ledger.phase("evaluate"):
        found = substrate.respond(3, drive(2))
    np.testing.assert_array_equal(found, drive(2))
    assert substrate.ledger.events == events


def test_separate_feedback_says_what_it_is() -> None:
    substrate = chip(feedback="separate", feedback_angle=30.0, weight_max=3.0)
    feedback = {name: one for name, one in substrate.parameters.items() if name.startswith("feedback")}
    assert {name: (one.shape, one.partner, one.angle, one.layer, one.low, one.high) for name, one in feedback.items()} == {
        "feedback_2": ((4, 3), "weight_2", 30.0, 1, -3.0, 3.0),
        "feedback_3": ((3, 2), "weight_3", 30.0, 2, -3.0, 3.0),
    }
    assert not any(one.readout or one.digital for one in feedback.values())
    assert list(substrate.oracle().loss_gradient(drive(5), np.ones((3, 2)), "mse")) == [
        "weight_1", "bias_1", "weight_2", "bias_2", "weight_3", "bias_3",
    ]  # fmt: skip


def test_presets_are_built_and_offer_their_calls() -> None:
    for options in PRESETS.values():
        substrate = clocked_layers.build(WIDTHS, chip=KEY, **options)
        for capability in substrate.capabilities & set(PROTOCOLS):
            for name in (one for one in vars(PROTOCOLS[capability]) if not one.startswith("_")):
                assert callable(getattr(substrate, name))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "rely"}, "unknown activation 'rely'; nearest: relu"),
        ({"feedback": "random"}, "unknown feedback 'random'"),
        ({"feedback": "separate", "feedback_angle": 200.0}, r"feedback_angle is 200 degrees; expected a number in \[0, 180\]"),
        ({"dtype": "float16"}, "unknown dtype 'float16'"),
        ({"drive_range": 0.0}, "drive_range is 0 units of activity"),
        ({"volts_per_activity": 3.0}, "volts_per_activity is 3 V"),
        ({"weight_max": -1.0}, "weight_max is -1"),
        ({"dac_bits": 40}, "converter's bits is 40"),
        ({"wiring": "shared"}, "unknown option of clocked layers 'wiring'"),
        ({"widths": (3,)}, "at least an input and an output"),
        ({"widths": (3, 2.5)}, "width is 2.5 nodes; expected a whole number"),
    ],
)
def test_a_bad_network_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        clocked_layers.build(options.pop("widths", WIDTHS), chip=KEY, **options)


@pytest.mark.parametrize(
    ("method", "layer", "values", "message"),
    [
        ("product", 0, drive(5), r"layer is 0; expected a whole number in \[1, 3\]"),
        ("product", 4, drive(2), r"layer is 4; expected a whole number in \[1, 3\]"),
        ("transposed_product", 1, drive(4), r"layer is 1; expected a whole number in \[2, 3\]"),
        ("product", 1, drive(4), r"input has shape \(3, 4\); expected \(any, 5\)"),
        ("product", 1, 2 * np.ones((3, 5)), "input is 2 at .*; expected at most 1"),
        ("product", 2, drive(5), r"state has shape \(3, 5\); expected \(any, 4\)"),
        ("product", 2, np.full((3, 4), np.nan), "state is nan"),
        ("transposed_product", 2, drive(4), r"vector has shape \(3, 4\); expected \(any, 3\)"),
        ("transposed_product", 2, np.full((3, 3), np.inf), "vector is inf"),
        ("transposed_product", 2, np.zeros((0, 3)), "batch size is 0"),
    ],
)
@pytest.mark.parametrize("kind", ["crossbars", "digital"])
def test_bad_vectors_are_refused(kind: str, method: str, layer: int, values: np.ndarray, message: str) -> None:
    substrate: Any = chip() if kind == "crossbars" else digital.build(WIDTHS, chip=KEY, dtype="float64")
    with substrate.ledger.phase("evaluate"), pytest.raises(InputError, match=message):
        getattr(substrate, method)(layer, values, samples=np.arange(len(values)), key=KEY)
    with substrate.ledger.phase("evaluate"), pytest.raises(InputError, match="samples have|samples has"):
        substrate.product(2, drive(4), samples=np.arange(2), key=KEY)
    with substrate.ledger.phase("evaluate"), pytest.raises(InputError, match="drive has shape"):
        substrate.respond(2, drive(4))


def test_a_network_without_hidden_layers_has_no_way_back() -> None:
    substrate = chip((3, 2))
    with (
        substrate.ledger.phase("evaluate"),
        pytest.raises(InputError, match="layer is 2; expected a network with a hidden layer"),
    ):
        substrate.transposed_product(2, drive(2), samples=np.arange(3), key=KEY)
