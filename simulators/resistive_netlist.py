"""A resistive network as a SPICE netlist, and ngspice as an independent engine that solves it.

Names: ``s3`` is source 3, ``n2_5`` node 5 of layer 2, ``a2_5`` the output of its amplifier; layers count from 1, nodes from 0. An
amplifier of gain A that takes R amperes for each that it gives is a voltage-controlled voltage source A behind a 0 V source,
which measures its current, and a current-controlled current source R from its input to ground. Bias currents are current sources,
and a nudge is a voltage-controlled current source towards a target, so that it may be negative.

At a reverse voltage u beyond 3 n Vt, with Vt = k T / q, ngspice 39 takes the current of a diode to be Is (1 - (3 n Vt / (e u))^3)
instead of Is (1 - exp(-u / (n Vt))): the two differ by up to 0.005 Is, and voltages by that times the resistance a node sees.
"""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np

from inmaterio.devices.validation import InputError, check_array, check_range
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.resistive_description import NudgingCurrents, ResistiveCircuit
from inmaterio.simulators.resistive_grounding import check_grounded

NGSPICE_BOLTZMANN_OVER_CHARGE = 1.38064852e-23 / 1.6021766208e-19
"""k/q in volts per kelvin that ngspice 39 computes with (CODATA 2014), so that n can be chosen to give the same n k T / q."""

NGSPICE_TEMPERATURE = 300.15
"""Temperature of the netlist in kelvin: 27 degrees Celsius, the default of SPICE."""


def export_netlist(
    circuit: ResistiveCircuit,
    nudge: NudgingCurrents | None = None,
    *,
    sample: int = 0,
    slope_volts: float | None = None,
    junction_siemens: float = 1e-15,
    title: str = "nonlinear resistive network",
) -> str:
    """Netlist of a circuit with the sources of one sample, its operating point and the printing of all node voltages.

    Parameters
    ----------
    circuit : ResistiveCircuit
        Conductances of zero are left out, and so are amplifiers that drive nothing.
    nudge : NudgingCurrents, optional
    sample : int
        Which row of the sources, and of the nudge's target.
    slope_volts : float, optional
        n k T / q of the diodes in volts; the circuit's own where it is not given. Ideal diodes are the limit 0.
    junction_siemens : float
        The option ``gmin``: a conductance that SPICE puts beside every diode, in siemens.
    title : str
        First line: one line of printable characters.

    Returns
    -------
    str
        The netlist, ending in ``.end``.

    Raises
    ------
    InputError
        When there is no such sample, a node floats, or a number is out of range.
    """
    batch, sources = np.shape(circuit.sources)
    check_range("sample", sample, low=0, high=batch - 1)
    slope = check_range(
        "slope_volts", circuit.slope_volts if slope_volts is None else slope_volts, low=0.0, low_open=True, unit="V"
    )
    check_range("saturation", circuit.saturation, low=0.0, low_open=True, unit="A")
    check_range("junction_siemens", junction_siemens, low=0.0, low_open=True, high=1.0, unit="S")
    if not title.isprintable():
        raise InputError(f"the title is {title!r}; expected one line of printable characters")
    check_grounded(circuit)
    emission = slope / (NGSPICE_BOLTZMANN_OVER_CHARGE * NGSPICE_TEMPERATURE)
    lines = [f"* {title}"]
    lines += [f"V{j} s{j} 0 DC {np.float64(circuit.sources[sample, j])!s}" for j in range(sources)]
    for k, conductance in enumerate(circuit.conductances, start=1):
        below = _amplifiers(circuit, k, lines)
        for i, j in np.argwhere(conductance):
            lines.append(f"R{k}_{i}_{j} {below}{j} n{k}_{i} {1.0 / np.float64(conductance[i, j])!s}")
        for i, current in enumerate(circuit.currents[k - 1]):
            if current != 0.0:
                lines.append(f"I{k}_{i} 0 n{k}_{i} DC {np.float64(current)!s}")
        for i, sign in enumerate(circuit.diodes[k - 1]):
            if sign != 0:
                lines.append(f"D{k}_{i} 0 n{k}_{i} junction" if sign > 0 else f"D{k}_{i} n{k}_{i} 0 junction")
    if nudge is not None:
        layer = len(circuit.conductances)
        target = check_array("target of the nudge", nudge.volts, shape=(batch, len(circuit.currents[-1])), unit="V")
        for i, wanted in enumerate(target[sample]):
            lines.append(f"V_target{i} t{i} 0 DC {np.float64(wanted)!s}")
            lines.append(f"G_nudge{i} n{layer}_{i} 0 n{layer}_{i} t{i} {float(nudge.siemens)!r}")
    celsius = NGSPICE_TEMPERATURE - 273.15
    lines += [
        f".model junction D(IS={float(circuit.saturation)!r} N={float(emission)!r})",
        f".options reltol=1e-9 abstol=1e-18 vntol=1e-12 gmin={float(junction_siemens)!r}",
        f".options temp={celsius:g} tnom={celsius:g} itl1=1000",
        ".control",
        "set numdgt=16",
        "op",
        "print all",
        ".endc",
        ".end",
    ]
    return "\n".join(lines) + "\n"


