"""A digital convolutional network whose layers can be driven one at a time, forwards and backwards.

    a_k = pool_k(W_k * s_{k-1}) + b_k,   s_k = f(a_k) for k < L,   s_L = a_L

with * a convolution, or a product in dense layers; see `convolution`. Pooling stands before the response, inside the map
between two layers, so that a node of a layer is one of its pooled image. On its way back a vector at layer k goes through the
transposed pooling and the transposed convolution. Max pooling sends it to where the largest value was when the layer was last
driven forwards. With a response that never falls, max pooling before it and behind it are the same.

Costs are counted as in `digital`: products of the kernel that fall beyond the edge of an image included, windows of an image
that are read again not.
"""

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import check_array, check_name
from inmaterio.simulators.capabilities import Array, Outer, Port, Samples
from inmaterio.simulators.convolution import Convolution
from inmaterio.simulators.convolutional_module import make_convolutional_module, shapes
from inmaterio.simulators.digital import DTYPES, DigitalSubstrate
from inmaterio.simulators.digital_layers import forward_oracle, layer_states
from inmaterio.simulators.digital_twin import DigitalOracle
from inmaterio.simulators.image_layers import ImageLayers
from inmaterio.simulators.perceptron import RESPONSES, check_layer, check_vectors, check_widths, coupling_parameters
from inmaterio.simulators.shared_products import local_products
from inmaterio.simulators.substrate import check_batch
from inmaterio.simulators.switches import Switches

PRESETS: Mapping[str, Mapping[str, Any]] = {"convolutional-feedforward": {"activation": "relu", "pooling": "max"}}

CLOCKED_POOLINGS = ("average", "max")
"""Kinds of pooling of clocked layers: those whose way back is a sum or a switch."""


def build(
    widths: Sequence[int],
    *,
    chip: Key,
    activation: str = "relu",
    dtype: str = "float32",
    feedback: str = "transposed",
    feedback_angle: float = 90.0,
    image: Sequence[int] | None = None,
    convolutions: int | None = None,
    kernel: int | Sequence[int] = 3,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | None = None,
    pooling: str = "max",
    window: int | Sequence[int] = 2,
) -> "ConvolutionalFeedforward":
    """A convolutional network, all parameters zero until they are programmed.

    Parameters
    ----------
    widths : sequence of int
        Inputs, channels of convolutional layers, nodes of dense ones.
    chip : Key
        Not used: every digital chip is the same.
    activation : str
        Response of the hidden layers, one of `perceptron.RESPONSES`; outputs are linear.
    dtype : str
        ``"float32"``, or ``"float64"`` for tests.
    feedback : str
        ``"transposed"``: vectors come back through the kernels themselves. ``"separate"``: through parameters feedback_k,
        k = 2..L, of the shape of weight_k transposed.
    feedback_angle : float
        Degrees at which separate feedback begins to its weights: see `Parameter.angle`.
    image, convolutions, kernel, stride, padding, window
        As in `ImageLayers`.
    pooling : str
        ``"average"`` or ``"max"``.

    Raises
    ------
    InputError
        When a width is not a whole number >= 1, a name is unknown, a number is out of its range, or the maps do not fit.

    Examples
    --------
    >>> network = build((64, 8, 10), chip=Key(0))
    >>> network.parameters["weight_1"].shape, network.parameters["weight_2"].shape
    ((8, 9), (10, 128))
    """
    checked = check_widths(widths)
    check_name("activation", activation, RESPONSES)
    check_name("dtype", dtype, DTYPES)
    check_name("pooling of clocked layers", pooling, CLOCKED_POOLINGS)
    layers = ImageLayers(image, convolutions, kernel, stride, padding, pooling, window)
    return ConvolutionalFeedforward(layers.maps(checked), activation, dtype, feedback, feedback_angle)


