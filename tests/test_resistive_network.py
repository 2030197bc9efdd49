"""Circuits with ideal diodes against Kirchhoff, Tellegen, an independent optimiser and a node-by-node twin."""

from typing import Any

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.validation import InputError
from inmaterio.simulators import resistive_network
from inmaterio.simulators.capabilities import Nudge, Write
from inmaterio.simulators.resistive_description import NudgingCurrents, ResistiveCircuit
from inmaterio.simulators.resistive_network import ResistiveNetwork
from inmaterio.simulators.resistive_nodes import assemble_nodes, node_weights
from tests.naive_resistive import branch_currents, heat, settle_node_by_node
from tests.resistive_circuits import DEEP, KEY, TRANSFORMERS, WIDTHS, network, settled_volts, some_batch

AMPLIFIED = pytest.mark.parametrize("options", [{}, DEEP, TRANSFORMERS], ids=["none", "vcvs-cccs", "transformer"])


def circuit_of(chip: ResistiveNetwork, inputs: np.ndarray) -> ResistiveCircuit:
    return chip.oracle().model.circuit(inputs)


@AMPLIFIED
@pytest.mark.parametrize("sweeps", [1, 2, 5])
@pytest.mark.parametrize("widths", [WIDTHS, (3, 4, 6, 9)], ids=["narrowing", "widening"])
def test_sweeps_are_those_of_the_twin(options: dict[str, Any], sweeps: int, widths: tuple[int, ...]) -> None:
    chip = network(widths, **options)
    data = some_batch(chip)
    unit, volts = chip.description.siemens_unit, chip.description.volts_per_output
    circuit = circuit_of(chip, data.inputs)
    for nudge in (None, Nudge("mse", data.targets, 0.3)):
        with chip.ledger.phase("evaluate"):
            found = chip.settle(data.inputs, samples=data.samples, key=KEY, nudge=nudge, steps=sweeps)
        pull = None if nudge is None else NudgingCurrents(0.3 * unit, data.targets * volts)
        for sample in range(len(data)):
            wanted = settle_node_by_node(circuit, sample, sweeps, pull)
            for layer, expected in zip(found.states, wanted, strict=True):
                np.testing.assert_allclose(layer[sample] * volts, expected, rtol=1e-12, atol=1e-15)


@AMPLIFIED
def test_steady_state_is_the_minimum_an_independent_solver_finds(options: dict[str, Any]) -> None:
    chip = network(**options)
    data = some_batch(chip)
    circuit = circuit_of(chip, data.inputs)
    found = np.concatenate(settled_volts(chip, data.inputs), axis=1)
    signs = np.concatenate(circuit.diodes)
    bounds = np.where(signs > 0, 0.0, -np.inf), np.where(signs < 0, 0.0, np.inf)
    for sample in range(len(data)):
        nodes = assemble_nodes(circuit, None, sample)
        weight = node_weights(circuit)
        hessian, right = weight[:, None] * nodes.load, weight * nodes.drive
        scale = np.abs(hessian).max()
        factor = np.linalg.cholesky(hessian / scale)
        best = lsq_linear(factor.T, np.linalg.solve(factor, right / scale), bounds=bounds, method="bvls", tol=1e-15)
        np.testing.assert_allclose(found[sample], best.x, rtol=0, atol=1e-12)


@AMPLIFIED
def test_kirchhoff_and_the_diodes(options: dict[str, Any]) -> None:
    chip = network(**options)
    data = some_batch(chip, size=8)
    circuit = circuit_of(chip, data.inputs)
    volts = settled_volts(chip, data.inputs)
    conducting = blocking = 0
    for sample in range(len(data)):
        here = [layer[sample] for layer in volts]
        left, _, largest = branch_currents(circuit, here, sample)
        for sign, layer, current in zip(circuit.diodes, here, left, strict=True):
            # what the other branches leave over is what the diode takes: nothing where it blocks or where there is none
            open_node = (sign == 0) | (layer != 0.0)
            assert np.abs(current[open_node]).max(initial=0.0) < 1e-12 * largest
            assert np.all(sign * layer >= 0.0)
            held = ~open_node
            # a diode that conducts gives current towards its side
            assert np.all(-sign[held] * current[held] >= 0.0)
            assert np.abs(current * layer).max() < 1e-12 * largest
            conducting += int(held.sum())
            blocking += int((open_node & (sign != 0)).sum())
    assert conducting > 10
    assert blocking > 10


