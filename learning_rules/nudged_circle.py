"""Nudges on a circle in the complex plane, and the derivative at its centre from what is measured there.

With beta_k = r exp(2 pi i k / N), k = 0..N-1, and f(beta) whatever is measured at the rest point under the nudge beta,

    df/dbeta at 0  ~  (1/N) sum_k f(beta_k) / beta_k  =  f'(0) + f^(N+1)(0) r^N / (N+1)! + ...

the trapezoidal rule for Cauchy's integral: exact up to O(r^N) where f is holomorphic inside the circle. N = 2 is the central
difference. N = 1 leaves f(0) / r, so there the free term is taken off, and the forward difference is left. What is real at real
beta is conjugate at the conjugate beta, so that of each pair of points one is settled: N/2 + 1 settlings for even N and
(N + 1)/2 for odd.

Sources: Laborieux and Zenke, NeurIPS 35 (2022), arXiv 2209.00530 (nudges on a circle); Trefethen and Weideman, SIAM Review 56,
385 (2014) (the trapezoidal rule on a circle).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_range
from inmaterio.learning_rules.contract import Batch
from inmaterio.simulators.capabilities import Array, Estimate, Nudge, Outer, Settled


@dataclass(frozen=True, slots=True)
class Circle:
    """N nudges of equal strength about zero.

    Attributes
    ----------
    points : int
        N >= 1.
    radius : float
        r > 0, in units of beta.

    Raises
    ------
    InputError
        When the number of points is not a whole one of at least 1, or the radius is not above 0.
    """

    points: int
    radius: float

    def __post_init__(self) -> None:
        check_range("points", self.points, low=1, unit="nudges")
        if self.points != int(self.points):
            raise InputError(f"points is {self.points:g} nudges; expected a whole number")
        check_range("radius", self.radius, low=0.0, low_open=True)
        if not np.isfinite(self.radius):
            raise InputError(f"radius is {self.radius:g}; expected a finite number")

    @property
    def betas(self) -> tuple[float | complex, ...]:
        """Strengths to settle under: one of each conjugate pair, the real ones as real numbers."""
        points = int(self.points)
        upper = [self.radius * np.exp(2j * np.pi * k / points) for k in range(1, (points + 1) // 2)]
        lowest = [-self.radius] if points % 2 == 0 else []
        return (float(self.radius), *(complex(beta) for beta in upper), *(float(beta) for beta in lowest))

    def measure(self, free: Settled, nudged: Sequence[Settled]) -> "Measured":
        """Phases beside the factors they are summed with, the free one where its term does not cancel."""
        factors = [(2.0 if isinstance(beta, complex) else 1.0) / (self.points * beta) for beta in self.betas]
        if self.points == 1:
            return Measured((*nudged, free), (*factors, -factors[0]))
        return Measured(tuple(nudged), tuple(factors))


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Phases c_k of which the derivative at beta = 0 is Re sum_k c_k f(phase k).

    Attributes
    ----------
    phases : tuple of Settled
    factors : tuple of complex
        c_k; the factor of one of a conjugate pair stands for both.
    """

    phases: tuple[Settled, ...]
    factors: tuple[float | complex, ...]

    def state_derivatives(self) -> tuple[Array, ...]:
        """ds/dbeta at the free rest point, real, one array (batch, width) per layer."""
        layers = zip(*(phase.states for phase in self.phases), strict=True)
        return tuple(np.asarray(sum(_real(c * s) for c, s in zip(self.factors, layer, strict=True))) for layer in layers)

    def contrast_derivatives(self, substrate: Any, inputs: Array) -> dict[str, Estimate]:
        """d/dbeta of the batch mean of dE/dtheta at the free rest point, real, without a dense array of an outer product.

        Over the same right-hand side (the clamped input) it is one outer product, otherwise one over the real and imaginary
        parts of all phases behind one another: Re(l (x) r) = Re l (x) Re r - Im l (x) Im r.
        """
        contrasts: list[Mapping[str, Estimate]] = [substrate.local_contrast(inputs, phase.states) for phase in self.phases]
        return {name: _weighted_sum([contrast[name] for contrast in contrasts], self.factors) for name in contrasts[0]}


def settle_around(
    substrate: Any,
    batch: Batch,
    key: Key,
    circle: Circle,
    *,
    loss: str,
    steps: int,
    tolerance: float | None,
    shared_noise: bool,
) -> list[Settled]:
    """One nudged phase for each of `Circle.betas`, each from the held free state.

    Raises
    ------
    InputError
        When a tolerance was asked for and a phase does not reach it: see `check_reached`.
    """
    nudged: list[Settled] = []
    for k, beta in enumerate(circle.betas):
        with substrate.ledger.phase("nudged"):
            settled: Settled = substrate.settle(
                batch.inputs,
                samples=batch.samples,
                key=key.at("shared") if shared_noise else key.at("nudged", k),
                nudge=Nudge(loss, batch.targets, beta),
                start="free",
                steps=steps,
                tolerance=tolerance,
            )
        check_reached(settled, beta, "radius")
        nudged.append(settled)
    return nudged


def check_reached(settled: Settled, beta: float | complex | None, strength: str) -> Settled:
    """Return a phase that reached the tolerance it was asked for, if it was asked for one.

    Parameters
    ----------
    settled : Settled
    beta : float, complex or None
        Its nudge, None for the free phase.
    strength : str
        The rule's name for the size of the nudge, for the message.

    Raises
    ------
    InputError
        When the residual is above the tolerance or not a number.
    """
    worst = float(np.max(settled.residual))
    if settled.tolerance is None or worst <= settled.tolerance:
        return settled
    phase = "free phase" if beta is None else f"nudged phase with beta {beta:.4g}"
    cure = "more free_steps or smaller weights" if beta is None else f"a smaller {strength} or more nudged_steps"
    raise InputError(
        f"the {phase} does not settle: its residual is {worst:.2g} after {settled.steps} updates; "
        f"expected at most {settled.tolerance:g}, try {cure}"
    )


def _real(values: Array) -> Array:
    return np.asarray(np.real(values))


def _weighted_sum(estimates: Sequence[Estimate], factors: Sequence[float | complex]) -> Estimate:
    """Re sum_k c_k estimate_k."""
    outers = [estimate for estimate in estimates if isinstance(estimate, Outer)]
    if len(outers) < len(estimates):
        dense = [estimate.dense() if isinstance(estimate, Outer) else estimate for estimate in estimates]
        return np.asarray(sum(_real(c * values) for c, values in zip(factors, dense, strict=True)))
    lefts = [c * outer.scale * outer.left for c, outer in zip(factors, outers, strict=True)]
    right = outers[0].right
    if all(outer.right is right for outer in outers) and not np.iscomplexobj(right):
        return Outer(np.asarray(sum(_real(left) for left in lefts)), right)
    rows: list[tuple[Array, Array]] = []
    for left, outer in zip(lefts, outers, strict=True):
        rows.append((_real(left), _real(outer.right)))
        if np.iscomplexobj(left) and np.iscomplexobj(outer.right):
            rows.append((-np.imag(left), np.imag(outer.right)))
    # the mean over all rows has that many times the rows of one phase
    return Outer(np.concatenate([left for left, _ in rows]), np.concatenate([r for _, r in rows]), float(len(rows)))
