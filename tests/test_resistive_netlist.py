"""The same circuits in ngspice, an engine that was written by others."""

import shutil

import numpy as np
import pytest

from inmaterio.devices.validation import InputError
from inmaterio.simulators.resistive_description import NudgingCurrents, ResistiveCircuit
from inmaterio.simulators.resistive_netlist import (
    NGSPICE_BOLTZMANN_OVER_CHARGE,
    NGSPICE_TEMPERATURE,
    export_netlist,
    layer_volts,
    run_ngspice,
)
from inmaterio.simulators.resistive_shockley import settle_shockley
from tests.resistive_circuits import DEEP, TRANSFORMERS, network, some_batch

ngspice = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed (system package ngspice)")
AMPLIFIED = pytest.mark.parametrize("options", [{}, DEEP, TRANSFORMERS], ids=["none", "vcvs-cccs", "transformer"])
THERMAL = NGSPICE_BOLTZMANN_OVER_CHARGE * NGSPICE_TEMPERATURE


def circuit_with(slope_volts: float, saturation: float = 1e-14, **options: object) -> ResistiveCircuit:
    chip = network(**options)
    circuit = chip.oracle().model.circuit(some_batch(chip).inputs)
    return ResistiveCircuit(
        circuit.conductances,
        circuit.currents,
        circuit.diodes,
        circuit.gains,
        circuit.returns,
        circuit.sources,
        saturation,
        slope_volts,
    )


@ngspice
@AMPLIFIED
@pytest.mark.parametrize("nudged", [False, True])
def test_ideal_diodes_are_the_limit_of_small_emission_coefficients(options: dict[str, object], nudged: bool) -> None:
    chip = network(**options)
    data = some_batch(chip)
    model, unit = chip.oracle().model, chip.description.siemens_unit
    beta = 0.3 if nudged else 0.0
    states = model.settle(data.inputs, beta=beta, target=data.targets, tolerance=1e-15)
    volts = [layer[0] * chip.description.volts_per_output for layer in states]
    nudge = NudgingCurrents(beta * unit, data.targets * chip.description.volts_per_output) if nudged else None
    circuit = circuit_with(1.0, **options)
    coefficients, errors = (4e-3, 2e-3, 1e-3), []
    for emission in coefficients:
        netlist = export_netlist(circuit, nudge, slope_volts=emission * THERMAL)
        found = layer_volts(run_ngspice(netlist), circuit)
        errors.append(max(float(np.abs(a - b).max()) for a, b in zip(found, volts, strict=True)))
    # 1 V times N; what diodes drop below an amplifier arrives above it amplified
    assert errors[-1] <= 1e-3 * float(circuit.gains.max())
    slope = np.polyfit(np.log(coefficients), np.log(errors), 1)[0]
    assert slope == pytest.approx(1.0, abs=0.05)


@ngspice
@AMPLIFIED
def test_real_diodes_agree(options: dict[str, object]) -> None:
    # N = 1 with the k/q that ngspice computes with, and its gmin beside every diode
    circuit = circuit_with(THERMAL, saturation=1e-9, **options)
    settled = settle_shockley(circuit, junction_siemens=1e-12)
    for sample in range(2):
        netlist = export_netlist(circuit, sample=sample, junction_siemens=1e-12)
        found = layer_volts(run_ngspice(netlist), circuit)
        worst = max(float(np.abs(a - b[sample]).max()) for a, b in zip(found, settled.volts, strict=True))
        assert worst < 1e-6
    held = settled.volts[0][:, :4]
    assert held.min() < -1e-3  # diodes that conduct drop a voltage


@ngspice
def test_a_divider_by_hand() -> None:
    circuit = ResistiveCircuit(
        (np.array([[2e-5, 1e-5]]),), (np.array([1e-6]),), (np.zeros(1, dtype=np.int8),), np.ones(1), np.ones(1),
        np.array([[1.0, -1.0]]),
    )  # fmt: skip
    found = run_ngspice(export_netlist(circuit))
    assert found["n1_0"] == pytest.approx((2e-5 - 1e-5 + 1e-6) / 3e-5, rel=1e-9)
    assert found["v0#branch"] == pytest.approx(-2e-5 * (1.0 - found["n1_0"]), rel=1e-9)


def test_numbers_keep_all_their_digits_and_zero_conductances_are_left_out() -> None:
    circuit = circuit_with(THERMAL)
    lines = export_netlist(circuit, title="a circuit").splitlines()
    assert lines[0] == "* a circuit"
    assert lines[-1] == ".end"
    resistors = {line.split()[0]: float(line.split()[3]) for line in lines if line.startswith("R")}
    first = circuit.conductances[0]
    for i, j in np.ndindex(first.shape):
        name = f"R1_{i}_{j}"
        assert (name in resistors) == (first[i, j] > 0.0)
        if name in resistors:
            assert resistors[name] == 1.0 / first[i, j]
    sources = [float(line.split()[4]) for line in lines if line.startswith("V")]
    np.testing.assert_array_equal(sources, circuit.sources[0])
    assert sum(line.startswith("D") for line in lines) == 14


def test_bad_netlists_and_programs() -> None:
    circuit = circuit_with(THERMAL)
    with pytest.raises(InputError, match=r"sample is 4; expected"):
        export_netlist(circuit, sample=4)
    with pytest.raises(InputError, match="expected one line"):
        export_netlist(circuit, title="two\nlines")
    with pytest.raises(InputError, match="ngspice is expected at 'no-such-spice'"):
        run_ngspice(export_netlist(circuit), program="no-such-spice")


@ngspice
def test_a_netlist_that_makes_no_sense_comes_back_with_the_words_of_ngspice() -> None:
    with pytest.raises(InputError, match="ngspice found no operating point"):
        run_ngspice("* nothing\nR1 a b\n.end\n")


def test_a_floating_island_is_named() -> None:
    chip = network()
    circuit = circuit_with(THERMAL)
    second = np.array(circuit.conductances[1])
    third = np.array(circuit.conductances[2])
    first = np.array(circuit.conductances[0])
    # node 2 of layer 1 and node 3 of layer 2 hold on to each other only
    first[2] = 0.0
    second[:, 2] = 0.0
    second[3] = 0.0
    third[:, 3] = 0.0
    second[3, 2] = 1e-5
    island = ResistiveCircuit(
        (first, second, third), circuit.currents, circuit.diodes, circuit.gains, circuit.returns, circuit.sources
    )
    with pytest.raises(InputError, match="node 2 of layer 1 floats: no conductance joins it to a source"):
        export_netlist(island)
    assert chip.description.circuit_widths == (10, 8, 6, 3)
