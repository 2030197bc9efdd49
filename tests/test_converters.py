"""Converters: the grid, the range, the error of rounding, noise.

Statistical tests fail beyond five standard errors: a false alarm in about two million seeds. The seeds are fixed.
"""

from typing import Any

import naive_devices as naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inmaterio.devices.converters import Converter, convert
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError

KEY = Key(41)
RANGES = st.tuples(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(RANGES, st.integers(1, 7), st.lists(st.floats(-4e3, 4e3), min_size=1, max_size=9))
def test_agrees_with_its_twin(limits: tuple[float, float], bits: int, values: list[float]) -> None:
    low, high = limits
    converter = Converter(bits, low, high)
    out = convert(converter, np.array(values))
    for value, got in zip(values, out, strict=True):
        expected = naive.convert(value, bits, low, high)
        # A value that lies half way up to rounding may go to either level.
        halves = abs((value - low) / converter.lsb % 1.0 - 0.5) < 1e-6 and low < value < high
        assert got == pytest.approx(expected, abs=1e-9 * converter.lsb + 1e-12) or (
            halves and abs(got - expected) < 1.001 * converter.lsb
        )


@given(RANGES, st.integers(1, 16), st.lists(st.floats(allow_nan=False, width=32), min_size=2, max_size=20))
def test_inside_the_range_ordered_and_unchanged_by_a_second_conversion(
    limits: tuple[float, float], bits: int, values: list[float]
) -> None:
    low, high = limits
    for converter in (Converter(bits, low, high), Converter(None, low, high)):
        given_values = np.sort(np.array(values))
        once = convert(converter, given_values)
        assert once.min() >= low
        assert once.max() <= high
        assert (np.diff(once) >= 0.0).all()
        np.testing.assert_array_equal(convert(converter, once), once)
        inside = (given_values >= low) & (given_values <= high)
        error = np.abs(once - given_values)[inside]
        assert (error <= 0.5 * converter.lsb * (1.0 + 1e-9) + 1e-12).all()


def test_the_grid_has_every_level_and_both_ends() -> None:
    converter = Converter(3, -0.2, 1.2)
    levels = np.unique(convert(converter, np.linspace(-1.0, 2.0, 5001)))
    np.testing.assert_allclose(levels, np.linspace(-0.2, 1.2, 8), rtol=0, atol=1e-15)
    assert converter.levels == len(levels)
    assert converter.lsb == pytest.approx(0.2)


def test_one_bit_is_a_comparator() -> None:
    np.testing.assert_array_equal(convert(Converter(1, 0.0, 1.0), np.array([-3.0, 0.49, 0.51, 3.0])), [0.0, 0.0, 1.0, 1.0])


def test_zero_of_a_symmetric_range_goes_to_the_even_level() -> None:
    assert convert(Converter(8, -1.0, 1.0), np.zeros(1))[0] == pytest.approx(1.0 / 255.0)


@pytest.mark.parametrize("bits", [4, 8, 12])
def test_variance_of_the_rounding_error(bits: int) -> None:
    converter = Converter(bits, -1.0, 1.0)
    values = Key(bits).generator().uniform(-1.0, 1.0, 200_000)
    error = convert(converter, values) - values
    # LSB^2/12 (Bennett 1948). The variance of a uniform error has a relative standard error of sqrt(0.8/n).
    assert error.var() == pytest.approx(converter.lsb**2 / 12.0, rel=5.0 * np.sqrt(0.8 / values.size))
    assert abs(error.mean()) < 5.0 * converter.lsb / np.sqrt(12.0 * values.size)


@pytest.mark.parametrize("bits", [6, 8, 10, 12])
def test_effective_number_of_bits_of_a_full_scale_sine(bits: int) -> None:
    # A whole number of periods, prime to the number of points, so that no two points see the same phase.
    count, periods = 16_384, 1021
    converter = Converter(bits, 0.1, 0.9, unit="V")
    sine = 0.5 + 0.4 * np.sin(2.0 * np.pi * periods * np.arange(count) / count + 0.3)
    spectrum = np.abs(np.fft.rfft(convert(converter, sine))) ** 2
    rest = spectrum[1:].sum() - spectrum[periods]
    decibels = 10.0 * np.log10(spectrum[periods] / rest)
    assert (decibels - 1.76) / 6.02 == pytest.approx(bits, abs=0.05)


def test_an_ideal_converter_only_clips_what_is_finite_of_its_range() -> None:
    values = np.array([-np.inf, -2.0, 0.3, 2.0, np.inf])
    np.testing.assert_array_equal(convert(Converter(), values), values)
    np.testing.assert_array_equal(convert(Converter(low=-1.0), values), [-1.0, -1.0, 0.3, 2.0, np.inf])
    np.testing.assert_array_equal(convert(Converter(low=-1.0, high=1.0), values), [-1.0, -1.0, 0.3, 1.0, 1.0])


def test_noise_has_the_standard_deviation_that_was_asked_for() -> None:
    converter = Converter(noise=0.02)
    values = np.full((400, 500), 0.3)
    noise = convert(converter, values, key=KEY, samples=np.arange(400)) - values
    assert noise.std() == pytest.approx(0.02, rel=5.0 / np.sqrt(2.0 * noise.size))
    assert abs(noise.mean()) < 5.0 * 0.02 / np.sqrt(noise.size)


def test_noise_comes_before_clipping_and_rounding() -> None:
    converter = Converter(8, -1.0, 1.0, noise=0.05)
    samples = np.arange(50)
    values = np.linspace(-1.0, 1.0, 50 * 40).reshape(50, 40)
    noisy = convert(Converter(noise=0.05), values, key=KEY, samples=samples, step=3)
    quiet = Converter(8, -1.0, 1.0)
    np.testing.assert_array_equal(convert(converter, values, key=KEY, samples=samples, step=3), convert(quiet, noisy))


def test_noise_belongs_to_the_sample_and_the_step() -> None:
    converter = Converter(10, -1.0, 1.0, noise=0.1)
    values = np.zeros((6, 11))
    samples = np.array([9, 4, 7, 0, 1, 2])
    together = convert(converter, values, key=KEY, samples=samples)
    np.testing.assert_array_equal(convert(converter, values[::-1], key=KEY, samples=samples[::-1]), together[::-1])
    np.testing.assert_array_equal(convert(converter, values[2:3], key=KEY, samples=samples[2:3]), together[2:3])
    assert (convert(converter, values, key=KEY, samples=samples, step=1) != together).any()
    assert (convert(converter, values, key=KEY.at("other"), samples=samples) != together).any()


@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize("bits", [None, 8])
def test_single_precision_stays_single(bits: int | None, noise: float) -> None:
    converter = Converter(bits, -1.0, 1.0, noise)
    values = KEY.generator().uniform(-1.2, 1.2, (8, 33)).astype(np.float32)
    arguments: dict[str, Any] = {"key": KEY, "samples": np.arange(8)}
    single = convert(converter, values, **arguments)
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single, convert(converter, values.astype(np.float64), **arguments).astype(np.float32))


