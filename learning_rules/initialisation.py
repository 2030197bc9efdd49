"""First values of parameters: couplings drawn uniformly, biases zero."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_name, check_range
from inmaterio.simulators.capabilities import Parameter

SCHEMES = ("glorot-uniform", "he-uniform")


def initial_values(
    parameters: Mapping[str, Parameter], *, key: Key, gain: float = 0.5, scheme: str = "glorot-uniform"
) -> dict[str, NDArray[np.float64]]:
    """Values to begin training with.

    A coupling of shape (to, from) is uniform in [-limit, limit]; ``glorot-uniform``: limit = gain sqrt(6 / (to + from))
    (half-Glorot at gain 1/2); ``he-uniform``: limit = gain sqrt(6 / from), for rectified responses at gain 1. A bias is 0. A
    parameter that says what it begins with (`Parameter.initial`) begins with that.
    Every parameter has a stream of its own, ``key.at(name)``: its values do not depend on which others there are.

    Parameters
    ----------
    parameters : mapping of str to Parameter
    key : Key
        Stream of the initialisation.
    gain : float
        Multiplies the limit; > 0.
    scheme : str
        One of `SCHEMES`.

    Returns
    -------
    dict of ndarray
        In the parameters' units, not clipped to their ranges: devices do that.

    Raises
    ------
    InputError
        When the scheme is unknown, the gain is not a finite number > 0, or a parameter is neither coupling nor bias.

    References
    ----------
    Glorot and Bengio, AISTATS 2010, equation 16. He, Zhang, Ren and Sun, ICCV 2015, equation 10.
    """
    check_name("initialisation", scheme, SCHEMES)
    check_range("gain", gain, low=0.0, low_open=True, high_open=True)
    values = {}
    for name, parameter in parameters.items():
        if parameter.initial is not None:
            values[name] = np.full(parameter.shape, float(parameter.initial))
        elif len(parameter.shape) == 1:
            values[name] = np.zeros(parameter.shape)
        elif len(parameter.shape) == 2:
            fan = sum(parameter.shape) if scheme == "glorot-uniform" else parameter.shape[1]
            limit = gain * np.sqrt(6.0 / fan)
            values[name] = key.at(name).generator().uniform(-limit, limit, parameter.shape)
        else:
            raise InputError(f"{name} has shape {parameter.shape}; expected a coupling (to, from) or a bias (size,)")
    return values
