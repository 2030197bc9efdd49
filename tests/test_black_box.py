"""Electronics around a driven physical system: noise, converters, writing, perturbing, adjoint experiments, counts."""

import numpy as np
import pytest
from doubles.random_medium import RandomMedium

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key, normals
from inmaterio.devices.validation import InputError
from inmaterio.simulators.black_box import FULL_SCALE, noise_of_readings
from inmaterio.simulators.capabilities import Add, Write
from inmaterio.simulators.digital_twin import WORD_BYTES

ROWS = np.arange(30)
INPUTS = np.random.default_rng(0).uniform(-1, 1, (30, 6))


def made(**options: object) -> tuple[RandomMedium, Ledger]:
    box, ledger = RandomMedium((6, 5), Key(0), **options), Ledger()  # type: ignore[arg-type]
    box.attach(ledger, "substrate")
    return box, ledger


def test_each_reading_has_noise_of_its_own_and_a_sample_keeps_its_noise_in_any_batch() -> None:
    key, samples = Key(3), np.array([4, 7, 4, 4, 9])
    draws = noise_of_readings(key, samples, 3)
    assert np.array_equal(draws[[0, 1, 4]], normals(key, samples[[0, 1, 4]], 3))
    assert np.array_equal(draws[3], normals(key, samples[3:4], 3, step=2)[0])
    assert len(np.unique(draws)) == draws.size
    assert np.array_equal(noise_of_readings(key, samples[[4, 0]], 3), draws[[4, 0]])


def test_read_noise_has_the_size_that_was_asked_for() -> None:
    quiet, ledger = made()
    noisy, other = made(read_noise=0.05)
    x, rows = np.tile(INPUTS, (100, 1)), np.arange(3000)
    with ledger.phase("infer"), other.phase("infer"):
        difference = noisy.forward(x, samples=rows, key=Key(1)) - quiet.forward(x, samples=rows, key=Key(1))
    # 15 000 draws: the standard deviation is known to 0.6 % (one sigma)
    assert difference.std() == pytest.approx(0.05, rel=0.03)


def test_converters_round_to_their_grids_and_are_named_in_the_ledger() -> None:
    box, ledger = made(drive_bits=4, read_bits=6, tunable=3, write_bits=2)
    with ledger.phase("infer"):
        outputs = box.forward(INPUTS, samples=ROWS, key=Key(1))
        box.program({"tuning": Write(np.array([0.2, -0.9, 0.9]))}, key=Key(2))
        held = box.read_back(key=Key(3))["tuning"]
    step = 2 * FULL_SCALE / (2**6 - 1)
    assert (outputs + FULL_SCALE) / step == pytest.approx(np.rint((outputs + FULL_SCALE) / step), abs=1e-9)
    assert held == pytest.approx([1 / 3, -1.0, 1.0])
    assert box.requested["tuning"] == pytest.approx([0.2, -0.9, 0.9])
    counts = {key[2:]: amount for key, amount in ledger.events.items()}
    assert counts["input DAC", "dac_conversion_4b"] == 180
    assert counts["detector ADC", "adc_conversion_6b"] == 150
    assert counts["tuning", "device_write"] == 3
    assert counts["tuning", "device_read"] == 3
    assert counts["sources", "source_second"] == pytest.approx(30 * 1e-3 * 2)
    assert box.clock_s == pytest.approx(0.03)


def test_a_perturbed_pass_leaves_nothing_behind() -> None:
    box, ledger = made(tunable=3)
    with ledger.phase("infer"):
        box.program({"tuning": Write(np.full(3, 0.3))}, key=Key(0))
        before = box.forward(INPUTS, samples=ROWS, key=Key(1))
        moved = box.perturbed(INPUTS, {"tuning": np.array([0.1, 0.0, 2.0])}, samples=ROWS, key=Key(1))
        after = box.forward(INPUTS, samples=ROWS, key=Key(1))
        box.program({"tuning": Add(np.array([0.1, 0.0, 2.0]))}, key=Key(0))  # clipped to 1 in both
        written = box.forward(INPUTS, samples=ROWS, key=Key(1))
    assert np.array_equal(before, after)
    assert np.array_equal(moved, written)
    assert np.abs(moved - before).max() > 0.01