def test_tellegen() -> None:
    # voltages of one state and currents of another are orthogonal in any network of the same shape
    chip, other = network(seed=0), network(seed=1)
    data, others = some_batch(chip, seed=7), some_batch(other, seed=8)
    circuit, second = circuit_of(chip, data.inputs), circuit_of(other, others.inputs)
    volts, second_volts = settled_volts(chip, data.inputs), settled_volts(other, others.inputs)
    for sample in range(len(data)):
        here, there = [layer[sample] for layer in volts], [layer[sample] for layer in second_volts]
        left, given, _ = branch_currents(second, there, sample)
        total = scale = 0.0
        for k, conductance in enumerate(second.conductances):
            below = circuit.sources[sample] if k == 0 else here[k - 1]
            beneath = second.sources[sample] if k == 0 else there[k - 1]
            across = here[k][:, None] - below[None, :]
            flow = conductance * (there[k][:, None] - beneath[None, :])
            total += float(np.sum(across * flow))
            scale += float(np.sum(np.abs(across * flow)))
        # branches to ground: bias and diode at each node, and the sources
        for k, layer in enumerate(here):
            total -= float(layer @ second.currents[k]) - float(layer @ left[k])
        total -= float(circuit.sources[sample] @ given[0])
        assert abs(total) < 1e-12 * scale


@pytest.mark.parametrize("options", [{}, TRANSFORMERS, DEEP], ids=["none", "transformer", "vcvs-cccs"])
def test_reciprocity(options: dict[str, Any]) -> None:
    """Current into node i moves node j as current into j moves i; amplifiers that burn power scale it by the layers' c_k."""
    chip = network(**options)
    data = some_batch(chip, size=1)
    circuit = circuit_of(chip, data.inputs)
    volts = settled_volts(chip, data.inputs)
    free = np.concatenate([(sign == 0) | (layer[0] != 0.0) for sign, layer in zip(circuit.diodes, volts, strict=True)])
    weights = np.concatenate(
        [np.full(len(sign), c) for sign, c in zip(circuit.diodes, chip.description.energy_scales(), strict=True)]
    )
    sizes = [len(sign) for sign in circuit.diodes]
    edges = np.cumsum([0, *sizes])
    moved = np.zeros((edges[-1], edges[-1]))
    for k in range(3):
        for i in range(sizes[k]):
            # 1e-3 of bias_max, in units of siemens_unit times volts_per_output; the diodes stay as they are
            pushed = [bias.copy() for bias in chip.oracle().model.biases]
            pushed[k][i] += 1e-4
            model = type(chip.oracle().model)(chip.description, chip.oracle().model.weights, pushed)
            found = np.concatenate(model.settle(data.inputs, tolerance=1e-15), axis=1)[0]
            before = np.concatenate(chip.oracle().model.settle(data.inputs, tolerance=1e-15), axis=1)[0]
            moved[edges[k] + i] = (found - before) / 1e-4
    kept = moved[np.ix_(free, free)]
    scaled = kept * weights[free][None, :]
    np.testing.assert_allclose(scaled, scaled.T, rtol=0, atol=1e-9 * np.abs(scaled).max())
    symmetric = np.abs(kept - kept.T).max() < 1e-9 * np.abs(kept).max()
    assert symmetric == ("reciprocal" in chip.traits)
    assert symmetric == (options != DEEP)


@pytest.mark.parametrize("options", [{}, TRANSFORMERS, DEEP], ids=["none", "transformer", "vcvs-cccs"])
def test_conductances_of_the_whole_network_are_symmetric_to_rounding(options: dict[str, Any]) -> None:
    """Resistor by resistor: current into node i per volt at node j, and what the solver finds for a current into each node."""
    chip = network(**options)
    data = some_batch(chip, size=1)
    circuit = circuit_of(chip, data.inputs)
    sizes = [len(sign) for sign in circuit.diodes]
    nodes, edges = sum(sizes), np.cumsum(sizes)[:-1]

    def into(volts: np.ndarray) -> np.ndarray:
        return np.concatenate(branch_currents(circuit, np.split(volts, edges), 0)[0])

    at_rest = into(np.zeros(nodes))
    conductance = np.stack([at_rest - into(one) for one in np.eye(nodes)], axis=1)
    weight = np.repeat(chip.description.energy_scales(), sizes)
    largest = np.abs(conductance).max()
    symmetric = np.abs(conductance - conductance.T).max() < 1e-12 * largest
    assert symmetric == ("reciprocal" in chip.traits) == (options != DEEP)
    # amplifiers that burn power: symmetric once each layer's currents are weighed by its c_k
    weighed = weight[:, None] * conductance
    assert np.abs(weighed - weighed.T).max() < 1e-12 * np.abs(weighed).max()
    # with the diodes as they are, volts are the inverse's, symmetric likewise, and they are what the solver found
    volts = np.concatenate([layer[0] for layer in settled_volts(chip, data.inputs)])
    free = (np.concatenate(circuit.diodes) == 0) | (volts != 0.0)
    impedance = np.linalg.inv(weighed[np.ix_(free, free)])
    assert np.abs(impedance - impedance.T).max() < 1e-12 * np.abs(impedance).max()
    np.testing.assert_allclose(impedance @ (weight * at_rest)[free], volts[free], rtol=0, atol=1e-12 * np.abs(volts).max())


