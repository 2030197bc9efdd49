"""Diffractive layers: gradients, linearity of the field, reciprocity, chips, misalignment, counts."""

from typing import Any

import numpy as np
import pytest

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.simulators import diffractive_layers
from inmaterio.simulators.capabilities import Add, Write
from inmaterio.simulators.diffraction import cross
from inmaterio.simulators.diffractive_layers import DiffractiveLayers, patches

KEY = Key(0)
WIDTHS = (6, 5)


def box(widths: tuple[int, int] = WIDTHS, seed: int = 0, **options: Any) -> DiffractiveLayers:
    return diffractive_layers.build(widths, chip=Key(seed), **{"pixels": 12, "gap_m": 15e-3, **options})


def drive(batch: int = 4, width: int = 6, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (batch, width))


def measure(one: DiffractiveLayers, inputs: np.ndarray) -> np.ndarray:
    with one.ledger.phase("evaluate"):
        return one.forward(inputs, samples=np.arange(len(inputs)), key=KEY)


def write(one: DiffractiveLayers, values: np.ndarray, kind: Any = Write) -> None:
    with one.ledger.phase("initialise"):
        one.program({"phase": kind(values)}, key=KEY)


@pytest.mark.parametrize("shape", [(12, 12), (5, 9), (7, 3)])
def test_patches_are_whole_and_of_nearly_one_size(shape: tuple[int, int]) -> None:
    for count in range(1, shape[0] * shape[1] + 1):
        sizes = np.bincount(patches(shape, count).ravel(), minlength=count)
        assert len(sizes) == count and sizes.min() >= 1
        # rows and columns of patches are cut at whole pixels, each of which may double a side
        assert sizes.max() <= 4 * max(sizes.min(), 1) + 2
    np.testing.assert_array_equal(patches(shape, shape[0] * shape[1]), np.arange(shape[0] * shape[1]).reshape(shape))
    with pytest.raises(InputError, match="number of patches"):
        patches(shape, shape[0] * shape[1] + 1)


@pytest.mark.parametrize("encoding", ["amplitude", "phase"])
@pytest.mark.parametrize("tunable", [0, 1, 7])
def test_pullback_is_the_gradient_with_error_of_second_order(encoding: str, tunable: int) -> None:
    one = box(tunable=tunable, encoding=encoding, spread=0.2, layers=3)
    one.disturb(0.2, Key(5))
    rng = np.random.default_rng(1)
    x, weight, along = drive(), rng.normal(size=(4, 5)), rng.normal(size=(4, 6))
    tuned, turn = rng.uniform(-0.5, 0.5, tunable), rng.normal(size=tunable)
    if tunable:
        write(one, tuned)
    toward, summed = one.oracle().pullback(x, weight)
    assert (summed["phase"].shape == (tunable,)) if tunable else summed == {}

    def loss(step: float, with_inputs: float, with_phase: float) -> float:
        held = {"phase": tuned + with_phase * step * turn} if tunable else {}
        return float(np.sum(weight * one._respond(x + with_inputs * step * along, held)))

    def errors(exact: float, with_inputs: float, with_phase: float) -> np.ndarray:
        steps = (1e-2, 5e-3)
        slopes = [(loss(h, with_inputs, with_phase) - loss(-h, with_inputs, with_phase)) / (2.0 * h) for h in steps]
        return np.abs(np.array(slopes) - exact)

    by_inputs = np.sum(toward * along)
    found = errors(by_inputs, 1.0, 0.0)
    if encoding == "amplitude":  # outputs are quadratic in the amplitude, so the difference quotient is exact
        assert found.max() < 1e-11 * np.abs(toward).sum()
    else:
        assert found[1] < 1e-2 * np.abs(toward).sum()
        assert np.log2(found[0] / found[1]) == pytest.approx(2.0, abs=0.05)
    if tunable:
        found = errors(float(np.sum(summed["phase"] * turn)), 0.0, 1.0)
        assert found[1] < 1e-2 * np.abs(summed["phase"]).sum()
        assert np.log2(found[0] / found[1]) == pytest.approx(2.0, abs=0.05)


def test_every_tunable_phase_has_its_own_gradient() -> None:
    one = box(tunable=5)
    x, weight = drive(), np.random.default_rng(1).normal(size=(4, 5))
    _, summed = one.oracle().pullback(x, weight)
    step = 1e-4
    for n in range(5):
        unit = np.eye(5)[n] * step
        slope = np.sum(weight * (one._respond(x, {"phase": unit}) - one._respond(x, {"phase": -unit}))) / (2.0 * step)
        assert slope == pytest.approx(summed["phase"][n], rel=1e-5, abs=1e-6)