@final
class ConvolutionalFeedforward(DigitalSubstrate):
    """The network of this file.

    Parameters are weight_k (channels, fan-in) and bias_k (channels,), k = 1..L, and feedback_k, k = 2..L, where feedback is
    separate. A kernel's values are those under it row by row, channels below fastest. Inputs lie in [-1, 1].

    Parameters
    ----------
    maps : tuple of Convolution
        To layers 1..L.
    activation, dtype, feedback, feedback_angle
        As in `build`.
    """

    def __init__(self, maps: tuple[Convolution, ...], activation: str, dtype: str, feedback: str, feedback_angle: float) -> None:
        import torch

        parameters = coupling_parameters(shapes(maps), feedback=feedback, angle=feedback_angle, digital=True)
        ports = {
            "input": Port(maps[0].size_below, "1", -1.0, 1.0),
            "output": Port(maps[-1].size_above, "1", -np.inf, np.inf),
        }
        super().__init__(make_convolutional_module(maps, activation, getattr(torch, dtype), feedback), parameters, ports)
        self._maps = maps
        self._switches = Switches(maps)
        self._separate = feedback == "separate"
        self._response = RESPONSES[activation]

    @property
    def maps(self) -> tuple[Convolution, ...]:
        """Geometry of the maps to layers 1..L."""
        return self._maps

    @property
    def capabilities(self) -> frozenset[str]:
        own = ("Forward", "ReadStates", "Transpose", "Pullback", "Twin", "Program", "ReadBack")
        return frozenset((*own, "Feedback") if self._separate else own)

    @property
    def traits(self) -> frozenset[str]:
        """``monotone`` where the response of the hidden layers is."""
        return frozenset(("monotone",) if self._response.monotone else ())

    def snapshot(self) -> dict[str, Any]:
        return super().snapshot() | self._switches.snapshot()

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go back to a snapshot, to the same bits.

        Raises
        ------
        InputError
            When an entry is missing or does not fit; nothing is changed then.
        """
        super().restore(snapshot)
        self._switches.restore(snapshot)

    def oracle(self) -> DigitalOracle:
        """The same network in float64: for tests and probes, never counted. The loss does not depend on separate feedback."""
        return forward_oracle(self._module, self._parameters, self._ports["output"])

    def states(self, inputs: Array, *, samples: Samples, key: Key) -> tuple[Array, ...]:
        """Every layer after the input, output last, each (batch, nodes). Costs a forward pass; `key` is not used.

        Raises
        ------
        InputError
            When the inputs do not fit the port.
        """
        checked = check_batch(inputs, samples, self._ports["input"])
        self.count_forward(len(checked))
        self._tally_passes(len(checked))
        return layer_states(self._module, checked, self._dtype)

    def product(self, layer: int, states: Array, *, samples: Samples, key: Key) -> Array:
        """pool(W_k * s) + b_k (batch, n_k) for states (batch, n_{k-1}); max pooling keeps its switches. `key` is not used.

        Counted for every sample: the MACs of the map; an operation per value pooled and per bias added; words: states below
        read, states and a switch for each written. Parameters are read once. A batch through layer 1 is a batch of samples, a
        batch through layer L of passes.

        Raises
        ------
        InputError
            When there is no such layer, or the states do not fit it.
        """
        k = check_layer(layer, 1, len(self._maps))
        one = self._maps[k - 1]
        if k == 1:
            checked = check_batch(states, samples, self._ports["input"])
        else:
            checked = check_vectors("state", states, samples, one.size_below)
        batch = len(checked)
        self._count_map(k, batch, macs=one.macs, operations=one.pooling_operations + one.size_above, words=_words(one), bias=True)
        self._tally_sweep(batch, passes=k == len(self._maps), samples=k == 1)
        values = one.patches(np.asarray(checked, dtype=self._kind)) @ self._values(f"weight_{k}").T
        drive = self._switches.pool(k, values, samples).reshape(-1, one.channels) + self._values(f"bias_{k}")
        return np.asarray(drive.reshape(batch, one.size_above))

    def transposed_product(self, layer: int, vectors: Array, *, samples: Samples, key: Key) -> Array:
        """The transpose of `product` without its bias, (batch, n_{k-1}) for vectors (batch, n_k), k = 2..L; `key` is not used.

        Through feedback_k where feedback is separate. Counted for every sample: the MACs of the map; an operation per vector
        element that average pooling divides; words: vectors and a switch for each read, what comes back written. Parameters
        are read once. A batch through layer L is a batch of passes.

        Raises
        ------
        InputError
            When there is no such layer, the vectors do not fit it, or max pooling holds switches of another batch.
        """
        k = check_layer(layer, 2, len(self._maps))
        one = self._maps[k - 1]
        checked = check_vectors("vector", vectors, samples, one.size_above)
        batch = len(checked)
        rows = self._switches.unpool(k, np.asarray(checked, dtype=self._kind), samples)
        divided = one.size_above if one.taps > 1 and not one.switched else 0
        self._count_map(k, batch, macs=one.macs, operations=divided, words=_words(one), bias=False)
        self._tally_sweep(batch, passes=k == len(self._maps), samples=False)
        back = self._values(f"feedback_{k}").T if self._separate else self._values(f"weight_{k}")
        return np.array(one.fold(rows @ back))

    def respond(self, layer: int, drive: Array) -> Array:
        """f(a) (batch, n_k) in hidden layers, the drive itself at the outputs.

        Counted in hidden layers: an operation per node and sample, and two words, read and written.

        Raises
        ------
        InputError
            When there is no such layer, or the drive does not fit it.
        """
        layers = len(self._maps)
        k = check_layer(layer, 1, layers)
        checked = np.array(check_array("drive", drive, shape=(None, self._maps[k - 1].size_above)), dtype=self._kind)
        if k == layers:
            return checked
        self._count_layer(k, macs=0, operations=checked.size, words=2 * checked.size)
        return self._response.respond(checked)

    def pullback(self, inputs: Array, states: tuple[Array, ...], vectors: tuple[Array, ...]) -> Mapping[str, Outer | Array]:
        """Batch mean of (da_k/dtheta)^T v_k: sums over positions of v_k and what lay under the kernel; see `local_products`.

        Nothing is counted here: whoever forms the products of the factors pays for them.

        Raises
        ------
        InputError
            When a layer is missing or does not fit, or max pooling holds switches of another batch.
        """
        kind = self._kind
        cast = (np.asarray(inputs, dtype=kind), tuple(np.asarray(one, dtype=kind) for one in states))
        return local_products(self._maps, self._switches, *cast, tuple(np.asarray(one, dtype=kind) for one in vectors))

    def count_forward(self, batch: int, *, twin: Any = None) -> None:
        """Per layer as `product` and `respond` count, without switches."""
        layers = len(self._maps)
        for k, one in enumerate(self._maps, start=1):
            operations = one.pooling_operations + one.size_above * (1 if k == layers else 2)
            self._count_map(k, batch, macs=one.macs, operations=operations, words=one.size_below + one.size_above, bias=True)

    def count_backward(self, batch: int, *, twin: Any = None) -> None:
        """Per layer with d_k = dC/da_k: its MACs for the gradient of the kernel, and as many for d_{k-1} above the first layer.

        An addition per node for the bias, two operations per node below for the slope and its product. Words moved: what is
        below, d_k and a switch for each node read for every sample, gradients written once; above the first layer parameters
        are read once more and d_{k-1} is written.
        """
        for k, one in enumerate(self._maps, start=1):
            below = k > 1
            couplings = one.channels * one.fan_in
            self._count_layer(
                k,
                macs=batch * one.macs * (2 if below else 1),
                operations=batch * (one.size_above + (2 * one.size_below if below else 0)),
                words=couplings + one.channels + batch * _words(one) + ((couplings + batch * one.size_below) if below else 0),
            )

    def _values(self, name: str) -> Array:
        """A parameter as held: a view."""
        return self._held[name].detach().numpy()

    def _count_map(self, layer: int, batch: int, *, macs: int, operations: int, words: int, bias: bool) -> None:
        one = self._maps[layer - 1]
        held = one.channels * (one.fan_in + bool(bias))
        self._count_layer(layer, macs=batch * macs, operations=batch * operations, words=held + batch * words)


def _words(one: Convolution) -> int:
    """Words of the states at both ends of a map and of its switches, per sample."""
    return one.size_below + one.size_above * (2 if one.switched else 1)
