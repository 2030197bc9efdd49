"""The circuit that one chip of a resistive network is, for netlists, transients and settling times.

``export_netlist(*chip_circuit(network, inputs))`` is its netlist, with the conductances that its devices really hold.
"""

from collections.abc import Sequence

import numpy as np

from inmaterio.devices.validation import InputError, check_array, check_range
from inmaterio.simulators.capabilities import Array, Nudge
from inmaterio.simulators.resistive_description import NudgingCurrents, ResistiveCircuit
from inmaterio.simulators.resistive_model import check_loss
from inmaterio.simulators.resistive_network import ResistiveNetwork
from inmaterio.simulators.resistive_settling_time import estimate_settle_seconds


def chip_circuit(
    network: ResistiveNetwork, inputs: Array, nudge: Nudge | None = None
) -> tuple[ResistiveCircuit, NudgingCurrents | None]:
    """Circuit of a chip with inputs applied, and the currents of a nudge, in SI units.

    Parameters
    ----------
    network : ResistiveNetwork
    inputs : ndarray, shape (batch, n_0)
        In units of `input_volts`; converted as the chip does, without noise.
    nudge : Nudge, optional
        As `ResistiveNetwork.settle` takes it.

    Returns
    -------
    circuit : ResistiveCircuit
    currents : NudgingCurrents or None

    Raises
    ------
    InputError
        When shapes do not fit, the loss of the nudge is not mse, or its beta is complex.
    """
    description, oracle = network.description, network.oracle()
    given = check_array("inputs", inputs, shape=(None, description.widths[0]), unit="1")
    circuit = oracle.model.circuit(oracle.driven(given))
    if nudge is None:
        return circuit, None
    check_loss(nudge.loss)
    if isinstance(nudge.beta, complex):
        raise InputError(f"beta is {nudge.beta}; this network has real states and takes a real beta")
    target = check_array("target", nudge.target, shape=(len(given), description.widths[-1]))
    volts = np.asarray(target, dtype=np.float64) * description.volts_per_output
    return circuit, NudgingCurrents(float(nudge.beta) * description.siemens_unit, volts)


def chip_settle_seconds(
    network: ResistiveNetwork,
    inputs: Array,
    farads: float | tuple[Array, ...],
    *,
    tolerance: float,
    nudges: Sequence[Nudge] = (),
) -> float:
    """Time in which every sample of a probe batch settles: a figure for `ResistiveDescription.seconds_per_settle`.

    Parameters
    ----------
    network : ResistiveNetwork
    inputs : ndarray, shape (batch, n_0)
    farads : float or tuple of ndarray, each (n_k,)
        Capacitance of every node, in farads.
    tolerance : float
        In volts; the resolution of the converters of states, or what a nudge moves.
    nudges : sequence of Nudge
        Those of the nudged phases, which begin at the free state.

    Returns
    -------
    float
        The largest of `estimate_settle_seconds` over the free phase, from 0 V, and the nudged ones.

    Raises
    ------
    InputError
        When shapes do not fit or a phase does not settle.
    """
    check_range("tolerance", tolerance, low=0.0, low_open=True, unit="V")
    description, oracle = network.description, network.oracle()
    driven = oracle.driven(inputs)
    longest, free = 0.0, None
    for nudge in (None, *nudges):
        circuit, currents = chip_circuit(network, inputs, nudge)
        beta, target = (0.0, None) if nudge is None else (float(np.real(nudge.beta)), nudge.target)
        volts = tuple(layer * description.volts_per_output for layer in oracle.model.settle(driven, beta=beta, target=target))
        seconds = estimate_settle_seconds(
            circuit, farads, volts, currents, tolerance=tolerance, start=free, diode=description.diode
        )
        longest = max(longest, float(seconds.max()))
        free = volts if nudge is None else free
    return longest
