"""Numbers that decide: the error of one run, the spread of several, the paired difference of two rules.

Chance is 1 - (share of the commonest class) for the error and 1 for the normalised root mean square error.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

from inmaterio.devices.validation import InputError, check_array, check_name, check_range

METRICS = {"classification": "error", "regression": "nrmse"}
"""Name of the metric of each task; for both, less is better and 0 is perfect."""

DECIDING_PAIRS = 3
"""Fewest pairs that decide: the spread of two differences is too easily zero by chance."""

EQUAL_MARGIN = 0.01
"""Two errors count as equal when the interval of their difference lies within this: 1 percentage point, or 0.01 of nrmse."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the ends of its confidence interval; the ends are None where one value says nothing of the spread.

    Attributes
    ----------
    estimate : float
    low, high : float or None
    count : int
        Values, pairs or trials it rests on.
    """

    estimate: float
    low: float | None
    high: float | None
    count: int

    @property
    def decides(self) -> bool:
        """Whether the interval is known, rests on at least `DECIDING_PAIRS` and leaves out zero."""
        return self.low is not None and self.high is not None and self.count >= DECIDING_PAIRS and (self.low > 0 or self.high < 0)

    def standing(self, margin: float = EQUAL_MARGIN) -> str:
        """What the interval of a difference of errors says: ``"equal"``, ``"worse"``, ``"better"`` or ``"not told apart"``.

        Equal: the whole interval lies in [-margin, margin]. Otherwise worse or better: it leaves out zero. Otherwise, or
        with fewer than `DECIDING_PAIRS`, the two are not told apart, which is not the same as equal. A noisier rule has a
        wider interval, so that noise never makes two rules equal.

        Parameters
        ----------
        margin : float
            In the units of the metric.
        """
        if self.low is None or self.high is None or self.count < DECIDING_PAIRS:
            return "not told apart"
        if -margin <= self.low and self.high <= margin:
            return "equal"
        if not self.decides:
            return "not told apart"
        return "worse" if self.low > 0 else "better"


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and sample standard deviation (``ddof=1``; None for a single value) of `count` values."""

    mean: float
    std: float | None
    count: int


def metric_name(task: str) -> str:
    """``"error"`` for classification, ``"nrmse"`` for regression.

    Raises
    ------
    InputError
        When the task is neither.
    """
    return METRICS[check_name("task", task, METRICS)]


def metric(task: str, predicted: ArrayLike, truth: ArrayLike) -> float:
    """The metric of a task: `error_rate` for classification, `nrmse` for regression.

    Parameters
    ----------
    task : str
        ``"classification"`` or ``"regression"``.
    predicted, truth : array_like
        Class labels, shape (n,), or values, shape (n, outputs), in the data set's own units.

    Returns
    -------
    float
        Dimensionless.

    Raises
    ------
    InputError
        When the task is unknown or the shapes or values do not serve.
    """
    return error_rate(predicted, truth) if metric_name(task) == "error" else nrmse(predicted, truth)


def error_rate(predicted: ArrayLike, labels: ArrayLike) -> float:
    """Fraction of labels that are wrong.

    Parameters
    ----------
    predicted, labels : array_like of int, shape (n,)

    Raises
    ------
    InputError
        When the shapes differ or there are none.
    """
    wanted = check_array("labels", labels, shape=(None,))
    found = check_array("predicted labels", predicted, shape=wanted.shape)
    check_range("number of labels", len(wanted), low=1)
    return float(np.mean(found != wanted))


def nrmse(predicted: ArrayLike, targets: ArrayLike) -> float:
    """Root mean square error over the spread of the targets: sqrt(mean over outputs j of mse_j / var_j).

    It is 1 for predicting each output's mean and 0 for no error; 1 - nrmse^2 is the mean coefficient of determination.

    Parameters
    ----------
    predicted, targets : array_like, shape (n, outputs)
        In the same units.

    Raises
    ------
    InputError
        When the shapes differ, a value is not finite, or a target does not vary.
    """
    wanted = check_array("targets", targets, shape=(None, None)).astype(np.float64)
    found = check_array("predicted values", predicted, shape=wanted.shape).astype(np.float64)
    check_range("number of targets", wanted.size, low=1)
    variances = np.var(wanted, axis=0)
    flat = np.flatnonzero((np.ptp(wanted, axis=0) == 0) | (variances == 0))
    if flat.size:
        raise InputError(f"target {flat[0]} is {wanted[0, flat[0]]:g} in all {len(wanted)} rows; expected targets that vary")
    return float(np.sqrt(np.mean(np.mean((found - wanted) ** 2, axis=0) / variances)))


