"""Circuits that come to rest in time: charging a capacitor, the balance of energies, and how long it takes."""

import numpy as np
import pytest

from inmaterio.devices.validation import InputError
from inmaterio.simulators.resistive_description import NudgingCurrents, ResistiveCircuit
from inmaterio.simulators.resistive_settling_time import bound_settle_seconds, estimate_settle_seconds, slowest_time_constants
from inmaterio.simulators.resistive_shockley import settle_shockley
from inmaterio.simulators.resistive_transient import simulate_transient
from tests.resistive_circuits import DEEP, TRANSFORMERS, network, some_batch

FARADS = 1e-13


def one_resistor(volts: float = 2.0, siemens: float = 1e-5) -> ResistiveCircuit:
    return ResistiveCircuit(
        (np.array([[siemens]]),), (np.zeros(1),), (np.zeros(1, dtype=np.int8),), np.ones(1), np.ones(1), np.array([[volts]])
    )


def circuit_of(**options: object) -> ResistiveCircuit:
    chip = network(diode="shockley", saturation=1e-9, **options)
    return chip.oracle().model.circuit(some_batch(chip).inputs)


def test_charging_a_capacitor_through_a_resistor() -> None:
    volts, siemens = 2.0, 1e-5
    circuit = one_resistor(volts, siemens)
    run = simulate_transient(circuit, FARADS, tolerance=1e-9)
    constant = FARADS / siemens
    np.testing.assert_allclose(run.volts[0][:, 0], volts * (1.0 - np.exp(-run.seconds / constant)), rtol=0, atol=1e-7)
    # to within the tolerance after tau ln(V / tolerance)
    assert run.settle_seconds == pytest.approx(constant * np.log(volts / 1e-9), rel=1e-2)
    half = 0.5 * FARADS * volts**2
    assert run.resistor_joules == pytest.approx(half, rel=1e-6)
    assert run.stored_joules == pytest.approx(half, rel=1e-6)
    assert run.source_joules == pytest.approx(2 * half, rel=1e-6)
    assert run.amplifier_joules == 0.0
    assert slowest_time_constants(circuit, FARADS, settle_shockley(circuit).volts)[0] == pytest.approx(constant, rel=1e-12)


@pytest.mark.parametrize("options", [{}, DEEP, TRANSFORMERS], ids=["none", "vcvs-cccs", "transformer"])
def test_energies_balance_and_the_end_is_the_steady_state(options: dict[str, object]) -> None:
    circuit = circuit_of(**options)
    settled = settle_shockley(circuit)
    for nudge in (None, NudgingCurrents(3e-6, np.full((4, 3), 0.1))):
        settled = settle_shockley(circuit, nudge)
        run = simulate_transient(circuit, FARADS, nudge, sample=1, tolerance=1e-7)
        for layer, wanted in zip(run.volts, settled.volts, strict=True):
            np.testing.assert_allclose(layer[-1], wanted[1], rtol=0, atol=2e-7)
        given = run.source_joules + run.amplifier_joules
        taken = run.resistor_joules + run.diode_joules + run.stored_joules
        scale = abs(run.source_joules) + abs(run.amplifier_joules)
        assert abs(given - taken) < 1e-6 * scale
        assert run.resistor_joules > 0.0
        assert run.diode_joules > 0.0
        # an ideal transformer neither makes nor burns power
        assert (abs(run.amplifier_joules) > 1e-3 * scale) == (options == DEEP)


def test_how_long_it_takes_is_bounded_and_estimated() -> None:
    circuit = circuit_of()
    settled = settle_shockley(circuit)
    bound = bound_settle_seconds(circuit, FARADS, settled.volts, tolerance=1e-5)
    estimate = estimate_settle_seconds(circuit, FARADS, settled.volts, tolerance=1e-5)
    for sample in range(len(circuit.sources)):
        took = simulate_transient(circuit, FARADS, sample=sample, tolerance=1e-5).settle_seconds
        assert took <= bound[sample]
        assert 0.3 * took < estimate[sample] < 3.0 * took


def test_time_scales_with_the_capacitance_and_against_the_conductance() -> None:
    circuit = circuit_of()
    once = simulate_transient(circuit, FARADS, tolerance=1e-5).settle_seconds
    twice = simulate_transient(circuit, 2 * FARADS, tolerance=1e-5).settle_seconds
    assert twice == pytest.approx(2 * once, rel=1e-4)
    linear = one_resistor(1.0, 1e-5), one_resistor(1.0, 3e-5)
    times = [simulate_transient(one, FARADS, tolerance=1e-5).settle_seconds for one in linear]
    assert times[0] == pytest.approx(3 * times[1], rel=1e-3)


def test_a_start_at_rest_takes_no_time() -> None:
    circuit = circuit_of()
    settled = settle_shockley(circuit)
    run = simulate_transient(circuit, FARADS, start=tuple(layer[0] for layer in settled.volts), tolerance=1e-6)
    assert run.settle_seconds == 0.0
    assert run.resistor_joules == 0.0 or run.seconds[-1] > 0.0


@pytest.mark.parametrize(
    ("farads", "message"),
    [
        (0.0, "farads is 0 F"),
        ((np.ones(8),), "farads holds 1 layers; expected 3"),
        ((np.ones(8), np.ones(6), np.zeros(3)), "smallest capacitance of layer 3 is 0 F"),
    ],
)
def test_bad_capacitances(farads: float | tuple[np.ndarray, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate_transient(circuit_of(), farads, tolerance=1e-5)


def test_a_nudge_that_would_run_away_is_refused() -> None:
    circuit = circuit_of()
    lowest = float(circuit.node_conductances()[-1].min())
    with pytest.raises(InputError, match="below which"):
        simulate_transient(circuit, FARADS, NudgingCurrents(-2 * lowest, np.zeros((4, 3))), tolerance=1e-5)
