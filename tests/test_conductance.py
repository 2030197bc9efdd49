"""Pairs of conductances: what a request makes of them, how they err, what they conduct.

Statistical tests fail beyond five standard errors: a false alarm in about two million seeds. The seeds are fixed.
"""

import itertools
import math
from typing import Any

import naive_devices as naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from inmaterio.devices.conductance import ConductancePair, DeviceArray, make_array
from inmaterio.devices.randomness import Key, normal_array
from inmaterio.devices.validation import InputError

CHIP = Key(7).at("chip", "weight_1")
KEY = Key(7).at("program", 0)
PAIRS = [
    ConductancePair(),
    ConductancePair(g_min=1e-6, weight_max=0.7),
    ConductancePair(levels=16),
    ConductancePair(programming_noise=0.03),
    ConductancePair(soft_bounds=True, weight_max=2.0),
    ConductancePair(g_min=2e-6, weight_max=0.5, levels=9, programming_noise=0.05, device_spread=0.2, soft_bounds=True),
    ConductancePair(g_min=2e-6, levels=33, programming_noise=0.02, device_spread=0.3),
]


def _values(shape: tuple[int, ...], seed: int = 0, scale: float = 0.5) -> NDArray[np.float64]:
    values = Key(seed).generator().normal(0.0, scale, shape)
    values.flat[::5] = 0.0
    return values


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("pair", PAIRS)
def test_agrees_with_its_twin(pair: ConductancePair, dtype: Any) -> None:
    shape = (5, 7)
    array = make_array(pair, shape, key=CHIP, dtype=dtype)
    gains = np.maximum(1.0 + pair.device_spread * normal_array(CHIP.at("gain"), (2, 35)), 0.0).reshape(2, *shape)
    p, m = np.zeros(shape), np.zeros(shape)
    unit = (pair.g_max - pair.g_min) / pair.weight_max
    tolerance = 1e-12 if dtype is np.float64 else 1e-5
    for turn in range(6):
        adding = turn % 3 != 0
        key = KEY.at(turn)
        request = _values(shape, turn, 0.6 * pair.weight_max).astype(dtype)
        written = array.add(request, key) if adding else array.write(request, key)
        draws = pair.programming_noise * pair.weight_max * normal_array(key, (2, 35), dtype).reshape(2, *shape)
        cuts = 0
        for at in naive.places(p):
            p[at], m[at], cut = naive.pair_after(
                p[at], m[at], float(request[at]), adding=adding, soft=pair.soft_bounds, bound=pair.weight_max,
                levels=pair.levels, errors=(draws[0][at], draws[1][at]),
            )  # fmt: skip
            cuts += cut
        g_plus = gains[0] * (pair.g_min + p * unit)
        g_minus = gains[1] * (pair.g_min + m * unit)
        np.testing.assert_allclose(array.g_plus, g_plus, rtol=tolerance, atol=tolerance * pair.g_max)
        np.testing.assert_allclose(array.g_minus, g_minus, rtol=tolerance, atol=tolerance * pair.g_max)
        np.testing.assert_allclose(array.weights, (g_plus - g_minus) / unit, rtol=0, atol=2 * tolerance * pair.weight_max)
        asked = np.count_nonzero(request) if adding else request.size
        assert written == 2 * asked
        assert array.clipped_fraction == pytest.approx(cuts / asked)
        for axis in (None, 0, 1):
            np.testing.assert_allclose(array.conductance_sum(axis), (g_plus + g_minus).sum(axis), rtol=2 * tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("pair", [ConductancePair(), ConductancePair(g_min=1e-6, g_max=2e-4, weight_max=3.0)])
def test_an_ideal_pair_returns_the_bits_that_were_written(pair: ConductancePair, dtype: Any) -> None:
    array = make_array(pair, (30, 40), key=CHIP, dtype=dtype)
    values = np.clip(_values((30, 40)), -1.0, 1.0).astype(dtype)
    assert array.write(values, KEY) == 2 * values.size
    np.testing.assert_array_equal(array.weights, values)
    assert array.weights.dtype == dtype
    assert array.clipped_fraction == 0.0
    np.testing.assert_array_equal(array.read_back(KEY), values)


@given(st.floats(-1.0, 1.0, width=32), st.floats(-1.0, 1.0, width=32), st.sampled_from([np.float32, np.float64]))
def test_adding_is_writing_the_sum(first: float, second: float, dtype: Any) -> None:
    pair = ConductancePair(g_min=1e-6, weight_max=2.5)
    added, written = (make_array(pair, (1,), key=CHIP, dtype=dtype) for _ in range(2))
    added.write(np.array([first], dtype), KEY)
    added.add(np.array([second], dtype), KEY)
    written.write(np.array([first], dtype) + np.array([second], dtype), KEY)
    np.testing.assert_array_equal(added.weights, written.weights)
    np.testing.assert_array_equal(added.g_plus, written.g_plus)
    np.testing.assert_array_equal(added.g_minus, written.g_minus)


@pytest.mark.parametrize("pair", [ConductancePair(weight_max=0.1), ConductancePair(weight_max=0.1, levels=8)])
def test_a_weight_at_the_bound_is_not_beyond_it(pair: ConductancePair) -> None:
    # 0.1 in single precision is larger than 0.1.
    array = make_array(pair, (2,), key=CHIP, dtype=np.float32)
    array.write([7.0, 0.05], KEY)
    assert array.clipped_fraction == 0.5
    assert array.weights[0] == np.float32(0.1)
    array.write(array.weights.copy(), KEY)
    assert array.clipped_fraction == 0.0
    array.add([0.0, 0.001], KEY)
    assert array.clipped_fraction == 0.0


def test_a_weight_is_the_difference_of_two_conductances_in_range() -> None:
    pair = ConductancePair(g_min=1e-6, g_max=21e-6, weight_max=2.0)
    array = make_array(pair, (5,), key=CHIP, dtype=np.float64)
    array.write([2.0, 1.0, 0.0, -0.5, -9.0], KEY)
    np.testing.assert_allclose(array.g_plus, [21e-6, 11e-6, 1e-6, 1e-6, 1e-6])
    np.testing.assert_allclose(array.g_minus, [1e-6, 1e-6, 1e-6, 6e-6, 21e-6])
    np.testing.assert_array_equal(array.weights, [2.0, 1.0, 0.0, -0.5, -2.0])
    assert array.clipped_fraction == 0.2
    assert array.conductance_sum() == pytest.approx(22e-6 + 12e-6 + 2e-6 + 7e-6 + 22e-6)


@pytest.mark.parametrize("levels", [2, 3, 16])
def test_each_device_takes_its_levels_and_no_other(levels: int) -> None:
    pair = ConductancePair(levels=levels, weight_max=1.5)
    array = make_array(pair, (4001,), key=CHIP, dtype=np.float64)
    asked = np.linspace(-1.5, 1.5, 4001)
    array.write(asked, KEY)
    grid = np.linspace(-1.5, 1.5, 2 * levels - 1)
    np.testing.assert_allclose(np.unique(array.weights.round(12)), grid, atol=1e-11)
    assert np.abs(array.weights - asked).max() <= 1.5 / (levels - 1) / 2 * (1 + 1e-9)
    held = array.weights.copy()
    array.add(np.full(4001, 0.4 * 1.5 / (levels - 1)), KEY)  # less than half a level: lost
    np.testing.assert_array_equal(array.weights, held)


def test_programming_noise_acts_on_both_devices() -> None:
    pair = ConductancePair(g_max=20e-6, weight_max=2.0, programming_noise=0.02)
    array = make_array(pair, (300, 300), key=CHIP, dtype=np.float64)
    array.write(np.ones((300, 300)), KEY)
    noise = array.g_plus - 10e-6
    slack = 5.0 / math.sqrt(2.0 * noise.size)
    assert noise.std() == pytest.approx(0.02 * 20e-6, rel=slack)
    assert abs(noise.mean()) < 5.0 * 0.02 * 20e-6 / math.sqrt(noise.size)
    # The minus device stands at g_min, below which it cannot go: half of its errors are cut to 0.
    below = array.g_minus == 0.0
    assert below.mean() == pytest.approx(0.5, abs=5.0 * 0.5 / math.sqrt(noise.size))
    assert np.sqrt((array.g_minus[~below] ** 2).mean()) == pytest.approx(0.02 * 20e-6, rel=2.0 * slack)
    assert abs(np.corrcoef(noise[~below], array.g_minus[~below])[0, 1]) < 5.0 / math.sqrt((~below).sum())


def test_read_noise_is_drawn_anew_by_each_read_and_leaves_the_devices_alone() -> None:
    pair = ConductancePair(weight_max=2.0, read_noise=0.01)
    assert pair.read_noise_weight == pytest.approx(0.01 * math.sqrt(2.0) * 2.0)
    array = make_array(pair, (300, 300), key=CHIP)
    values = _values((300, 300), scale=0.2).astype(np.float32)
    array.write(values, KEY)
    first, again, other = array.read_back(KEY), array.read_back(KEY), array.read_back(KEY.at(1))
    np.testing.assert_array_equal(array.weights, values)
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float32
    slack = 5.0 / math.sqrt(2.0 * values.size)
    assert (first - values).std() == pytest.approx(pair.read_noise_weight, rel=slack)
    assert (first - other).std() == pytest.approx(math.sqrt(2.0) * pair.read_noise_weight, rel=slack)


def test_spread_belongs_to_the_chip() -> None:
    pair = ConductancePair(device_spread=0.1, g_min=1e-6, g_max=21e-6)
    array = make_array(pair, (200, 200), key=CHIP, dtype=np.float64)
    array.write(np.full((200, 200), 0.5), KEY)
    gain = array.g_plus / 11e-6
    slack = 5.0 / math.sqrt(2.0 * gain.size)
    assert gain.std() == pytest.approx(0.1, rel=slack)
    assert abs(gain.mean() - 1.0) < 5.0 * 0.1 / math.sqrt(gain.size)
    assert abs(np.corrcoef(gain.ravel(), array.g_minus.ravel())[0, 1]) < 5.0 / math.sqrt(gain.size)
    array.write(np.full((200, 200), 0.25), KEY.at(1))
    np.testing.assert_allclose(array.g_plus / 6e-6, gain, rtol=1e-12)
    same, other = (
        make_array(pair, (200, 200), key=CHIP, dtype=np.float64),
        make_array(pair, (200, 200), key=CHIP.at(1), dtype=np.float64),
    )
    for chip in (same, other):
        chip.write(np.full((200, 200), 0.25), KEY.at(2))
    np.testing.assert_array_equal(same.weights, array.weights)
    assert (other.weights != array.weights).all()


def test_gains_never_turn_negative() -> None:
    array = make_array(ConductancePair(device_spread=1.0), (100, 100), key=CHIP)
    array.write(np.full((100, 100), 0.5), KEY)
    assert array.g_plus.min() == 0.0
    # One gain in 6.3 (a normal below -1) is cut.
    assert (array.g_plus == 0.0).mean() == pytest.approx(0.15866, abs=5.0 * math.sqrt(0.15866 * 0.84134 / 1e4))


@pytest.mark.parametrize("start", [0.0, 0.4, -0.9])
@pytest.mark.parametrize("pulse", [0.05, -0.2, 0.7])
def test_soft_bounds_follow_the_closed_form(start: float, pulse: float) -> None:
    # w_n = b - (b - w_0)(1 - s/b)^n for n equal pulses of size s towards the bound b.
    bound = 1.25
    array = make_array(ConductancePair(soft_bounds=True, weight_max=bound), (3,), key=CHIP, dtype=np.float64)
    array.write(np.full(3, start), KEY)
    end = math.copysign(bound, pulse)
    for n in range(1, 30):
        array.add([pulse] * 3, KEY)
        np.testing.assert_allclose(array.weights, end - (end - start) * (1.0 - abs(pulse) / bound) ** n, rtol=0, atol=1e-14)


def test_equal_up_and_down_pulses_end_at_the_symmetry_point() -> None:
    # With equal steps s up and down it lies at w* = 0; just after the up pulse the cycle's fixed point is s/(2 - s/b).
    array = make_array(ConductancePair(soft_bounds=True), (2,), key=CHIP, dtype=np.float64)
    array.write([0.9, -0.6], KEY)
    for _ in range(300):
        array.add([-0.1, -0.1], KEY)
        array.add([0.1, 0.1], KEY)
    np.testing.assert_allclose(array.weights, 0.1 / (2.0 - 0.1), rtol=1e-12)


def test_soft_bounds_hold_for_pulses_larger_than_the_range() -> None:
    pair = ConductancePair(g_min=1e-6, soft_bounds=True)
    array = make_array(pair, (2,), key=CHIP, dtype=np.float64)
    array.add([3.0, -3.0], KEY)
    np.testing.assert_array_equal(array.weights, [1.0, -1.0])
    assert array.clipped_fraction == 1.0
    assert array.g_plus.max() <= pair.g_max
    assert array.g_minus.min() >= pair.g_min


@pytest.mark.parametrize("pair", PAIRS)
def test_zero_requests_leave_devices_untouched(pair: ConductancePair) -> None:
    array = make_array(pair, (6, 6), key=CHIP)
    array.write(_values((6, 6), 1, 0.3), KEY)
    before = array.weights.copy()
    request = np.zeros((6, 6))
    assert array.add(request, KEY.at(1)) == 0
    assert array.clipped_fraction == 0.0
    request[2, 3] = 0.2
    assert array.add(request, KEY.at(1)) == 2
    changed = array.weights != before
    assert changed[2, 3]
    assert changed.sum() == 1


@pytest.mark.parametrize("pair", [ConductancePair(), ConductancePair(soft_bounds=True)])
def test_an_outer_product_is_summed_before_the_devices_act(pair: ConductancePair) -> None:
    left, right = _values((8, 4), 1), _values((8, 5), 2)
    outer, dense = make_array(pair, (4, 5), key=CHIP, dtype=np.float64), make_array(pair, (4, 5), key=CHIP, dtype=np.float64)
    for array in (outer, dense):
        array.write(_values((4, 5), 3), KEY)
    expected = np.zeros((4, 5))
    for b in range(8):
        expected += -0.3 * np.outer(left[b], right[b]) / 8
    assert outer.add_outer(left, right, -0.3, KEY) == dense.add(expected, KEY) == 2 * np.count_nonzero(expected)
    np.testing.assert_allclose(outer.weights, dense.weights, rtol=0, atol=1e-15)


def test_conductance_sums_follow_every_change() -> None:
    array = make_array(ConductancePair(g_min=1e-6), (3, 4), key=CHIP, dtype=np.float64)
    copy = array.snapshot()
    changes: list[Any] = [
        lambda: array.write(_values((3, 4)), KEY),
        lambda: array.add(_values((3, 4), 1), KEY),
        lambda: array.restore(copy),
    ]
    for change in changes:
        array.conductance_sum(0)
        change()
        both = array.g_plus + array.g_minus
        for axis in (0, 1, None):
            np.testing.assert_allclose(array.conductance_sum(axis), both.sum(axis), rtol=1e-13)
            assert array.conductance_sum(axis) is array.conductance_sum(axis)
    with pytest.raises(ValueError, match="read-only"):
        array.conductance_sum(0)[0] = 1.0


@pytest.mark.parametrize("pair", PAIRS)
def test_a_snapshot_brings_back_the_same_bits(pair: ConductancePair) -> None:
    array = make_array(pair, (6, 5), key=CHIP)
    array.write(_values((6, 5)), KEY)
    kept, weights = array.snapshot(), array.weights.copy()
    array.add(_values((6, 5), 1), KEY.at(1))
    after = array.weights.copy()
    assert (after != weights).any()
    # Another chip takes over this one's static errors too.
    for target in (array, make_array(pair, (6, 5), key=CHIP.at("another"))):
        target.restore(kept)
        np.testing.assert_array_equal(target.weights, weights)
        target.add(_values((6, 5), 1), KEY.at(1))
        np.testing.assert_array_equal(target.weights, after)
    kept["plus"][:] = 0.0
    np.testing.assert_array_equal(array.weights, after)


def test_the_key_of_a_call_decides_its_noise() -> None:
    pair = PAIRS[5]
    results = []
    for key in (KEY, KEY, KEY.at("other")):
        array = make_array(pair, (20, 20), key=CHIP)
        array.write(_values((20, 20)), key)
        results.append(array.weights.copy())
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[0] != results[2]).mean() > 0.5


