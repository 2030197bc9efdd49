"""A spiking network from a graph of the Neuromorphic Intermediate Representation (NIR), ours or another's.

What is understood: one input, layers of LIF neurons each of which is reached from the layer before through any chain of `Linear`,
`Affine`, `Scale` and `Delay` nodes (or several chains, which add), and from itself the same way; a last layer of LIF or LI.
Weights are scaled by R dt/tau, v_leak dt/tau goes into the bias, unequal thresholds into the weights. `inmaterio.simulators.
nir_export` has the equations; a graph without our metadata fires strictly above its threshold.

dt is given by who reads: NIR itself has none. Where the graph says for which dt it was written, another one is refused.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.validation import InputError, check_range
from inmaterio.simulators.nir_export import import_nir_package
from inmaterio.simulators.nir_taps import Taps
from inmaterio.simulators.spiking_description import SpikingDescription
from inmaterio.simulators.spiking_values import Values

UNDERSTOOD = ("Input", "Output", "Linear", "Affine", "Scale", "Delay", "LIF", "LI")
CLOSE = 1e-9
"""Relative difference within which a tau belongs to a leak, and a delay to a whole number of steps."""


def read_nir(path: Path | str, *, dt: float, steps: int | None = None, **options: Any) -> tuple[SpikingDescription, Values]:
    """Read a network from a file of NIR. See `from_nir`.

    Raises
    ------
    InputError
        The file cannot be read; as `from_nir`.
    """
    nir = import_nir_package()
    if not Path(path).is_file():
        raise InputError(f"cannot read NIR from {path}: there is no such file; expected one that nir.write has made")
    try:
        graph = nir.read(Path(path))
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"cannot read NIR from {path}: {error}; expected a file that nir.write has made") from None
    return from_nir(graph, dt=dt, steps=steps, **options)


def from_nir(graph: Any, *, dt: float, steps: int | None = None, **options: Any) -> tuple[SpikingDescription, Values]:
    """Description and values of the network that a graph describes.

    Parameters
    ----------
    graph : nir.NIRGraph
    dt : float
        Seconds per step.
    steps : int, optional
        Steps of an input; by default what the graph's metadata say.
    **options
        Of `SpikingDescription`, in place of what the metadata say: `tail_steps`, `readout`, `dtype`, `max_delay`.

    Returns
    -------
    SpikingDescription
        Without any limit or error of hardware.
    dict of str to ndarray
        Every parameter by name.

    Raises
    ------
    InputError
        dt differs from that of the graph, or is longer than a time constant; a node or a shape that is not understood; delays
        that are no whole number of steps; leaks that differ within a layer or between hidden layers; a v_reset other than 0.
    """
    check_range("dt", dt, low=0.0, low_open=True, high_open=True, unit="s")
    metadata = dict(graph.metadata) if isinstance(graph.metadata, Mapping) else {}
    written = metadata.get("dt")
    if written is not None and abs(float(written) - dt) > CLOSE * dt:
        raise InputError(f"dt is {dt:g} s, and the graph was written for {float(written):g} s; expected the same")
    _check_nodes(graph)
    order = _layers(graph)
    threshold, strict, rescale = _thresholds(graph, order[1:])
    leaks: list[float] = []
    values: Values = {}
    width = int(np.prod(graph.nodes[order[0]].output_type["output"]))
    widths = [width]
    delayed: dict[str, NDArray[np.int64]] = {}
    recurrent: dict[int, NDArray[np.float64]] = {}
    for k, name in enumerate(order[1:], start=1):
        node = graph.nodes[name]
        forward, own = _projections(graph, name, order[k - 1], dt)
        leak, gain, offset = _euler(name, node, dt)
        leaks.append(leak)
        factor = rescale.get(name, np.ones(len(gain)))
        taps = forward.scaled(gain * factor)
        values[f"weight_{k}"], delayed[f"delay_{k}"] = taps.matrices(widths[-1], f"layer {name!r}")
        values[f"bias_{k}"] = taps.bias + offset * factor
        widths.append(len(gain))
        if own is not None:
            if own.bias.any():
                raise InputError(f"synapses of {name!r} onto itself have a bias; expected `Linear`")
            recurrent[k], delays = own.scaled(gain * factor).matrices(widths[-1], f"synapses of {name!r} onto itself")
            # a loop without a delay takes the step that every reader has to take
            delayed[f"recurrent_delay_{k}"] = np.maximum(delays - 1, 0)
    last = graph.nodes[order[-1]]
    layers = len(order) - 1
    if layers in recurrent:
        raise InputError(f"{order[-1]!r} is the last layer and has synapses onto itself; expected that of hidden layers only")
    for k in range(1, layers) if recurrent else ():
        empty = np.zeros((widths[k], widths[k]))
        values[f"recurrent_weight_{k}"] = recurrent.get(k, empty)
        delayed.setdefault(f"recurrent_delay_{k}", empty.astype(np.int64))
    kept = _kept(metadata, {"steps": steps, **options}, "spike-count" if type(last).__name__ == "LIF" else None)
    kind, delays_kept = _delays(delayed, values, metadata.get("delays"))
    longest = max((int(one.max(initial=0)) for one in delayed.values()), default=0)
    description = SpikingDescription(
        (widths[0] * kept["steps"], *widths[1:]),
        seconds_per_step=float(dt),
        delays=kind,
        recurrent=bool(recurrent),
        leak=_same("leak of hidden layers", leaks[:-1]) if layers > 1 else leaks[-1],
        output_leak=leaks[-1],
        threshold=threshold,
        strict=strict,
        **kept | {"max_delay": max(longest, int(kept.get("max_delay", 0)))},
    )
    return description, {name: (values | delays_kept)[name] for name in description.parameters()}


def _check_nodes(graph: Any) -> None:
    for name, node in graph.nodes.items():
        kind = type(node).__name__
        if kind == "IF":
            raise InputError(f"node {name!r} is an IF neuron, whose leak is 1; expected a LIF with a finite tau")
        if kind not in UNDERSTOOD:
            raise InputError(f"node {name!r} is a {kind}; expected one of {', '.join(UNDERSTOOD)}")


def _layers(graph: Any) -> list[str]:
    """Names of the input and of every layer of neurons, in the order in which they follow each other."""
    inputs = [name for name, node in graph.nodes.items() if type(node).__name__ == "Input"]
    outputs = [name for name, node in graph.nodes.items() if type(node).__name__ == "Output"]
    if len(inputs) != 1 or len(outputs) != 1:
        raise InputError(f"the graph has {len(inputs)} inputs and {len(outputs)} outputs; expected one of each")
    order, current = [inputs[0]], inputs[0]
    while True:
        found = sorted({end for end in _reached(graph, current) if end != current})
        if found == outputs:
            break
        if len(found) != 1 or found[0] in order or type(graph.nodes[found[0]]).__name__ == "Output":
            raise InputError(f"{current!r} leads to {found or 'nothing'}; expected one next layer, or the output")
        current = found[0]
        order.append(current)
    if len(order) == 1:
        raise InputError("the graph has no neurons; expected LIF layers between its input and its output")
    if (order[-1], outputs[0]) not in {(sender, to) for sender, to in graph.edges}:
        raise InputError(f"{order[-1]!r} leads to the output through other nodes; expected its neurons to be the output")
    for name in order[1:-1]:
        if type(graph.nodes[name]).__name__ == "LI":
            raise InputError(f"{name!r} is an LI before the last layer; expected LIF neurons, which spike")
    return order


def _reached(graph: Any, start: str) -> set[str]:
    """Neurons and outputs that chains from a node end at."""
    ends, open_nodes = set(), [to for sender, to in graph.edges if sender == start]
    seen: set[str] = set()
    while open_nodes:
        name = open_nodes.pop()
        if type(graph.nodes[name]).__name__ in ("LIF", "LI", "Output"):
            ends.add(name)
        elif name not in seen:
            seen.add(name)
            open_nodes += [to for sender, to in graph.edges if sender == name]
    return ends


def _projections(graph: Any, layer: str, before: str, dt: float) -> tuple[Taps, Taps | None]:
    """What a layer gets from the one before it and, if anything, from itself."""
    found: dict[str, Taps] = {}
    for end in (sender for sender, to in graph.edges if to == layer):
        chain, name = [], end
        while type(graph.nodes[name]).__name__ in ("Linear", "Affine", "Scale", "Delay"):
            chain.append(name)
            into = [sender for sender, to in graph.edges if to == name]
            if len(into) != 1 or len(chain) > len(graph.nodes):
                raise InputError(f"node {name!r} has inputs {into}; expected one, from the layer before")
            name = into[0]
        if name not in (before, layer):
            raise InputError(f"{layer!r} is reached from {name!r}; expected {before!r} or itself alone")
        taps = Taps.identity(int(np.prod(graph.nodes[name].output_type["output"])))
        for part in reversed(chain):
            taps = _followed(taps, part, graph.nodes[part], dt)
        found[name] = found[name].beside(taps) if name in found else taps
    return found[before], found.get(layer)


def _followed(taps: Taps, name: str, node: Any, dt: float) -> Taps:
    """Taps with one more node behind them."""
    kind = type(node).__name__
    if kind in ("Linear", "Affine"):
        if node.weight.ndim != 2:
            raise InputError(f"weights of node {name!r} have shape {node.weight.shape}; expected (to, from)")
        return taps.mapped(node.weight, node.bias if kind == "Affine" else 0.0)
    if kind == "Scale":
        return taps.scaled(node.scale)
    if taps.bias.any():
        raise InputError(f"node {name!r} delays a bias; expected `Delay` in front of `Affine`")
    steps = np.asarray(node.delay, dtype=np.float64) / dt
    whole = np.rint(steps)
    off = (np.abs(steps - whole) > CLOSE * np.maximum(whole, 1.0)) | (whole < 0)
    if off.any():
        first = int(np.argmax(off))
        raise InputError(
            f"delay {first} of node {name!r} is {float(node.delay[first]):g} s, {steps[first]:g} steps of {dt:g} s; "
            "expected a whole number of steps, 0 or more"
        )
    return taps.delayed(whole.astype(np.int64))


def _euler(name: str, node: Any, dt: float) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Leak of a layer, gain R dt/tau of each neuron, and what v_leak adds to each drive."""
    tau = np.asarray(node.tau, dtype=np.float64)
    if (short := tau < dt).any():
        raise InputError(f"dt is {dt:g} s and tau of {name!r} is {float(tau[short][0]):g} s; expected dt of at most tau")
    leak = _same(f"leak 1 - dt/tau of {name!r}", list(1.0 - dt / tau))
    kept = node.metadata.get("leak")
    if kept is not None:
        if abs(float(kept) - leak) > CLOSE:
            raise InputError(f"{name!r}: tau gives a leak of {leak:g} and the metadata say {float(kept):g}; expected the same")
        leak = float(kept)
    gain = np.asarray(node.r, dtype=np.float64) * dt / tau
    # what is 1 but for the rounding of tau and R is 1
    gain = np.where(np.abs(gain - 1.0) < 1e-14, 1.0, gain)
    return leak, gain, np.asarray(node.v_leak, dtype=np.float64) * dt / tau


