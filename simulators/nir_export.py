"""A spiking network as a graph of the Neuromorphic Intermediate Representation (NIR), and in its files.

NIR is continuous in time: tau dv/dt = (v_leak - v) + R I; a neuron fires where v > v_threshold and goes to v_reset; a delay is
y(t) = x(t - tau), per channel. Its readers take Euler steps of a length dt of their own,

    v[t] = (1 - dt/tau) v[t-1] + (R dt/tau) I[t],

which is this package's neuron with leak = 1 - dt/tau and R = tau/dt. What that takes:

**Delays.** One per sender is a `Delay` node in front of the weights. One per synapse is a fan-out: a `Linear` that copies each
sender once for each of the delays it has, a `Delay`, and the weights. The delay of a synapse without weight is not kept. A
layer's own spikes go through a `Delay` of 1 + d steps, since a loop without one has no meaning in NIR.

**Threshold.** NIR fires above its threshold, never on it. A network that fires on it is written with the next lower number that
its dtype has, which fires for exactly the same membranes; what it was stands in the metadata of the node.

**Leak.** Of the numbers near dt/(1 - leak) one is taken as tau, and one as R, for which 1 - dt/tau and R dt/tau come out as leak
and 1 in float64. Where there is none (leaks below a half have more digits than 1 - dt/tau can hold) tau is dt/(1 - leak), other
readers are off by a rounding, and the metadata of the node hold the leak itself, which `inmaterio.simulators.nir_import` takes.

Source: Pedersen et al., "Neuromorphic intermediate representation", Nature Communications 2024, and the package ``nir`` 1.0.8,
which is imported only when it is asked for.
"""

import importlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.validation import InputError
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.spiking_description import SpikingDescription
from inmaterio.simulators.spiking_values import Values, checked_values, refuse_unmapped

NOT_IN_NIR = {"refractory_steps": "its neurons have no refractory time"}


def to_nir(description: SpikingDescription, values: Mapping[str, Array]) -> Any:
    """The network as a ``nir.NIRGraph``; its dt is `seconds_per_step`.

    Nodes: ``input``, ``weight_k``, ``layer_k`` (LIF, the last LI where it does not spike), ``output``, and where they are
    needed ``fanout_k``, ``delay_k``, ``recurrent_fanout_k``, ``recurrent_delay_k``, ``recurrent_weight_k``.

    Parameters
    ----------
    description : SpikingDescription
    values : mapping of str to ndarray
        See `inmaterio.simulators.spiking_values.checked_values`.

    Raises
    ------
    InputError
        The package nir is not installed; a soft reset, a refractory time or errors of a chip, which NIR has no counterpart
        for; values that do not fit the description.
    """
    refuse_unmapped(description, "NIR", more=NOT_IN_NIR)
    if description.reset == "soft":
        raise InputError("reset is 'soft', which NIR has no counterpart for (its neurons go to v_reset); expected 'hard'")
    held = checked_values(description, values)
    nir = import_nir_package()
    nodes: dict[str, Any] = {"input": nir.Input(input_type={"input": np.array([description.channels])})}
    edges: list[tuple[str, str]] = []
    last, sender = len(description.widths) - 1, "input"
    for k, width in enumerate(description.widths[1:], start=1):
        layer = f"layer_{k}"
        nodes[layer] = _neurons(nir, description, width, k == last)
        _projection(nir, description, held, f"{{}}_{k}", sender, layer, nodes, edges)
        if description.recurrent and k < last:
            _projection(nir, description, held, f"recurrent_{{}}_{k}", layer, layer, nodes, edges)
        sender = layer
    nodes["output"] = nir.Output(output_type={"output": np.array([description.widths[-1]])})
    edges.append((sender, "output"))
    return nir.NIRGraph(nodes=nodes, edges=edges, metadata=_metadata(description))


def write_nir(path: Path | str, description: SpikingDescription, values: Mapping[str, Array]) -> None:
    """Write the network to a file of NIR (HDF5). See `to_nir`.

    Raises
    ------
    InputError
        As `to_nir`, or when the file cannot be written.
    """
    graph = to_nir(description, values)
    try:
        import_nir_package().write(Path(path), graph)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"cannot write NIR to {path}: {reason}; expected a place in a folder that is there") from None


def import_nir_package() -> Any:
    """The package nir, imported when it is first needed."""
    try:
        return importlib.import_module("nir")
    except ImportError as error:
        raise InputError(f"nir cannot be imported ({error}); expected it installed: pip install 'inmaterio[spiking]'") from None