def test_weights_are_a_read_only_view_that_follows() -> None:
    array = make_array(ConductancePair(), (2, 3), key=CHIP)
    view = array.weights
    assert view.flags.c_contiguous
    array.write(np.full((2, 3), 0.25), KEY)
    assert (view == 0.25).all()
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 1.0
    read = array.read_back(KEY)
    read[:] = 9.0
    assert (array.weights == 0.25).all()


def test_a_new_array_holds_nothing() -> None:
    pair = ConductancePair(g_min=1e-6)
    array = make_array(pair, (2, 3), key=CHIP)
    assert (array.weights == 0.0).all()
    np.testing.assert_allclose(array.g_plus, 1e-6, rtol=1e-6)
    assert array.conductance_sum() == pytest.approx(12e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"g_max": 25.0}, r"g_max is 25 S; expected a number in \(0, 0.01\] S"),
        ({"g_max": 0.0}, r"g_max is 0 S"),
        ({"g_min": 3e-5}, r"g_min is 3e-05 S; expected a number in \[0, 2.5e-05\) S"),
        ({"g_min": -1e-9}, r"g_min is -1e-09 S"),
        ({"weight_max": 0.0}, r"weight_max is 0; expected a number in \(0, inf\)"),
        ({"weight_max": math.inf}, r"weight_max is inf"),
        ({"levels": 1}, r"levels is 1; expected a number in \[2, 1.67772e\+07\]"),
        ({"levels": 2.5}, r"levels is 2.5; expected a whole number"),
        ({"programming_noise": -0.1}, r"programming_noise is -0.1; expected a number in \[0, 1\]"),
        ({"read_noise": 1.1}, r"read_noise is 1.1"),
        ({"device_spread": math.nan}, r"device_spread is nan"),
        ({"soft_bounds": 1}, r"soft_bounds is 1; expected True or False"),
    ],
)
def test_bad_descriptions_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ConductancePair(**arguments)


