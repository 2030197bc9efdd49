"""The programmable metasurface: against the whole matrix, its gradients, its nonlinearity, chips, knocks, counts."""

from typing import Any

import numpy as np
import pytest

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.simulators import metasurface
from inmaterio.simulators.capabilities import Add, Write
from inmaterio.simulators.coupled_dipoles import SPEED_OF_LIGHT, interaction_matrix, inverse_polarisability
from inmaterio.simulators.metasurface import Metasurface
from inmaterio.simulators.reverberant_room import Room, furnish

KEY = Key(0)
WIDTHS = (6, 7)


def box(widths: tuple[int, int] = WIDTHS, seed: int = 0, **options: Any) -> Metasurface:
    return metasurface.build(widths, chip=Key(seed), **{"obstacles": 3, **options})


def drive(batch: int = 4, width: int = 6, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (batch, width))


def measure(one: Metasurface, inputs: np.ndarray, key: Key = KEY) -> np.ndarray:
    with one.ledger.phase("evaluate"):
        return one.forward(inputs, samples=np.arange(len(inputs)), key=key)


def write(one: Metasurface, values: np.ndarray, kind: Any = Write) -> None:
    with one.ledger.phase("initialise"):
        one.program({"resonance": kind(values)}, key=KEY)


@pytest.mark.parametrize(("elements", "antennas", "obstacles"), [(1, 2, 0), (20, 8, 8), (90, 40, 30)])
def test_room_holds_everything_with_space_between(elements: int, antennas: int, obstacles: int) -> None:
    dipoles = furnish(Room(obstacles=obstacles), elements, antennas)
    wavelength = SPEED_OF_LIGHT / 2.5e9
    places = dipoles.positions_m / wavelength
    inside = elements + antennas + obstacles
    distance = np.hypot(*np.moveaxis(places[:, None] - places[None], -1, 0)) + 9.0 * np.eye(len(places))
    wall = places[inside:]
    assert distance[elements:inside, :inside].min() >= 0.4
    assert distance[:elements, :elements].min() >= 0.3
    assert distance[inside:].min() >= 0.2
    assert (places[:inside] > wall.min(axis=0)).all() and (places[:inside] < wall.max(axis=0)).all()
    # two wires are neighbours of each: the fence is closed and even
    np.testing.assert_allclose(np.sort(distance[inside:, inside:], axis=1)[:, :2], distance[inside:].min(), atol=0.06)
    for kind, strength in ((slice(0, elements), 0.3), (slice(elements, elements + antennas), 0.5), (slice(inside, None), 2.0)):
        np.testing.assert_allclose(dipoles.strength_m_per_s[kind] / SPEED_OF_LIGHT, strength)


@pytest.mark.parametrize("detector", ["amplitude", "intensity"])
def test_outputs_are_those_of_the_whole_matrix(detector: str) -> None:
    room = Room(obstacles=3)
    one = box(tunable=2, detector=detector)
    tuned = np.array([0.4, -0.8])
    write(one, tuned)
    x = drive()
    dipoles = furnish(room, 8, 1 + 3)
    found = measure(one, x)
    wanted = np.empty((4, 3, 3))
    for b in range(4):
        resonance = dipoles.resonance_hz.copy()
        resonance[:8] *= 1.0 + room.sweep * np.concatenate([x[b], tuned])
        for n, frequency in enumerate(room.measured_hz()):
            diagonal = inverse_polarisability(dipoles, frequency, resonance_hz=resonance)
            inverse = np.linalg.inv(interaction_matrix(dipoles.positions_m, diagonal, frequency))
            wanted[b, :, n] = np.abs(inverse[9:12, 8])
    wanted = wanted.reshape(4, 9)[:, :7] ** (2 if detector == "intensity" else 1)
    ratio = found / wanted
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[0], ratio.shape), rtol=1e-9)


@pytest.mark.parametrize("detector", ["amplitude", "intensity"])
@pytest.mark.parametrize("tunable", [0, 3])
def test_pullback_is_the_gradient_with_error_of_second_order(detector: str, tunable: int) -> None:
    one = box(tunable=tunable, detector=detector, spread=0.3)
    rng = np.random.default_rng(1)
    x, weight, along = drive(), rng.normal(size=(4, 7)), rng.normal(size=(4, 6))
    tuned = rng.uniform(-0.5, 0.5, tunable)
    turn = rng.normal(size=tunable)
    if tunable:
        write(one, tuned)
    toward, summed = one.oracle().pullback(x, weight)
    exact = np.sum(toward * along) + (np.sum(summed["resonance"] * turn) if tunable else 0.0)

    def loss(step: float) -> float:
        return float(np.sum(weight * one._respond(x + step * along, {"resonance": tuned + step * turn})))

    errors = [abs((loss(h) - loss(-h)) / (2.0 * h) - exact) for h in (1e-2, 5e-3, 2.5e-3)]
    assert errors[-1] < 1e-3 * abs(exact)
    np.testing.assert_allclose(np.log2(np.array(errors[:-1]) / np.array(errors[1:])), 2.0, atol=0.1)


