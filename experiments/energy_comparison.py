"""One estimate of energy against another, draw by draw: what is uncertain in both alike cancels."""

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.validation import InputError
from inmaterio.experiments.cost_draws import Quantiles, quantiles
from inmaterio.experiments.energy_estimate import EnergyEstimate


def difference(a: EnergyEstimate, b: EnergyEstimate, level: str = "system") -> Quantiles | None:
    """Quantiles of a - b draw by draw (J); None when either has no figure at this level.

    Raises
    ------
    InputError
        When the two do not share seed and number of draws.
    """
    pair = _pair(a, b, level)
    return None if pair is None else quantiles(pair[0] - pair[1])


def ratio(a: EnergyEstimate, b: EnergyEstimate, level: str = "system") -> Quantiles | None:
    """Quantiles of a / b draw by draw (dimensionless); None when either has no figure at this level or b is 0.

    Above 1: `a` takes more. What is not modelled in either is missing here too: see `EnergyEstimate.complete`.

    Raises
    ------
    InputError
        When the two do not share seed and number of draws.
    """
    pair = _pair(a, b, level)
    return None if pair is None or not pair[1].all() else quantiles(pair[0] / pair[1])


def _pair(a: EnergyEstimate, b: EnergyEstimate, level: str) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Draws of two estimates that share them."""
    if (a.seed, a.draws) != (b.seed, b.draws):
        raise InputError(
            f"estimates have seed {a.seed} and {b.seed}, draws {a.draws} and {b.draws}; expected the same, to share their draws"
        )
    first, second = a.total_draws(level), b.total_draws(level)
    return None if first is None or second is None else (first, second)