def _thresholds(graph: Any, names: Sequence[str]) -> tuple[float, bool, dict[str, NDArray[np.float64]]]:
    """The one threshold of all neurons and whether it is strict; where thresholds differ, 1 and what scales each drive."""
    found, meant = {}, set()
    for name in names:
        node = graph.nodes[name]
        if type(node).__name__ == "LI":
            continue
        if np.any(reset := np.asarray(node.v_reset)):
            raise InputError(f"v_reset of {name!r} is {float(reset[reset != 0][0]):g}; expected 0")
        found[name] = np.asarray(node.v_threshold, dtype=np.float64)
        if (found[name] <= 0).any():
            raise InputError(f"v_threshold of {name!r} is {float(found[name].min()):g}; expected more than 0")
        if not node.metadata.get("strict", 1):
            threshold = float(node.metadata["threshold"])
            # the next lower number in float64 or in float32
            if (np.abs(found[name] - threshold) > 2.0**-23 * threshold).any():
                raise InputError(
                    f"v_threshold of {name!r} is {float(found[name][0]):.9g} and the metadata name {threshold:.9g}, "
                    "on which it fires; expected the number below that"
                )
            meant.add(threshold)
    if meant:
        if len(meant) > 1 or any(graph.nodes[name].metadata.get("strict", 1) for name in found):
            raise InputError(f"some neurons fire on their threshold, {sorted(meant)}, others not; expected one rule for all")
        return meant.pop(), False, {}
    different = sorted({float(one) for all_of in found.values() for one in all_of})
    if len(different) == 1:
        return different[0], True, {}
    return 1.0, True, {name: 1.0 / thresholds for name, thresholds in found.items()}