def test_the_input_is_left_alone_and_the_result_is_new() -> None:
    values = np.array([[0.1, 5.0]])
    out = convert(Converter(low=-9.0, high=9.0), values)
    out[:] = 7.0
    np.testing.assert_array_equal(values, [[0.1, 5.0]])


def test_any_shape_stride_and_kind_of_number() -> None:
    quiet = Converter(4, 0.0, 1.0)
    grid = np.linspace(0.0, 1.0, 24).reshape(2, 3, 4)
    for values in (grid, grid[:, ::2], grid.T, grid[0, 0, 0]):
        out = convert(quiet, values)
        assert out.shape == np.shape(values)
        np.testing.assert_array_equal(out.ravel(), convert(quiet, np.ravel(values)))
    assert convert(quiet, np.array([0, 1, 9])).tolist() == [0.0, 1.0, 1.0]
    noisy = Converter(noise=0.1)
    deep = convert(noisy, np.zeros((2, 3, 4)), key=KEY, samples=np.array([3, 8]))
    flat = convert(noisy, np.zeros((2, 12)), key=KEY, samples=np.array([3, 8]))
    np.testing.assert_array_equal(deep.reshape(2, 12), flat)


def test_events_are_named_by_bits() -> None:
    assert Converter(8, 0.0, 1.0).event("adc") == "adc_conversion_8b"
    assert Converter(12, 0.0, 1.0).event("dac") == "dac_conversion_12b"
    assert Converter().event("adc") == "adc_conversion_ideal"
    with pytest.raises(InputError, match="unknown kind of converter 'abc'; nearest: dac, adc"):
        Converter().event("abc")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 0}, r"converter's bits is 0; expected a number in \[1, 24\]"),
        ({"bits": 25, "low": 0.0, "high": 1.0}, r"converter's bits is 25"),
        ({"bits": 8.5, "low": 0.0, "high": 1.0}, "bits is 8.5; expected a whole number"),
        ({"bits": 8}, r"converter's low is -inf V; expected a number in \(-inf, inf\) V"),
        ({"bits": 8, "low": 0.0}, r"converter's high is inf V"),
        ({"low": 1.0, "high": 1.0}, r"converter's high is 1 V; expected a number in \(1, inf\) V"),
        ({"low": np.nan}, r"converter's low is nan V"),
        ({"noise": -0.1}, r"converter's noise is -0.1 V; expected a number in \[0, inf\) V"),
    ],
)
def test_bad_descriptions_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Converter(unit="V", **arguments)


def test_bad_signals_are_refused() -> None:
    for converter in (Converter(), Converter(8, 0.0, 1.0)):
        with pytest.raises(InputError, match=r"signal to convert is nan at \(0, 2\)"):
            convert(converter, np.array([[np.inf, 0.0, np.nan]]))
    with pytest.raises(InputError, match="complex128 values; expected real numbers"):
        convert(Converter(), np.zeros(2, complex))
    noisy = Converter(noise=0.1, unit="V")
    with pytest.raises(InputError, match=r"converter has noise of 0.1 V; expected a key and samples"):
        convert(noisy, np.zeros((2, 3)))
    with pytest.raises(InputError, match=r"samples have length 3; expected one for each row of a signal of shape \(2, 3\)"):
        convert(noisy, np.zeros((2, 3)), key=KEY, samples=np.arange(3))