def spread(values: Sequence[float] | NDArray[np.float64]) -> Spread:
    """Mean and sample standard deviation of the results of several seeds, chips or splits.

    Raises
    ------
    InputError
        When there are none or one is not finite.
    """
    results = _results("values", values)
    return Spread(float(results.mean()), float(results.std(ddof=1)) if len(results) > 1 else None, len(results))


def paired_difference(
    first: Sequence[float] | NDArray[np.float64],
    second: Sequence[float] | NDArray[np.float64],
    *,
    confidence: float = 0.95,
    resolution: float = 0.0,
) -> Interval:
    """Mean of first - second over independent pairs, with Student's interval.

    mean(d) +- max(t_{(1 + confidence) / 2, n - 1} std(d) / sqrt(n), resolution), with d = first - second and std of
    ``ddof=1``. Pairing takes out what both have in common, such as a hard split. Pairs must be independent: see `pair_up`.

    Parameters
    ----------
    first, second : sequence of float, length n
        The metric of two rules, in the same order.
    confidence : float
        Probability with which the interval covers the true mean difference, in (0, 1).
    resolution : float
        Smallest half width: what one test row changes, 1/n for an error rate on n rows. Equal differences by chance would
        otherwise give an interval of no width.

    Returns
    -------
    Interval
        Without ends when there is one pair; below `DECIDING_PAIRS` it decides nothing.

    Raises
    ------
    InputError
        When the lengths differ, there are no pairs, or a value is not finite.
    """
    check_range("confidence", confidence, low=0, high=1, low_open=True, high_open=True)
    check_range("resolution", resolution, low=0)
    left, right = _results("first", first), _results("second", second)
    if len(left) != len(right):
        raise InputError(f"{len(left)} results are paired with {len(right)}; expected as many")
    differences = left - right
    count, mean = len(differences), float(differences.mean())
    if count < 2:
        return Interval(mean, None, None, count)
    half = float(stdtrit(count - 1, (1 + confidence) / 2)) * float(differences.std(ddof=1)) / math.sqrt(count)
    half = max(half, float(resolution))
    return Interval(mean, mean - half, mean + half, count)


def pair_up(
    first: Mapping[tuple[int, int], Sequence[float]], second: Mapping[tuple[int, int], Sequence[float]]
) -> tuple[str, list[float], list[float]]:
    """Independent pairs of results that two rules have in common.

    Seeds and chips of one split share its rows, so that they are not independent of each other: with several splits in
    common they are averaged within each, and a pair is a split. With one split a pair is a seed, chips averaged; what
    comes out then holds for the rows of that split.

    Parameters
    ----------
    first, second : mapping of (split seed, seed) to sequence of float
        Results of the chips of each.

    Returns
    -------
    str
        What a pair is: ``"split"`` or ``"seed"``.
    list of float, list of float
        One result per pair, in the same order; empty when nothing is in common.
    """
    common = sorted(first.keys() & second.keys())
    of = "split" if len({split for split, _ in common}) > 1 else "seed"
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for place in common:
        groups.setdefault((place[0], 0 if of == "split" else place[1]), []).append(place)

    def averaged(results: Mapping[tuple[int, int], Sequence[float]]) -> list[float]:
        return [float(np.mean([np.mean(results[place]) for place in group])) for group in groups.values()]

    return of, averaged(first), averaged(second)


def wilson_interval(wrong: float, total: int, *, confidence: float = 0.95) -> Interval:
    """Error rate of one run with Wilson's score interval: how far a test set of this size can tell.

    With p = wrong / total, n = total and z the normal quantile at (1 + confidence) / 2:
    (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n).
    Source: E. B. Wilson, J. Am. Stat. Assoc. 22, 209 (1927).

    Parameters
    ----------
    wrong : float
        Wrong answers; a mean where several runs answered the same rows, which are one sample of rows however many run.
    total : int
        Answers of one run.
    confidence : float
        In (0, 1).

    Raises
    ------
    InputError
        When total is below 1 or wrong is not in [0, total].
    """
    check_range("confidence", confidence, low=0, high=1, low_open=True, high_open=True)
    check_range("number of answers", total, low=1)
    check_range("number of wrong answers", wrong, low=0, high=total)
    z = float(ndtri((1 + confidence) / 2))
    rate = wrong / total
    centre = rate + z * z / (2 * total)
    half = z * math.sqrt(rate * (1 - rate) / total + (z / (2 * total)) ** 2)
    scale = 1 + z * z / total
    # At the ends the exact bound is 0 or 1, which rounding would miss.
    low = 0.0 if wrong == 0 else (centre - half) / scale
    high = 1.0 if wrong == total else (centre + half) / scale
    return Interval(rate, low, high, total)


def _results(name: str, values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    results = check_array(name, values, shape=(None,)).astype(np.float64)
    check_range(f"number of {name}", len(results), low=1)
    return results