def _same(name: str, numbers: list[float]) -> float:
    if max(numbers) - min(numbers) > CLOSE:
        raise InputError(f"{name} goes from {min(numbers):g} to {max(numbers):g}; expected one for all")
    return float(numbers[0])


def _kept(metadata: Mapping[str, Any], given: Mapping[str, Any], readout: str | None) -> dict[str, Any]:
    """Options that a graph has no place for: what is given, else what its metadata say."""
    kept = {name: metadata[name] for name in ("steps", "tail_steps", "max_delay", "readout", "dtype") if name in metadata}
    kept = {name: one if isinstance(one, str) else int(one) for name, one in kept.items()}
    kept |= {name: one for name, one in given.items() if one is not None}
    if readout is not None:
        kept["readout"] = readout
    if "steps" not in kept:
        raise InputError("steps is not given and the graph's metadata have none; expected the number of steps of an input")
    return kept


def _delays(
    delayed: Mapping[str, NDArray[np.int64]], values: Values, wanted: str | None
) -> tuple[str, dict[str, NDArray[np.float64]]]:
    """The kind of delays, the plainest that holds them or the one that the graph names, and their values."""
    axonal = {}
    for name, delay in delayed.items():
        weight = values[name.replace("delay", "weight")]
        joined = np.where(weight != 0.0, delay, -1)
        sent = joined.max(axis=0, initial=-1)
        if ((joined >= 0) & (joined != sent)).any():
            break
        axonal[name] = np.maximum(sent, 0)
    fits = ["none"] if not any(one.any() for one in delayed.values()) else []
    fits += ["axonal"] if len(axonal) == len(delayed) else []
    kind = wanted if wanted in (*fits, "synaptic") else (*fits, "synaptic")[0]
    chosen = {"none": {}, "axonal": axonal, "synaptic": delayed}[kind]
    return kind, {name: one.astype(np.float64) for name, one in chosen.items()}
