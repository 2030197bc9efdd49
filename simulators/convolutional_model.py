"""Exact and digital models of a layered Hopfield network that holds images: the oracle of a chip, and its twin."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from inmaterio.devices.converters import Converter, convert
from inmaterio.devices.validation import InputError
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.convolution import Convolution
from inmaterio.simulators.convolutional_energy import ConvolutionalEnergy, Float
from inmaterio.simulators.convolutional_module import pooled_drive
from inmaterio.simulators.convolutional_relaxation import model_in, settle_exactly
from inmaterio.simulators.fixed_point import loss_values, output_error
from inmaterio.simulators.hopfield_description import SCHEDULES, HopfieldDescription
from inmaterio.simulators.hopfield_model import ADJOINT_SWEEPS


@dataclass(frozen=True, slots=True, eq=False)
class ConvolutionalOracle:
    """What this chip would do without noise per use: for tests and probes, never for a rule.

    Attributes
    ----------
    model : ConvolutionalEnergy
        With the values the devices really hold, in float64.
    description : HopfieldDescription
    input_dac : Converter
        Its rounding is part of the chip.
    """

    model: ConvolutionalEnergy
    description: HopfieldDescription
    input_dac: Converter

    def driven(self, inputs: Array) -> Float:
        """Inputs as the converter drives them, without its noise."""
        dac = self.input_dac
        clean = Converter(bits=dac.bits, low=dac.low, high=dac.high, unit=dac.unit)
        return np.asarray(convert(clean, np.asarray(inputs, dtype=np.float64)), dtype=np.float64)

    def states(self, inputs: Array) -> tuple[Float, ...]:
        """Free rest point, residual 1e-14, each layer (batch, n_k).

        Raises
        ------
        InputError
            When the network does not settle.
        """
        description, tolerance = self.description, 1e-14
        schedule = SCHEDULES[description.schedule]
        states, residual = settle_exactly(self.model, self.driven(inputs), schedule, description.damping, tolerance, 20_000)
        if not residual <= tolerance:
            raise InputError(
                f"the exact model's residual is {residual:.2g} after 20000 updates; expected at most {tolerance:g}: weights so "
                "strong that the network does not settle, or not without more damping"
            )
        return states

    def outputs(self, inputs: Array) -> Float:
        """Last layer of `states`."""
        return self.states(inputs)[-1]

    def energy(self, inputs: Array, states: tuple[Array, ...]) -> Float:
        """E of each sample at these states: see `ConvolutionalEnergy.energy`."""
        return self.model.energy(self.driven(inputs), [np.asarray(state, dtype=np.float64) for state in states])

    def loss(self, inputs: Array, targets: Array, loss: str) -> float:
        """Batch-mean loss at the free rest point."""
        return float(loss_values(self.outputs(inputs), targets, loss).mean())

    def loss_gradient(self, inputs: Array, targets: Array, loss: str) -> dict[str, Float]:
        """Gradient of the batch-mean loss with respect to each parameter, by implicit differentiation."""
        driven, states = self.driven(inputs), self.states(inputs)
        slope = self.model.slopes(driven, states)[-1]
        error = output_error(self.model.activations[-1], slope, states[-1], targets, loss)
        description = self.description
        return self.model.implicit_gradient(driven, states, error, bias=description.bias, damping=description.damping)


def make_twin(description: HopfieldDescription, maps: tuple[Convolution, ...], values: Mapping[str, Array]) -> Any:
    """A ``torch.nn.Module`` that relaxes to the same rest point with nominal values; used as `hopfield_model.make_twin`'s is.

    Parameters
    ----------
    description : HopfieldDescription
    maps : tuple of Convolution
    values : mapping
        Requested values, parameter name to array.
    """
    return _twin_class(description, maps)(values)


@cache
def _twin_class(description: HopfieldDescription, maps: tuple[Convolution, ...]) -> Any:
    """The twin of every chip made to a description."""
    import torch

    activations, layers = description.layer_activations(), len(maps)
    steps, schedule, bias = description.settle_steps, SCHEDULES[description.schedule], description.bias
    # all layers at once take two sweeps where even ones after odd ones take one
    sweeps = math.ceil(2 * ADJOINT_SWEEPS / (1.0 - description.damping))
    order = [f"weight_{k}" for k in range(1, layers + 1)]
    order += [f"bias_{k}" for k in range(1, layers + 1) if bias]

    def model_of(parameters: Sequence[Any]) -> ConvolutionalEnergy:
        named = dict(zip(order, (parameter.detach().numpy() for parameter in parameters), strict=True))
        weights = [named[f"weight_{k}"] for k in range(1, layers + 1)]
        biases = [named.get(f"bias_{k}", np.zeros(one.channels)) for k, one in enumerate(maps, start=1)]
        return model_in(maps, weights, biases, activations, np.float64)

    class RestPoint(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, inputs: Any, states: Any, *parameters: Any) -> Any:
            ctx.model, ctx.inputs = model_of(parameters), inputs.detach().numpy().astype(np.float64)
            if states is None:
                states, _ = settle_exactly(ctx.model, ctx.inputs, schedule, description.damping, None, steps)
            ctx.states = tuple(np.asarray(state, dtype=np.float64) for state in states)
            return torch.as_tensor(ctx.states[-1])

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            # autograd hands over dL/ds of the whole batch; the model's gradients are batch means
            slope = ctx.model.slopes(ctx.inputs, ctx.states)[-1]
            error = slope * gradients[0].numpy() * len(slope)
            found = ctx.model.implicit_gradient(
                ctx.inputs, ctx.states, error, bias=bias, damping=description.damping, sweeps=sweeps
            )
            return (None, None, *(torch.as_tensor(np.ascontiguousarray(found[name])) for name in order))

    class ConvolutionalHopfieldTwin(torch.nn.Module):
        def __init__(self, values: Mapping[str, Array]) -> None:
            super().__init__()
            for name, value in values.items():
                self.register_parameter(name, torch.nn.Parameter(torch.as_tensor(np.asarray(value, dtype=np.float64).copy())))
            relaxing = sum(one.macs for one in maps[1:])
            self.macs_per_sample = maps[0].macs + 2 * steps * relaxing
            # the adjoint sweeps, then one product per coupling, two where it serves both directions
            self.macs_backward_per_sample = 2 * sweeps * relaxing + maps[0].macs + 2 * relaxing

        def forward(self, inputs: Any, states: Any = None) -> Any:
            inputs = torch.as_tensor(np.asarray(inputs))
            return RestPoint.apply(inputs, states, *(self.get_parameter(name) for name in order))  # type: ignore[no-untyped-call]

        def up(self, k: int, below: Any) -> Any:
            one = maps[k]
            drive = pooled_drive(below, self.get_parameter(f"weight_{k + 1}"), one)
            return (
                (drive.reshape(-1, one.places, one.channels) + self.get_parameter(f"bias_{k + 1}")).flatten(1) if bias else drive
            )

        def field(self, inputs: Any, states: Any) -> tuple[Any, ...]:
            s = [torch.as_tensor(layer, dtype=torch.float64) for layer in (inputs, *states)]
            fields = []
            for k in range(layers):
                drive = self.up(k, s[k]) - s[k + 1]
                if k + 1 < layers:
                    # what comes down is the transposed derivative of what goes up
                    pull: Any = torch.func.vjp(lambda below, upper=k + 1: self.up(upper, below), s[k + 1])[1]
                    drive = drive + pull(s[k + 2])[0]
                fields.append(drive)
            return tuple(fields)

        def slopes(self, inputs: Any, states: Any) -> tuple[Any, ...]:
            s = [np.asarray(torch.as_tensor(layer).detach(), dtype=np.float64) for layer in (inputs, *states)]
            model = model_of([self.get_parameter(name) for name in order])
            return tuple(torch.as_tensor(slope) for slope in model.slopes(s[0], s[1:]))

    return ConvolutionalHopfieldTwin
