"""Dyads: the two compartments of a node in dual propagation.

Between them they share what comes back to a node, u, after its drive a and before its response f:

    s+ = f(a + c+ u),   s- = f(a - c- u),   c+ + c- = 1

Their mean, alpha s+ + (1 - alpha) s-, is the node's activity; their difference, D = s+ - s-, is its error: s+ is pulled towards
lower loss, so that D is close to -beta dC/da.

===========  =========  =========
variant      c+         c-
===========  =========  =========
lagrangian   1 - alpha  alpha
original     alpha      1 - alpha
===========  =========  =========

At alpha = 1/2 they are the same. At alpha = 0 and 1 the lagrangian's mean is the state that hears nothing from above, so
that feedback does not move activities at all; the original's mean moves by (2 alpha - 1) f'(a) u, which weights carry on.

Sources: Høier, Staudt and Zach, "Dual propagation", ICML 2023 (original); Høier and Zach, "Two tales of single-phase contrastive
Hebbian learning", ICML 2024 (lagrangian, there DP with a transposed alpha).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.validation import check_name, check_range
from inmaterio.simulators.capabilities import Array

VARIANTS = ("lagrangian", "original")


def check_dyads(variant: str, alpha: float, beta: float) -> None:
    """See that a variant is known, alpha in [0, 1] and beta a finite number > 0.

    Raises
    ------
    InputError
        When they are not.
    """
    check_name("variant", variant, VARIANTS)
    check_range("alpha", alpha, low=0.0, high=1.0)
    check_range("beta", beta, low=0.0, low_open=True, high_open=True)


def shares(variant: str, alpha: float) -> tuple[float, float]:
    """c+ and c-: how much of what comes back each compartment hears."""
    return (1.0 - alpha, alpha) if variant == "lagrangian" else (alpha, 1.0 - alpha)


@dataclass(frozen=True, slots=True, eq=False)
class Dyads:
    """The compartments of a layer.

    Attributes
    ----------
    plus, minus : ndarray, shape (batch, width)
        s+ and s-, as measured.
    """

    plus: Array
    minus: Array

    def mean(self, alpha: float) -> Array:
        """alpha s+ + (1 - alpha) s-, the activity; exactly the one of them at alpha 0 or 1."""
        mean = alpha * self.plus
        mean += (1.0 - alpha) * self.minus
        return np.asarray(mean)

    def difference(self) -> Array:
        """s+ - s-."""
        return np.asarray(self.plus - self.minus)

    def moved(self, before: "Dyads") -> NDArray[np.float64]:
        """Largest change of either compartment of any node, shape (batch,)."""
        changes = np.abs(self.plus - before.plus), np.abs(self.minus - before.minus)
        return np.asarray(np.maximum(*changes).max(axis=1), dtype=np.float64)


def proximal_difference(outputs: Array, targets: Array, beta: float, plus: float, minus: float) -> Array:
    """D of linear outputs under the loss C = 1/2 |s - y|^2, (batch, outputs).

    s+ minimises 1/2 |s - a|^2 + c+ beta C and s- maximises -1/2 |s - a|^2 + c- beta C, which has a maximum while c- beta < 1:

        s+ = (a + c+ beta y) / (1 + c+ beta),   s- = (a - c- beta y) / (1 - c- beta)
        D = beta (y - a) / ((1 + c+ beta) (1 - c- beta))

    Parameters
    ----------
    outputs, targets : ndarray, shape (batch, outputs)
        a and y.
    beta : float
    plus, minus : float
        c+ and c-.
    """
    return np.asarray((beta / ((1.0 + plus * beta) * (1.0 - minus * beta))) * (targets - outputs))
