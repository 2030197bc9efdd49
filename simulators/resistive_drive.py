"""What is held while a resistive network settles: the sources as driven, the bias currents, and read noise that stays."""

from dataclasses import dataclass
from typing import final

import numpy as np

from inmaterio.devices.converters import Converter, convert
from inmaterio.devices.randomness import Key, normals
from inmaterio.simulators.capabilities import Array, Samples
from inmaterio.simulators.fixed_point import split_layers
from inmaterio.simulators.resistive_arrays import ResistorArrays
from inmaterio.simulators.resistive_description import ResistiveDescription
from inmaterio.simulators.resistive_kernels import HeldNoise


@dataclass(frozen=True, slots=True, eq=False)
class Driven:
    """What inputs drive.

    Attributes
    ----------
    inputs : ndarray, shape (batch, n_0)
        As given; a copy.
    sources : ndarray, shape (batch, 2 n_0)
        As converted, in units of activity.
    squares : ndarray, shape (2 n_0,)
        Sum over samples of each source's square.
    currents : ndarray, shape (batch, n_1)
        sum_j g_1[i, j] v_0[j].
    drive : ndarray, shape (batch * nodes,)
        Currents of every layer that do not change while the network settles.
    """

    inputs: Array
    sources: Array
    squares: Array
    currents: Array
    drive: Array


@final
class SourceDrive:
    """The sources of a network, and what they drove last: the same samples come again in every phase.

    Parameters
    ----------
    description : ResistiveDescription
    arrays : ResistorArrays
    converter : Converter
        DAC of the inputs.
    """

    def __init__(self, description: ResistiveDescription, arrays: ResistorArrays, converter: Converter) -> None:
        self._arrays = arrays
        self._converter = converter
        self._bias = description.bias
        self._dtype = np.dtype(description.dtype)
        self._ratio = description.input_volts / description.volts_per_output
        self._widths = np.array(description.widths[1:], dtype=np.int64)
        self._nodes = int(self._widths.sum())
        self._last: Driven | None = None

    def forget(self) -> None:
        """Make everything anew at the next call: devices have changed."""
        self._last = None

    def knows(self, inputs: Array, samples: Samples) -> bool:
        """Whether these are the inputs that were driven last, through the devices as they are."""
        last = self._last
        return last is not None and len(samples) == len(last.inputs) and np.array_equal(inputs, last.inputs)

    def sources(self, inputs: Array) -> Array:
        """Source voltages (batch, 2 n_0), in units of activity: the inputs and their negatives."""
        batch, width = inputs.shape
        sources = np.empty((batch, 2 * width), dtype=self._dtype)
        np.multiply(inputs, self._ratio, out=sources[:, :width], casting="same_kind")
        np.negative(sources[:, :width], out=sources[:, width:])
        return sources

    def drive(self, inputs: Array, samples: Samples, key: Key, known: bool) -> Driven:
        """Convert the inputs and let the sources drive their array, unless they do already; `known` is what `knows` says."""
        if known and self._last is not None:
            return self._last
        batch, noisy = len(inputs), self._converter.noise > 0.0
        converted = inputs
        if noisy or self._converter.bits is not None:
            activity = np.asarray(inputs, dtype=self._dtype)
            converted = convert(self._converter, activity, key=key.at("input DAC"), samples=samples)
        sources = self.sources(converted)
        currents = sources @ self._arrays.weights[0].T
        drive = np.empty(batch * self._nodes, dtype=self._dtype)
        for block, bias in zip(split_layers(drive, batch, self._widths), self._arrays.biases, strict=True):
            block[:] = bias
        drive[: currents.size] += currents.ravel()
        driven = Driven(np.array(inputs), sources, np.einsum("bj,bj->j", sources, sources), currents, drive)
        # a noisy conversion is another one each time
        self._last = None if noisy else driven
        return driven

    def read_noise(self, driven: Driven, samples: Samples, key: Key) -> tuple[Array, HeldNoise | None]:
        """The held currents, with read noise of the biases where there is any, and that of the conductances."""
        std = self._arrays.single.read_noise_weight
        if std == 0.0:
            return driven.drive, None
        below = normals(key.at("read below"), samples, self._nodes, dtype=self._dtype)
        above = normals(key.at("read above"), samples, self._nodes, dtype=self._dtype)
        sums = np.stack([driven.sources.sum(axis=1), np.square(driven.sources).sum(axis=1)], axis=1).astype(np.float64)
        drive = driven.drive
        if self._bias:
            drive = drive.copy()
            noise = normals(key.at("read bias"), samples, self._nodes, dtype=self._dtype)
            noise *= self._arrays.pair.read_noise_weight
            parts = np.split(noise, np.cumsum(self._widths)[:-1], axis=1)
            for block, part in zip(split_layers(drive, len(samples), self._widths), parts, strict=True):
                block += part
        return drive, HeldNoise(std, below, above, sums)