def test_energy_scales_are_powers_of_the_gain_squared() -> None:
    assert network(**DEEP).description.energy_scales().tolist() == [81.0, 9.0, 1.0]
    assert network(**TRANSFORMERS).description.energy_scales().tolist() == [1.0, 1.0, 1.0]


def test_two_resistors_and_a_diode_by_hand() -> None:
    # sources +-0.5 V; node = (2 * 0.5 - 1 * 0.5) / (2 + 1 + w) with the output loading it through w = 1; biases 0
    chip = resistive_network.build((1, 2, 1), chip=KEY, dtype="float64", volts_per_output=0.1, siemens_unit=1e-5, bias=False)
    values = {"weight_1": np.array([[2.0, 1.0], [2.0, 1.0]]), "weight_2": np.array([[1.0, 0.0]])}
    ledger = Ledger()
    chip.attach(ledger, "substrate")
    with ledger.phase("train"):
        chip.program({name: Write(value) for name, value in values.items()}, key=KEY)
        settled = chip.settle(np.array([[0.5]]), samples=np.array([0]), key=KEY, tolerance=1e-15)
    # nothing flows into the output: it takes the voltage of its one neighbour, which therefore is not loaded
    hidden = (2.0 * 0.5 - 1.0 * 0.5) / 3.0 / 0.1
    np.testing.assert_allclose(settled.states[0], [[hidden, 0.0]], rtol=1e-14, atol=0)
    np.testing.assert_allclose(settled.states[1], [[hidden]], rtol=1e-14)
    # heat: node 1 has 2g and 1g at 0.5 - v and -0.5 - v; node 2 is held at 0 V by its diode
    v = hidden * 0.1
    watts = 1e-5 * (2 * (0.5 - v) ** 2 + (0.5 + v) ** 2 + 2 * 0.25 + 0.25)
    events = {(component, event): amount for (_, _, component, event), amount in ledger.events.items()}
    burned = events["array weight_1", "ohmic_joule"] + events.get(("array weight_2", "ohmic_joule"), 0.0)
    assert burned == pytest.approx(watts * chip.description.seconds_per_settle, rel=1e-12)
    assert events["array weight_1", "device_write"] == 4.0
    assert events["array weight_2", "device_write"] == 2.0
    assert ledger.total("device_pass", "train") == 1.0
    assert ledger.total("sample", "train") == 1.0
    tallied = ledger.total("second", "train")
    # 3 rows of devices written, one conversion in and one out, one settling
    assert tallied == pytest.approx(3 * 1e-7 + 2 * 1e-7 + 1e-6, rel=1e-12)


@AMPLIFIED
@pytest.mark.parametrize("widths", [WIDTHS, (3, 4, 6, 9)], ids=["narrowing", "widening"])
def test_heat_is_what_every_resistor_burns(options: dict[str, Any], widths: tuple[int, ...]) -> None:
    chip = network(widths, bias=False, **options)
    data = some_batch(chip)
    circuit = circuit_of(chip, data.inputs)
    volts = settled_volts(chip, data.inputs)
    ledger = Ledger()
    chip.attach(ledger, "substrate")
    with ledger.phase("evaluate"):
        chip.settle(data.inputs, samples=data.samples, key=KEY, tolerance=1e-15)
    for k in range(3):
        burned = sum(heat(circuit, [layer[sample] for layer in volts], sample)[k] for sample in range(len(data)))
        found = sum(
            amount
            for (_, _, component, event), amount in ledger.events.items()
            if (component, event) == (f"array weight_{k + 1}", "ohmic_joule")
        )
        assert found == pytest.approx(burned * chip.description.seconds_per_settle, rel=1e-10)


def test_halves_and_doubled_inputs() -> None:
    chip = network()
    data = some_batch(chip)
    circuit = circuit_of(chip, data.inputs)
    volts = chip.description.input_volts
    np.testing.assert_allclose(circuit.sources, np.concatenate([data.inputs, -data.inputs], axis=1) * volts, rtol=1e-14)
    assert [sign.tolist() for sign in circuit.diodes] == [[1] * 4 + [-1] * 4, [1] * 3 + [-1] * 3, [0] * 3]
    hidden = settled_volts(chip, data.inputs)[0]
    assert np.all(hidden[:, :4] >= 0.0)
    assert np.all(hidden[:, 4:] <= 0.0)


