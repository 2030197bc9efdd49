"""The same circuits in ngspice, an engine that was written by others."""

from pathlib import Path
from typing import Any

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
from inmaterio.simulators.resistive_nodes import assemble_nodes, node_weights
from inmaterio.simulators.resistive_shockley import settle_shockley
from tests.resistive_circuits import DEEP, TRANSFORMERS, network, some_batch

AMPLIFIED = pytest.mark.parametrize("options", [{}, DEEP, TRANSFORMERS], ids=["none", "vcvs-cccs", "transformer"])
THERMAL = NGSPICE_BOLTZMANN_OVER_CHARGE * NGSPICE_TEMPERATURE


def circuit_with(slope_volts: float, saturation: float = 1e-14, **options: Any) -> ResistiveCircuit:
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


@pytest.mark.engines
@AMPLIFIED
@pytest.mark.parametrize("nudged", [False, True])
def test_ideal_diodes_are_the_limit_of_small_emission_coefficients(ngspice: Path, options: dict[str, Any], nudged: bool) -> None:
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
        found = layer_volts(run_ngspice(netlist, program=ngspice), circuit)
        errors.append(max(float(np.abs(a - b).max()) for a, b in zip(found, volts, strict=True)))
    # 1 V times N; what diodes drop below an amplifier arrives above it amplified
    assert errors[-1] <= 1e-3 * float(circuit.gains.max())
    slope = np.polyfit(np.log(coefficients), np.log(errors), 1)[0]
    assert slope == pytest.approx(1.0, abs=0.05)


@pytest.mark.engines
@AMPLIFIED
@pytest.mark.parametrize("saturation", [1e-14, 1e-10])
@pytest.mark.parametrize("beta", [0.0, 5e-6, -2e-7])
def test_real_diodes_agree(ngspice: Path, options: dict[str, Any], saturation: float, beta: float) -> None:
    # N = 1 with the k/q that ngspice computes with, and its gmin beside every diode
    circuit = circuit_with(THERMAL, saturation=saturation, **options)
    nudge = NudgingCurrents(beta, np.full((4, 3), 0.2)) if beta else None
    settled = settle_shockley(circuit, nudge, junction_siemens=1e-12)
    for sample in range(2):
        netlist = export_netlist(circuit, nudge, sample=sample, junction_siemens=1e-12)
        found = layer_volts(run_ngspice(netlist, program=ngspice), circuit)
        worst = max(float(np.abs(a - b[sample]).max()) for a, b in zip(found, settled.volts, strict=True))
        # what is left is the cubic of ngspice in reverse, in proportion to the saturation current
        assert worst < (1e-6 if saturation > 1e-12 else 1e-9)
    lowest = min(float((sign * layer).min()) for sign, layer in zip(circuit.diodes, settled.volts, strict=True))
    assert lowest < -3 * THERMAL  # diodes that conduct drop a voltage


@pytest.mark.engines
def test_where_a_negative_nudge_bends_the_content_down_the_solver_ends_in_a_stable_state(ngspice: Path) -> None:
    """Outputs drag their neighbours along; the currents also balance where no circuit stays, and there ngspice ends."""
    circuit = circuit_with(THERMAL, **TRANSFORMERS)
    nudge = NudgingCurrents(-1e-6, np.full((4, 3), 0.2))
    settled = settle_shockley(circuit, nudge)
    netlist = export_netlist(circuit, nudge, sample=1)
    ours = np.concatenate([layer[1] for layer in settled.volts])
    theirs = np.concatenate(layer_volts(run_ngspice(netlist, program=ngspice), circuit))
    nodes, weight = assemble_nodes(circuit, nudge, 1), node_weights(circuit)
    stiffness = []
    for volts in (ours, theirs):
        missing = nodes.drive - nodes.load @ volts + nodes.diode_currents(volts)
        assert np.abs(missing).max() < 1e-13  # the currents balance at both
        stiffness.append(np.linalg.eigvalsh(weight[:, None] * (nodes.load + np.diag(nodes.diode_conductances(volts))))[0])
    assert stiffness[0] > 1e-6
    assert stiffness[1] < -1e-7


@pytest.mark.engines
def test_ngspice_takes_a_cubic_for_the_exponential_in_reverse(ngspice: Path) -> None:
    # a diode alone across a source: what the docstring says the two differ by
    for volts in (2.0, 3.5, 5.2, 12.0):
        reverse = volts * THERMAL
        lines = ["* a diode", f"V1 a 0 DC {-reverse!r}", "D1 a 0 junction", ".model junction D(IS=1e-6 N=1)"]
        lines += [".options gmin=1e-18 abstol=1e-18 reltol=1e-9", ".control", "set numdgt=16", "op", "print all", ".endc", ".end"]
        found = run_ngspice("\n".join(lines), program=ngspice)["v1#branch"]
        ours = -1e-6 * np.expm1(-volts)
        theirs = 1e-6 * (1.0 - (3.0 / (np.e * volts)) ** 3) if volts > 3.0 else ours
        assert found == pytest.approx(theirs, rel=1e-9)
        assert abs(found - ours) < 0.005 * 1e-6


