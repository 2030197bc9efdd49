"""Metrics and intervals, against scipy.stats, scikit-learn and numbers worked by hand."""

import math

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from inmaterio.devices.validation import InputError
from inmaterio.experiments.metrics import (
    Interval,
    error_rate,
    metric,
    metric_name,
    nrmse,
    pair_up,
    paired_difference,
    spread,
    wilson_interval,
)

values = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12)


def test_names_of_the_metrics() -> None:
    assert metric_name("classification") == "error"
    assert metric_name("regression") == "nrmse"
    with pytest.raises(InputError, match="unknown task 'clasification'; nearest: classification"):
        metric_name("clasification")


def test_error_is_the_fraction_wrong() -> None:
    labels, predicted = [0, 1, 2, 2, 1], [0, 2, 2, 2, 0]
    assert error_rate(predicted, labels) == 2 / 5 == metric("classification", predicted, labels)
    assert error_rate(predicted, labels) == pytest.approx(1 - sklearn.metrics.accuracy_score(labels, predicted))


def test_nrmse_is_one_for_the_mean_and_by_hand() -> None:
    targets = np.array([[0.0], [2.0], [4.0]])  # mean 2, variance 8/3
    assert nrmse(np.full((3, 1), 2.0), targets) == pytest.approx(1)
    assert nrmse(targets, targets) == 0
    assert nrmse(targets + 1, targets) == pytest.approx(math.sqrt(3 / 8))
    assert metric("regression", targets + 1, targets) == pytest.approx(math.sqrt(3 / 8))


def test_nrmse_is_the_root_of_one_minus_the_mean_r2_and_ignores_units() -> None:
    generator = np.random.default_rng(1)
    targets = generator.normal(size=(30, 3)) * [1.0, 1e3, 1e-3]
    predicted = targets + 0.4 * generator.normal(size=(30, 3)) * [1.0, 1e3, 1e-3]
    assert nrmse(predicted, targets) == pytest.approx(math.sqrt(1 - sklearn.metrics.r2_score(targets, predicted)), rel=1e-12)
    assert nrmse(7 * predicted - 3, 7 * targets - 3) == pytest.approx(nrmse(predicted, targets), rel=1e-9)


def test_spread_uses_the_sample_standard_deviation() -> None:
    found = spread([1.0, 2.0, 6.0])
    assert (found.mean, found.count) == (3.0, 3)
    assert found.std == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert spread([0.25]).std is None


@given(differences=values, confidence=st.floats(0.5, 0.999))
def test_paired_difference_is_that_of_scipy(differences: list[float], confidence: float) -> None:
    first = np.array(differences)
    second = np.linspace(-1, 1, len(first))
    found = paired_difference(first, second, confidence=confidence)
    assert found.count == len(first)
    assert found.low is not None and found.high is not None
    moved = first - second
    error = scipy.stats.sem(moved)
    scale = max(float(error), 1e-300)  # scipy has no interval of width 0
    expected = scipy.stats.t.interval(confidence, len(moved) - 1, loc=moved.mean(), scale=scale)
    np.testing.assert_allclose((found.low, found.high), expected, rtol=1e-9, atol=1e-9)


def test_paired_difference_agrees_with_the_paired_t_test() -> None:
    first, second = [0.020, 0.025, 0.031, 0.022, 0.024], [0.035, 0.036, 0.041, 0.030, 0.039]
    found = paired_difference(first, second)
    interval = scipy.stats.ttest_rel(first, second).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.decides
    assert not paired_difference(first, [0.02, 0.03, 0.02, 0.03, 0.02]).decides


def test_one_pair_has_no_interval() -> None:
    found = paired_difference([0.5], [0.25])
    assert (found.estimate, found.low, found.high, found.count) == (0.25, None, None, 1)
    assert not found.decides


def test_two_equal_differences_decide_nothing() -> None:
    found = paired_difference([0.10, 0.20], [0.12, 0.22])
    assert found.estimate == pytest.approx(-0.02)
    assert not found.decides
    assert found.standing() == "not told apart"
    assert paired_difference([0.10, 0.20, 0.3], [0.12, 0.22, 0.32]).decides, "three pairs may"


def test_interval_is_never_narrower_than_one_test_row() -> None:
    first, second = [0.10, 0.20, 0.30], [0.102, 0.202, 0.302]
    bare, found = paired_difference(first, second), paired_difference(first, second, resolution=1 / 360)
    assert bare.decides, "equal differences have no spread"
    assert (found.low, found.high) == pytest.approx((-0.002 - 1 / 360, -0.002 + 1 / 360))
    assert not found.decides
    wide = paired_difference([0.1, 0.2, 0.3], [0.0, 0.3, 0.1], resolution=1 / 360)
    assert wide == paired_difference([0.1, 0.2, 0.3], [0.0, 0.3, 0.1]), "a wider one stays"


