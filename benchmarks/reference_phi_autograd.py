"""Reference: equilibrium propagation by differentiating the primitive function Phi with torch autograd at every step.

This is the form most published code of the prototypical setting takes. With states s^0 = x (clamped), s^1 ... s^L,

    Phi(x, s) = sum_l s^{l+1}^T (W_{l+1} s^l + b_{l+1}),        C = 1/2 |s^L - y|^2,
    s^l <- sigma(dPhi/ds^l - beta dC/ds^l),  all layers at once,  sigma(z) = 1 / (1 + exp(2 - 4 z)),

and the estimated gradient of the batch-mean loss is -(dPhi/dtheta(s_+beta) - dPhi/dtheta(s_-beta)) / (2 beta), both
nudged phases starting from the free state.

Source of the equations: A. Laborieux, M. Ernoult, B. Scellier, Y. Bengio, J. Grollier, D. Querlioz, "Scaling equilibrium
propagation to deep ConvNets by drastically reducing its gradient estimator bias", Front. Neurosci. 15, 633674 (2021).
"""

from collections.abc import Mapping

import torch
from torch import Tensor


def primitive_function(
    parameters: Mapping[str, Tensor], inputs: Tensor, states: list[Tensor], targets: Tensor, beta: float
) -> Tensor:
    """Phi - beta C of every sample, shape (batch,)."""
    layers = [inputs, *states]
    phi = torch.zeros(len(inputs), dtype=inputs.dtype)
    for depth in range(1, len(layers)):
        drive = torch.nn.functional.linear(layers[depth - 1], parameters[f"weight_{depth}"], parameters[f"bias_{depth}"])
        phi = phi + (drive * layers[depth]).sum(dim=1)
    if beta != 0.0:
        phi = phi - beta * 0.5 * ((layers[-1] - targets) ** 2).sum(dim=1)
    return phi


def relax(
    parameters: Mapping[str, Tensor], inputs: Tensor, states: list[Tensor], targets: Tensor, beta: float, steps: int
) -> list[Tensor]:
    """States after `steps` synchronous updates from `states`, each (batch, width)."""
    for _ in range(steps):
        states = [state.detach().requires_grad_() for state in states]
        phi = primitive_function(parameters, inputs, states, targets, beta)
        slopes = torch.autograd.grad(phi.sum(), states)
        states = [torch.sigmoid(4.0 * slope - 2.0) for slope in slopes]
    return [state.detach() for state in states]


def gradient(
    parameters: Mapping[str, Tensor], inputs: Tensor, targets: Tensor, *, beta: float, free_steps: int, nudged_steps: int
) -> dict[str, Tensor]:
    """Centred estimate of the gradient of the batch-mean loss, per parameter.

    Parameters
    ----------
    parameters : mapping of str to Tensor
        ``weight_k`` of shape (n_k, n_{k-1}) and ``bias_k`` of shape (n_k,), k = 1 ... L, none requiring a gradient.
    inputs : Tensor, shape (batch, n_0)
    targets : Tensor, shape (batch, n_L)
    beta : float
        Strength of the nudge, used with both signs.
    free_steps, nudged_steps : int
        Synchronous updates of the free phase, and of each nudged phase.

    Returns
    -------
    dict of str to Tensor
        Shapes as in `parameters`.
    """
    learned = {name: value.detach().clone().requires_grad_() for name, value in parameters.items()}
    widths = [len(value) for name, value in learned.items() if name.startswith("weight_")]
    rest = [torch.zeros(len(inputs), width, dtype=inputs.dtype) for width in widths]
    free = relax(learned, inputs, rest, targets, 0.0, free_steps)
    positive = relax(learned, inputs, free, targets, beta, nudged_steps)
    negative = relax(learned, inputs, free, targets, -beta, nudged_steps)
    contrast = (
        primitive_function(learned, inputs, negative, targets, 0.0).mean()
        - primitive_function(learned, inputs, positive, targets, 0.0).mean()
    ) / (2.0 * beta)
    return dict(zip(learned, torch.autograd.grad(contrast, list(learned.values())), strict=True))
