"""Reference: equilibrium propagation in plain torch, without autograd, every drive recomputed at every step.

The same map as in ``reference_phi_autograd.py`` written out by hand,

    s^l <- sigma(W_l s^{l-1} + b_l + W_{l+1}^T s^{l+1} - [l = L] beta (s^L - y)),  all layers at once,

including W_1 x, which no step changes. The gradient is the centred difference of the products of activities.

Source of the equations: M. Ernoult, J. Grollier, D. Querlioz, Y. Bengio, B. Scellier, "Updates of equilibrium prop match
gradients of backprop through time in an RNN with static input", NeurIPS 2019; nudge inside the activation as in
``reference_phi_autograd.py``.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


def relax(
    parameters: Mapping[str, Tensor], inputs: Tensor, states: list[Tensor], targets: Tensor, beta: float, steps: int
) -> list[Tensor]:
    """States after `steps` synchronous updates from `states`, each (batch, width)."""
    last = len(states)
    for _ in range(steps):
        layers = [inputs, *states]
        states = []
        for depth in range(1, last + 1):
            drive = torch.matmul(layers[depth - 1], parameters[f"weight_{depth}"].T) + parameters[f"bias_{depth}"]
            if depth < last:
                drive = drive + torch.matmul(layers[depth + 1], parameters[f"weight_{depth + 1}"])
            elif beta != 0.0:
                drive = drive - beta * (layers[depth] - targets)
            states.append(torch.sigmoid(4.0 * drive - 2.0))
    return states


def gradient(
    parameters: Mapping[str, Tensor], inputs: Tensor, targets: Tensor, *, beta: float, free_steps: int, nudged_steps: int
) -> dict[str, Tensor]:
    """Centred estimate of the gradient of the batch-mean loss, per parameter; arguments of the other reference."""
    with torch.no_grad():
        widths = [len(value) for name, value in parameters.items() if name.startswith("weight_")]
        rest = [torch.zeros(len(inputs), width, dtype=inputs.dtype) for width in widths]
        free = relax(parameters, inputs, rest, targets, 0.0, free_steps)
        positive = [inputs, *relax(parameters, inputs, free, targets, beta, nudged_steps)]
        negative = [inputs, *relax(parameters, inputs, free, targets, -beta, nudged_steps)]
        estimates = {}
        scale = 1.0 / (2.0 * beta * len(inputs))
        for depth in range(1, len(positive)):
            estimates[f"weight_{depth}"] = scale * (
                torch.matmul(negative[depth].T, negative[depth - 1]) - torch.matmul(positive[depth].T, positive[depth - 1])
            )
            estimates[f"bias_{depth}"] = scale * (negative[depth] - positive[depth]).sum(dim=0)
        return {name: estimates[name] for name in parameters}
