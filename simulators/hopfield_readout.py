"""How the activities of a layered Hopfield network get in and out of it: converters, and how they see a complex state."""

import numpy as np

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


def measure(converter: Converter, layer: Array, samples: Samples, key: Key | None) -> Array:
    """States (batch, width) as read once, in a new array; a converter with noise needs a key.

    The real and the imaginary part of a complex state are read side by side, each with noise of its own; nothing is cut to the
    range of the converter then, as that would not be analytic.
    """
    if not np.iscomplexobj(layer):
        return convert(converter, layer, key=key, samples=samples)
    read = np.array(layer)
    if converter.noise > 0.0 and key is not None:
        width = layer.shape[1]
        read += converter.noise * (normals(key, samples, width) + 1j * normals(key.at("imaginary"), samples, width))
    return read
