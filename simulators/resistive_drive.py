"""What is held while a resistive network settles: the sources as driven, the bias currents, and read noise that stays.

A rule sends the same inputs in every phase of an update, so that what they drive is kept, with the bytes it was made from.
"""

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from inmaterio.devices.compilation import kernel
from inmaterio.devices.converters import Converter, convert
from inmaterio.devices.randomness import Key, normals
from inmaterio.devices.validation import InputError
from inmaterio.simulators.capabilities import Array, Port, Samples
from inmaterio.simulators.fixed_point import split_layers
from inmaterio.simulators.resistive_arrays import ResistorArrays
from inmaterio.simulators.resistive_description import ResistiveDescription
from inmaterio.simulators.resistive_kernels import HeldNoise
from inmaterio.simulators.substrate import check_batch


@kernel
def fill_source_factor(inputs: Array, ratio: float, factor: Array) -> None:
    """What sources +-u, u = ratio * inputs, are to the first layer's contrast.

    Parameters
    ----------
    inputs : ndarray, shape (batch, n_0)
    ratio : float
        Units of activity per input.
    factor : ndarray, shape (batch + 2, 2 n_0)
        Out: (-u, u) of each sample, 1, and half the sum over samples of u^2.
    """
    batch, width = inputs.shape
    for j in range(2 * width):
        factor[batch, j] = 1.0
        factor[batch + 1, j] = 0.0
    for b in range(batch):
        for j in range(width):
            value = factor.dtype.type(ratio * inputs[b, j])
            factor[b, j] = -value
            factor[b, width + j] = value
            factor[batch + 1, j] += value * value
    for j in range(width):
        half = factor.dtype.type(0.5) * factor[batch + 1, j]
        factor[batch + 1, j] = half
        factor[batch + 1, width + j] = half


