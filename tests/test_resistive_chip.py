"""The circuit of a chip as others see it: its netlist in ngspice, and its settling time in the ledger."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.simulators import resistive_network
from inmaterio.simulators.capabilities import Nudge, Write
from inmaterio.simulators.resistive_chip import chip_circuit, chip_settle_seconds
from inmaterio.simulators.resistive_netlist import export_netlist, layer_volts, run_ngspice
from inmaterio.simulators.resistive_network import ResistiveNetwork
from inmaterio.simulators.resistive_transient import simulate_transient
from tests.resistive_circuits import DEEP, KEY, TRANSFORMERS, network, some_batch

FARADS = 1e-13
REAL: dict[str, Any] = {"diode": "shockley", "saturation": 1e-12}


@pytest.mark.engines
@pytest.mark.parametrize("options", [{}, DEEP, TRANSFORMERS], ids=["none", "vcvs-cccs", "transformer"])
@pytest.mark.parametrize("beta", [0.0, 0.4, -0.02])
def test_ngspice_finds_what_the_chip_measures(ngspice: Path, options: dict[str, Any], beta: float) -> None:
    """With the errors of its devices and the rounding of its inputs, free and nudged either way."""
    chip = network(device_spread=0.1, programming_noise=0.02, levels=64, input_bits=4, **REAL, **options)
    data = some_batch(chip)
    nudge = Nudge("mse", data.targets, beta) if beta else None
    with chip.ledger.phase("evaluate"):
        settled = chip.settle(data.inputs, samples=data.samples, key=KEY, nudge=nudge, tolerance=1e-12)
    circuit, currents = chip_circuit(chip, data.inputs, nudge)
    for sample in (0, 3):
        found = layer_volts(run_ngspice(export_netlist(circuit, currents, sample=sample), program=ngspice), circuit)
        for mine, theirs in zip(settled.states, found, strict=True):
            assert np.abs(mine[sample] * chip.description.volts_per_output - theirs).max() < 1e-6


def one_resistor(**options: Any) -> ResistiveNetwork:
    """One input, one output: 10 uS to a source at the input, 5 uS to one at its negative."""
    chip = resistive_network.build((1, 1), chip=Key(0), dtype="float64", bias=False, **options)
    with chip.ledger.phase("initialise"):
        chip.program({"weight_1": Write(np.array([[1.0, 0.5]]))}, key=KEY)
    return chip


def test_settling_time_of_one_resistor_by_hand() -> None:
    chip = one_resistor()
    inputs = np.array([[0.3], [-0.9]])
    siemens, reached = 1.5e-5, 0.9 * 0.5 / 1.5
    wanted = FARADS / siemens * np.log(reached / 1e-4)
    assert chip_settle_seconds(chip, inputs, FARADS, tolerance=1e-4) == pytest.approx(wanted, rel=1e-12)
    # a nudge away from the target takes conductance from the output; it begins at the free state
    nudge = Nudge("mse", np.array([[0.0], [4.0]]), -0.6)
    moved = abs((0.9 * -0.5 - 0.6 * 0.4) / 0.9 + reached)
    slow = FARADS / (siemens - 6e-6) * np.log(moved / 1e-4)
    assert slow > wanted
    assert chip_settle_seconds(chip, inputs, FARADS, tolerance=1e-4, nudges=(nudge,)) == pytest.approx(slow, rel=1e-12)


def test_settling_time_of_a_network_is_that_of_its_transients() -> None:
    chip = network(**REAL)
    data = some_batch(chip)
    nudges = [Nudge("mse", data.targets, beta) for beta in (0.3, -0.3)]
    estimate = chip_settle_seconds(chip, data.inputs, FARADS, tolerance=1e-5, nudges=nudges)
    circuit, _ = chip_circuit(chip, data.inputs)
    free = [simulate_transient(circuit, FARADS, sample=sample, tolerance=1e-5) for sample in range(4)]
    took = [run.settle_seconds for run in free]
    for nudge in nudges:
        _, currents = chip_circuit(chip, data.inputs, nudge)
        for sample in range(4):
            start = tuple(layer[-1] for layer in free[sample].volts)
            run = simulate_transient(circuit, FARADS, currents, sample=sample, start=start, tolerance=1e-5)
            took.append(run.settle_seconds)
    assert 0.5 * max(took) < estimate < 2.0 * max(took)


def joules(ledger: Ledger, component: str) -> float:
    return sum(
        amount for (_, _, name, event), amount in ledger.events.items() if event == "ohmic_joule" and name.startswith(component)
    )


@pytest.mark.parametrize("options", [{}, DEEP, TRANSFORMERS], ids=["none", "vcvs-cccs", "transformer"])
def test_the_ledger_charges_the_settling_time_with_the_power_at_rest(options: dict[str, Any]) -> None:
    """What is dissipated between two moments at the end of a transient is what the ledger charges for the time between."""
    options = {"bias": False, **REAL, **options, "saturation": 1e-8}
    probe = network(**options)
    inputs = some_batch(probe, size=1).inputs
    circuit, _ = chip_circuit(probe, inputs)
    early, late = (simulate_transient(circuit, FARADS, tolerance=tolerance) for tolerance in (1e-6, 1e-9))
    seconds = float(late.seconds[-1] - early.seconds[-1])
    chip = network(seconds_per_settle=seconds, **options)
    ledger = Ledger()
    chip.attach(ledger, "substrate")
    with ledger.phase("evaluate"):
        chip.settle(inputs, samples=np.arange(1), key=KEY, tolerance=1e-12)
    assert joules(ledger, "array weight") == pytest.approx(late.resistor_joules - early.resistor_joules, rel=1e-4)
    assert joules(ledger, "diodes") == pytest.approx(late.diode_joules - early.diode_joules, rel=1e-4)
    # one conversion in and one out besides
    assert ledger.total("second", "evaluate") == pytest.approx(seconds + 2e-7, rel=1e-12)
    if options.get("amplifier") or "gain" not in options:
        # charging the nodes of a passive network is on top of it
        assert late.resistor_joules > joules(ledger, "array weight") * late.seconds[-1] / seconds


def test_what_does_not_fit_a_chip_is_refused() -> None:
    chip = network(**REAL)
    data = some_batch(chip)
    with pytest.raises(InputError, match="inputs"):
        chip_circuit(chip, data.inputs[:, :3])
    with pytest.raises(InputError, match="expected 'mse'"):
        chip_circuit(chip, data.inputs, Nudge("cross_entropy", data.targets, 0.1))
    with pytest.raises(InputError, match="takes a real beta"):
        chip_circuit(chip, data.inputs, Nudge("mse", data.targets, 0.1j))
    with pytest.raises(InputError, match="tolerance is 0 V"):
        chip_settle_seconds(chip, data.inputs, FARADS, tolerance=0.0)
    with pytest.raises(InputError, match="farads is -1 F"):
        chip_settle_seconds(chip, data.inputs, -1.0, tolerance=1e-4)
    limit = float(chip.oracle().model.weights[-1].sum(axis=1).min())
    with pytest.raises(InputError, match="below which"):
        chip_settle_seconds(chip, data.inputs, FARADS, tolerance=1e-4, nudges=[Nudge("mse", data.targets, -limit)])
