"""The trainable wave medium: gradients, the adjoint experiment, counts, chips, imperfections, and that it learns."""

from typing import Any

import numpy as np
import pytest
import torch

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.simulators.capabilities import Add, Write
from inmaterio.simulators.digital_twin import batch_loss, to_tensor, twin_gradient
from inmaterio.simulators.wave_medium import PRESETS, WaveMedium, build

SMALL: dict[str, Any] = {
    "design_rows": 18,
    "design_columns": 12,
    "absorber_cells": 6,
    "margin_cells": 2,
    "gap_cells": 2,
    "beta": 5.0,
}
SAMPLES = 60
ROWS = np.arange(3)


def make(preset: str = "wave-medium", *, seed: int = 0, phase: str = "train", **options: Any) -> WaveMedium:
    medium = build((SAMPLES, 3), chip=Key(seed, ("chip",)), **({**PRESETS[preset], **SMALL} | options))
    ledger = Ledger()
    medium.attach(ledger, "substrate")
    ledger._open.append(phase)
    return medium


def tones(batch: int = 3) -> np.ndarray:
    """Three tones of different pitch, one per class."""
    time = np.arange(SAMPLES) / 1e4
    pitch = np.array([300.0, 700.0, 1300.0])[np.arange(batch) % 3]
    return 0.9 * np.sin(2.0 * np.pi * pitch[:, None] * time)


def density(medium: WaveMedium, name: str = "density") -> np.ndarray:
    return Key(7).at(name).generator().uniform(size=medium.parameters["density"].shape)


def forward(medium: WaveMedium, inputs: np.ndarray) -> np.ndarray:
    return medium.forward(inputs, samples=np.arange(len(inputs)), key=Key(1))


@pytest.mark.parametrize("preset", ["wave-medium", "wave-medium-nonlinear"])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_oracle_gradient_against_finite_differences_of_second_order(preset: str, loss: str) -> None:
    medium = make(preset, material_spread=0.1)
    start = 0.2 + 0.6 * density(medium)
    targets = np.eye(3)
    direction = density(medium, "direction") - 0.5

    def loss_at(values: np.ndarray) -> float:
        medium.program({"density": Write(values)}, key=Key(0))
        outputs = to_tensor(medium.oracle().outputs(tones()), torch.float64)
        return float(batch_loss(loss, outputs, to_tensor(targets, torch.float64), medium.ports["output"]))

    medium.program({"density": Write(start)}, key=Key(0))
    exact = float(np.sum(medium.oracle().loss_gradient(tones(), targets, loss)["density"] * direction))
    errors = [abs((loss_at(start + h * direction) - loss_at(start - h * direction)) / (2 * h) - exact) for h in (4e-3, 2e-3)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("hold", ["zero", "linear"])
def test_gradient_by_the_waveform_against_finite_differences(hold: str) -> None:
    medium = make(hold=hold, steps_per_sample=2, tail_steps=0)
    oracle = medium.oracle()
    weights, direction = density(medium)[:3, :3], Key(2).at("direction").generator().uniform(-1.0, 1.0, (3, SAMPLES))
    toward, _ = oracle.pullback(tones(), weights)
    errors = []
    for h in (2e-2, 1e-2):
        sides = [float(np.sum(weights * oracle.outputs(tones() + sign * h * direction))) for sign in (1, -1)]
        errors.append(abs((sides[0] - sides[1]) / (2 * h) - float(np.sum(toward * direction))))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.1)


def test_twin_is_nominal_and_its_gradient_exact() -> None:
    for preset in PRESETS:
        nominal, chip = make(preset), make(preset, seed=4, material_spread=0.2)
        targets = np.eye(3)
        _, outputs, gradient = twin_gradient(chip.twin(), chip.parameters, tones(), targets, "mse", chip.ports["output"])
        oracle = nominal.oracle()
        assert np.allclose(outputs, oracle.outputs(tones()), rtol=1e-12)
        assert np.allclose(gradient["density"], oracle.loss_gradient(tones(), targets, "mse")["density"], rtol=1e-9, atol=1e-18)
        assert np.abs(outputs - chip.oracle().outputs(tones())).max() > 1e-3
        twin = chip.twin()
        assert isinstance(twin.macs_per_sample, int)
        assert twin.macs_backward_per_sample > twin.macs_per_sample