def euler_constants(leak: float, dt: float) -> tuple[float, float]:
    """tau (s) and R (dimensionless) for which 1 - dt/tau and R dt/tau are, in float64, leak and 1 where such numbers exist.

    Parameters
    ----------
    leak : float
        In [0, 1).
    dt : float
        Seconds, > 0.

    Returns
    -------
    tuple of float
        dt/(1 - leak) and 1/(1 - leak) to a few units in the last place.
    """
    tau = dt / (1.0 - leak)
    for candidate in _near(tau, 64):
        if 1.0 - dt / candidate == leak:
            for r in _near(candidate / dt, 8):
                if r * dt / candidate == 1.0 and r * (dt / candidate) == 1.0:
                    return candidate, r
    return tau, tau / dt


def nir_threshold(description: SpikingDescription) -> float:
    """The number above which a neuron fires exactly where one of this description does."""
    kind = np.dtype(description.dtype).type
    threshold = kind(description.threshold)
    return float(threshold if description.strict else np.nextafter(threshold, kind(-np.inf)))


def _near(value: float, count: int) -> list[float]:
    """The number and `count` neighbours on each side, nearest first."""
    found, below, above = [value], value, value
    for _ in range(count):
        below, above = math.nextafter(below, 0.0), math.nextafter(above, math.inf)
        found += [below, above]
    return found


def _neurons(nir: Any, description: SpikingDescription, width: int, last: bool) -> Any:
    leak = description.held_leak(description.output_leak if last else description.leak)
    tau, r = euler_constants(leak, description.seconds_per_step)
    common = {"tau": np.full(width, tau), "r": np.full(width, r), "v_leak": np.zeros(width)}
    if last and not description.spiking_outputs:
        return nir.LI(**common, metadata={"leak": leak})
    return nir.LIF(
        **common,
        v_threshold=np.full(width, nir_threshold(description)),
        v_reset=np.zeros(width),
        metadata={"leak": leak, "threshold": float(description.threshold), "strict": int(description.strict)},
    )


def _projection(
    nir: Any,
    description: SpikingDescription,
    held: Values,
    names: str,
    sender: str,
    to: str,
    nodes: dict[str, Any],
    edges: list[tuple[str, str]],
) -> None:
    """The nodes that carry one coupling, and the edges that join them."""
    weight = held[names.format("weight")]
    recurrent = sender == to
    chain: dict[str, Any] = {}
    if description.delays == "synaptic":
        fanout, steps, weight = fan_out(weight, held[names.format("delay")])
        chain[names.format("fanout")] = nir.Linear(weight=fanout)
    elif description.delays == "axonal":
        steps = held[names.format("delay")]
    else:
        steps = np.zeros(weight.shape[1])
    if description.delays != "none" or recurrent:
        chain[names.format("delay")] = nir.Delay(delay=(steps + recurrent) * description.seconds_per_step)
    bias = None if recurrent else held[names.format("bias")]
    plain = bias is None or not bias.any()
    chain[names.format("weight")] = nir.Linear(weight=weight) if plain else nir.Affine(weight=weight, bias=bias)
    nodes.update(chain)
    path = [sender, *chain, to]
    edges.extend(zip(path, path[1:], strict=False))


def fan_out(
    weight: NDArray[np.float64], delay: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Delays per synapse as copies of each sender, one for every delay it has.

    Parameters
    ----------
    weight, delay : ndarray, shape (to, from)

    Returns
    -------
    fanout : ndarray, shape (copies, from)
        One 1 in each row.
    steps : ndarray, shape (copies,)
    spread : ndarray, shape (to, copies)
        The weights, each at the copy with its delay.
    """
    to, sender = np.nonzero(weight)
    pairs = np.stack((sender, delay[to, sender].astype(np.int64)), axis=1)
    # a coupling without any weight still needs a row
    distinct, copy = np.unique(pairs, axis=0, return_inverse=True) if len(pairs) else (np.zeros((1, 2), dtype=np.int64), to)
    fanout = np.zeros((len(distinct), weight.shape[1]))
    fanout[np.arange(len(distinct)), distinct[:, 0]] = 1.0
    spread = np.zeros((len(weight), len(distinct)))
    spread[to, copy.ravel()] = weight[to, sender]
    return fanout, distinct[:, 1].astype(np.float64), spread


def _metadata(description: SpikingDescription) -> dict[str, Any]:
    """What the graph itself has no place for."""
    names = ("steps", "tail_steps", "delays", "max_delay", "readout", "dtype")
    return {"dt": float(description.seconds_per_step)} | {name: getattr(description, name) for name in names}
