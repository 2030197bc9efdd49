"""Exact and digital models of a layered Hopfield network: the oracle of a chip, and its twin."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from inmaterio.devices.converters import Converter
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.fixed_point import FixedPointModel, Float, loss_values, output_error
from inmaterio.simulators.hopfield_description import SCHEDULES, HopfieldDescription
from inmaterio.simulators.hopfield_readout import driven_inputs
from inmaterio.simulators.rest_point_twin import RestPointNetwork, twin_class

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
    asymmetric : bool
        Whether feedback couplings are parameters of their own.
    """

    model: FixedPointModel
    input_dac: Converter
    bias: bool
    asymmetric: bool = False

    def _driven(self, inputs: Array) -> Float:
        return driven_inputs(self.input_dac, inputs)

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
        slope = self.model.slopes(driven, states)[-1]
        error = output_error(self.model.activations[-1], slope, states[-1], targets, loss)
        forward, backward, biases = self.model.implicit_gradient(driven, states, error)
        return parameter_gradients(forward, backward, biases, asymmetric=self.asymmetric, bias=self.bias)

    def jacobian(self, inputs: Array, states_row: Sequence[Array]) -> Float:
        """J = W - D^-1 of one sample, (nodes, nodes), in activity coordinates: layers after the input one behind the other.

        Parameters
        ----------
        inputs : ndarray, shape (n_0,)
        states_row : sequence of ndarray, each (n_k,)
            The rest point at which D, the slope of every node, is taken; none may be 0.
        """
        rows = [np.asarray(state, dtype=np.float64)[None] for state in states_row]
        slopes = self.model.slopes(self._driven(np.asarray(inputs)[None]), rows)
        return np.asarray(self.model.couplings() - np.diag(1.0 / np.concatenate([slope[0] for slope in slopes])))


def parameter_gradients(
    forward: Sequence[Float], backward: Sequence[Float], biases: Sequence[Float], *, asymmetric: bool, bias: bool
) -> dict[str, Float]:
    """Gradients by name of parameter, from those of both directions of each coupling (n_k, n_{k-1}).

    A weight that is asked of both directions gets the sum; where feedback is a parameter of its own it gets its transpose.
    """
    gradients: dict[str, Float] = {}
    for k, (up, down, along) in enumerate(zip(forward, backward, biases, strict=True), start=1):
        gradients[f"weight_{k}"] = up if asymmetric else up + down
        if asymmetric and k > 1:
            gradients[f"feedback_{k}"] = down.T
        if bias:
            gradients[f"bias_{k}"] = along
    return gradients


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
        sweeps, more where the network is damped. Either returns the outputs (batch, n_L) in float64, and back-propagating
        through them is implicit differentiation. ``twin.field(inputs, states)`` is a_k(s) - s_k, one tensor (batch, n_k) per
        layer in float64, differentiable in the states and the parameters; ``twin.slopes(inputs, states)`` is f_k'(a_k) there.
        ``macs_per_sample`` and
        ``macs_backward_per_sample`` are what one solution and its gradient cost a digital host.
    """
    return _twin_class(description)(values)


@cache
def _twin_class(description: HopfieldDescription) -> Any:
    """The twin of every chip made to a description: a rule asks for a new twin at each update, and classes are dear."""
    activations, widths = description.layer_activations(), description.widths
    layers = len(activations)
    steps, schedule = description.settle_steps, SCHEDULES[description.schedule]
    gain, bias, asymmetric = description.feedback_gain, description.bias, description.asymmetric
    sweeps = math.ceil(ADJOINT_SWEEPS / (1.0 - description.damping))
    order = [f"weight_{k}" for k in range(1, layers + 1)]
    order += [f"feedback_{k}" for k in range(2, layers + 1) if asymmetric]
    order += [f"bias_{k}" for k in range(1, layers + 1) if bias]

    def model_of(named: Mapping[str, Float]) -> FixedPointModel:
        weights = [named[f"weight_{k}"] for k in range(1, layers + 1)]
        feedback = weights
        if asymmetric:
            feedback = [weights[0], *(named[f"feedback_{k}"].T for k in range(2, layers + 1))]
        biases = [named.get(f"bias_{k}", np.zeros(widths[k])) for k in range(1, layers + 1)]
        return FixedPointModel(weights, feedback, biases, activations, gain, description.damping)

    def settle(model: FixedPointModel, inputs: Float) -> tuple[Float, ...]:
        return model.settle(inputs, tolerance=None, steps=steps, schedule=schedule)

    def gradient(model: FixedPointModel, inputs: Float, states: Sequence[Float], error: Float) -> dict[str, Float]:
        up, down, biases = model.implicit_gradient(inputs, states, error, tolerance=None, steps=sweeps)
        return parameter_gradients(up, down, biases, asymmetric=asymmetric, bias=bias)

    def field(held: Mapping[str, Any], s: Sequence[Any]) -> tuple[Any, ...]:
        fields = []
        for k in range(1, layers + 1):
            one = s[k - 1] @ held[f"weight_{k}"].T - s[k]
            if k < layers:
                # (to, from) as every coupling: a shared one is met the other way round
                back = held[f"feedback_{k + 1}"] if asymmetric else held[f"weight_{k + 1}"].T
                one = one + gain * (s[k + 1] @ back.T)
            fields.append(one + held[f"bias_{k}"] if bias else one)
        return tuple(fields)

    relaxing = sum(a * b for a, b in pairwise(widths[1:]))
    couplings = sum(a * b for a, b in pairwise(widths))
    return twin_class(
        RestPointNetwork(
            order,
            model_of,
            settle,
            gradient,
            field,
            macs_per_sample=widths[0] * widths[1] + 2 * steps * relaxing,
            # the adjoint sweeps, then one product per coupling, two where it serves both directions
            macs_backward_per_sample=2 * sweeps * relaxing + couplings + relaxing,
        )
    )