def test_field_is_linear_in_the_amplitudes() -> None:
    one = box(reference=0.0)
    x = drive(2)
    first, second, both = (one.oracle().outputs(rows[None])[0] for rows in (x[0] / 2, x[1] / 2, (x[0] + x[1]) / 2))
    minus = one.oracle().outputs((x[0] - x[1])[None] / 2)[0]
    # the parallelogram law, which |U|^2 obeys when U is linear
    np.testing.assert_allclose(both + minus, 2.0 * (first + second), rtol=1e-10)
    np.testing.assert_allclose(one.oracle().outputs(-x), one.oracle().outputs(x), rtol=1e-12)
    assert np.abs(both - first - second).max() > 1e-3
    # with light at x = 0 the outputs tell x from -x
    assert np.abs(box().oracle().outputs(-x) - box().oracle().outputs(x)).max() > 0.05


def test_traits_and_capabilities() -> None:
    assert box().traits == {"reciprocal", "linear"}
    assert box(encoding="phase").traits == {"reciprocal"}
    assert box().capabilities == {"Forward", "Adjoint"}
    assert box(tunable=2).capabilities == {"Forward", "Adjoint", "Program", "ReadBack", "PerturbParameters"}


def test_light_sent_in_from_the_detectors_takes_the_same_way() -> None:
    one = box(layers=2)
    rng = np.random.default_rng(2)
    there, back = (rng.normal(size=(12, 12)) + 1j * rng.normal(size=(12, 12)) for _ in range(2))

    def through(field: np.ndarray, order: list[int]) -> np.ndarray:
        field = cross(one._gaps[0], field)
        for mask in order:
            field = cross(one._gaps[0], field * one._masks[mask])
        return field

    assert np.sum(back * through(there, [0, 1])) == pytest.approx(np.sum(there * through(back, [1, 0])), rel=1e-11)


def test_no_light_is_made() -> None:
    one = box(reference=0.0)
    x = drive(6)
    sent = np.sum(one._emit(x)[:, one._sources].real ** 2, axis=(1, 2))
    received = np.sum(one.oracle().outputs(x) * one._unit, axis=1)
    assert (received < sent).all()
    assert (received > 0.01 * sent).all()


def test_outputs_have_unit_root_mean_square_under_random_drive() -> None:
    outputs = box().oracle().outputs(drive(400))
    np.testing.assert_allclose(np.sqrt(np.mean(outputs**2, axis=0)), 1.0, atol=0.15)
    assert (outputs.std(axis=0) > 0.05).all()


def test_a_sample_does_not_depend_on_its_batch() -> None:
    one, x = box(tunable=2), drive(9)
    whole = one.oracle().outputs(x)
    for b in range(9):
        np.testing.assert_allclose(one.oracle().outputs(x[b : b + 1])[0], whole[b], rtol=1e-11)


def test_same_chip_same_bits_and_other_chips_differ_only_with_spread() -> None:
    x = drive()
    np.testing.assert_array_equal(measure(box(spread=0.2, seed=4), x), measure(box(spread=0.2, seed=4), x))
    np.testing.assert_array_equal(measure(box(seed=4), x), measure(box(seed=5), x))
    assert np.abs(measure(box(spread=0.2, seed=4), x) - measure(box(spread=0.2, seed=5), x)).max() > 0.01


def test_a_knock_stays_and_travels_in_the_snapshot() -> None:
    one, x = box(tunable=2), drive()
    calm, before = one.snapshot(), measure(one, x)
    one.disturb(0.3, Key(9))
    once, knocked = measure(one, x), one.snapshot()
    one.disturb(0.3, Key(10))
    assert np.abs(once - before).max() > 0.01
    assert np.abs(measure(one, x) - once).max() > 0.01
    other = box(tunable=2)
    other.restore(knocked)
    np.testing.assert_array_equal(measure(other, x), once)
    other.restore(calm)
    np.testing.assert_array_equal(measure(other, x), before)
    del knocked["mask_shifts_m"]
    with pytest.raises(InputError, match="mask_shifts_m"):
        other.restore(knocked)
    np.testing.assert_array_equal(measure(other, x), before)


def test_a_mask_moved_by_a_pixel_is_one_with_its_pixels_moved() -> None:
    one, moved = box(layers=1), box(layers=1)
    moved._move(np.array([[0.0, 1e-3]]))
    # light within the window of the mask that both cover, which leaves out a column at its edge
    x = drive()
    field = cross(one._gaps[0], one._emit(x)[:, one._sources])
    mask = np.roll(one._masks[0], 1, axis=1)
    mask[:, 0] = 0.0
    wanted = np.abs(cross(one._gaps[1], field * mask)) ** 2
    seen = moved._fields(x, moved._masks)
    whole = np.abs(seen[-1]) ** 2
    # the moved mask also lets through a column to the right of the window, which the other cannot
    edge = np.zeros((12, 12), complex)
    edge[:, -1] = 1.0
    without = cross(moved._gaps[1], seen[0] * moved._masks[0] * (1.0 - edge))
    np.testing.assert_allclose(np.abs(without) ** 2, wanted, rtol=1e-9, atol=1e-12)
    assert np.abs(whole - wanted).max() > 1e-6


