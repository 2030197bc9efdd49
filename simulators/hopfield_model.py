"""Exact and digital models of a layered Hopfield network: the oracle of a chip, and its twin."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from inmaterio.devices.converters import Converter, convert
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.fixed_point import FixedPointModel, Float, loss_values, output_error
from inmaterio.simulators.hopfield_description import SCHEDULES, HopfieldDescription

ADJOINT_SWEEPS = 20
"""Even/odd sweeps the twin makes for the adjoint: the progress of 40 synchronous updates."""


@dataclass(frozen=True, slots=True, eq=False)
class HopfieldOracle:
    """What this chip would do without noise per use: for tests and probes, never for a rule.

    Attributes
    ----------
    model : FixedPointModel
        With the values the devices really hold.
    input_dac : Converter
        Its rounding is part of the chip.
    bias : bool
    """

    model: FixedPointModel
    input_dac: Converter
    bias: bool

    def _driven(self, inputs: Array) -> Float:
        clean = Converter(bits=self.input_dac.bits, low=self.input_dac.low, high=self.input_dac.high, unit=self.input_dac.unit)
        return np.asarray(convert(clean, np.asarray(inputs, dtype=np.float64)), dtype=np.float64)

    def states(self, inputs: Array) -> tuple[Float, ...]:
        """Free rest point, residual 1e-14, each layer (batch, n_k)."""
        return self.model.settle(self._driven(inputs))

    def outputs(self, inputs: Array) -> Float:
        """Last layer of `states`."""
        return self.states(inputs)[-1]

    def energy(self, inputs: Array, states: tuple[Array, ...]) -> Float:
        """E of each sample at these states: see `FixedPointModel.energy`."""
        return self.model.energy(self._driven(inputs), [np.asarray(state, dtype=np.float64) for state in states])

    def loss(self, inputs: Array, targets: Array, loss: str) -> float:
        """Batch-mean loss at the free rest point."""
        return float(loss_values(self.outputs(inputs), targets, loss).mean())

    def loss_gradient(self, inputs: Array, targets: Array, loss: str) -> dict[str, Float]:
        """Gradient of the batch-mean loss with respect to each parameter, by implicit differentiation."""
        driven = self._driven(inputs)
        states = self.model.settle(driven)
        error = output_error(self.model.activations[-1], states[-1], targets, loss)
        forward, backward, biases = self.model.implicit_gradient(driven, states, error)
        gradient = {f"weight_{k + 1}": up + down for k, (up, down) in enumerate(zip(forward, backward, strict=True))}
        if self.bias:
            gradient |= {f"bias_{k + 1}": bias for k, bias in enumerate(biases)}
        return gradient


def make_twin(description: HopfieldDescription, values: Mapping[str, Array]) -> Any:
    """A ``torch.nn.Module`` that relaxes to the same rest point with nominal values.

    Parameters
    ----------
    description : HopfieldDescription
    values : mapping
        Requested values, parameter name to array.

    Returns
    -------
    torch.nn.Module
        ``twin(inputs)`` makes the network's own `settle_steps` updates, settled or not; ``twin(inputs, states)`` takes
        measured states for its rest point. It is linearised about those states, and its adjoint makes `ADJOINT_SWEEPS`
        sweeps. Either returns the outputs (batch, n_L) in float64, and back-propagating through them is implicit
        differentiation. ``macs_per_sample`` and ``macs_backward_per_sample`` are what one solution and its gradient cost a
        digital host.
    """
    return _twin_class(description)(values)


@cache
def _twin_class(description: HopfieldDescription) -> Any:
    """The twin of every chip made to a description: a rule asks for a new twin at each update, and classes are dear."""
    import torch

    activations = description.layer_activations()
    layers = len(activations)
    steps, schedule = description.settle_steps, SCHEDULES[description.schedule]

    class RestPoint(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, inputs: Any, states: Any, *parameters: Any) -> Any:
            arrays = [parameter.detach().numpy().astype(np.float64) for parameter in parameters]
            weights = arrays[:layers]
            biases = arrays[layers:] or [np.zeros(width) for width in description.widths[1:]]
            ctx.model = FixedPointModel(weights, weights, biases, activations, description.feedback_gain)
            ctx.inputs = inputs.detach().numpy().astype(np.float64)
            ctx.states = (
                ctx.model.settle(ctx.inputs, tolerance=None, steps=steps, schedule=schedule) if states is None else states
            )
            return torch.as_tensor(np.asarray(ctx.states[-1], dtype=np.float64))

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            # autograd hands over dL/ds of the whole batch; the model's gradients are batch means
            batch = len(ctx.inputs)
            slope = activations[-1].slope(np.asarray(ctx.states[-1], dtype=np.float64))
            error = slope * gradients[0].numpy() * batch
            up, down, biases = ctx.model.implicit_gradient(ctx.inputs, ctx.states, error, tolerance=None, steps=ADJOINT_SWEEPS)
            found = [a + b for a, b in zip(up, down, strict=True)] + (biases if description.bias else [])
            return (None, None, *(torch.as_tensor(gradient) for gradient in found))

    class HopfieldTwin(torch.nn.Module):
        def __init__(self, values: Mapping[str, Array]) -> None:
            super().__init__()
            for name, value in values.items():
                self.register_parameter(name, torch.nn.Parameter(torch.as_tensor(np.asarray(value, dtype=np.float64).copy())))
            widths = description.widths
            relaxing = sum(a * b for a, b in zip(widths[1:-1], widths[2:], strict=True))
            couplings = sum(a * b for a, b in pairwise(widths))
            self.macs_per_sample = widths[0] * widths[1] + 2 * steps * relaxing
            # the adjoint sweeps, then one product per coupling, two where it serves both directions
            self.macs_backward_per_sample = 2 * ADJOINT_SWEEPS * relaxing + couplings + relaxing

        def forward(self, inputs: Any, states: Any = None) -> Any:
            inputs = torch.as_tensor(np.asarray(inputs))
            order = [f"weight_{k}" for k in range(1, layers + 1)] + [
                f"bias_{k}" for k in range(1, layers + 1) if description.bias
            ]
            return RestPoint.apply(inputs, states, *(self.get_parameter(name) for name in order))  # type: ignore[no-untyped-call]

    return HopfieldTwin