def _amplifiers(circuit: ResistiveCircuit, layer: int, lines: list[str]) -> str:
    """Add the amplifiers before a layer; return what the names of the nodes that drive it begin with."""
    if layer == 1:
        return "s"
    gain, taken = float(circuit.gains[layer - 1]), float(circuit.returns[layer - 1])
    if gain == 1.0 and taken == 1.0:
        return f"n{layer - 1}_"
    for j in np.flatnonzero(circuit.conductances[layer - 1].any(axis=0)):
        name = f"{layer - 1}_{j}"
        lines.append(f"E{name} e{name} 0 n{name} 0 {gain!r}")
        lines.append(f"V_sense{name} e{name} a{name} DC 0")
        lines.append(f"F{name} n{name} 0 V_sense{name} {taken!r}")
    return f"a{layer - 1}_"


def run_ngspice(netlist: str, *, program: str | Path = "ngspice", timeout: float = 600.0) -> dict[str, float]:
    """Operating point of a netlist as ``ngspice -b`` finds it.

    Parameters
    ----------
    netlist : str
        As from `export_netlist`: it prints all node voltages itself.
    program : str or Path
        Name or path of ngspice.
    timeout : float
        Seconds after which it is stopped.

    Returns
    -------
    dict of str to float
        Voltage of every node, and current through every voltage source (``v0#branch``), by name in lower case.

    Raises
    ------
    InputError
        When the program is not there, is stopped, or finds no operating point; with its own words.
    """
    found = shutil.which(program)
    if found is None:
        raise InputError(f"ngspice is expected at {str(program)!r}, where there is no program; the system package ngspice has it")
    try:
        done = subprocess.run([found, "-b", "-n"], input=netlist, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"ngspice found no operating point within {timeout:g} s; a smaller circuit or a longer timeout helps"
        ) from error
    voltages = {name.lower(): float(value) for name, value in re.findall(r"^(\S+) = (\S+)\s*$", done.stdout, flags=re.MULTILINE)}
    said = done.stdout + done.stderr
    # a failed step of gmin is no failure where another method finds the point after it; a pseudo-transient is not exact enough
    if not voltages or re.search(r"(?i)aborted|interrupted|DC solution failed|source stepping failed", said):
        words = re.findall(r"(?im)^.*(?:error|could not|singular|failed|aborted).*$", said)
        heard = "; ".join(dict.fromkeys(line.strip() for line in words[:3])) or "it printed no voltage"
        raise InputError(f"ngspice found no operating point: {heard}")
    return voltages


def layer_volts(voltages: dict[str, float], circuit: ResistiveCircuit) -> tuple[Array, ...]:
    """Node voltages of each layer, (n_k,) each, out of what `run_ngspice` returns for this circuit."""
    return tuple(
        np.array([voltages[f"n{k}_{i}"] for i in range(len(current))]) for k, current in enumerate(circuit.currents, start=1)
    )
