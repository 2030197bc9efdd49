"""The multilayer perceptron: what a digital machine computes and clocked layers of arrays are built to compute.

    s_k = f(W_k s_{k-1} + b_k) for k < L,   s_L = W_L s_{L-1} + b_L

============  ==================  =========
name          f(a)                monotone
============  ==================  =========
relu          max(a, 0)           yes
sigmoid       1 / (1 + exp(-a))   yes
hard-sigmoid  min(max(a, 0), 1)   yes
tanh          tanh(a)             yes
silu          a / (1 + exp(-a))   no
============  ==================  =========

A second set of couplings, feedback_k of shape (n_{k-1}, n_k), k = 2..L, may run beside the weights the other way.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.simulators.capabilities import Array, Parameter, Samples

if TYPE_CHECKING:
    import torch

SILU_DIP = 0.2784645427610738
"""How far silu goes below 0: at a = -1.2784645427610738, where 1 + a + exp(a) = 0, it is 1 + a."""


@dataclass(frozen=True, slots=True)
class Response:
    """What a node makes of its drive.

    Attributes
    ----------
    respond : callable
        f, elementwise, on arrays; keeps their precision.
    low, high : float
        Range of f.
    monotone : bool
        Whether f never falls.
    """

    respond: Callable[[Array], Array]
    low: float
    high: float
    monotone: bool = True


RESPONSES: Mapping[str, Response] = {
    "relu": Response(lambda drive: np.maximum(drive, 0.0), 0.0, np.inf),
    "sigmoid": Response(lambda drive: np.asarray(expit(drive)), 0.0, 1.0),
    "hard-sigmoid": Response(lambda drive: np.clip(drive, 0.0, 1.0), 0.0, 1.0),
    "tanh": Response(lambda drive: np.asarray(np.tanh(drive)), -1.0, 1.0),
    "silu": Response(lambda drive: np.asarray(drive * expit(drive)), -SILU_DIP, np.inf, monotone=False),
}
"""Responses by name."""

FEEDBACKS = ("transposed", "separate")
"""Whether vectors come back through the weights themselves or through couplings of their own."""


def check_widths(widths: Sequence[int]) -> tuple[int, ...]:
    """Return nodes per layer, input first, as whole numbers.

    Raises
    ------
    InputError
        When there are fewer than two, or one is not a whole number >= 1.
    """
    if len(widths) < 2:
        raise InputError(f"widths are {tuple(widths)}; expected at least an input and an output width")
    for width in widths:
        check_range("width", width, low=1, unit="nodes")
        if int(width) != width:
            raise InputError(f"width is {width} nodes; expected a whole number")
    return tuple(int(width) for width in widths)


def layer_parameters(
    widths: Sequence[int], *, limit: float = np.inf, feedback: str = "transposed", angle: float = 90.0, digital: bool = False
) -> dict[str, Parameter]:
    """weight_k (n_k, n_{k-1}) and bias_k (n_k,), k = 1..L, then feedback_k (n_{k-1}, n_k), k = 2..L, where it is separate.

    Parameters
    ----------
    widths : sequence of int
        Nodes per layer, input first.
    limit, feedback, angle, digital
        As in `coupling_parameters`.

    Raises
    ------
    InputError
        When the feedback is unknown or the angle is not in [0, 180] degrees.
    """
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    return coupling_parameters(shapes, limit=limit, feedback=feedback, angle=angle, digital=digital)


def coupling_parameters(
    shapes: Sequence[tuple[int, int]],
    *,
    limit: float = np.inf,
    feedback: str = "transposed",
    angle: float = 90.0,
    digital: bool = False,
) -> dict[str, Parameter]:
    """weight_k and bias_k, k = 1..L, then feedback_k, k = 2..L, where it is separate.

    Parameters
    ----------
    shapes : sequence of (int, int)
        (to, from) of each weight_k; feedback_k is (from, to) and bias_k (to,).
    limit : float
        Largest size of a value.
    feedback : str
        One of `FEEDBACKS`.
    angle : float
        Degrees at which separate feedback begins to its weights.
    digital : bool
        Whether the host holds them.

    Raises
    ------
    InputError
        When the feedback is unknown or the angle is not in [0, 180] degrees.
    """
    check_name("feedback", feedback, FEEDBACKS)
    check_range("feedback_angle", angle, low=0.0, high=180.0, unit="degrees")
    layers = len(shapes)
    parameters = {}
    for k, coupling in enumerate(shapes, start=1):
        for name, shape in ((f"weight_{k}", coupling), (f"bias_{k}", coupling[:1])):
            parameters[name] = Parameter(shape, low=-limit, high=limit, layer=k, readout=k == layers, digital=digital)
    for k in range(2, layers + 1) if feedback == "separate" else ():
        parameters[f"feedback_{k}"] = Parameter(
            shapes[k - 1][::-1],
            low=-limit,
            high=limit,
            layer=k - 1,
            digital=digital,
            partner=f"weight_{k}",
            angle=angle,
        )
    return parameters


def check_layer(layer: int, first: int, last: int) -> int:
    """Return the number of a layer.

    Raises
    ------
    InputError
        When there is no such layer, or nothing to ask of it.
    """
    if isinstance(layer, bool) or not isinstance(layer, (int, np.integer)) or not first <= layer <= last:
        expected = f"a whole number in [{first}, {last}]" if first <= last else "a network with a hidden layer"
        raise InputError(f"layer is {layer!r}; expected {expected}")
    return int(layer)


def check_vectors(name: str, values: Array, samples: Samples, width: int) -> Array:
    """Return vectors (batch, width) that can be driven into a layer.

    Raises
    ------
    InputError
        When the shape is another, an element is not finite, or `samples` has another length.
    """
    checked = check_array(name, values, shape=(None, width))
    check_array("samples", samples, shape=(len(checked),))
    check_range("batch size", len(checked), low=1)
    return checked


def make_module(widths: Sequence[int], activation: str, dtype: "torch.dtype", feedback: str = "transposed") -> "torch.nn.Module":
    """The perceptron as a torch module, all values zero.

    Its ``states(inputs)`` are all layers after the input; ``macs_per_sample`` is what they take. Feedback couplings are held
    and not used.
    """
    return _perceptron()(tuple(widths), activation, dtype, feedback)  # type: ignore[no-any-return]


def tensor_responses() -> "Mapping[str, Callable[[torch.Tensor], torch.Tensor]]":
    """The responses on tensors, by name."""
    import torch

    return {
        "relu": torch.relu,
        "sigmoid": torch.sigmoid,
        "hard-sigmoid": lambda drive: torch.clamp(drive, 0.0, 1.0),
        "tanh": torch.tanh,
        "silu": torch.nn.functional.silu,
    }


@cache
def _perceptron() -> Any:
    """The module's class; made on first use, since torch takes a second to import."""
    import torch

    responses = tensor_responses()

    class Perceptron(torch.nn.Module):
        def __init__(self, widths: tuple[int, ...], activation: str, dtype: torch.dtype, feedback: str) -> None:
            super().__init__()
            self.macs_per_sample = sum(size * previous for size, previous in zip(widths[1:], widths[:-1], strict=True))
            self._layers = len(widths) - 1
            self._activation = activation
            for name, about in layer_parameters(widths, feedback=feedback).items():
                self.register_parameter(name, torch.nn.Parameter(torch.zeros(about.shape, dtype=dtype)))

        def states(self, inputs: torch.Tensor) -> list[torch.Tensor]:
            states, below = [], inputs
            for k in range(1, self._layers + 1):
                drive = torch.nn.functional.linear(below, self.get_parameter(f"weight_{k}"), self.get_parameter(f"bias_{k}"))
                below = drive if k == self._layers else responses[self._activation](drive)
                states.append(below)
            return states

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.states(inputs)[-1]

    return Perceptron
