"""A reader of NIR of a few lines, after the definitions of its nodes and nothing else.

It knows no metadata. Euler steps of dt: v = (1 - dt/tau) v + (R dt/tau) I + (dt/tau) v_leak; a neuron fires where v > v_threshold
and goes to v_reset; a `Delay` shows what came in so many steps ago; what several edges bring is added. Within a step nodes are
worked off in an order in which only a `Delay` of a step or more may be read before it is written.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def run_plain_nir(graph: Any, inputs: NDArray[np.float64], dt: float) -> dict[str, NDArray[np.float64]]:
    """What every node puts out, (steps, width) by name, and ``NAME.v`` of neurons before any reset. inputs: (steps, channels)."""
    steps = len(inputs)
    kinds = {name: type(node).__name__ for name, node in graph.nodes.items()}
    sources = {name: [sender for sender, to in graph.edges if to == name] for name in graph.nodes}
    late = {name: np.rint(node.delay / dt).astype(int) for name, node in graph.nodes.items() if kinds[name] == "Delay"}
    order: list[str] = []
    while len(order) < len(graph.nodes):
        ready = [
            n for n in graph.nodes if n not in order and (set(sources[n]) <= set(order) or (n in late and late[n].min() > 0))
        ]
        assert ready, "a loop without a delay"
        order.append(ready[0])
    width = {name: int(np.prod(next(iter(node.output_type.values())))) for name, node in graph.nodes.items()}
    out = {name: np.zeros((steps, width[name])) for name in graph.nodes}
    out |= {f"{name}.v": np.zeros((steps, width[name])) for name in graph.nodes if kinds[name] in ("LIF", "LI")}
    v = {name: np.zeros(width[name]) for name in graph.nodes if kinds[name] in ("LIF", "LI")}
    for t in range(steps):
        for name in order:
            node, kind = graph.nodes[name], kinds[name]
            if kind == "Delay":
                before = t - late[name]
                out[name][t] = sum(np.where(before >= 0, out[s][before, np.arange(width[name])], 0.0) for s in sources[name])
                continue
            came = inputs[t] if kind == "Input" else np.sum([out[sender][t] for sender in sources[name]], axis=0)
            if kind in ("Linear", "Affine"):
                came = node.weight @ came + (node.bias if kind == "Affine" else 0.0)
            elif kind in ("LIF", "LI"):
                came = (1.0 - dt / node.tau) * v[name] + (node.r * dt / node.tau) * came + dt / node.tau * node.v_leak
                v[name] = out[f"{name}.v"][t] = came
                if kind == "LIF":
                    came = (v[name] > node.v_threshold).astype(float)
                    v[name] = np.where(came > 0, node.v_reset, v[name])
            else:
                assert kind in ("Input", "Output")
            out[name][t] = came
    return out
