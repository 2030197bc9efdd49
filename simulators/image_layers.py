"""Which layers of a network hold images: from widths and a few options to the maps between layers.

The hidden widths of convolutional layers are numbers of channels, those of dense layers numbers of nodes; the output is dense.
An axis of length 1 is no axis: kernels, strides, padding and pooling leave it alone. So a strip of n samples (1 x n) gets 1-D
convolutions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from inmaterio.devices.validation import InputError, check_range
from inmaterio.simulators.convolution import Convolution, dense


@final
@dataclass(frozen=True, slots=True)
class ImageLayers:
    """What is said of the convolutional layers of a network, once for all of them or as a list with one number for each.

    Attributes
    ----------
    image : list of int or None
        (height, width) or (height, width, channels) of the inputs; None for a square where their number is one, else a strip.
    convolutions : int or None
        How many hidden layers are convolutional, the first ones; None for all of them.
    kernel, stride : int or list of int
        Edge of a kernel, distance of two of its positions.
    padding : int, list of int or None
        Zeros on every side of an image; None for half a kernel, which keeps the size at an odd kernel and stride 1.
    pooling : str
        One of `pooling.POOLINGS`.
    window : int or list of int
        Edge of a pooling window; 1 pools nothing.
    temperature : float
        Of softmax pooling, in units of drive.
    """

    image: Sequence[int] | None = None
    convolutions: int | None = None
    kernel: int | Sequence[int] = 3
    stride: int | Sequence[int] = 1
    padding: int | Sequence[int] | None = None
    pooling: str = "max"
    window: int | Sequence[int] = 2
    temperature: float = 1.0

    def maps(self, widths: Sequence[int]) -> tuple[Convolution, ...]:
        """The maps to layers 1..L of a network of these widths, input first.

        Raises
        ------
        InputError
            When the image does not hold the inputs, a list has another length, or a map cannot be made: see `Convolution`.
        """
        hidden = len(widths) - 2
        number = hidden if self.convolutions is None else self.convolutions
        check_range("convolutions", number, low=0, high=hidden, unit="hidden layers")
        kernels = _each("kernel", self.kernel, number)
        strides, windows = _each("stride", self.stride, number), _each("window", self.window, number)
        paddings = [one // 2 for one in kernels] if self.padding is None else _each("padding", self.padding, number)
        image = self._image(widths[0])
        maps: list[Convolution] = []
        for k, channels in enumerate(widths[1:]):
            if k >= number:
                maps.append(dense(math.prod(image), channels))
                image = (1, 1, channels)
                continue
            axes = [length > 1 for length in image[:2]]
            maps.append(
                Convolution(
                    image,
                    channels,
                    kernel=_along(axes, kernels[k], 1),
                    stride=_along(axes, strides[k], 1),
                    padding=_along(axes, paddings[k], 0),
                    window=_along(axes, windows[k], 1),
                    pooling=self.pooling,
                    temperature=self.temperature,
                )
            )
            image = maps[-1].above
        return tuple(maps)

    def _image(self, inputs: int) -> tuple[int, int, int]:
        """Shape of the inputs."""
        if self.image is None:
            edge = math.isqrt(inputs)
            return (edge, edge, 1) if edge * edge == inputs else (1, inputs, 1)
        shape = tuple(self.image)
        if len(shape) not in (2, 3):
            raise InputError(f"image is {list(shape)}; expected height and width, or height, width and channels")
        for length in shape:
            check_range("image", length, low=1, unit="pixels or channels")
        if math.prod(shape) != inputs:
            raise InputError(
                f"image is {list(shape)}, which holds {math.prod(shape)} values; expected one that holds the {inputs} inputs"
            )
        height, width, *channels = shape
        return height, width, channels[0] if channels else 1


def _each(name: str, value: int | Sequence[int], number: int) -> list[int]:
    """One number for each convolutional layer."""
    if isinstance(value, Sequence):
        if len(value) != number:
            raise InputError(f"{name} is {list(value)}; expected one number, or {number}: one for each convolutional layer")
        return list(value)
    return [value] * number


def _along(axes: Sequence[bool], value: int, other: int) -> tuple[int, int]:
    """A value along the axes that are some, another along those that are none."""
    height, width = (value if axis else other for axis in axes)
    return height, width
