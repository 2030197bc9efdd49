"""Real diodes: the safeguarded Newton method against Kirchhoff, another solver, and its own limits."""

from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq, root

from inmaterio.devices.validation import InputError
from inmaterio.simulators.resistive_description import NudgingCurrents, ResistiveCircuit
from inmaterio.simulators.resistive_shockley import settle_shockley
from tests.naive_junctions import JunctionNetwork
from tests.naive_resistive import branch_currents
from tests.resistive_circuits import DEEP, TRANSFORMERS, network, some_batch

THERMAL = 0.02585
"""Volts, about k T / q of a room."""


def circuit_of(slope_volts: float = THERMAL, saturation: float = 1e-9, seed: int = 0, **options: Any) -> ResistiveCircuit:
    chip = network(
        seed=seed, diode="shockley", saturation=saturation, temperature=300.0, emission=slope_volts / 0.025852, **options
    )
    return chip.oracle().model.circuit(some_batch(chip).inputs)


def diode_currents(circuit: ResistiveCircuit, volts: tuple[np.ndarray, ...], sample: int) -> list[np.ndarray]:
    return [
        sign * circuit.saturation * np.expm1(-sign * layer[sample] / circuit.slope_volts)
        for sign, layer in zip(circuit.diodes, volts, strict=True)
    ]


@pytest.mark.parametrize("options", [{}, DEEP, TRANSFORMERS], ids=["none", "vcvs-cccs", "transformer"])
@pytest.mark.parametrize("slope_volts", [1e-3, THERMAL, 0.1])
def test_currents_balance(options: dict[str, Any], slope_volts: float) -> None:
    circuit = circuit_of(slope_volts, **options)
    settled = settle_shockley(circuit)
    for sample in range(len(circuit.sources)):
        left, _, largest = branch_currents(circuit, [layer[sample] for layer in settled.volts], sample)
        for rest, diode in zip(left, diode_currents(circuit, settled.volts, sample), strict=True):
            assert np.abs(rest + diode).max() < 1e-12 * max(largest, float(np.abs(diode).max()))
    conducting = max(float(np.abs(diode).max()) for diode in diode_currents(circuit, settled.volts, 0))
    assert conducting > 5 * circuit.saturation  # real exponentials are at work


@pytest.mark.parametrize("slope_volts", [THERMAL, 0.1])
@pytest.mark.parametrize("siemens", [0.0, 5e-6, -2e-6])
def test_an_independent_root_finder_agrees(slope_volts: float, siemens: float) -> None:
    circuit = circuit_of(slope_volts)
    nudge = NudgingCurrents(siemens, np.full((4, 3), 0.3)) if siemens else None
    settled = settle_shockley(circuit, nudge)
    rng = np.random.default_rng(0)
    for sample in range(2):
        nodes = JunctionNetwork(circuit, sample, nudge)
        here = np.concatenate([layer[sample] for layer in settled.volts])
        # from two slopes away: that finder knows no safeguard
        away = here + 2 * slope_volts * rng.uniform(-1.0, 1.0, here.size)
        found = root(lambda volts, nodes=nodes: nodes.missing(volts) * 1e6, away, method="hybr", tol=1e-14)
        np.testing.assert_allclose(here, found.x, rtol=0, atol=1e-10)


def test_one_diode_by_hand() -> None:
    # a source of -1 V through 100 kOhm into a node that a diode holds up
    one = np.array([[1e-5]])
    circuit = ResistiveCircuit(
        (one,), (np.zeros(1),), (np.ones(1, dtype=np.int8),), np.ones(1), np.ones(1), np.array([[-1.0]]), 1e-12, THERMAL
    )
    volts = float(settle_shockley(circuit).volts[0][0, 0])
    wanted = brentq(lambda v: 1e-5 * (-1.0 - v) + 1e-12 * np.expm1(-v / THERMAL), -1.0, 0.0, xtol=1e-16, rtol=1e-15)
    assert volts == pytest.approx(wanted, rel=1e-13)


def test_small_emission_is_the_ideal_diode() -> None:
    ideal = network()
    data = some_batch(ideal)
    limit = ideal.oracle().model.settle(data.inputs, tolerance=1e-15)
    errors = []
    for slope_volts in (4e-3, 2e-3, 1e-3):
        settled = settle_shockley(circuit_of(slope_volts, saturation=1e-12))
        errors.append(max(float(np.abs(a - b * 0.1).max()) for a, b in zip(settled.volts, limit, strict=True)))
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.25)
    assert errors[1] / errors[2] == pytest.approx(2.0, rel=0.25)


