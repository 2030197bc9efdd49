"""Real diodes: the safeguarded Newton method against Kirchhoff, another solver, and its own limits."""

import numpy as np
import pytest
from scipy.optimize import brentq, root
from scipy.special import lambertw

from inmaterio.devices.validation import InputError
from inmaterio.simulators.resistive_description import NudgingCurrents, ResistiveCircuit
from inmaterio.simulators.resistive_junctions import wright_omega
from inmaterio.simulators.resistive_nodes import assemble_nodes, node_weights
from inmaterio.simulators.resistive_shockley import settle_shockley
from tests.naive_resistive import branch_currents
from tests.resistive_circuits import DEEP, TRANSFORMERS, network, some_batch

THERMAL = 0.02585
"""Volts, about k T / q of a room."""


def circuit_of(slope_volts: float = THERMAL, saturation: float = 1e-9, seed: int = 0, **options: object) -> ResistiveCircuit:
    chip = network(
        seed=seed, diode="shockley", saturation=saturation, temperature=300.0, emission=slope_volts / 0.025852, **options
    )
    return chip.oracle().model.circuit(some_batch(chip).inputs)


def diode_currents(circuit: ResistiveCircuit, volts: tuple[np.ndarray, ...], sample: int) -> list[np.ndarray]:
    return [
        sign * circuit.saturation * np.expm1(-sign * layer[sample] / circuit.slope_volts)
        for sign, layer in zip(circuit.diodes, volts, strict=True)
    ]


@pytest.mark.parametrize("c", [-50.0, -3.0, -1.0, 0.0, 0.5, 1.0, 5.0, 100.0, 1e4])
def test_wright_omega(c: float) -> None:
    if c < 700:
        assert wright_omega(c) == pytest.approx(float(np.real(lambertw(np.exp(c)))), rel=2e-15, abs=0)
    omega = wright_omega(c)
    assert omega + np.log(omega) == pytest.approx(c, rel=1e-14, abs=1e-14)


@pytest.mark.parametrize("options", [{}, DEEP, TRANSFORMERS], ids=["none", "vcvs-cccs", "transformer"])
@pytest.mark.parametrize("slope_volts", [1e-3, THERMAL, 0.1])
def test_currents_balance(options: dict[str, object], slope_volts: float) -> None:
    circuit = circuit_of(slope_volts, **options)
    settled = settle_shockley(circuit)
    for sample in range(len(circuit.sources)):
        left, _, largest = branch_currents(circuit, [layer[sample] for layer in settled.volts], sample)
        for rest, diode in zip(left, diode_currents(circuit, settled.volts, sample), strict=True):
            assert np.abs(rest + diode).max() < 1e-12 * max(largest, float(np.abs(diode).max()))
    conducting = max(float(np.abs(diode).max()) for diode in diode_currents(circuit, settled.volts, 0))
    assert conducting > 5 * circuit.saturation  # real exponentials are at work


def test_an_independent_root_finder_agrees() -> None:
    circuit = circuit_of(0.1)
    settled = settle_shockley(circuit)
    for sample in range(2):
        nodes = assemble_nodes(circuit, None, sample)

        def imbalance(volts: np.ndarray, nodes=nodes) -> np.ndarray:
            return (nodes.drive - nodes.load @ volts + nodes.diode_currents(volts)) * 1e6

        here = np.concatenate([layer[sample] for layer in settled.volts])
        found = root(imbalance, np.zeros_like(here), method="hybr", tol=1e-14)
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


def co_content(circuit: ResistiveCircuit, volts: np.ndarray, sample: int) -> float:
    nodes, weight = assemble_nodes(circuit, None, sample), node_weights(circuit)
    hessian = weight[:, None] * nodes.load
    forward = -nodes.signs * volts / circuit.slope_volts
    stored = circuit.slope_volts * circuit.saturation * (np.exp(forward) - 1.0 - forward) * np.abs(nodes.signs)
    return float(0.5 * volts @ hessian @ volts - (weight * nodes.drive) @ volts + weight @ stored)


def test_every_step_descends_and_the_last_ones_square_the_residual() -> None:
    circuit = circuit_of(THERMAL)
    contents, residuals = [], []
    for steps in range(1, 30):
        settled = settle_shockley(circuit, steps=steps)
        contents.append([co_content(circuit, np.concatenate([layer[s] for layer in settled.volts]), s) for s in range(4)])
        residuals.append(settled.residual)
    falls = np.diff(np.array(contents), axis=0)
    assert np.all(falls <= 1e-15 * np.abs(contents).max())
    history = np.array(residuals)
    # near the end each residual is below a constant times the square of the one before
    for sample in range(4):
        small = [r for r in history[:, sample] if 1e-12 < r < 1e-2]
        pairs = [(a, b) for a, b in zip(small[:-1], small[1:], strict=True) if a < 1e-3]
        assert all(b < 0.1 * a for a, b in pairs)
        later = history[:, sample]
        last = int(np.argmax(later < 1e-12))
        before = later[last - 1]
        assert later[last] < max(1e3 * before**2, 1e-13)


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
    ],
)
def test_bad_arguments(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        settle_shockley(circuit_of(), **options)  # type: ignore[arg-type]
