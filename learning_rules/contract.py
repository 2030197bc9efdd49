"""What a rule is: one file with `REQUIRES`, `build`, a frozen state, `init`, `update`, `predict`.

A rule sees a substrate only through the capabilities it requires, hence only what could be measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.randomness import Key
from inmaterio.simulators.capabilities import Array, Estimate, Samples


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Encoded data.

    Attributes
    ----------
    inputs : ndarray, shape (batch, inputs)
        In units of the substrate's input port.
    targets : ndarray, shape (batch, outputs)
        In units of the output.
    samples : ndarray of int64, shape (batch,)
        Index of each row in the data set.
    """

    inputs: Array
    targets: Array
    samples: Samples

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True, slots=True, eq=False)
class Diagnostics:
    """What a rule noticed in one update.

    Attributes
    ----------
    loss : float
        Mean loss of the batch at the free pass's measured outputs.
    outputs : ndarray, shape (batch, outputs)
        Those outputs: they cost no further pass, so learning curves of the training data are free.
    residual : float
        Largest settling residual of the phases, in units of activity; 0 for substrates that do not settle.
    unsettled : float
        Fraction of samples of which any phase ended above `SETTLED`.
    states : tuple of ndarray, each (batch, width)
        Measured free state of every layer after the input, output last, for a rule that builds on this one; empty where
        the rule reads none.
    symmetry : float
        |S| / (|S| + |A|), Frobenius norms of the symmetric and antisymmetric parts of the Jacobian; nan where the rule takes
        none.
    of_loss : mapping of str to Estimate, optional
        What a rule that adds the gradient of something else to its estimates takes the gradient of the loss for: it is this that
        is compared with the exact one. None: all of the estimates.
    """

    loss: float
    outputs: Array
    residual: float = 0.0
    unsettled: float = 0.0
    states: tuple[Array, ...] = ()
    symmetry: float = np.nan
    of_loss: Mapping[str, Estimate] | None = None


SETTLED = 1e-2
"""Residual, in units of activity, above which a phase counts as unsettled in tables."""


class Update(NamedTuple):
    """What `update` returns: the next state, an estimated gradient of the batch-mean loss per parameter, diagnostics.

    A rule with ``PROGRAMS = True`` writes by itself and returns no estimates.
    """

    state: Any
    estimates: Mapping[str, Estimate]
    diagnostics: Diagnostics


class InitFn(Protocol):
    def __call__(self, key: Key) -> Any:
        """State before the first update."""


class UpdateFn(Protocol):
    def __call__(self, state: Any, batch: Batch, key: Key) -> Update:
        """One batch. Opens the ledger's rule phases; never opens `train` itself."""


class PredictFn(Protocol):
    def __call__(self, state: Any, inputs: Array, samples: Samples, key: Key) -> Array:
        """Scores (batch, outputs)."""


class Rule(NamedTuple):
    """What `build` returns.

    Attributes
    ----------
    init, update, predict : callable
    others : mapping of str to callable
        Further ways to predict, by what a table calls them: what a run ends on is shown for each beside that of `predict`.
    """

    init: InitFn
    update: UpdateFn
    predict: PredictFn
    others: Mapping[str, PredictFn] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Stateless:
    """State of a rule that keeps none."""

    nothing: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