def test_bad_arrays_are_refused() -> None:
    with pytest.raises(InputError, match=r"length of an axis of weight_1 is 0"):
        make_array(ConductancePair(), (3, 0), key=CHIP, name="weight_1")
    with pytest.raises(InputError, match=r"dtype of weight_1 is float16; expected float32 or float64"):
        make_array(ConductancePair(), (3,), key=CHIP, dtype=np.float16, name="weight_1")


def _array() -> DeviceArray:
    return make_array(ConductancePair(), (2, 3), key=CHIP, name="weight_1")


@pytest.mark.parametrize(("call", "bad"), list(itertools.product(["write", "add"], [np.nan, np.inf])))
def test_requests_that_are_not_finite_change_nothing(call: str, bad: float) -> None:
    array = _array()
    array.write(np.full((2, 3), 0.5), KEY)
    request = np.zeros((2, 3))
    request[1, 2] = bad
    with pytest.raises(InputError, match=rf"request for weight_1 is {bad} at \(1, 2\); expected finite numbers"):
        getattr(array, call)(request, KEY)
    assert (array.weights == 0.5).all()


def test_bad_requests_are_refused() -> None:
    array = _array()
    with pytest.raises(InputError, match=r"request for weight_1 has shape \(3, 2\); expected \(2, 3\)"):
        array.write(np.zeros((3, 2)), KEY)
    with pytest.raises(InputError, match=r"request for weight_1 holds complex128 values; expected real numbers"):
        array.write(np.zeros((2, 3), complex), KEY)
    with pytest.raises(InputError, match=r"left factor for weight_1 has shape \(4, 3\); expected \(any, 2\)"):
        array.add_outer(np.zeros((4, 3)), np.zeros((4, 3)), 1.0, KEY)
    with pytest.raises(InputError, match=r"right factor for weight_1 has shape \(5, 3\); expected \(4, 3\)"):
        array.add_outer(np.zeros((4, 2)), np.zeros((5, 3)), 1.0, KEY)
    with pytest.raises(InputError, match=r"batch size is 0"):
        array.add_outer(np.zeros((0, 2)), np.zeros((0, 3)), 1.0, KEY)
    with pytest.raises(InputError, match=r"bias_1 has shape \(3,\); expected two axes"):
        make_array(ConductancePair(), (3,), key=CHIP, name="bias_1").add_outer(np.zeros((1, 3)), np.zeros((1, 3)), 1.0, KEY)


def test_bad_snapshots_are_refused() -> None:
    array = _array()
    with pytest.raises(InputError, match="snapshot of weight_1 lacks gains, minus"):
        array.restore({"plus": np.zeros((2, 3))})
    with pytest.raises(InputError, match=r"snapshot of weight_1, plus has shape \(3, 2\); expected \(2, 3\)"):
        array.restore(array.snapshot() | {"plus": np.zeros((3, 2))})