def test_tuning_turns_the_phase_of_one_patch() -> None:
    one, x = box(tunable=3, layers=2), drive()
    before = measure(one, x)
    write(one, np.array([0.5, 0.0, 0.0]))
    masks = one._transmissions(one._held)
    turned = masks / one._masks
    first = patches((12, 12), 3) == 0
    np.testing.assert_allclose(turned[0][first], 1j, atol=1e-12)
    np.testing.assert_allclose(turned[0][~first], 1.0, atol=1e-12)
    np.testing.assert_allclose(turned[1], 1.0, atol=1e-12)
    assert np.abs(measure(one, x) - before).max() > 0.01
    write(one, np.array([0.7, 0.0, -0.2]), Add)
    with one.ledger.phase("evaluate"):
        np.testing.assert_array_equal(one.read_back(key=KEY)["phase"], [1.0, 0.0, -0.2])


def test_every_pixel_can_be_tuned() -> None:
    one = box(tunable=2 * 144)
    values = np.random.default_rng(0).uniform(-1.0, 1.0, 288)
    write(one, values)
    turned = one._transmissions(one._held) / one._masks
    np.testing.assert_allclose(turned, np.exp(1j * np.pi * values.reshape(2, 12, 12)), atol=1e-12)


def test_a_pass_is_counted() -> None:
    one = box(frame_s=2e-3, drive_bits=6, read_bits=8)
    ledger = Ledger()
    one.attach(ledger, "substrate")
    with ledger.phase("infer"):
        one.forward(drive(5), samples=np.arange(5), key=KEY)
    counted = {key[2:]: amount for key, amount in ledger.events.items()}
    assert counted[("input DAC", "dac_conversion_6b")] == 5 * 6
    assert counted[("detector ADC", "adc_conversion_8b")] == 5 * 5
    assert counted[("sources", "source_second")] == pytest.approx(5 * 2e-3)
    assert ledger.total("device_pass") == 5


def test_adjoint_experiment_gives_the_gradient_also_on_a_chip_with_errors() -> None:
    """Both fields are measured behind the masks, whose errors are therefore in them."""
    one = box(tunable=7, spread=0.3)
    x, weight = drive(), np.random.default_rng(1).normal(size=(4, 5))
    with one.ledger.phase("evaluate"):
        measured = one.adjoint(x, weight, samples=np.arange(4), key=KEY)
    toward, summed = one.oracle().pullback(x, weight)
    np.testing.assert_array_equal(measured.inputs, toward)
    np.testing.assert_allclose(measured.parameters["phase"], summed["phase"] / 4, rtol=1e-12, atol=1e-14)


def test_adjoint_experiment_counts_complex_fields_at_every_pixel() -> None:
    """One mask of 144 pixels with two patches that are tuned and one, of 48 pixels, that is not."""
    one, ledger = box(tunable=2, layers=1), Ledger()
    one.attach(ledger, "substrate")
    tuned = int(np.sum(patches((12, 12), 3) < 2))
    assert tuned == 96
    with ledger.phase("train"):
        one.adjoint(drive(), np.ones((4, 5)), samples=np.arange(4), key=KEY)
    events = {key[1:]: amount for key, amount in ledger.events.items()}
    assert events["substrate", "adjoint DAC", "dac_conversion_ideal"] == 4 * 288
    assert events["substrate", "field ADC", "adc_conversion_ideal"] == 4 * (288 + 4 * 96 + 288)
    assert events["host", "field product", "mac_fp32"] == 4 * (288 + 2 * 96 + 288)
    assert events["host", "field product", "byte_sram"] == 4 * 2 * 4 * (288 + 4 * 96 + 288)


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match=r"distance of the planes is 0.1 m; expected at most 0.0207846 m"):
        box(gap_m=0.1)
    with pytest.raises(InputError, match=r"pitch is 0 m"):
        box(pitch_m=0.0)
    with pytest.raises(InputError, match=r"unknown encoding 'polarisation'"):
        box(encoding="polarisation")
    with pytest.raises(InputError, match=r"number of inputs is 145"):
        box((145, 5))
    with pytest.raises(InputError, match=r"number of tunable phases is 289"):
        box(tunable=289)
    with pytest.raises(InputError, match=r"a mask is displaced by .* m; expected at most 0.006 m"):
        box().disturb(100.0, KEY)
