"""Encodings: ranges, order, zero, what they may see, and the way back."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler

from inmaterio.devices.validation import InputError
from inmaterio.experiments.data import load_data, split
from inmaterio.experiments.encodings import fit_encoding, fit_targets, scheme_for
from inmaterio.experiments.metrics import nrmse
from inmaterio.simulators.capabilities import Port

UNIT, SIGNED, VOLTS, FREE = (0.0, 1.0), (-1.0, 1.0), (-0.2, 0.4), (-math.inf, math.inf)
ranges = st.sampled_from([UNIT, SIGNED, VOLTS, FREE, (0.0, math.inf), (-math.inf, 2.0), (0.3, 0.5)])
tables = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-1e6, 1e6, width=32))


def port(size: int, limits: tuple[float, float], unit: str = "V") -> Port:
    return Port(size, unit, *limits)


def test_maximum_keeps_zero_and_reaches_the_limit() -> None:
    inputs = np.array([[0.0, 4.0], [16.0, 8.0]])
    np.testing.assert_array_equal(fit_encoding(inputs, port(2, UNIT)).encode(inputs), [[0, 0.25], [1, 0.5]])
    np.testing.assert_array_equal(fit_encoding(inputs, port(2, SIGNED)).encode(inputs), [[0, 0.25], [1, 0.5]])
    np.testing.assert_array_equal(fit_encoding(inputs, port(2, (0.0, 0.5))).encode(inputs), [[0, 0.125], [0.5, 0.25]])
    np.testing.assert_array_equal(fit_encoding(inputs, port(2, FREE)).encode(inputs), [[0, 0.25], [1, 0.5]])
    # Signed data fill the nearer limit, so that neither end is clipped.
    signed = fit_encoding(np.array([[-3.0, 2.0]]), port(2, VOLTS), scheme="maximum")
    np.testing.assert_allclose(signed.encode([[-3.0, 1.5]]), [[-0.2, 0.1]], rtol=1e-15)


def test_maximum_is_scikit_learns_scaler_with_one_maximum_for_all_features() -> None:
    digits = load_data("digits").inputs
    expected = MaxAbsScaler().fit_transform(digits.reshape(-1, 1)).reshape(digits.shape)
    np.testing.assert_allclose(fit_encoding(digits, port(64, UNIT)).encode(digits), expected, rtol=1e-15)


def test_standard_is_scikit_learns_scaler_over_three() -> None:
    inputs = np.random.default_rng(0).normal(3.0, [1.0, 20.0, 0.1], size=(200, 3)) * [1, 1, -1]
    expected = np.clip(StandardScaler().fit_transform(inputs) / 3, -1, 1)
    np.testing.assert_allclose(fit_encoding(inputs, port(3, SIGNED)).encode(inputs), expected, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(fit_encoding(inputs, port(3, VOLTS)).encode(inputs), 0.1 + 0.3 * expected, rtol=1e-10, atol=1e-13)
    free = fit_encoding(inputs, port(3, FREE)).encode(inputs)
    np.testing.assert_allclose(free, StandardScaler().fit_transform(inputs), rtol=1e-10, atol=1e-13)


def test_auto_looks_at_the_sign() -> None:
    assert fit_encoding([[0.0, 1.0]], port(2, UNIT)).scheme == "maximum"
    assert fit_encoding([[-1e-9, 1.0], [0.0, 2.0]], port(2, UNIT)).scheme == "standard"
    assert fit_encoding(load_data("diabetes").inputs, port(10, SIGNED)).scheme == "standard"


@pytest.mark.parametrize("limits", [SIGNED, UNIT, VOLTS, FREE, (0.0, math.inf), (0.3, 0.5)])
@pytest.mark.parametrize("name", ["vowels-synthetic?samples=60", "parity-3?reference=1&rows=80"])
def test_a_waveform_keeps_its_shape(name: str, limits: tuple[float, float]) -> None:
    dataset = load_data(name)
    rows = split(dataset, split_seed=0).train
    encoding = fit_encoding(dataset.inputs[rows], port(dataset.features, limits), scheme=scheme_for(dataset.kind))
    encoded = encoding.encode(dataset.inputs[rows])
    # One straight line for all features: what differs from sample to sample differs in the port by the same factor.
    slope, offset = np.polyfit(dataset.inputs[rows].ravel(), encoded.ravel(), 1)
    np.testing.assert_allclose(encoded, slope * dataset.inputs[rows] + offset, rtol=1e-9, atol=1e-12)
    assert encoding.scheme == "common" and slope > 0 and encoding.clipped_fraction(dataset.inputs[rows]) == 0
    low, high = max(limits[0], -1.0), min(limits[1], 1.0)
    assert encoded.min() >= low and encoded.max() <= high
    if low < 0:
        assert offset == pytest.approx(0, abs=1e-12)  # silence stays silence
        assert np.abs(encoded).max() == pytest.approx(min(high, -low))
    else:
        assert offset == pytest.approx((low + high) / 2)
        assert max(encoded.max() - offset, offset - encoded.min()) == pytest.approx((high - low) / 2)


def test_the_kind_of_inputs_chooses_the_scheme() -> None:
    assert [scheme_for(kind) for kind in ("features", "waveform", "bits", "spikes")] == ["auto", "common", "common", "counts"]
    # Without signs there is nothing to put about the middle.
    inputs = np.array([[0.0, 4.0], [16.0, 8.0]])
    for limits in (UNIT, SIGNED, FREE):
        common, maximum = (fit_encoding(inputs, port(2, limits), scheme=scheme) for scheme in ("common", "maximum"))
        np.testing.assert_array_equal(common.encode(inputs), maximum.encode(inputs))
    assert fit_encoding(np.zeros((2, 2)), port(2, (0.0, 1.0)), scheme="common").encode([[0.0, 5.0]]).tolist() == [[0, 0]]
    one_sided = fit_encoding([[-2.0, 1.0]], port(2, UNIT), scheme="common")
    assert one_sided.encode([[-2.0, 1.0], [2.0, 0.0]]).tolist() == [[0, 0.75], [1, 0.5]]


def test_counts_stay_counts_where_the_port_takes_any() -> None:
    counts = np.array([[0, 3], [1, 0]], dtype=np.uint8)
    more = np.array([[255, 4]], dtype=np.uint8)
    for limits in ((0.0, math.inf), FREE):
        encoding = fit_encoding(counts, port(2, limits, "spike"), scheme="counts")
        encoded = encoding.encode(more)
        assert encoded.dtype == np.float64 and encoded.tolist() == [[255.0, 4.0]] and encoding.scheme == "counts"
        assert encoding.clipped_fraction(more) == 0
    # A port that cannot take them gets the largest of the fitted rows at its limit; a raster of 0 and 1 stays one.
    bounded = fit_encoding(counts, port(2, SIGNED), scheme="counts")
    assert bounded.scheme == "maximum" and bounded.encode(counts).tolist() == [[0, 1], [1 / 3, 0]]
    raster = (counts > 0).astype(np.uint8)
    np.testing.assert_array_equal(fit_encoding(raster, port(2, UNIT), scheme="counts").encode(raster), raster)
    with pytest.raises(InputError, match="training inputs is -1 at"):
        fit_encoding([[-1.0, 1.0]], port(2, (0.0, math.inf)), scheme="counts")


def test_a_constant_feature_is_zero() -> None:
    inputs = np.array([[0.1, -1.0], [0.1, 1.0], [0.1, 3.0]])  # 0.1 three times has a mean that is not 0.1 in binary
    encoded = fit_encoding(inputs, port(2, SIGNED)).encode(np.vstack([inputs, [[77.0, 0.0]]]))
    assert encoded[:, 0].tolist() == [0, 0, 0, 0]
    assert encoded[:3, 1].tolist() == pytest.approx([-math.sqrt(1.5) / 3, 0, math.sqrt(1.5) / 3])
    assert fit_encoding(np.zeros((2, 2)), port(2, UNIT)).encode([[0.0, 5.0]]).tolist() == [[0, 0]]


@settings(max_examples=150, deadline=None)
@given(inputs=tables, limits=ranges, others=st.lists(st.floats(-1e12, 1e12), min_size=2, max_size=8))
def test_the_range_is_kept_and_so_is_the_order(inputs: np.ndarray, limits: tuple[float, float], others: list[float]) -> None:
    features = inputs.shape[1]
    try:
        encoding = fit_encoding(inputs, port(features, limits))
    except InputError as error:
        assert limits[0] > 0 and (inputs >= 0).all() and "'maximum' needs a port" in str(error)
        return
    ladder = np.sort(np.array(others))[:, None] * np.ones(features)
    encoded = encoding.encode(ladder)
    assert ((encoded >= limits[0]) & (encoded <= limits[1])).all()
    assert (np.diff(encoded, axis=0) >= 0).all()
    if encoding.scheme == "maximum":
        assert (encoding.encode(np.zeros((1, features))) == 0).all()
        assert encoding.clipped_fraction(inputs) == 0


@pytest.mark.parametrize("name", ["digits", "diabetes"])
def test_only_training_rows_are_seen(name: str) -> None:
    dataset = load_data(name)
    parts = split(dataset, split_seed=1)
    inputs, answers = dataset.inputs.copy(), dataset.answers.copy()
    kept = fit_encoding(inputs[parts.train], port(dataset.features, SIGNED)).encode(dataset.inputs)
    wanted = fit_targets(answers[parts.train], port(dataset.outputs, SIGNED), classes=dataset.classes)
    hidden = np.concatenate([parts.validation, parts.test])
    inputs[hidden] = 1e3 * (inputs[hidden] + 5)
    answers[hidden] = answers[hidden][::-1] // 2
    again = fit_encoding(inputs[parts.train], port(dataset.features, SIGNED)).encode(dataset.inputs)
    wanted_again = fit_targets(answers[parts.train], port(dataset.outputs, SIGNED), classes=dataset.classes)
    np.testing.assert_array_equal(again, kept)
    np.testing.assert_array_equal(wanted_again.encode(dataset.answers), wanted.encode(dataset.answers))
    assert wanted_again.chance_error == wanted.chance_error
    training = fit_encoding(dataset.inputs, port(dataset.features, SIGNED)).encode(dataset.inputs)
    assert name == "digits" or not np.array_equal(training, kept)  # the test can tell: all rows give another encoding


def test_inputs_are_not_changed_and_clipping_is_counted() -> None:
    inputs = np.array([[0.0, 2.0], [4.0, 1.0]])
    encoding = fit_encoding(inputs, port(2, UNIT))
    before = np.array([[8.0, 4.0], [-1.0, 2.0]])
    given = before.copy()
    assert encoding.encode(given).tolist() == [[1, 1], [0, 0.5]]
    np.testing.assert_array_equal(given, before)
    assert encoding.clipped_fraction(given) == 0.5
    assert encoding.clipped_fraction(np.zeros((0, 2))) == 0


def test_classes_become_the_levels_of_the_port() -> None:
    labels = np.array([2, 0, 2, 1])
    hot = np.eye(3)[labels]
    np.testing.assert_array_equal(fit_targets(labels, port(3, UNIT), classes=3).encode(labels), hot)
    np.testing.assert_array_equal(fit_targets(labels, port(3, FREE), classes=3).encode(labels), hot)
    np.testing.assert_array_equal(fit_targets(labels, port(3, (0.0, math.inf)), classes=3).encode(labels), hot)
    np.testing.assert_array_equal(fit_targets(labels, port(3, SIGNED), classes=3).encode(labels), 2 * hot - 1)
    assert fit_targets(labels, Port(3, "1", 0, 1), classes=3).encode(labels).dtype == np.float64


@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=20), limits=st.sampled_from([UNIT, SIGNED, VOLTS, FREE]))
def test_labels_come_back(labels: list[int], limits: tuple[float, float]) -> None:
    encoding = fit_targets(labels, port(5, limits), classes=5)
    decoded = encoding.decode(encoding.encode(labels))
    assert decoded.tolist() == labels and decoded.dtype == np.int64
    assert encoding.chance_error == pytest.approx(1 - max(labels.count(label) for label in labels) / len(labels))


@given(
    targets=arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=5), elements=st.floats(-1e3, 1e3)),
    limits=st.sampled_from([UNIT, SIGNED, VOLTS, FREE]),
)
def test_values_come_back(targets: np.ndarray, limits: tuple[float, float]) -> None:
    encoding = fit_targets(targets, port(targets.shape[1], limits))
    np.testing.assert_allclose(encoding.decode(encoding.encode(targets)), targets, rtol=1e-9, atol=1e-9)


def test_values_fill_the_middle_of_the_port() -> None:
    targets = np.random.default_rng(2).normal([100.0, -3.0], [30.0, 0.1], size=(50, 2))
    for limits, inner in ((UNIT, (0.1, 0.9)), (SIGNED, (-0.8, 0.8))):
        expected = MinMaxScaler(inner).fit_transform(targets)
        np.testing.assert_allclose(fit_targets(targets, port(2, limits)).encode(targets), expected, rtol=1e-9, atol=1e-12)
    expected = StandardScaler().fit_transform(targets)
    np.testing.assert_allclose(fit_targets(targets, port(2, FREE)).encode(targets), expected, rtol=1e-9, atol=1e-12)
    assert fit_targets(targets, port(2, UNIT)).encode([[1e9, -1e9]]).tolist() == [[1, 0]]


def test_chance_of_a_regression_is_the_error_of_the_mean() -> None:
    targets = np.random.default_rng(3).normal(5.0, 2.0, size=(40, 1))
    encoding = fit_targets(targets, port(1, FREE))
    assert nrmse(encoding.decode(np.zeros((40, 1))), targets) == pytest.approx(encoding.chance_error)


def test_bad_input_is_told_in_one_line() -> None:
    classes = fit_targets([0, 1], port(2, UNIT), classes=2)
    for action, message in (
        (lambda: fit_encoding([[1.0]], port(1, UNIT), scheme="maximal"), "unknown encoding 'maximal'; nearest: maximum"),
        (lambda: fit_encoding([[1.0, 2.0]], port(3, UNIT)), "training inputs has shape (1, 2); expected (any, 3)"),
        (lambda: fit_encoding([[math.nan]], port(1, UNIT)), "training inputs is nan at (0, 0)"),
        (lambda: fit_encoding(np.zeros((0, 2)), port(2, UNIT)), "number of training rows is 0"),
        (lambda: fit_encoding([[-1.0]], port(1, UNIT), scheme="maximum"), "a port that takes both signs; its range is [0, 1] V"),
        (lambda: fit_encoding([[1.0]], port(1, (0.1, 1.0))), "needs a port that takes zero and above; its range is [0.1, 1] V"),
        (lambda: fit_encoding([[1.0]], port(1, (1.0, 1.0))), "port range is [1, 1] V; expected room"),
        (lambda: fit_encoding([[1.0]], port(1, (2.0, math.inf))), "port range is [2, inf] V; expected room"),
        (
            lambda: fit_encoding([[-1.7e308], [1.7e308]], port(1, SIGNED)),
            "reach 1.7e+308; expected a finite mean and standard deviation",
        ),
        (lambda: fit_encoding([[1e-300]], port(1, FREE)).encode([[1e300]]), "encoded inputs is inf at (0, 0); expected finite"),
        (lambda: fit_targets([[-1.7e308], [1.7e308]], port(1, UNIT)), "training targets reach 1.7e+308; expected a finite mean"),
        (lambda: fit_encoding([[1.0], [2.0]], port(1, UNIT)).encode([[math.inf]]), "inputs is inf at (0, 0)"),
        (lambda: fit_encoding([[1.0], [2.0]], port(1, UNIT)).encode([1.0]), "inputs has shape (1,); expected (any, 1)"),
        (lambda: fit_targets([0, 1], port(3, UNIT), classes=2), "output port has 3 places; expected 2, one per class"),
        (lambda: fit_targets([0, 2], port(2, UNIT), classes=2), "labels is 2 at (1,); expected at most 1"),
        (lambda: fit_targets([0.5], port(2, UNIT), classes=2), "labels hold float64 values; expected whole numbers"),
        (lambda: fit_targets([0], port(2, (0.5, math.inf)), classes=2), "range is [0.5, inf] V; expected one that holds 0 and 1"),
        (lambda: fit_targets([[1.0]], port(1, (0.0, math.inf))), "expected two limits or none for regression targets"),
        (lambda: fit_targets([1.0], port(1, UNIT)), "training targets has shape (1,)"),
        (lambda: classes.encode([2]), "labels is 2 at (0,)"),
        (lambda: classes.decode([[1.0, math.nan]]), "outputs is nan at (0, 1)"),
    ):
        with pytest.raises(InputError) as caught:
            action()  # type: ignore[no-untyped-call]
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
