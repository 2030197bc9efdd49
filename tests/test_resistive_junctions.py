"""Kernels of the solver of real diodes against a slow twin, in circuits of all sizes of voltage, current and amplification."""

from typing import Any

import numpy as np
import pytest
from scipy.special import wrightomega

from inmaterio.devices.validation import InputError
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.resistive_description import NudgingCurrents, ResistiveCircuit
from inmaterio.simulators.resistive_junctions import wright_omega
from inmaterio.simulators.resistive_shockley import settle_shockley
from tests.naive_junctions import JunctionNetwork, node_volts
from tests.resistive_circuits import DEEP, TRANSFORMERS, network, some_batch

AMPLIFIED = pytest.mark.parametrize("options", [{}, DEEP, TRANSFORMERS], ids=["none", "vcvs-cccs", "transformer"])


def circuit_of(**options: Any) -> ResistiveCircuit:
    chip = network(diode="shockley", saturation=1e-9, **options)
    return chip.oracle().model.circuit(some_batch(chip).inputs)


def drawn_circuit(rng: np.random.Generator) -> ResistiveCircuit:
    """Any number of layers, and units of every quantity over many decades."""
    layers = int(rng.integers(1, 5))
    widths = [int(width) for width in rng.integers(1, 9, layers + 1)]
    unit, volts = 10.0 ** rng.uniform(-9, -2), 10.0 ** rng.uniform(-3, 3)
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    gains = np.full(layers, float(rng.choice([1.0, 3.0, 30.0])))
    gains[0] = 1.0
    return ResistiveCircuit(
        tuple(unit * np.maximum(rng.uniform(-1, 1, shape), rng.choice([1e-8, 1e-3])) for shape in shapes),
        tuple(0.3 * unit * volts * rng.normal(size=width) for width in widths[1:]),
        tuple(rng.integers(-1, 2, width).astype(np.int8) for width in widths[1:]),
        gains,
        gains if rng.random() < 0.5 else 1.0 / gains,
        rng.uniform(-volts, volts, (2, widths[0])),
        10.0 ** rng.uniform(-18, -3),
        10.0 ** rng.uniform(-6, 0),
    )


def imbalance(circuit: ResistiveCircuit, volts: tuple[Array, ...], sample: int, nudge: NudgingCurrents | None = None) -> float:
    """Largest that Kirchhoff's law misses at any node, over the largest current at any."""
    nodes = JunctionNetwork(circuit, sample, nudge)
    here = np.concatenate([layer[sample] for layer in volts])
    weight, load = nodes.weight, nodes.load
    diodes = np.abs(nodes.sign * nodes.saturation * np.expm1(-nodes.sign * here / nodes.slope_volts))
    largest = np.max(weight * (np.abs(load) @ np.abs(here) + np.abs(nodes.drive) + diodes))
    return float(np.max(np.abs(weight * nodes.missing(here))) / largest)


def test_wright_omega_is_that_of_another_library() -> None:
    places = np.concatenate([np.linspace(-60, 60, 1201), np.logspace(2, 15, 40), -np.logspace(2, 2.8, 5)])
    np.testing.assert_allclose([wright_omega(c) for c in places], wrightomega(places), rtol=4e-15, atol=0)


@pytest.mark.parametrize("saturation", [1e-18, 1e-9, 1e-3])
@pytest.mark.parametrize("slope_volts", [1e-5, 0.02585])
def test_one_node_is_where_a_search_for_the_root_finds_it(saturation: float, slope_volts: float) -> None:
    """Currents from far below a diode's own to far above: every voltage to all its digits, the smallest too."""
    siemens = 1e-5
    currents = np.concatenate([-np.logspace(-24, 3, 28), np.logspace(-24, 3, 28)])
    for sign in (-1, 1):
        circuit = ResistiveCircuit(
            (np.array([[siemens]]),),
            (np.zeros(1),),
            (np.array([sign], dtype=np.int8),),
            np.ones(1),
            np.ones(1),
            currents[:, None] / siemens,
            saturation,
            slope_volts,
        )
        found = settle_shockley(circuit).volts[0][:, 0]
        wanted = [node_volts(current, siemens, saturation, sign, slope_volts) for current in currents]
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=0)


