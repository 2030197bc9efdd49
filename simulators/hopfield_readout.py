"""How the activities of a layered Hopfield network get in and out of it: converters, and how they see a complex state."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.converters import Converter, convert, signed_converter
from inmaterio.devices.randomness import Key, normals
from inmaterio.simulators.activations import Activation
from inmaterio.simulators.capabilities import Array, Samples
from inmaterio.simulators.hopfield_description import HopfieldDescription


def input_converter(description: HopfieldDescription) -> Converter:
    """DAC of the inputs and of the target of a nudge."""
    bits, noise = description.input_bits, description.input_noise
    return Converter(low=-1.0, high=1.0, noise=noise) if bits is None else signed_converter(1.0, bits, noise)


def state_converter(description: HopfieldDescription, activation: Activation) -> Converter:
    """ADC of the states of nodes with this response."""
    bits, noise = description.state_bits, description.state_noise
    if activation.low == 0.0:
        return Converter(bits=bits, low=0.0, high=activation.high, noise=noise, unit="1")
    if np.isfinite(activation.high):
        limit = activation.high
        return Converter(low=-limit, high=limit, noise=noise) if bits is None else signed_converter(limit, bits, noise)
    return signed_converter(description.state_range, bits, noise)


def driven_inputs(converter: Converter, inputs: Array) -> NDArray[np.float64]:
    """Inputs as their DAC drives them without its noise, in float64: its rounding is part of the chip."""
    clean = Converter(bits=converter.bits, low=converter.low, high=converter.high, unit=converter.unit)
    return np.asarray(convert(clean, np.asarray(inputs, dtype=np.float64)), dtype=np.float64)


def measure_layers(
    converters: Sequence[Converter], layers: Sequence[Array], samples: Samples, key: Key, *, outputs_only: bool = False
) -> tuple[Array, ...]:
    """Every layer (batch, n_k), or the last one alone, as read once, in new arrays.

    Parameters
    ----------
    converters : sequence of Converter
        ADC of each layer.
    layers : sequence of ndarray, each (batch, n_k)
        Real or complex.
    samples : ndarray of int64, shape (batch,)
    key : Key
        Noise of the converters.
    outputs_only : bool
    """
    first = len(layers) - 1 if outputs_only else 0
    return tuple(_measure(converters[k], k, layers[k], samples, key) for k in range(first, len(layers)))


def measure_record(
    converters: Sequence[Converter], record: Sequence[Sequence[Array]], samples: Samples, key: Key
) -> tuple[Array, ...]:
    """What `measure_layers` reads after each update, each layer (steps, batch, n_k); empty where nothing was recorded.

    Parameters
    ----------
    converters, samples, key
        As in `measure_layers`; noise is another one after each update.
    record : sequence of sequence of ndarray, each (batch, n_k)
        Every layer after each update.
    """
    if not record:
        return ()
    return tuple(
        np.stack([_measure(one, k, layers[k], samples, key.at("record", t)) for t, layers in enumerate(record)])
        for k, one in enumerate(converters)
    )


def _measure(converter: Converter, k: int, states: Array, samples: Samples, key: Key) -> Array:
    """States (batch, width) of layer k + 1 as read once, in a new array.

    The real and the imaginary part of a complex state are read side by side, each with noise of its own; nothing is cut to the
    range of the converter then, as that would not be analytic.
    """
    # streams are dear: none is opened for a converter without noise
    stream = key.at("state ADC", k) if converter.noise > 0.0 else None
    if not np.iscomplexobj(states):
        return convert(converter, states, key=stream, samples=samples)
    read = np.array(states)
    if stream is not None:
        width = states.shape[1]
        read += converter.noise * (normals(stream, samples, width) + 1j * normals(stream.at("imaginary"), samples, width))
    return read
