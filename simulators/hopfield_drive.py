"""What is held while a layered Hopfield network settles: the driven inputs, the biases, and noise that stays."""

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.converters import Converter, convert
from inmaterio.devices.randomness import Key, normals
from inmaterio.simulators.capabilities import Array, Samples
from inmaterio.simulators.fixed_point import split_layers
from inmaterio.simulators.hopfield_arrays import CouplingArrays
from inmaterio.simulators.hopfield_description import HopfieldDescription


@dataclass(frozen=True, slots=True, eq=False)
class Drive:
    """What one settling is driven by.

    Attributes
    ----------
    values : ndarray, shape (batch * nodes,)
        Of every node, layer blocks one behind the other.
    forward_noise, backward_noise : ndarray, shape (batch, nodes), or (0, 0) without noise
        Standard normals held through the settling.
    words : ndarray of uint64, shape (2,) or (0,)
        Where given, normals are drawn anew from this key at each update.
    """

    values: Array
    forward_noise: Array
    backward_noise: Array
    words: NDArray[np.uint64]


@final
class InputDrive:
    """The input array of a network, and what it drove last: the same samples come again in every phase.

    Parameters
    ----------
    description : HopfieldDescription
    arrays : CouplingArrays
    converter : Converter
        DAC of the inputs.
    """

    def __init__(self, description: HopfieldDescription, arrays: CouplingArrays, converter: Converter) -> None:
        self._description = description
        self._arrays = arrays
        self._converter = converter
        self._dtype = np.dtype(description.dtype)
        self._widths = np.array(description.widths[1:], dtype=np.int64)
        self._edges = [0, *np.cumsum(self._widths).tolist()]
        self._std = description.pair.read_noise_weight
        self._stale = True
        self.inputs: Array = np.zeros((0, 0))
        """A copy of what was driven last, never written to; empty after a noisy conversion, which is another one each time."""
        self._driven: Array = np.zeros((0, 0))
        self._values: Array = np.zeros(0)
        self.squares: NDArray[np.float64] = np.zeros(0)
        """Sum over the last samples of the squared activity of each input, (n_0,)."""

    def forget(self) -> None:
        """Make everything anew at the next call: devices have changed."""
        self._stale = True

    def knows(self, inputs: Array, samples: Samples) -> bool:
        """Whether these are the inputs that were driven last, through the devices as they are."""
        return not self._stale and np.array_equal(inputs, self.inputs) and len(samples) == len(inputs)

    def hold(self, inputs: Array, samples: Samples, key: Key, known: bool) -> Drive:
        """What stays while the network settles, and the noise of the couplings: held normals, or words to draw from.

        `known` is what `knows` says of these inputs.
        """
        if not known:
            self._convert(inputs, samples, key)
        none = np.zeros((0, 0), dtype=self._dtype)
        no_words = np.zeros(0, dtype=np.uint64)
        if self._std == 0.0:
            return Drive(self._values, none, none, no_words)
        total = self._edges[-1]
        forward = normals(key.at("read forward"), samples, total, dtype=self._dtype)
        backward = normals(key.at("read backward"), samples, total, dtype=self._dtype)
        values = self._values.copy()
        layers = split_layers(values, len(inputs), self._widths)
        layers[0][:] += self._std * np.linalg.norm(self._driven, axis=1, keepdims=True) * forward[:, : int(self._widths[0])]
        if self._description.bias:
            bias = normals(key.at("read bias"), samples, total, dtype=self._dtype)
            for layer, first, last in zip(layers, self._edges[:-1], self._edges[1:], strict=True):
                layer += self._std * bias[:, first:last]
        per_step = self._description.read_noise_per_step
        words = np.array(key.at("read steps").words(), dtype=np.uint64) if per_step else no_words
        return Drive(values, forward, backward, words)

    def _convert(self, inputs: Array, samples: Samples, key: Key) -> None:
        """Drive the input array: the part of the drive that only depends on the inputs and the devices."""
        batch = len(inputs)
        activity = np.asarray(inputs, dtype=self._dtype)
        self._driven = convert(self._converter, activity, key=key.at("input DAC"), samples=samples)
        self.squares = np.square(self._driven, dtype=np.float64).sum(axis=0)
        blocks = [self._driven @ self._arrays.input_weights.T]
        blocks += [np.zeros((batch, int(width)), dtype=self._dtype) for width in self._widths[1:]]
        if self._description.bias:
            bias = self._arrays.biases
            for block, first, last in zip(blocks, self._edges[:-1], self._edges[1:], strict=True):
                block += bias[first:last]
        self._values = np.concatenate([block.ravel() for block in blocks])
        self.inputs = np.array(inputs) if self._converter.noise == 0.0 else np.zeros((0, 0))
        self._stale = False