@AMPLIFIED
@pytest.mark.parametrize("nudged", [False, True])
def test_each_step_is_that_of_the_twin(options: dict[str, Any], nudged: bool) -> None:
    circuit = circuit_of(**options)
    least = float(circuit.node_conductances()[-1].min())
    nudge = NudgingCurrents(0.3 * least, np.full((4, 3), 0.1)) if nudged else None
    moved = []
    for sample in range(2):
        nodes = JunctionNetwork(circuit, sample, nudge, junction_siemens=1e-12)
        before = nodes.newton(np.zeros(nodes.drive.size), 0)
        for steps in (1, 2, 3):
            found = settle_shockley(circuit, nudge, steps=steps, junction_siemens=1e-12)
            wanted = nodes.newton(np.zeros(nodes.drive.size), steps)
            np.testing.assert_allclose(np.concatenate([v[sample] for v in found.volts]), wanted, rtol=0, atol=1e-9)
            moved.append(np.abs(wanted - before).max())
            before = wanted
    assert sum(move > 1e-5 for move in moved) >= 3  # steps on the way, not the end of it


@AMPLIFIED
def test_setting_single_nodes_leaves_them_where_they_are(options: dict[str, Any]) -> None:
    circuit = circuit_of(**options)
    found = settle_shockley(circuit)
    for sample in range(2):
        volts = np.concatenate([v[sample] for v in found.volts])
        moved = JunctionNetwork(circuit, sample).settle(volts, 1)
        np.testing.assert_allclose(moved, volts, rtol=0, atol=1e-13)


def test_setting_node_after_node_ends_where_the_solver_does() -> None:
    circuit = circuit_of()
    found = settle_shockley(circuit)
    nodes = JunctionNetwork(circuit, 1)
    wanted = nodes.settle(np.zeros(nodes.drive.size), 250)
    np.testing.assert_allclose(np.concatenate([v[1] for v in found.volts]), wanted, rtol=0, atol=1e-11)


def test_currents_balance_in_circuits_of_every_kind() -> None:
    rng = np.random.default_rng(0)
    worst = 0.0
    for trial in range(200):
        circuit = drawn_circuit(rng)
        least, width = float(circuit.node_conductances()[-1].min()), len(circuit.currents[-1])
        nudge, start = None, None
        if trial % 3 == 1:
            volts = float(np.abs(circuit.sources).max())
            nudge = NudgingCurrents(least * 10.0 ** rng.uniform(-3, 2), volts * rng.normal(size=(2, width)))
        if trial % 2 == 1:
            far = 10.0 ** rng.uniform(-4, 6)
            start = tuple(far * rng.normal(size=(2, len(current))) for current in circuit.currents)
        settled = settle_shockley(circuit, nudge, start=start)
        worst = max(worst, *(imbalance(circuit, settled.volts, sample, nudge) for sample in range(2)))
    assert worst < 1e-12


def test_nothing_drives_a_circuit() -> None:
    circuit = circuit_of()
    dark = ResistiveCircuit(
        circuit.conductances,
        tuple(np.zeros_like(current) for current in circuit.currents),
        circuit.diodes,
        circuit.gains,
        circuit.returns,
        np.zeros((2, circuit.sources.shape[1])),
        circuit.saturation,
        circuit.slope_volts,
    )
    for start in (None, tuple(np.ones((2, len(current))) for current in circuit.currents)):
        for layer in settle_shockley(dark, start=start).volts:
            assert np.abs(layer).max() < 1e-14


def test_a_nudge_that_no_diode_holds_back_runs_away_before_its_limit() -> None:
    """Outputs drag along the nodes they are joined to: the network gives in to a weaker nudge than outputs held alone would."""
    circuit = circuit_of()
    least = float(circuit.node_conductances()[-1].min())
    target = np.zeros((4, 3))
    settle_shockley(circuit, NudgingCurrents(-0.3 * least, target))
    with pytest.raises(InputError, match=r"residual .* V, expected at most .* a weaker"):
        settle_shockley(circuit, NudgingCurrents(-0.999 * least, target))