@pytest.mark.parametrize(
    ("low", "high", "count", "standing"),
    [
        (-0.008, 0.009, 5, "equal"),
        (0.001, 0.009, 5, "equal"),  # told apart, and by less than anyone minds
        (0.001, 0.011, 5, "worse"),
        (-0.011, -0.001, 5, "better"),
        (-0.002, 0.011, 5, "not told apart"),
        (-0.5, 0.5, 5, "not told apart"),  # noise does not make two rules equal
        (-0.008, 0.009, 2, "not told apart"),
        (None, None, 1, "not told apart"),
    ],
)
def test_standing_is_one_notion(low: float | None, high: float | None, count: int, standing: str) -> None:
    assert Interval(0.0, low, high, count).standing(0.01) == standing


def test_seeds_of_several_splits_are_averaged_within_their_split() -> None:
    first = {(0, 0): [0.1, 0.3], (0, 1): [0.4], (1, 0): [0.5], (1, 1): [0.7], (2, 9): [0.9]}
    second = {(0, 0): [0.1], (0, 1): [0.2], (1, 0): [0.3], (1, 1): [0.5]}
    of, left, right = pair_up(first, second)
    assert of == "split"
    assert left == pytest.approx([0.3, 0.6])
    assert right == pytest.approx([0.15, 0.4])
    of, left, right = pair_up({key: first[key] for key in ((0, 0), (0, 1))}, second)
    assert of == "seed"
    assert left == pytest.approx([0.2, 0.4])
    assert right == pytest.approx([0.1, 0.2])
    assert pair_up(first, {(7, 7): [0.1]}) == ("seed", [], [])


def test_splits_as_pairs_raise_false_alarms_as_often_as_they_say() -> None:
    # Each split shifts the difference of two rules that are equal on average; 5 splits of 3 seeds. Seeds as pairs alarm in
    # about 30 % of cases; splits as pairs in 5 %, within 4.5 standard deviations: false alarm 7e-6.
    generator = np.random.default_rng(4)
    trials, splits, seeds = 2000, 5, 3
    shift = generator.normal(size=(trials, splits, 1))
    differences = shift + 0.5 * generator.normal(size=(trials, splits, seeds))
    alarms, naive = 0, 0
    for trial in differences:
        first = {(i, j): [float(trial[i, j])] for i in range(splits) for j in range(seeds)}
        _, left, right = pair_up(first, {key: [0.0] for key in first})
        alarms += paired_difference(left, right).decides
        naive += paired_difference(trial.ravel(), np.zeros(trial.size)).decides
    assert abs(alarms / trials - 0.05) < 4.5 * math.sqrt(0.05 * 0.95 / trials)
    assert naive / trials > 0.2


def test_paired_interval_covers_as_often_as_it_says() -> None:
    # 2000 intervals of 95 % miss a true difference of 0 in 5 % of cases, within 4.5 standard deviations: false alarm 7e-6.
    generator = np.random.default_rng(3)
    common = generator.normal(size=(2000, 4))
    first, second = common + 0.1 * generator.normal(size=common.shape), common + 0.1 * generator.normal(size=common.shape)
    missed = np.mean([paired_difference(a, b).decides for a, b in zip(first, second, strict=True)])
    assert abs(missed - 0.05) < 4.5 * math.sqrt(0.05 * 0.95 / 2000)


@given(total=st.integers(1, 5000), share=st.floats(0, 1), confidence=st.floats(0.5, 0.999))
def test_wilson_interval_is_that_of_scipy(total: int, share: float, confidence: float) -> None:
    wrong = round(share * total)
    found = wilson_interval(wrong, total, confidence=confidence)
    expected = scipy.stats.binomtest(wrong, total).proportion_ci(confidence, method="wilson")
    assert found.estimate == wrong / total
    np.testing.assert_allclose((found.low, found.high), (expected.low, expected.high), rtol=1e-9, atol=1e-12)


def test_bad_input_is_told_in_one_line() -> None:
    for action, message in (
        (lambda: error_rate([0, 1], [0, 1, 2]), "predicted labels has shape (2,); expected (3,)"),
        (lambda: error_rate([], []), "number of labels is 0"),
        (lambda: nrmse([[1.0], [2.0]], [[3.0], [3.0]]), "target 0 is 3 in all 2 rows; expected targets that vary"),
        (lambda: nrmse([1.0], [1.0]), "targets has shape (1,)"),
        (lambda: nrmse([[math.nan], [1.0]], [[1.0], [2.0]]), "predicted values is nan at (0, 0)"),
        (lambda: spread([]), "number of values is 0"),
        (lambda: spread([1.0, math.inf]), "values is inf at (1,)"),
        (lambda: paired_difference([1.0, 2.0], [1.0]), "2 results are paired with 1; expected as many"),
        (lambda: paired_difference([1.0], [1.0], confidence=1.0), "confidence is 1; expected a number in (0, 1)"),
        (lambda: paired_difference([1.0], [1.0], resolution=-1.0), "resolution is -1"),
        (lambda: wilson_interval(3, 2), "number of wrong answers is 3; expected a number in [0, 2]"),
        (lambda: wilson_interval(0, 0), "number of answers is 0"),
    ):
        with pytest.raises(InputError) as caught:
            action()  # type: ignore[no-untyped-call]
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