def test_adjoint_experiment_measures_the_gradient() -> None:
    one = box(tunable=3)
    x, weight = drive(), np.random.default_rng(1).normal(size=(4, 7))
    with one.ledger.phase("evaluate"):
        measured = one.adjoint(x, weight, samples=np.arange(4), key=KEY)
    toward, summed = one.oracle().pullback(x, weight)
    assert {"Adjoint", "PerturbParameters"} <= one.capabilities
    assert one.traits == {"reciprocal"}
    np.testing.assert_array_equal(measured.inputs, toward)
    np.testing.assert_allclose(measured.parameters["resonance"], summed["resonance"] / 4, rtol=1e-12, atol=1e-15)
    assert one.ledger.total("device_pass") == 8


def test_adjoint_experiment_knows_the_slope_of_a_resonance_nominally_only() -> None:
    one = box(tunable=3, spread=0.3)
    x, weight = drive(), np.random.default_rng(1).normal(size=(4, 7))
    with one.ledger.phase("evaluate"):
        measured = one.adjoint(x, weight, samples=np.arange(4), key=KEY)
    toward, summed = one.oracle().pullback(x, weight)
    found = np.concatenate([measured.inputs.ravel(), 4.0 * measured.parameters["resonance"]])
    wanted = np.concatenate([toward.ravel(), summed["resonance"]])
    cosine = found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted)
    assert 0.9 < cosine < 1.0 - 1e-8
    # the moments are this chip's, so that nothing is off but the slope 1 + sweep (x + error), by its error
    errors, settings = one._errors, np.concatenate([x, np.zeros((4, 3))], axis=1)
    ratio = (1.0 + 0.01 * settings) / (1.0 + 0.01 * (settings + errors))
    np.testing.assert_allclose(measured.inputs, toward * ratio[:, :6], rtol=1e-10)
    np.testing.assert_allclose(4.0 * measured.parameters["resonance"], summed["resonance"] * ratio[0, 6:], rtol=1e-10)


def test_adjoint_experiment_counts_complex_amplitudes() -> None:
    """7 outputs, 6 + 3 elements at 3 frequencies: 14 drives; 14 readings of H, 2 x 2 x 27 of moments."""
    one, ledger = box(tunable=3), Ledger()
    one.attach(ledger, "substrate")
    with ledger.phase("train"):
        one.adjoint(drive(), np.ones((4, 7)), samples=np.arange(4), key=KEY)
    events = {key[1:]: amount for key, amount in ledger.events.items()}
    assert events["substrate", "input DAC", "dac_conversion_ideal"] == 4 * 6
    assert events["substrate", "adjoint DAC", "dac_conversion_ideal"] == 4 * 14
    assert events["substrate", "field ADC", "adc_conversion_ideal"] == 4 * (14 + 108)
    assert events["host", "field product", "mac_fp32"] == 4 * (21 + 54)
    assert events["host", "field product", "byte_sram"] == 4 * 2 * 4 * (14 + 108)


def test_response_is_nonlinear_in_the_data_and_less_so_with_less_sweep() -> None:
    curvatures = []
    for sweep in (1e-3, 5e-4):
        one = box(sweep=sweep)
        x = drive(1)
        low, middle, high = (one.oracle().outputs(s * x)[0] for s in (-1.0, 0.0, 1.0))
        curvatures.append(np.linalg.norm(high + low - 2.0 * middle) / np.linalg.norm(high - low))
    # the second order relative to the first
    assert curvatures[0] / curvatures[1] == pytest.approx(2.0, abs=0.2)
    x = drive(1)
    low, middle, high = (box().oracle().outputs(s * x)[0] for s in (-1.0, 0.0, 1.0))
    assert np.linalg.norm(high + low - 2.0 * middle) > 0.1 * np.linalg.norm(high - low)


def test_elements_act_on_one_another() -> None:
    one = box(detector="intensity")
    # Were the field a sum over elements that do not see one another, |H|^2 would hold products of two elements' responses
    # and none of three: whatever a third-order mixed difference shows comes from scattering between elements.
    corners = np.array([[a, b, c, 0, 0, 0] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)], dtype=float)
    signs = np.prod(corners[:, :3], axis=1)
    outputs = one.oracle().outputs(corners)
    assert np.abs(signs @ outputs / 8).max() > 0.01


def test_outputs_have_unit_root_mean_square_under_random_drive() -> None:
    one = box()
    outputs = one.oracle().outputs(drive(400))
    np.testing.assert_allclose(np.sqrt(np.mean(outputs**2, axis=0)), 1.0, atol=0.1)
    assert (outputs.std(axis=0) > 0.02).all()


def test_a_sample_does_not_depend_on_its_batch() -> None:
    one, x = box(tunable=2), drive(9)
    whole = one.oracle().outputs(x)
    for b in range(9):
        np.testing.assert_allclose(one.oracle().outputs(x[b : b + 1])[0], whole[b], rtol=1e-11)


