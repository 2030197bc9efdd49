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
    parameter that says what it begins with (`Parameter.initial`), or between what (`Parameter.uniform`), begins with that. A
    feedback coupling begins at its angle to its partner, B = cos(angle) W^T + sin(angle) D, D drawn as W is: with W's limit, so
    with W's spread.
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
        elif parameter.uniform is not None:
            values[name] = key.at(name).generator().uniform(*parameter.uniform, parameter.shape)
        elif len(parameter.shape) == 1:
            values[name] = np.zeros(parameter.shape)
        elif len(parameter.shape) == 2:
            source = (
                parameters[check_name(f"partner of {name}:", parameter.partner, parameters)] if parameter.partner else parameter
            )
            fan = sum(source.shape) if scheme == "glorot-uniform" else source.shape[1]
            limit = gain * np.sqrt(6.0 / fan)
            values[name] = key.at(name).generator().uniform(-limit, limit, parameter.shape)
        else:
            raise InputError(f"{name} has shape {parameter.shape}; expected a coupling (to, from) or a bias (size,)")
    return {name: _against(name, parameters, values) if parameters[name].partner else value for name, value in values.items()}


def _against(name: str, parameters: Mapping[str, Parameter], values: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """What a feedback coupling begins with."""
    parameter, partner = parameters[name], parameters[name].partner
    expected = parameters[partner].shape[::-1]
    if parameter.shape != expected:
        raise InputError(f"{name} has shape {parameter.shape}; expected {expected}, that of {partner} transposed")
    angle = np.deg2rad(check_range(f"angle of {name}", parameter.angle, low=0.0, high=180.0, unit="degrees"))
    return np.asarray(np.cos(angle) * values[partner].T + np.sin(angle) * values[name])