def test_adjoint_experiment_gives_the_gradient_of_a_nominal_medium_in_two_passes() -> None:
    medium = make()
    medium.program({"density": Write(density(medium))}, key=Key(0))
    ledger = Ledger()
    medium.attach(ledger, "substrate")
    slope = density(medium)[:3, :3] - 0.5
    with ledger.phase("train"):
        found = medium.adjoint(tones(), slope, samples=ROWS, key=Key(1))
    toward, summed = medium.oracle().pullback(tones(), slope)
    scale = np.abs(summed["density"]).max()
    assert np.allclose(found.parameters["density"], summed["density"] / 3, rtol=1e-10, atol=1e-12 * scale)
    assert np.allclose(found.inputs, toward, rtol=1e-12)
    assert ledger.total("device_pass") == 6
    assert ledger.total("sample") == 3
    steps, cells = medium._description.steps, 18 * 12
    assert ledger.events["train", "substrate", "input DAC", "dac_conversion_ideal"] == 3 * SAMPLES
    assert ledger.events["train", "substrate", "adjoint DAC", "dac_conversion_ideal"] == 3 * 3 * steps
    assert ledger.events["train", "substrate", "field ADC", "adc_conversion_ideal"] == 3 * steps * (3 + 2 * cells + 1)
    assert ledger.events["train", "host", "field product", "mac_fp32"] == 3 * steps * (3 + 3 * cells)
    assert ledger.events["train", "host", "field product", "byte_sram"] == 3 * 2 * 4 * steps * (3 + 2 * cells + 1)
    assert ledger.events["train", "substrate", "sources", "source_second"] == pytest.approx(6 * steps * 1e-4)


def test_adjoint_experiment_knows_the_amounts_of_material_nominally_only() -> None:
    medium = make(material_spread=0.1)
    medium.program({"density": Write(density(medium))}, key=Key(0))
    slope = density(medium)[:3, :3] - 0.5
    found = medium.adjoint(tones(), slope, samples=ROWS, key=Key(1))
    toward, summed = medium.oracle().pullback(tones(), slope)
    measured, exact = found.parameters["density"].ravel(), summed["density"].ravel()
    cosine = measured @ exact / np.linalg.norm(measured) / np.linalg.norm(exact)
    assert 0.9 < cosine < 1.0 - 1e-4
    assert np.allclose(found.inputs, toward, rtol=1e-12)  # the source stands in air, which has no errors


def test_noise_of_a_gradient_does_not_cancel_with_its_samples() -> None:
    medium = make(read_noise=0.1)
    x, slope = np.repeat(tones()[:1], 2, axis=0), np.array([[1.0], [-1.0]]) * np.array([[1.0, -0.5, 0.2]])
    found = medium.adjoint(x, slope, samples=np.arange(2), key=Key(1)).parameters["density"]
    one = medium.oracle().pullback(x[:1], slope[:1])[1]["density"]
    # 216 draws: the standard deviation is known to 5 % (one sigma)
    assert np.std(found) == pytest.approx(0.1 * np.sqrt(np.mean(one**2)) / np.sqrt(2.0), rel=0.2)


def test_twin_holds_what_was_asked_for() -> None:
    medium = make(write_bits=1)
    asked = 0.3 + 0.1 * density(medium)
    medium.program({"density": Write(asked)}, key=Key(0))
    assert np.array_equal(medium.twin().density.detach().numpy(), asked)
    assert np.array_equal(medium.read_back(key=Key(0))["density"], np.zeros(asked.shape))


def test_default_cells_are_a_wavelength_by_eight_where_the_docstring_says() -> None:
    spacing = build((400, 3), chip=Key(0))._description.grid.spacing_m
    assert [343.0 / (8 * spacing), 171.5 / (8 * spacing)] == pytest.approx([875.1, 437.55], abs=0.05)


def test_nonlinear_medium_offers_no_adjoint_and_breaks_the_square_law() -> None:
    linear, nonlinear = make(), make("wave-medium-nonlinear")
    assert {"linear", "reciprocal"} == linear.traits
    assert "Adjoint" in linear.capabilities
    assert not nonlinear.traits
    assert linear.capabilities - nonlinear.capabilities == {"Adjoint"}
    with pytest.raises(InputError, match="lacks capability Adjoint: its field is not linear"):
        nonlinear.adjoint(tones(), np.zeros((3, 3)), samples=ROWS, key=Key(0))
    assert np.allclose(forward(linear, tones()), forward(linear, 0.1 * tones()), rtol=1e-10)
    assert np.abs(forward(nonlinear, tones()) - forward(nonlinear, 0.1 * tones())).max() > 1e-3


def test_forward_counts_conversions_passes_and_time() -> None:
    medium = make(drive_bits=8, read_bits=10)
    ledger = Ledger()
    medium.attach(ledger, "substrate")
    with ledger.phase("infer"):
        outputs = forward(medium, tones())
    assert np.allclose(outputs.sum(axis=1), 1.0)
    assert ledger.events["infer", "substrate", "input DAC", "dac_conversion_8b"] == 3 * SAMPLES
    assert ledger.events["infer", "substrate", "detector ADC", "adc_conversion_10b"] == 9
    assert ledger.total("device_pass") == 3
    assert medium.clock_s == pytest.approx(3 * medium._description.steps * 1e-4)


def test_noise_is_the_samples_and_grows_with_its_switch() -> None:
    quiet, noisy = make(), make(read_noise=0.05)
    assert np.array_equal(forward(quiet, tones()), quiet.oracle().outputs(tones()))
    spread = np.abs(forward(noisy, tones()) - forward(quiet, tones()))
    assert 1e-4 < spread.max() < 0.5
    one = noisy.forward(tones()[1:2], samples=np.array([1]), key=Key(1))
    assert np.array_equal(one, forward(noisy, tones())[1:2])