@pytest.mark.parametrize("begin", [0.0, 1e3, -1e3, 1e6])
@pytest.mark.parametrize("slope_volts", [1e-6, 1e-3, THERMAL])
def test_no_start_and_no_diode_overflows(begin: float, slope_volts: float) -> None:
    circuit = circuit_of(slope_volts)
    batch = len(circuit.sources)
    start = tuple(np.full((batch, len(current)), begin) for current in circuit.currents)
    wanted = settle_shockley(circuit)
    found = settle_shockley(circuit, start=start)
    for a, b in zip(found.volts, wanted.volts, strict=True):
        assert np.all(np.isfinite(a))
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("options", [{}, DEEP, TRANSFORMERS], ids=["none", "vcvs-cccs", "transformer"])
def test_every_step_descends_a_convex_function(options: dict[str, Any]) -> None:
    circuit = circuit_of(THERMAL, saturation=1e-7, **options)
    start = tuple(np.full((4, len(current)), -0.5) for current in circuit.currents)
    nodes = [JunctionNetwork(circuit, sample) for sample in range(4)]
    contents = []
    for steps in range(1, 10):
        volts = np.concatenate(settle_shockley(circuit, steps=steps, start=start).volts, axis=1)
        contents.append([one.content(here) for one, here in zip(nodes, volts, strict=True)])
    falls = np.diff(np.array(contents), axis=0)
    assert np.all(falls <= 1e-14 * np.abs(contents).max())
    assert np.all(falls[0] < -1e-6 * np.abs(contents).max())
    # no chord lies below P, and the end is its lowest point
    rng = np.random.default_rng(0)
    for one, here in zip(nodes, volts, strict=True):
        for _ in range(20):
            first, second = (here + rng.normal(size=here.size) * 0.3 for _ in range(2))
            middle = one.content(0.5 * (first + second))
            assert one.content(here) < middle < 0.5 * (one.content(first) + one.content(second))


def test_near_the_end_every_step_squares_the_residual() -> None:
    circuit = circuit_of(THERMAL, saturation=1e-7, **TRANSFORMERS)
    start = tuple(np.full((4, len(current)), -0.5) for current in circuit.currents)
    history = np.array([settle_shockley(circuit, steps=steps, start=start).residual for steps in range(1, 10)])
    seen = 0
    for residuals in history.T:
        pairs = [(a, b) for a, b in zip(residuals[:-1], residuals[1:], strict=True) if b > 1e-12 and a < 2e-3]
        constants = [b / a**2 for a, b in pairs]
        if len(constants) > 1:
            seen += 1
            assert max(constants) < 2.0 * min(constants)
    assert seen >= 2


def test_held_currents_and_conductances_beside_the_diodes() -> None:
    circuit = circuit_of(THERMAL)
    held = tuple(np.full((4, len(current)), 1e-7 * (k + 1)) for k, current in enumerate(circuit.currents))
    found = settle_shockley(circuit, held_currents=held, junction_siemens=1e-6)
    nodes = JunctionNetwork(circuit, 3, junction_siemens=1e-6)
    here = np.concatenate([layer[3] for layer in found.volts])
    left = nodes.missing(here) + np.concatenate([layer[3] for layer in held])
    assert np.abs(left).max() < 1e-12 * np.abs(nodes.drive).max()


def test_what_does_not_balance_is_refused_with_its_residual() -> None:
    circuit = circuit_of()
    settled = settle_shockley(circuit, steps=1)
    assert settled.steps == 1
    assert settled.residual.max() > 1e-6
    with pytest.raises(
        InputError, match=r"currents of 4 of 4 samples do not balance after 200 Newton steps: residual .* V, expected"
    ):
        settle_shockley(circuit, tolerance=0.0)


def test_a_nudge_that_leaves_no_conductance_is_refused() -> None:
    circuit = circuit_of()
    lowest = float(circuit.node_conductances()[-1].min())
    target = np.zeros((4, 3))
    settle_shockley(circuit, NudgingCurrents(-0.5 * lowest, target))
    with pytest.raises(InputError) as error:
        settle_shockley(circuit, NudgingCurrents(-lowest, target))
    assert f"conductance of {-lowest:g} S" in str(error.value)
    assert f"sum of an output is {lowest:g} S" in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"junction_siemens": -1.0}, "junction_siemens is -1 S"),
        ({"steps": 0}, "steps is 0 Newton steps"),
        ({"start": (np.zeros((1, 8)),)}, "start of layer 1"),
        ({"start": (np.full((4, 8), -1e200),)}, r"start of layer 1 is -1e\+200 V at \(0, 0\); expected at least -1e\+100 V"),
        ({"tolerance": -1.0}, "tolerance is -1 V"),
        ({"nudge": NudgingCurrents(1e-6, np.zeros((4, 2)))}, "target of the nudge"),
        ({"held_currents": (np.zeros((4, 7)),)}, "held current of layer 1"),
    ],
)
def test_bad_arguments(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        settle_shockley(circuit_of(), **options)  # type: ignore[arg-type]
