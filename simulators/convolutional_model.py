"""Exact and digital models of a layered Hopfield network that holds images: the oracle of a chip, and its twin."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from inmaterio.devices.converters import Converter
from inmaterio.devices.validation import InputError
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.convolution import Convolution
from inmaterio.simulators.convolutional_energy import ConvolutionalEnergy, Float
from inmaterio.simulators.convolutional_module import pooled_drive
from inmaterio.simulators.convolutional_relaxation import model_in, settle_exactly
from inmaterio.simulators.fixed_point import loss_values, output_error
from inmaterio.simulators.hopfield_description import SCHEDULES, HopfieldDescription
from inmaterio.simulators.hopfield_model import ADJOINT_SWEEPS
from inmaterio.simulators.hopfield_readout import driven_inputs
from inmaterio.simulators.rest_point_twin import RestPointNetwork, twin_class


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
        return driven_inputs(self.input_dac, inputs)

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

    def model_of(named: Mapping[str, Float]) -> ConvolutionalEnergy:
        weights = [named[f"weight_{k}"] for k in range(1, layers + 1)]
        biases = [named.get(f"bias_{k}", np.zeros(one.channels)) for k, one in enumerate(maps, start=1)]
        return model_in(maps, weights, biases, activations, np.float64)

    def settle(model: ConvolutionalEnergy, inputs: Float) -> tuple[Float, ...]:
        return settle_exactly(model, inputs, schedule, description.damping, None, steps)[0]

    def gradient(model: ConvolutionalEnergy, inputs: Float, states: Sequence[Float], error: Float) -> dict[str, Float]:
        return model.implicit_gradient(inputs, states, error, bias=bias, damping=description.damping, sweeps=sweeps)

    def up(held: Mapping[str, Any], k: int, below: Any) -> Any:
        one = maps[k]
        drive = pooled_drive(below, held[f"weight_{k + 1}"], one)
        return (drive.reshape(-1, one.places, one.channels) + held[f"bias_{k + 1}"]).flatten(1) if bias else drive

    def field(held: Mapping[str, Any], s: Sequence[Any]) -> tuple[Any, ...]:
        fields = []
        for k in range(layers):
            drive = up(held, k, s[k]) - s[k + 1]
            if k + 1 < layers:
                # what comes down is the transposed derivative of what goes up
                pull: Any = torch.func.vjp(lambda below, upper=k + 1: up(held, upper, below), s[k + 1])[1]
                drive = drive + pull(s[k + 2])[0]
            fields.append(drive)
        return tuple(fields)

    relaxing = sum(one.macs for one in maps[1:])
    return twin_class(
        RestPointNetwork(
            order,
            model_of,
            settle,
            gradient,
            field,
            macs_per_sample=maps[0].macs + 2 * steps * relaxing,
            # the adjoint sweeps, then one product per coupling, two where it serves both directions
            macs_backward_per_sample=2 * sweeps * relaxing + maps[0].macs + 2 * relaxing,
        )
    )
