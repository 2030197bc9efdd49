"""The differentiable model of a network that comes to a rest point: a torch module with gradients by implicit differentiation.

What it is a model of comes in as functions, so that networks of any wiring share it; see `hopfield_model.make_twin` for what
the module is used for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from inmaterio.simulators.capabilities import Array

if TYPE_CHECKING:
    import torch

Float = NDArray[np.float64]


class RestPointModel(Protocol):
    """A network in float64 with given values."""

    def slopes(self, inputs: Float, states: Sequence[Float]) -> tuple[Float, ...]:
        """f_k'(a_k) of every layer, each (batch, n_k), at a rest point."""


Model = TypeVar("Model", bound=RestPointModel)


@dataclass(frozen=True, slots=True)
class RestPointNetwork(Generic[Model]):
    """What `twin_class` needs to know of a network.

    Attributes
    ----------
    order : sequence of str
        Names of its parameters.
    model_of : callable
        (values) -> model, from parameter name to float64 array.
    settle : callable
        (model, inputs) -> states, each (batch, n_k), after the updates that the network itself makes from rest.
    gradient : callable
        (model, inputs, states, error) -> gradient of the batch-mean loss, by name of parameter, with error f_L'(a_L) dC/ds_L of
        each sample, (batch, n_L).
    field : callable
        (parameters, inputs and states) -> a_k(s) - s_k, each (batch, n_k), on torch tensors and differentiable.
    macs_per_sample, macs_backward_per_sample : int
        Multiply-accumulates of one solution and of its gradient.
    """

    order: Sequence[str]
    model_of: Callable[[Mapping[str, Float]], Model]
    settle: Callable[[Model, Float], Sequence[Float]]
    gradient: Callable[[Model, Float, Sequence[Float], Float], Mapping[str, Float]]
    field: "Callable[[Mapping[str, torch.Tensor], Sequence[torch.Tensor]], tuple[torch.Tensor, ...]]"
    macs_per_sample: int
    macs_backward_per_sample: int


def twin_class(network: RestPointNetwork[Model]) -> Any:
    """The class of every twin of a network, called with values: parameter name to array. Classes are dear: keep it."""
    import torch

    def model_with(parameters: Sequence[Any]) -> Model:
        arrays = [parameter.detach().numpy().astype(np.float64) for parameter in parameters]
        return network.model_of(dict(zip(network.order, arrays, strict=True)))

    class RestPointOutputs(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, inputs: Any, states: Any, *parameters: Any) -> Any:
            ctx.model, ctx.inputs = model_with(parameters), inputs.detach().numpy().astype(np.float64)
            if states is None:
                states = network.settle(ctx.model, ctx.inputs)
            ctx.states = tuple(np.asarray(state, dtype=np.float64) for state in states)
            return torch.as_tensor(ctx.states[-1])

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            # autograd hands over dL/ds of the whole batch; the model's gradients are batch means
            error = ctx.model.slopes(ctx.inputs, ctx.states)[-1] * gradients[0].numpy() * len(ctx.inputs)
            found = network.gradient(ctx.model, ctx.inputs, ctx.states, error)
            return (None, None, *(torch.as_tensor(np.ascontiguousarray(found[name])) for name in network.order))

    class RestPointTwin(torch.nn.Module):
        def __init__(self, values: Mapping[str, Array]) -> None:
            super().__init__()
            for name, value in values.items():
                self.register_parameter(name, torch.nn.Parameter(torch.as_tensor(np.asarray(value, dtype=np.float64).copy())))
            self.macs_per_sample = network.macs_per_sample
            self.macs_backward_per_sample = network.macs_backward_per_sample

        def forward(self, inputs: Any, states: Any = None) -> Any:
            inputs, parameters = torch.as_tensor(np.asarray(inputs)), map(self.get_parameter, network.order)
            return RestPointOutputs.apply(inputs, states, *parameters)  # type: ignore[no-untyped-call]

        def field(self, inputs: Any, states: Any) -> tuple[Any, ...]:
            layers = [torch.as_tensor(layer, dtype=torch.float64) for layer in (inputs, *states)]
            return network.field(dict(self.named_parameters()), layers)

        def slopes(self, inputs: Any, states: Any) -> tuple[Any, ...]:
            layers = [np.asarray(torch.as_tensor(layer).detach(), dtype=np.float64) for layer in (inputs, *states)]
            model = model_with([self.get_parameter(name) for name in network.order])
            return tuple(torch.as_tensor(slope) for slope in model.slopes(layers[0], layers[1:]))

    return RestPointTwin
