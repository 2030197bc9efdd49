"""Circuits that come to rest in time: charging a capacitor, the balance of energies, and how long it takes."""

from typing import Any

import numpy as np
import pytest
from scipy.linalg import expm

from inmaterio.devices.validation import InputError
from inmaterio.simulators.resistive_description import NudgingCurrents, ResistiveCircuit
from inmaterio.simulators.resistive_settling_time import bound_settle_seconds, estimate_settle_seconds, slowest_time_constants
from inmaterio.simulators.resistive_shockley import settle_shockley
from inmaterio.simulators.resistive_transient import simulate_transient
from tests.naive_junctions import JunctionNetwork
from tests.resistive_circuits import DEEP, TRANSFORMERS, network, some_batch

FARADS = 1e-13
AMPLIFIED = pytest.mark.parametrize("options", [{}, DEEP, TRANSFORMERS], ids=["none", "vcvs-cccs", "transformer"])


def one_resistor(volts: float = 2.0, siemens: float = 1e-5) -> ResistiveCircuit:
    return ResistiveCircuit(
        (np.array([[siemens]]),), (np.zeros(1),), (np.zeros(1, dtype=np.int8),), np.ones(1), np.ones(1), np.array([[volts]])
    )


def circuit_of(**options: Any) -> ResistiveCircuit:
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


def test_a_diode_discharges_a_capacitor() -> None:
    # C dv/dt = -Is (exp(v/(n Vt)) - 1): 1 - exp(-v/(n Vt)) falls as exp(-t Is/(C n Vt)), and half C V^2 ends as heat in the diode
    slope, saturation, volts = 0.02585, 1e-9, 0.5
    circuit = ResistiveCircuit(
        (np.array([[1e-18]]),), (np.zeros(1),), (np.full(1, -1, dtype=np.int8),), np.ones(1), np.ones(1), np.zeros((1, 1)),
        saturation, slope,
    )  # fmt: skip
    run = simulate_transient(circuit, FARADS, tolerance=1e-5, start=(np.array([volts]),), accuracy=1e-9)
    fall = np.exp(-run.seconds * saturation / (FARADS * slope))
    wanted = -slope * np.log(1.0 + np.expm1(-volts / slope) * fall)
    np.testing.assert_allclose(run.volts[0][:, 0], wanted, rtol=0, atol=1e-7)
    energy = 0.5 * FARADS * volts**2
    assert run.diode_joules == pytest.approx(energy, rel=1e-7)
    assert run.stored_joules == pytest.approx(-energy, rel=1e-7)
    assert run.resistor_joules < 1e-6 * energy
    # to within the tolerance, by the closed form
    took = FARADS * slope / saturation * np.log(np.expm1(-volts / slope) / np.expm1(-1e-5 / slope))
    assert run.settle_seconds == pytest.approx(took, rel=1e-4)


@AMPLIFIED
def test_a_network_without_diodes_follows_the_matrix_exponential(options: dict[str, Any]) -> None:
    some = circuit_of(**options)
    circuit = ResistiveCircuit(
        some.conductances,
        some.currents,
        tuple(np.zeros_like(signs) for signs in some.diodes),
        some.gains,
        some.returns,
        some.sources,
    )
    rng = np.random.default_rng(0)
    farads = tuple(FARADS * rng.uniform(0.5, 2.0, len(current)) for current in circuit.currents)
    start = tuple(rng.normal(size=len(current)) for current in circuit.currents)
    nodes = JunctionNetwork(circuit, 2)
    rest = np.linalg.solve(nodes.load, nodes.drive)
    run = simulate_transient(circuit, farads, sample=2, start=start, tolerance=1e-6, accuracy=1e-8)
    path, away = np.concatenate(run.volts, axis=1), np.concatenate(start) - rest
    for place in range(0, len(run.seconds), 25):
        moved = rest + expm(-nodes.load * run.seconds[place] / np.concatenate(farads)[:, None]) @ away
        np.testing.assert_allclose(path[place], moved, rtol=0, atol=1e-7)
    constant = slowest_time_constants(circuit, farads, tuple(part[None] for part in np.split(rest, [8, 14])))[0]
    rates = np.linalg.eigvals(nodes.load / np.concatenate(farads)[:, None])
    assert constant == pytest.approx(1.0 / rates.real.min(), rel=1e-9)


@AMPLIFIED
def test_the_distance_from_rest_never_grows(options: dict[str, Any]) -> None:
    # sum c C (v - v*)^2, and at least as fast as with no diode conducting
    circuit = circuit_of(**options)
    settled = settle_shockley(circuit)
    nodes = JunctionNetwork(circuit, 0)
    slowest = np.linalg.eigvals(nodes.load / FARADS).real.min()
    run = simulate_transient(circuit, FARADS, tolerance=1e-5, start=tuple(np.full(len(i), 0.7) for i in circuit.currents))
    rest = np.concatenate([layer[0] for layer in settled.volts])
    distance = np.sqrt((np.concatenate(run.volts, axis=1) - rest) ** 2 @ nodes.weight)
    bound = np.exp(-slowest * np.diff(run.seconds))
    assert np.all(distance[1:] <= distance[:-1] * bound * (1.0 + 1e-6) + 1e-9)


