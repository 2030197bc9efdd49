"""The layers of `image_layers` as a torch module: the twin of clocked networks that hold images."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from inmaterio.simulators.convolution import Convolution
from inmaterio.simulators.perceptron import coupling_parameters, tensor_responses

if TYPE_CHECKING:
    import torch


def make_convolutional_module(
    maps: Sequence[Convolution], activation: str, dtype: "torch.dtype", feedback: str = "transposed"
) -> "torch.nn.Module":
    """A feedforward network as a torch module, all values zero.

    Its ``states(inputs)`` are all layers after the input, flat; ``macs_per_sample`` and ``macs_backward_per_sample`` are what
    they and their gradient take. Feedback couplings are held and not used.

    Parameters
    ----------
    maps : sequence of Convolution
        To layers 1..L.
    activation : str
        Of all but the last layer, a name in `perceptron.RESPONSES`.
    dtype : torch.dtype
    feedback : str
    """
    return _network()(tuple(maps), activation, dtype, feedback)  # type: ignore[no-any-return]


def shapes(maps: Sequence[Convolution]) -> list[tuple[int, int]]:
    """(to, from) of the coupling of each map."""
    return [(one.channels, one.fan_in) for one in maps]


def pooled_drive(below: "torch.Tensor", weight: "torch.Tensor", one: Convolution) -> "torch.Tensor":
    """pool(W patches(s)), (batch, size_above), of states (batch, size_below); differentiable.

    Parameters
    ----------
    below : torch.Tensor, shape (batch, size_below)
    weight : torch.Tensor, shape (channels, fan_in)
    one : Convolution
    """
    import torch

    if one.plain:
        return torch.nn.functional.linear(below, weight)
    # torch wants channels before height and width
    image = below.reshape(-1, *one.image).permute(0, 3, 1, 2)
    kernels = weight.reshape(one.channels, *one.kernel, one.image[2]).permute(0, 3, 1, 2)
    drive = torch.nn.functional.conv2d(image, kernels, stride=one.stride, padding=one.padding)
    if one.taps > 1:
        drive = _pooled(drive, one)
    return drive.permute(0, 2, 3, 1).reshape(-1, one.size_above)


def _pooled(drive: "torch.Tensor", one: Convolution) -> "torch.Tensor":
    import torch

    if one.pooling == "max":
        return torch.nn.functional.max_pool2d(drive, one.window)
    if one.pooling == "average":
        return torch.nn.functional.avg_pool2d(drive, one.window)
    height, width, channels = one.above
    tiles = drive.reshape(-1, channels, height, one.window[0], width, one.window[1]).permute(0, 1, 2, 4, 3, 5)
    tiles = tiles.reshape(-1, channels, height, width, one.taps)
    return (torch.softmax(tiles / one.temperature, dim=-1) * tiles).sum(dim=-1)


@cache
def _network() -> Any:
    """The module's class; made on first use, since torch takes a second to import."""
    import torch

    responses = tensor_responses()

    class ConvolutionalNetwork(torch.nn.Module):
        def __init__(self, maps: tuple[Convolution, ...], activation: str, dtype: torch.dtype, feedback: str) -> None:
            super().__init__()
            self.macs_per_sample = sum(one.macs for one in maps)
            # the gradient of every coupling, and of the states below all but the first
            self.macs_backward_per_sample = 2 * self.macs_per_sample - maps[0].macs
            self._maps = maps
            self._activation = activation
            for name, about in coupling_parameters(shapes(maps), feedback=feedback).items():
                self.register_parameter(name, torch.nn.Parameter(torch.zeros(about.shape, dtype=dtype)))

        def states(self, inputs: torch.Tensor) -> list[torch.Tensor]:
            states, below = [], inputs
            for k, one in enumerate(self._maps, start=1):
                drive = pooled_drive(below, self.get_parameter(f"weight_{k}"), one)
                # a bias of each channel goes through pooling unchanged
                drive = (drive.reshape(-1, one.places, one.channels) + self.get_parameter(f"bias_{k}")).flatten(1)
                below = drive if k == len(self._maps) else responses[self._activation](drive)
                states.append(below)
            return states

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.states(inputs)[-1]

    return ConvolutionalNetwork