@dataclass(frozen=True, slots=True, eq=False)
class Driven:
    """What inputs drive.

    Attributes
    ----------
    batch : int
    factor : ndarray, shape (batch + 2, 2 n_0)
        Right-hand factor of the first layer's contrast, read-only: minus the source voltages as converted, in units of
        activity, a row of ones, and half the sum over samples of each source's square.
    currents : ndarray, shape (batch, n_1)
        sum_j g_1[i, j] v_0[j].
    drive : ndarray, shape (batch * nodes,)
        Currents of every layer that do not change while the network settles.
    heat : float
        Sum over samples and sources of sum_i g_1[i, j] v_0[j]^2.
    """

    batch: int
    factor: Array
    currents: Array
    drive: Array
    heat: float

    @property
    def sources(self) -> Array:
        """Source voltages (batch, 2 n_0) as converted, in units of activity."""
        return np.negative(self.factor[: self.batch])


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
        self._port = Port(description.widths[0], "1", -1.0, 1.0)
        self._exact = converter.noise == 0.0 and converter.bits is None
        self._last: tuple[tuple[Any, ...], Driven] | None = None
        # what inputs ask for, whatever the devices and converters make of it
        self._asked: tuple[tuple[Any, ...], Array] | None = None

    @property
    def port(self) -> Port:
        """What inputs must be."""
        return self._port

    def forget(self) -> None:
        """Make everything anew at the next call: devices have changed."""
        self._last = None

    def sources(self, inputs: Array) -> Array:
        """Source voltages (batch, 2 n_0) that inputs ask for, in units of activity: the inputs and their negatives."""
        return np.negative(self._factor(np.asarray(inputs))[: len(inputs)])

    def factor(self, inputs: Array) -> Array:
        """Right-hand factor of the first layer's contrast, of the sources that inputs ask for: see `Driven.factor`.

        It is the same array for the same inputs.
        """
        inputs = np.asarray(inputs)
        return self._ask(inputs, _fingerprint(inputs))

    def drive(self, inputs: Array, samples: Samples, key: Key, source_sums: Array) -> Driven:
        """Convert inputs and let the sources drive their array, unless they do already.

        Parameters
        ----------
        inputs : ndarray, shape (batch, n_0)
        samples : ndarray of int64, shape (batch,)
        key : Key
            Of the converters' noise.
        source_sums : ndarray, shape (2 n_0,)
            sum_i g_1[i, j] of every source.

        Raises
        ------
        InputError
            As `check_batch`, and when inputs are complex.
        """
        inputs = np.asarray(inputs)
        given = _fingerprint(inputs)
        if self._last is not None and self._last[0] == given and len(samples) == len(inputs):
            return self._last[1]
        if not _fits(inputs, samples, self._port) and np.iscomplexobj(check_batch(inputs, samples, self._port)):
            raise InputError("input holds complex values; expected real ones")
        batch = len(inputs)
        if self._exact:
            factor = self._ask(inputs, given)
        else:
            noise = key.at("input DAC") if self._converter.noise > 0.0 else None
            factor = self._factor(convert(self._converter, np.asarray(inputs, dtype=self._dtype), key=noise, samples=samples))
        # the sign of every product and sum turned round: the same bits as those of the sources
        currents = np.negative(factor[:batch] @ self._arrays.weights[0].T)
        if self._bias:
            drive = np.empty(batch * self._nodes, dtype=self._dtype)
            for block, bias in zip(split_layers(drive, batch, self._widths), self._arrays.biases, strict=True):
                block[:] = bias
        else:
            drive = np.zeros(batch * self._nodes, dtype=self._dtype)
        drive[: currents.size] += currents.ravel()
        heat = 2.0 * float(factor[batch + 1] @ source_sums)
        driven = Driven(batch, factor, currents, drive, heat)
        # a noisy conversion is another one each time
        self._last = None if self._converter.noise > 0.0 else (given, driven)
        return driven

    def _ask(self, inputs: Array, given: tuple[Any, ...]) -> Array:
        if self._asked is None or self._asked[0] != given:
            self._asked = given, self._factor(inputs)
        return self._asked[1]

    def _factor(self, inputs: Array) -> Array:
        batch, width = inputs.shape
        factor = np.empty((batch + 2, 2 * width), dtype=self._dtype)
        given = np.ascontiguousarray(inputs if inputs.dtype in (np.float32, np.float64) else inputs.astype(np.float64))
        fill_source_factor(given, given.dtype.type(self._ratio), factor)
        factor.flags.writeable = False
        return factor

    def read_noise(self, driven: Driven, samples: Samples, key: Key) -> tuple[Array, HeldNoise | None]:
        """The held currents, with read noise of the biases where there is any, and that of the conductances."""
        std = self._arrays.single.read_noise_weight
        if std == 0.0:
            return driven.drive, None
        below = normals(key.at("read below"), samples, self._nodes, dtype=self._dtype)
        above = normals(key.at("read above"), samples, self._nodes, dtype=self._dtype)
        sources = driven.sources
        sums = np.stack([sources.sum(axis=1), np.square(sources).sum(axis=1)], axis=1).astype(np.float64)
        drive = driven.drive
        if self._bias:
            drive = drive.copy()
            noise = normals(key.at("read bias"), samples, self._nodes, dtype=self._dtype)
            noise *= self._arrays.pair.read_noise_weight
            parts = np.split(noise, np.cumsum(self._widths)[:-1], axis=1)
            for block, part in zip(split_layers(drive, len(samples), self._widths), parts, strict=True):
                block += part
        return drive, HeldNoise(std, below, above, sums)


def _fingerprint(inputs: Array) -> tuple[Any, ...]:
    """Equal for inputs of equal bits, so that inputs changed in place are seen; several times cheaper than comparing arrays."""
    return inputs.tobytes(), inputs.shape, inputs.dtype


def _fits(inputs: Array, samples: Samples, port: Port) -> bool:
    """Whether `check_batch` would pass, told without temporary arrays for the usual types; False also when it would pass."""
    return (
        inputs.dtype.kind == "f"
        and inputs.ndim == 2
        and inputs.shape[1] == port.size
        and isinstance(samples, np.ndarray)
        and samples.dtype.kind in "iu"
        and samples.shape == (len(inputs),)
        and len(inputs) > 0
        # a value that is not a number is neither
        and bool(inputs.min() >= port.low)
        and bool(inputs.max() <= port.high)
    )