def test_what_is_missing_in_the_balance_of_energies_is_the_accuracy_asked_for() -> None:
    circuit = circuit_of(**DEEP)
    missing = []
    for accuracy in (1e-4, 1e-6, 1e-8):
        run = simulate_transient(circuit, FARADS, tolerance=1e-6, accuracy=accuracy)
        given = run.source_joules + run.amplifier_joules
        taken = run.resistor_joules + run.diode_joules + run.stored_joules
        missing.append(abs(given - taken) / (abs(run.source_joules) + abs(run.amplifier_joules)))
        assert missing[-1] < accuracy
    assert missing[0] > 1e-14  # more than rounding


@AMPLIFIED
def test_energies_balance_and_the_end_is_the_steady_state(options: dict[str, Any]) -> None:
    circuit = circuit_of(**options)
    for nudge in (None, NudgingCurrents(3e-6, np.full((4, 3), 0.1))):
        settled = settle_shockley(circuit, nudge)
        run = simulate_transient(circuit, FARADS, nudge, sample=1, tolerance=1e-7)
        for layer, wanted in zip(run.volts, settled.volts, strict=True):
            np.testing.assert_allclose(layer[-1], wanted[1], rtol=0, atol=2e-7)
        given = run.source_joules + run.amplifier_joules
        taken = run.resistor_joules + run.diode_joules + run.stored_joules
        scale = abs(run.source_joules) + abs(run.amplifier_joules)
        assert abs(given - taken) < 1e-9 * scale
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
        assert took <= bound[sample] < 5.0 * took
        assert 0.5 * took < estimate[sample] < 2.0 * took
    # one resistor has one time constant, so that all three are the same
    circuit = one_resistor()
    rest = settle_shockley(circuit).volts
    took = simulate_transient(circuit, FARADS, tolerance=1e-5).settle_seconds
    for found in (bound_settle_seconds, estimate_settle_seconds):
        assert found(circuit, FARADS, rest, tolerance=1e-5)[0] == pytest.approx(took, rel=1e-3)


def test_the_end_of_a_settling_goes_with_the_slowest_time_constant() -> None:
    circuit = circuit_of()
    settled = settle_shockley(circuit)
    constants = slowest_time_constants(circuit, FARADS, settled.volts)
    for sample in range(2):
        took = [
            simulate_transient(circuit, FARADS, sample=sample, tolerance=t, accuracy=3e-10).settle_seconds for t in (1e-5, 1e-6)
        ]
        assert took[1] - took[0] == pytest.approx(constants[sample] * np.log(10.0), rel=0.02)


def test_an_ideal_diode_that_conducts_holds_its_node() -> None:
    # two nodes on a source each, joined by an output; the first is held at 0 V
    circuit = ResistiveCircuit(
        (np.array([[1e-5, 0.0], [0.0, 2e-5]]), np.array([[3e-5, 4e-5]])),
        (np.zeros(2), np.zeros(1)),
        (np.array([1, 0], dtype=np.int8), np.zeros(1, dtype=np.int8)),
        np.ones(2),
        np.ones(2),
        np.array([[-1.0, 0.1]]),
    )
    volts = (np.array([[0.0, 0.04]]), np.array([[0.02]]))
    left = np.array([[6e-5, -4e-5], [-4e-5, 7e-5]])
    wanted = FARADS / np.linalg.eigvalsh(left)[0]
    assert slowest_time_constants(circuit, FARADS, volts, diode="ideal")[0] == pytest.approx(wanted, rel=1e-12)
    held = ResistiveCircuit(
        circuit.conductances[:1], (np.zeros(2),), (np.ones(2, dtype=np.int8),), np.ones(1), np.ones(1), circuit.sources
    )
    assert slowest_time_constants(held, FARADS, (np.zeros((1, 2)),), diode="ideal")[0] == 0.0


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
    assert run.seconds.tolist() == [0.0]
    energies = (run.resistor_joules, run.diode_joules, run.source_joules, run.amplifier_joules, run.stored_joules)
    assert (run.settle_seconds, *energies) == (0.0,) * 6
    assert estimate_settle_seconds(circuit, FARADS, settled.volts, start=settled.volts, tolerance=1e-6).tolist() == [0.0] * 4


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


def test_a_state_that_is_not_stable_has_no_time_constant() -> None:
    # a nudge that the outputs alone could bear and the network cannot
    circuit = circuit_of()
    settled = settle_shockley(circuit)
    lowest = float(circuit.node_conductances()[-1].min())
    nudge = NudgingCurrents(-0.99 * lowest, np.zeros((4, 3)))
    for find in (slowest_time_constants, lambda *given: bound_settle_seconds(*given, tolerance=1e-5)):
        with pytest.raises(InputError, match=r"the network is not stable: its slowest rate is -.* 1/s; expected more than 0"):
            find(circuit, FARADS, settled.volts, nudge)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": 0.0}, "tolerance is 0 V"),
        ({"accuracy": 0.5}, r"accuracy is 0.5; expected a number in \[1e-13, 0.01\]"),
        ({"sample": 4}, r"sample is 4; expected a number in \[0, 3\]"),
        ({"start": (np.zeros(8), np.zeros(6), np.zeros(2))}, "start has shape"),
        ({"nudge": NudgingCurrents(1e-6, np.zeros((4, 2)))}, "target of the nudge"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate_transient(circuit_of(), FARADS, **{"tolerance": 1e-5, **options})
