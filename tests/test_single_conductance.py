"""Single conductances: what a request does to devices that hold no sign."""

import numpy as np
import pytest

from inmaterio.devices.randomness import Key
from inmaterio.devices.single_conductance import SingleConductance, make_single_array
from inmaterio.devices.validation import InputError

KEY = Key(0)


def test_requests_are_clipped_to_the_range_and_rounded_to_levels() -> None:
    device = SingleConductance(g_min=0.0, g_max=2e-5, unit=1e-5, levels=5)
    array = make_single_array(device, (2, 3), key=KEY, dtype=np.float64)
    assert array.write([[-1.0, 0.3, 0.74], [0.76, 1.9, 7.0]], KEY) == 6
    np.testing.assert_array_equal(array.weights, [[0.0, 0.5, 0.5], [1.0, 2.0, 2.0]])


def test_an_add_leaves_devices_alone_that_are_not_asked() -> None:
    array = make_single_array(SingleConductance(programming_noise=0.05), (1, 4), key=KEY, dtype=np.float64)
    before = array.weights.copy()
    assert array.add([[0.0, 0.2, 0.0, -0.2]], KEY) == 2
    np.testing.assert_array_equal(array.weights[0, [0, 2]], before[0, [0, 2]])
    assert np.all(array.weights[0, [1, 3]] != before[0, [1, 3]])


def test_programming_noise_read_noise_and_spread_have_the_stated_size() -> None:
    shape = (200, 200)
    request = np.full(shape, 1.0)
    noisy = make_single_array(SingleConductance(programming_noise=0.02), shape, key=KEY, dtype=np.float64)
    noisy.write(request, KEY)
    assert np.std(noisy.weights) == pytest.approx(0.02 * 2.5, rel=0.02)
    read = make_single_array(SingleConductance(read_noise=0.02), shape, key=KEY, dtype=np.float64)
    read.write(request, KEY)
    np.testing.assert_array_equal(read.weights, request)
    assert np.std(read.read_back(KEY)) == pytest.approx(0.02 * 2.5, rel=0.02)
    spread = make_single_array(SingleConductance(device_spread=0.05), shape, key=KEY, dtype=np.float64)
    spread.write(request, KEY)
    assert np.std(spread.weights) == pytest.approx(0.05, rel=0.02)
    gains = spread.weights / request
    spread.write(2.0 * request, KEY)
    np.testing.assert_allclose(spread.weights, 2.0 * gains, rtol=1e-14)  # the same devices, the same gains


def test_no_conductance_is_ever_negative() -> None:
    device = SingleConductance(programming_noise=0.5, device_spread=0.9)
    array = make_single_array(device, (50, 50), key=KEY)
    array.write(np.zeros((50, 50)), KEY)
    array.add(np.full((50, 50), -0.5), KEY.at("more"))
    assert array.weights.min() == 0.0


def test_snapshot_and_restore() -> None:
    array = make_single_array(SingleConductance(device_spread=0.1, programming_noise=0.1), (3, 3), key=KEY)
    array.write(np.ones((3, 3)), KEY)
    kept, before = array.snapshot(), array.weights.copy()
    array.write(np.zeros((3, 3)), KEY)
    array.restore(kept)
    np.testing.assert_array_equal(array.weights, before)
    with pytest.raises(InputError, match="lacks gains"):
        array.restore({"held": kept["held"]})
    with pytest.raises(InputError, match=r"gains has shape \(2,\); expected"):
        array.restore({"held": kept["held"], "gains": np.ones(2)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"g_max": 0.0}, "g_max is 0 S"),
        ({"g_min": 3e-5}, "g_min is 3e-05 S"),
        ({"unit": -1.0}, "unit of conductance is -1 S"),
        ({"levels": 1}, "levels is 1"),
        ({"levels": 2.5}, "levels is 2.5; expected a whole number"),
        ({"read_noise": -0.1}, "read_noise is -0.1"),
    ],
)
def test_values_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SingleConductance(**options)


def test_bad_requests_write_nothing() -> None:
    array = make_single_array(SingleConductance(), (2, 2), key=KEY, name="weight_1")
    for bad, message in (
        ([[1.0, np.nan], [0.0, 0.0]], "request for weight_1"),
        ([1.0, 2.0], "request for weight_1"),
        ([[1j, 0], [0, 0]], "holds complex128 values"),
    ):
        with pytest.raises(InputError, match=message):
            array.write(bad, KEY)
    np.testing.assert_array_equal(array.weights, np.ones((2, 2)))
    with pytest.raises(InputError, match="dtype of array is int64"):
        make_single_array(SingleConductance(), (2, 2), key=KEY, dtype=np.int64)
