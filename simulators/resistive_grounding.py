"""Whether conductances join every node of a resistive network to a source.

A node that none joins has no voltage of its own: it floats, or what its diode leaks decides.
"""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from inmaterio.devices.validation import InputError
from inmaterio.simulators.resistive_description import ResistiveCircuit


def check_grounded(circuit: ResistiveCircuit) -> None:
    """See that conductances join every node to a source, if need be through other nodes.

    Raises
    ------
    InputError
        Naming a node whose voltage nothing but diodes and currents would determine.
    """
    if all(np.any(conductance, axis=1).all() for conductance in circuit.conductances):
        return  # every node hangs on one of the layer below
    widths = [np.shape(circuit.sources)[1], *(len(current) for current in circuit.currents)]
    first = np.cumsum([0, *widths])
    ends = [np.argwhere(conductance) for conductance in circuit.conductances]
    rows = np.concatenate([found[:, 0] + first[k + 1] for k, found in enumerate(ends)])
    columns = np.concatenate([found[:, 1] + first[k] for k, found in enumerate(ends)])
    # all sources are one node of the graph: each holds its voltage against ground
    columns = np.where(columns < first[1], 0, columns)
    joined = coo_array((np.ones(rows.size), (rows, columns)), shape=(first[-1], first[-1]))
    labels = connected_components(joined, directed=False)[1]
    floating = np.flatnonzero(labels[first[1] :] != labels[0])
    if floating.size:
        place = int(floating[0]) + int(first[1])
        layer = int(np.searchsorted(first, place, side="right")) - 1
        raise InputError(
            f"node {place - first[layer]} of layer {layer} floats: no conductance joins it to a source, directly or through "
            "other nodes; expected a conductance above 0 S"
        )