def test_a_negative_nudge_beyond_the_smallest_output_is_refused() -> None:
    chip = network()
    data = some_batch(chip)
    smallest = float(np.asarray(chip.oracle().model.weights[-1]).sum(axis=1).min())
    with chip.ledger.phase("evaluate"):
        chip.settle(data.inputs, samples=data.samples, key=KEY, nudge=Nudge("mse", data.targets, -0.9 * smallest), steps=3)
        with pytest.raises(InputError) as error:
            chip.settle(data.inputs, samples=data.samples, key=KEY, nudge=Nudge("mse", data.targets, -smallest), steps=3)
    assert f"beta is {-smallest:g}, a conductance of" in str(error.value)
    assert f"the smallest conductance sum of an output is {smallest:g}" in str(error.value)


def test_what_does_not_settle_says_so() -> None:
    chip = network(**DEEP)
    data = some_batch(chip)
    with (
        chip.ledger.phase("evaluate"),
        pytest.raises(InputError, match=r"free phase has a residual of .* after 2 sweeps; expected"),
    ):
        chip.settle(data.inputs, samples=data.samples, key=KEY, steps=2, tolerance=1e-12)
    with pytest.raises(InputError, match=r"the model's residual is .* V after 2 sweeps; expected at most"):
        chip.oracle().model.settle(data.inputs, steps=2)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (3, "floating output: the conductances of node 1 of layer 3"),
        (1, "disconnected node: the conductances of node 1 of layer 1"),
    ],
)
def test_a_node_joined_to_nothing_is_named(layer: int, message: str) -> None:
    chip = network()
    weights = {f"weight_{k}": np.array(weight) for k, weight in enumerate(chip.oracle().model.weights, start=1)}
    weights[f"weight_{layer}"][1] = 0.0
    if layer < 3:
        weights[f"weight_{layer + 1}"][:, 1] = 0.0
    data = some_batch(chip)
    with chip.ledger.phase("evaluate"):
        chip.program({name: Write(value) for name, value in weights.items()}, key=KEY)
        with pytest.raises(InputError, match=message):
            chip.settle(data.inputs, samples=data.samples, key=KEY, steps=2)
    with pytest.raises(InputError, match=message):
        chip.oracle().loss_gradient(data.inputs, data.targets, "mse")


def test_negative_conductances_in_a_circuit_are_refused_and_clipped_by_devices() -> None:
    chip = network()
    circuit = circuit_of(chip, some_batch(chip).inputs)
    bad = (circuit.conductances[0] - 1.0, *circuit.conductances[1:])
    with pytest.raises(InputError, match="conductance of layer 1 .*expected"):
        ResistiveCircuit(bad, circuit.currents, circuit.diodes, circuit.gains, circuit.returns, circuit.sources)
    with chip.ledger.phase("evaluate"):
        chip.program({"weight_1": Write(np.full((8, 10), -1.0)), "weight_2": Write(np.ones((6, 8)))}, key=KEY)
        assert np.all(chip.read_back(key=KEY)["weight_1"] == 0.0)


def test_losses_and_complex_nudges_that_do_not_fit() -> None:
    chip = network()
    data = some_batch(chip)
    for nudge, message in (
        (Nudge("cross_entropy", data.targets, 0.1), "expected 'mse'"),
        (Nudge("mse", data.targets, 0.1j), "takes a real beta"),
    ):
        with chip.ledger.phase("evaluate"), pytest.raises(InputError, match=message):
            chip.settle(data.inputs, samples=data.samples, key=KEY, nudge=nudge, steps=2)


@pytest.mark.parametrize("name", ["device_spread", "programming_noise", "levels", "read_noise", "state_noise", "input_noise"])
def test_each_imperfection_is_a_switch_of_its_own(name: str) -> None:
    ideal, data = network(), some_batch(network())
    value: float = 4 if name == "levels" else 0.02
    chip, again = network(**{name: value}), network(**{name: value})

    def outputs(one: ResistiveNetwork) -> np.ndarray:
        with one.ledger.phase("evaluate"):
            return one.forward(data.inputs, samples=data.samples, key=KEY)

    first = outputs(chip)
    np.testing.assert_array_equal(first, outputs(again))
    assert np.abs(first - outputs(ideal)).max() > 1e-6