def test_writing_clips_rounds_and_reads_back() -> None:
    medium = make(write_bits=2)
    shape = medium.parameters["density"].shape
    assert medium.parameters["density"].initial == 0.5
    medium.program({"density": Write(np.full(shape, 0.4))}, key=Key(0))
    assert np.allclose(medium.read_back(key=Key(0))["density"], 1 / 3)
    medium.program({"density": Add(np.full(shape, 2.0))}, key=Key(0))
    assert np.array_equal(medium.read_back(key=Key(0))["density"], np.ones(shape))
    moved = make().perturbed(tones(), {"density": 0.3 * np.ones(shape)}, samples=ROWS, key=Key(1))
    written = make()
    written.program({"density": Add(0.3 * np.ones(shape))}, key=Key(0))
    assert np.array_equal(moved, forward(written, tones()))


def test_chips_differ_and_a_knock_is_kept_in_the_snapshot() -> None:
    one, other = make(seed=1, material_spread=0.1), make(seed=2, material_spread=0.1)
    assert np.abs(forward(one, tones()) - forward(other, tones())).max() > 1e-3
    before = forward(one, tones())
    kept = one.snapshot()
    one.disturb(0.2, Key(9))
    after = forward(one, tones())
    assert np.abs(after - before).max() > 1e-3
    later = one.snapshot()
    one.restore(kept)
    assert np.array_equal(forward(one, tones()), before)
    one.restore(later)
    assert np.array_equal(forward(one, tones()), after)
    one.disturb(50.0, Key(10))
    assert np.isfinite(forward(one, tones())).all()


def test_training_by_the_exact_gradient_lowers_the_loss() -> None:
    """Three tones, each to its own probe: plain gradient descent on the density."""
    for preset in PRESETS:
        medium = make(preset)
        targets = np.eye(3)
        losses = []
        for _ in range(12):
            oracle = medium.oracle()
            outputs = oracle.outputs(tones())
            losses.append(-float(np.mean(np.log(outputs[targets > 0]))))
            slope = oracle.loss_gradient(tones(), targets, "cross_entropy")["density"]
            medium.program({"density": Add(-0.05 * slope / np.abs(slope).max())}, key=Key(0))
        assert losses[-1] < 0.7 * losses[0]
        assert np.array_equal(np.argmax(forward(medium, tones()), axis=1), ROWS)


def test_published_grid_and_tail() -> None:
    medium = build((400, 3), chip=Key(0), design_rows=80, design_columns=69, margin_cells=20, tail_steps=0)
    grid = medium._description.grid
    assert grid.shape == (140, 141)
    assert 343.0 * grid.step_s / grid.spacing_m == pytest.approx(1.0 / 1.4283557, rel=1e-12)
    assert medium._description.steps == 400
    assert medium._description.source_cells.tolist() == [[70, 30]]


@pytest.mark.parametrize(
    ("widths", "options", "message"),
    [
        (
            (60, 5, 3),
            {},
            r"no hidden layers, but widths are \[60, 5, 3\]; expected \(samples, classes\); set substrate.hidden = \[\]",
        ),
        ((60, 1), {}, "width is 1 classes"),
        ((60, 30), {}, "there are 30 classes; expected at most the 18 rows of the design"),
        ((60, 3), {"tail_steps": 0, "design_columns": 60}, "a run has 60 steps; expected more than the 93"),
        ((60, 3), {"courant": 0.8}, "courant is 0.8"),
        (
            (60, 3),
            {"speed_1_m_per_s": 400.0},
            "speed_1_m_per_s is 400 m/s where speed_0_m_per_s is 343 m/s; expected at most 346.4.* m/s at a step of 0.0001 s and "
            "cells of 0.04899.* m; the largest safe step is 8.66.*e-05 s: lower courant to at most 0.606",
        ),
        ((60, 3), {"speed_1_m_per_s": -3.0}, "speed_1 is -3 m/s"),
        ((60, 3), {"density": 3}, "unknown option of a wave medium 'density'"),
        ((60, 3), {"hold": "cubic"}, "unknown hold 'cubic'"),
        ((60, 3), {"material_spread": -0.1}, "material_spread is -0.1"),
    ],
)
def test_bad_options_are_named(widths: tuple[int, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(widths, chip=Key(0), **(SMALL | options))


def test_silence_and_too_fast_waves_are_named() -> None:
    with pytest.raises(InputError, match="the intensities of row 1 add up to 0; expected more than 0"):
        forward(make(), tones() * np.array([1.0, 0.0, 1.0])[:, None])
    fast = make("wave-medium-nonlinear", speed_slope_m_per_s=1e5)
    with pytest.raises(InputError, match="the nonlinear speed is"):
        forward(fast, tones())


def test_material_that_is_faster_than_air_is_stable_at_the_courant_number_of_the_message() -> None:
    medium = make(speed_1_m_per_s=400.0, courant=0.606, material_spread=0.3, tail_steps=40)
    medium.program({"density": Write(np.ones((18, 12)))}, key=Key(0))
    assert np.isfinite(forward(medium, tones())).all()