def test_same_chip_same_bits_and_other_chips_differ_only_with_spread() -> None:
    x = drive()
    np.testing.assert_array_equal(measure(box(spread=0.2, seed=4), x), measure(box(spread=0.2, seed=4), x))
    np.testing.assert_array_equal(measure(box(seed=4), x), measure(box(seed=5), x))
    change = measure(box(spread=0.2, seed=4), x) - measure(box(spread=0.2, seed=5), x)
    assert np.abs(change).max() > 0.01


def test_an_element_off_by_its_error_is_one_driven_so_much_farther() -> None:
    chip, nominal = box(spread=0.2, seed=4), box()
    x = 0.1 * drive()
    np.testing.assert_allclose(measure(chip, x), measure(nominal, x + chip._errors), rtol=1e-12)


def test_a_knock_stays_and_travels_in_the_snapshot() -> None:
    one, x = box(tunable=2), drive()
    calm = one.snapshot()
    before = measure(one, x)
    one.disturb(0.02, Key(9))
    once = measure(one, x)
    knocked = one.snapshot()
    one.disturb(0.02, Key(10))
    assert np.abs(once - before).max() > 0.01
    assert np.abs(measure(one, x) - once).max() > 0.01
    other = box(tunable=2)
    other.restore(knocked)
    np.testing.assert_array_equal(measure(other, x), once)
    other.restore(calm)
    np.testing.assert_array_equal(measure(other, x), before)
    del knocked["wires_moved_m"]
    with pytest.raises(InputError, match="wires_moved_m"):
        other.restore(knocked)
    np.testing.assert_array_equal(measure(other, x), before)


def test_a_smaller_knock_does_less() -> None:
    x, changes = drive(), []
    for size in (1e-4, 5e-5):
        one = box()
        before = measure(one, x)
        one.disturb(size, Key(9))
        changes.append(np.linalg.norm(measure(one, x) - before))
    assert changes[0] / changes[1] == pytest.approx(2.0, abs=0.1)


def test_one_bit_drives_two_states_per_element() -> None:
    x = drive()
    np.testing.assert_array_equal(measure(box(drive_bits=1), x), measure(box(drive_bits=1), np.where(x < 0.0, -1.0, 1.0)))
    np.testing.assert_array_equal(measure(box(drive_bits=1), x), measure(box(), np.where(x < 0.0, -1.0, 1.0)))
    assert np.abs(measure(box(drive_bits=1), x) - measure(box(), x)).max() > 0.01


def test_tuning_changes_the_outputs_and_stays_in_range() -> None:
    one, x = box(tunable=3), drive()
    before = measure(one, x)
    write(one, np.array([0.5, -0.5, 2.0]))
    assert np.abs(measure(one, x) - before).max() > 0.01
    write(one, np.full(3, 0.25), Add)
    with one.ledger.phase("evaluate"):
        np.testing.assert_array_equal(one.read_back(key=KEY)["resonance"], [0.75, -0.25, 1.0])
    # an element that is tuned does what one that is driven does
    whole = box((9, 7))
    held = np.tile([0.75, -0.25, 1.0], (4, 1))
    scale = one._unit / whole._unit
    np.testing.assert_allclose(measure(one, x) * scale, measure(whole, np.concatenate([x, held], axis=1)), rtol=1e-9)


def test_a_pass_is_counted() -> None:
    one = box(frequencies=3, dwell_s=2e-4, drive_bits=1, read_bits=8)
    ledger = Ledger()
    one.attach(ledger, "substrate")
    with ledger.phase("infer"):
        one.forward(drive(5), samples=np.arange(5), key=KEY)
    counted = {key[2:]: amount for key, amount in ledger.events.items()}
    assert counted[("input DAC", "dac_conversion_1b")] == 5 * 6
    assert counted[("detector ADC", "adc_conversion_8b")] == 5 * 7
    assert counted[("sources", "source_second")] == pytest.approx(5 * 3 * 2e-4)
    assert ledger.total("device_pass") == 5
    assert one.clock_s == pytest.approx(5 * 3 * 2e-4)


def test_read_noise_is_drawn_for_the_sample() -> None:
    one, x = box(read_noise=0.05), drive()
    noisy = measure(one, x)
    np.testing.assert_array_equal(measure(one, x), noisy)
    assert 0.01 < np.std(noisy - one.oracle().outputs(x)) < 0.1


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match=r"centre frequency is 0 Hz"):
        box(centre_hz=0.0)
    with pytest.raises(InputError, match=r"bandwidth is 0 Hz with 3 frequencies; expected larger than 0 Hz"):
        box(bandwidth_hz=0.0)
    with pytest.raises(InputError, match=r"unknown detector 'phase'"):
        box(detector="phase")
    with pytest.raises(InputError, match=r"sweep is 0.9"):
        box(sweep=0.9)
    with pytest.raises(InputError, match=r"size of the disturbance is -1"):
        box().disturb(-1.0, KEY)
    with pytest.raises(InputError, match=r"input is 1.5"):
        measure(box(), np.full((1, 6), 1.5))
