"""The differentiable model of a nonlinear resistive network, with the values that were asked for of its devices."""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.resistive_description import ResistiveDescription
from inmaterio.simulators.resistive_model import ResistiveModel

ADJOINT_SWEEPS = 40
"""Sweeps the twin makes for the adjoint."""


def make_twin(description: ResistiveDescription, values: Mapping[str, Array]) -> Any:
    """A ``torch.nn.Module`` that comes to the same steady state with nominal values.

    Parameters
    ----------
    description : ResistiveDescription
    values : mapping
        Requested values, parameter name to array.

    Returns
    -------
    torch.nn.Module
        ``twin(inputs)`` makes the network's own `settle_steps` sweeps; ``twin(inputs, states)`` takes measured states for its
        steady state and is linearised about them, its adjoint making `ADJOINT_SWEEPS` sweeps. Either returns the outputs
        (batch, n_L) in float64, and back-propagating through them is implicit differentiation. ``field(inputs, states)`` is
        -dE/dv of each layer, ideal diodes left out, differentiable in states and parameters, and ``slopes(inputs, states)`` 0
        where an ideal diode conducts and else 1. ``macs_per_sample`` and ``macs_backward_per_sample`` are what one solution
        and its gradient cost a digital host.
    """
    return _twin_class(description)(values)


@cache
def _twin_class(description: ResistiveDescription) -> Any:
    """The twin of every chip made to a description: a rule asks for a new twin at each update, and classes are dear."""
    import torch

    widths = description.circuit_widths
    layers = len(widths) - 1
    names = [f"weight_{k}" for k in range(1, layers + 1)]
    names += [f"bias_{k}" for k in range(1, layers + 1) if description.bias]
    scales, gains = description.energy_scales(), description.layer_gains()
    per_output = description.volts_per_output
    signs = [torch.as_tensor(sign) for sign in description.layer_diodes()]

    def model_of(parameters: Sequence[Any]) -> ResistiveModel:
        arrays = [np.asarray(parameter.detach().numpy(), dtype=np.float64) for parameter in parameters]
        biases = arrays[layers:] or [np.zeros(width) for width in widths[1:]]
        return ResistiveModel(description, arrays[:layers], biases)

    class SteadyState(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, inputs: Any, states: Any, *parameters: Any) -> Any:
            ctx.model = model_of(parameters)
            ctx.inputs = inputs.detach().numpy().astype(np.float64)
            if states is None:
                states = ctx.model.settle(ctx.inputs, tolerance=None, steps=description.settle_steps)
            ctx.states = states
            return torch.as_tensor(np.asarray(states[-1], dtype=np.float64))

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            # autograd hands over dL/dv of the whole batch; the model's gradients are batch means
            error = gradients[0].numpy() * len(ctx.inputs)
            adjoint = ctx.model.adjoint(ctx.inputs, ctx.states, error, tolerance=None, steps=ADJOINT_SWEEPS)
            found = ctx.model.gradient(ctx.inputs, ctx.states, adjoint)
            return (None, None, *(torch.as_tensor(found[name]) for name in names))

    class ResistiveTwin(torch.nn.Module):
        def __init__(self, values: Mapping[str, Array]) -> None:
            super().__init__()
            for name, value in values.items():
                self.register_parameter(name, torch.nn.Parameter(torch.as_tensor(np.asarray(value, dtype=np.float64).copy())))
            relaxing = sum(a * b for a, b in pairwise(widths[1:]))
            couplings = sum(a * b for a, b in pairwise(widths))
            self.macs_per_sample = widths[0] * widths[1] + 2 * description.settle_steps * relaxing
            # the adjoint sweeps, then one product per coupling, two between nodes
            self.macs_backward_per_sample = 2 * ADJOINT_SWEEPS * relaxing + couplings + relaxing

        def forward(self, inputs: Any, states: Any = None) -> Any:
            inputs = torch.as_tensor(np.asarray(inputs))
            return SteadyState.apply(inputs, states, *(self.get_parameter(name) for name in names))  # type: ignore[no-untyped-call]

        def field(self, inputs: Any, states: Any) -> tuple[Any, ...]:
            driven = torch.as_tensor(inputs, dtype=torch.float64) * (description.input_volts / per_output)
            voltages = [torch.cat([driven, -driven], dim=1), *states]
            field = [torch.zeros_like(state) for state in states]
            for k in range(layers):
                weight, below, here = self.get_parameter(f"weight_{k + 1}"), gains[k] * voltages[k], voltages[k + 1]
                field[k] = field[k] + scales[k] * (below @ weight.T - here * weight.sum(dim=1))
                if k > 0:
                    field[k - 1] = field[k - 1] + scales[k] * gains[k] * (here @ weight - below * weight.sum(dim=0))
                if description.bias:
                    field[k] = field[k] + scales[k] * self.get_parameter(f"bias_{k + 1}")
                if description.diode == "shockley" and k < layers - 1:
                    slope, sign = description.slope_volts / per_output, signs[k]
                    into = sign * torch.expm1(-sign * here / slope)
                    field[k] = field[k] + scales[k] * description.saturation / (description.siemens_unit * per_output) * into
            return tuple(field)

        def slopes(self, inputs: Any, states: Any) -> tuple[Any, ...]:
            if description.diode == "shockley":
                return tuple(torch.ones_like(state) for state in states)
            return tuple(((sign == 0) | (sign * state > 0)).double() for sign, state in zip(signs, states, strict=True))

    return ResistiveTwin
