"""Electronics around a driven physical system: noise, converters, writing, perturbing, adjoint experiments, counts."""

import numpy as np
import pytest
from doubles.random_medium import RandomMedium

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key, normals
from inmaterio.devices.validation import InputError
from inmaterio.simulators.black_box import FULL_SCALE, noise_of_readings
from inmaterio.simulators.capabilities import Add, Write

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
    assert np.array_equal(found.inputs, toward)
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