@pytest.mark.engines
def test_a_divider_by_hand(ngspice: Path) -> None:
    circuit = ResistiveCircuit(
        (np.array([[2e-5, 1e-5]]),), (np.array([1e-6]),), (np.zeros(1, dtype=np.int8),), np.ones(1), np.ones(1),
        np.array([[1.0, -1.0]]),
    )  # fmt: skip
    found = run_ngspice(export_netlist(circuit), program=ngspice)
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
    # a number in single precision is written as the number it is, not as the shortest decimal that rounds to it
    single = ResistiveCircuit(
        tuple(conductance.astype(np.float32) for conductance in circuit.conductances),
        tuple(current.astype(np.float32) for current in circuit.currents),
        circuit.diodes,
        circuit.gains,
        circuit.returns,
        circuit.sources.astype(np.float32),
    )
    lines = export_netlist(single).splitlines()
    sources = [float(line.split()[4]) for line in lines if line.startswith("V")]
    np.testing.assert_array_equal(sources, single.sources[0])
    biases = [float(line.split()[4]) for line in lines if line.startswith("I")]
    np.testing.assert_array_equal(biases, np.concatenate(single.currents))


def test_names() -> None:
    """Nodes, amplifiers and elements are called what the module says; diodes point up in the first half of a layer, then down."""
    circuit = circuit_with(THERMAL, **DEEP)
    nudge = NudgingCurrents(-1e-6, np.full((4, 3), 0.2))
    lines = export_netlist(circuit, nudge).splitlines()
    elements = {line.split()[0]: line.split()[1:3] for line in lines if line[0] in "RDIEFGV"}
    assert len(elements) == sum(line[0] in "RDIEFGV" for line in lines)  # no two share a name
    assert elements["V3"] == ["s3", "0"]
    assert elements["D1_0"] == ["0", "n1_0"]
    assert elements["D1_7"] == ["n1_7", "0"]
    for j, i in zip(*np.nonzero(circuit.conductances[1]), strict=True):
        assert elements[f"R2_{j}_{i}"] == [f"a1_{i}", f"n2_{j}"]
        assert elements[f"F1_{i}"] == [f"n1_{i}", "0"]
    assert elements["G_nudge2"] == ["n3_2", "0"]
    assert next(line for line in lines if line.startswith("G_nudge2")).split()[-1] == "-1e-06"


def test_bad_netlists_and_programs() -> None:
    circuit = circuit_with(THERMAL)
    with pytest.raises(InputError, match=r"sample is 4; expected"):
        export_netlist(circuit, sample=4)
    for title in ("two\nlines", "two\rlines", "\x00"):
        with pytest.raises(InputError, match="expected one line of printable characters"):
            export_netlist(circuit, title=title)
    for options, message in (
        ({"slope_volts": 0.0}, "slope_volts is 0 V"),
        ({"junction_siemens": 0.0}, "junction_siemens is 0 S"),
        ({"nudge": NudgingCurrents(1e-6, np.zeros((1, 3)))}, "target of the nudge"),
    ):
        with pytest.raises(InputError, match=message):
            export_netlist(circuit, **options)
    with pytest.raises(InputError, match="ngspice is expected at 'no-such-spice'"):
        run_ngspice(export_netlist(circuit), program="no-such-spice")


@pytest.mark.engines
@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ("R1 a b", ""),
        ("V1 a 0 1\nV2 a 0 2\nR1 a 0 1k", "singular matrix"),
        ("V1 a 0 1\nD1 a 0 nothing", "valid modelname"),
    ],
)
def test_no_operating_point_comes_back_with_the_words_of_ngspice(ngspice: Path, elements: str, words: str) -> None:
    with pytest.raises(InputError, match=f"ngspice found no operating point: .*{words}") as error:
        run_ngspice(f"* nothing\n{elements}\n.control\nop\nprint all\n.endc\n.end\n", program=ngspice)
    assert "\n" not in str(error.value)


@pytest.mark.engines
def test_settings_of_the_user_do_not_count(ngspice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".spiceinit").write_text("quit 3\n")
    monkeypatch.chdir(tmp_path)
    found = run_ngspice("* one\nV1 a 0 1\nR1 a 0 1k\n.control\nop\nprint all\n.endc\n.end\n", program=ngspice)
    assert found["a"] == 1.0


def test_an_engine_that_hangs_is_stopped(tmp_path: Path) -> None:
    slow = tmp_path / "ngspice"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    with pytest.raises(InputError, match=r"found no operating point within 0.1 s"):
        run_ngspice("* nothing\n", program=slow, timeout=0.1)


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
    for refusing in (export_netlist, settle_shockley):
        with pytest.raises(InputError, match="node 2 of layer 1 floats: no conductance joins it to a source"):
            refusing(island)
    first[2, 0] = 1e-5
    joined = ResistiveCircuit(
        (first, second, third), circuit.currents, circuit.diodes, circuit.gains, circuit.returns, circuit.sources
    )
    assert "R2_3_2 n1_2 n2_3" in export_netlist(joined)
    assert chip.description.circuit_widths == (10, 8, 6, 3)