def test_an_adjoint_experiment_takes_two_passes_and_measures_the_gradient() -> None:
    box, ledger = made(tunable=3)
    gradient = np.random.default_rng(1).normal(size=(30, 5))
    with ledger.phase("train"):
        found = box.adjoint(INPUTS, gradient, samples=ROWS, key=Key(1))
    toward, summed = box.oracle().pullback(INPUTS, gradient)
    assert found.inputs == pytest.approx(toward, rel=1e-12)
    assert found.parameters["tuning"] == pytest.approx(summed["tuning"] / 30)
    assert ledger.total("device_pass", "train") == 60
    noisy, _ = made(tunable=3, read_noise=0.1)
    noisy.attach(ledger, "substrate")
    with ledger.phase("train"):
        measured = noisy.adjoint(INPUTS, gradient, samples=ROWS, key=Key(1))
    size = np.sqrt(np.mean(toward**2))
    assert np.std(measured.inputs - toward) == pytest.approx(0.1 * size, rel=0.2)  # 180 draws
    with pytest.raises(InputError, match="lacks capability Adjoint"):
        made(adjoint=False)[0].adjoint(INPUTS, gradient, samples=ROWS, key=Key(1))


def test_an_adjoint_experiment_counts_what_is_driven_read_and_multiplied() -> None:
    box, ledger = made(tunable=3, drive_bits=8, read_bits=10)
    with ledger.phase("train"):
        box.adjoint(INPUTS, np.ones((30, 5)), samples=ROWS, key=Key(1))
    events = {key[1:]: amount for key, amount in ledger.events.items()}
    assert events["substrate", "input DAC", "dac_conversion_8b"] == 30 * 6
    assert events["substrate", "adjoint DAC", "dac_conversion_8b"] == 30 * 5
    assert events["substrate", "field ADC", "adc_conversion_10b"] == 30 * 2 * 9
    assert events["host", "field product", "mac_fp32"] == 30 * 9
    assert events["host", "field product", "byte_sram"] == 30 * 2 * WORD_BYTES * 2 * 9
    assert events["substrate", "sources", "source_second"] == pytest.approx(60 * 1e-3 * 2)


def test_samples_that_oppose_one_another_cancel_but_not_their_noise() -> None:
    box, ledger = made(tunable=3, read_noise=0.1)
    x, gradient = np.repeat(INPUTS[:1], 2, axis=0), np.array([[1.0], [-1.0]]) * np.arange(1.0, 6.0)
    with ledger.phase("train"):
        found = [box.adjoint(x, gradient, samples=np.arange(2), key=Key(n)).parameters["tuning"] for n in range(200)]
    _, exact = box.oracle().pullback(x, gradient)
    assert np.abs(exact["tuning"]).max() < 1e-12
    _, one = box.oracle().pullback(x[:1], gradient[:1])
    size = 0.1 * np.sqrt(np.mean(one["tuning"] ** 2)) / np.sqrt(2.0)
    # 600 draws: the standard deviation is known to 3 % (one sigma)
    assert np.std(found) == pytest.approx(size, rel=0.12)


def test_noise_of_a_gradient_is_drawn_anew_for_a_sample_that_is_met_again() -> None:
    box, ledger = made(read_noise=0.1)
    with ledger.phase("train"):
        found = box.adjoint(np.repeat(INPUTS[:1], 2, axis=0), np.ones((2, 5)), samples=np.array([3, 3]), key=Key(1))
    assert np.abs(found.inputs[0] - found.inputs[1]).min() > 0.0
