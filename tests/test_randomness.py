"""Keys, and counter-based draws: known answers, naive twins, independence of place and order, statistics.

Statistical tests fail at |z| > 5 or p < 1e-6: each would raise a false alarm about once in a million seeds. The seeds are
fixed, so a test that passes once passes always.
"""

import itertools

import naive_devices as naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from inmaterio.devices import randomness
from inmaterio.devices.compilation import kernel
from inmaterio.devices.randomness import Key, normal_array, normals, uniforms
from inmaterio.devices.validation import InputError

KEY = Key(20260101).at("tests", 7)
SMALLEST_P = 1e-6
LARGEST_Z = 5.0

# Random123's file kat_vectors, lines "philox4x32 10": counter, key, expected.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers(counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]) -> None:
    words = randomness.philox_4x32(*(np.uint64(word) for word in counter + key))
    assert tuple(int(word) for word in words) == expected
    assert naive.philox(counter, key) == expected


@given(st.tuples(*[st.integers(0, 2**32 - 1)] * 4), st.tuples(*[st.integers(0, 2**32 - 1)] * 2))
def test_philox_agrees_with_its_twin(counter: tuple[int, int, int, int], key: tuple[int, int]) -> None:
    words = randomness.philox_4x32(*(np.uint64(word) for word in counter + key))
    assert tuple(int(word) for word in words) == naive.philox(counter, key)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 8, 1031])
def test_draws_agree_with_their_twins(width: int) -> None:
    # 1031 elements of 3 samples cross the chunks the kernel works in.
    samples = np.array([5, 2**32 + 1, 2**40])
    words = KEY.words()
    for draw, twin in ((normals, naive.normal), (uniforms, naive.uniform)):
        expected = [[twin(words, int(sample), element, 9) for element in range(width)] for sample in samples]
        np.testing.assert_allclose(draw(KEY, samples, width, step=9), expected, rtol=0, atol=5e-15)


def test_extreme_words_stay_finite() -> None:
    for word in (0, 1, 2**30 - 1, 2**30, 2**31, 2**32 - 2, 2**32 - 1):
        u = (word + 0.5) / 2**32
        assert randomness.unit_interval(np.uint64(word)) == u
        assert randomness.normal_radius(np.uint64(word)) == pytest.approx(np.sqrt(-2.0 * np.log(u)), rel=1e-14)
        angle = 2.0 * np.pi * u - np.pi / 4.0
        assert randomness.normal_direction(np.uint64(word)) == pytest.approx((np.cos(angle), np.sin(angle)), abs=2e-15)
    assert randomness.normal_radius(np.uint64(0)) == pytest.approx(randomness.LARGEST_NORMAL)


@given(st.permutations(range(7)), st.integers(1, 30))
def test_a_draw_belongs_to_the_sample_not_to_its_place(order: list[int], width: int) -> None:
    samples = np.array([3, 8, 1, 2**33, 0, 77, 12])
    for draw in (normals, uniforms):
        together = draw(KEY, samples, width, step=2)
        np.testing.assert_array_equal(draw(KEY, samples[order], width, step=2), together[order])
        np.testing.assert_array_equal(draw(KEY, samples[4:5], width, step=2), together[4:5])


@given(st.integers(0, 2000), st.integers(1, 2000))
def test_a_draw_does_not_depend_on_the_width(shorter: int, longer: int) -> None:
    shorter, longer = sorted((shorter, longer))
    np.testing.assert_array_equal(normals(KEY, np.array([4]), longer)[:, :shorter], normals(KEY, np.array([4]), shorter))


def test_blocks_give_the_same_bits_as_the_fills() -> None:
    k0, k1 = (np.uint64(word) for word in KEY.words())
    together = normals(KEY, np.array([6]), 40, step=3)[0]
    even = uniforms(KEY, np.array([6]), 40, step=3)[0]
    for block in range(10):
        assert randomness.normal_block(k0, k1, block, 3, 6) == tuple(together[4 * block : 4 * block + 4])
        assert randomness.uniform_block(k0, k1, block, 3, 6) == tuple(even[4 * block : 4 * block + 4])


@kernel
def _noisy_sum(k0: np.uint64, k1: np.uint64, samples: NDArray[np.int64], out: NDArray[np.float64]) -> None:
    for step in range(3):
        noise = np.empty_like(out)
        randomness.fill_normals(k0, k1, step, samples, noise)
        out += noise


def test_other_kernels_can_draw() -> None:
    k0, k1 = (np.uint64(word) for word in KEY.words())
    samples = np.arange(4)
    out = np.zeros((4, 9))
    _noisy_sum(k0, k1, samples, out)
    expected = np.zeros((4, 9))
    for step in range(3):
        expected += normals(KEY, samples, 9, step=step)
    np.testing.assert_array_equal(out, expected)


def test_single_precision_is_double_precision_rounded() -> None:
    samples = np.arange(50)
    for draw in (normals, uniforms):
        double = draw(KEY, samples, 101)
        single = draw(KEY, samples, 101, dtype=np.float32)
        assert single.dtype == np.float32
        np.testing.assert_array_equal(
            single, np.minimum(double.astype(np.float32), np.float32(np.inf if draw is normals else 1 - 2**-24))
        )


def test_uniforms_leave_out_both_ends() -> None:
    for dtype in (np.float32, np.float64):
        values = uniforms(KEY, np.arange(200), 1000, dtype=dtype)
        assert values.min() > 0.0
        assert values.max() < 1.0
    # A draw, found by searching, that would round to 1 in single precision.
    sample, element = np.array([7243]), 7171
    assert np.float32(uniforms(KEY, sample, element + 1)[0, element]) == 1.0
    assert uniforms(KEY, sample, element + 1, dtype=np.float32)[0, element] == 1.0 - 2.0**-24


def test_normals_are_normal() -> None:
    values = normals(KEY, np.arange(1000), 500)
    count = values.size
    assert abs(values.mean()) * np.sqrt(count) < LARGEST_Z
    assert abs(values.var() - 1.0) * np.sqrt(count / 2.0) < LARGEST_Z
    assert abs((values**3).mean()) * np.sqrt(count / 15.0) < LARGEST_Z
    assert abs((values**4).mean() - 3.0) * np.sqrt(count / 96.0) < LARGEST_Z
    assert stats.kstest(values.ravel(), "norm").pvalue > SMALLEST_P
    # Tails: the number beyond 4 is a Poisson count of mean 31.7.
    beyond = int((np.abs(values) > 4.0).sum())
    mean = count * 2.0 * stats.norm.sf(4.0)
    assert stats.poisson.cdf(beyond, mean) > SMALLEST_P
    assert stats.poisson.sf(beyond - 1, mean) > SMALLEST_P


def test_uniforms_are_uniform() -> None:
    values = uniforms(KEY, np.arange(1000), 500)
    assert abs(values.mean() - 0.5) * np.sqrt(12.0 * values.size) < LARGEST_Z
    assert stats.kstest(values.ravel(), "uniform").pvalue > SMALLEST_P


def _correlation_z(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return float(abs((first * second).mean()) * np.sqrt(first.size))


def test_neighbours_are_uncorrelated() -> None:
    samples = np.arange(400)
    values = normals(KEY, samples, 500)
    for distance in (1, 2, 3, 4, 8):  # inside one block of four and across blocks
        assert _correlation_z(values[:, distance:], values[:, :-distance]) < LARGEST_Z
        assert _correlation_z(values[distance:], values[:-distance]) < LARGEST_Z
    for other in (
        normals(KEY, samples, 500, step=1),
        normals(KEY.at(0), samples, 500),
        normals(Key(KEY.seed + 1, KEY.path), samples, 500),
        normals(KEY, samples + 2**32, 500),
    ):
        assert _correlation_z(values, other) < LARGEST_Z
        assert _correlation_z(values**2 - 1.0, (other**2 - 1.0) / 2.0) < LARGEST_Z


def test_normal_array_counts_elements_in_c_order() -> None:
    values = normal_array(KEY, (3, 4, 5), np.float32)
    assert values.shape == (3, 4, 5)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values.ravel(), normals(KEY, np.array([0]), 60, dtype=np.float32)[0])
    assert normal_array(KEY, ()).shape == ()


def test_keys_differ_in_everything_that_differs() -> None:
    paths: list[tuple[str | int, ...]] = [
        (), (1,), ("1",), (1, 1), (11,), ("1", "1"), ("11",), (-1,), (0,),
        ("a", "b"), ("ab",), ("a,b",), ("", "ab"), ("ab", ""), ("i1:1",),
    ]  # fmt: skip
    keys = [Key(seed, path) for seed in (0, 1, 2**70) for path in paths]
    for streams in (
        [key.words() for key in keys],
        [key.torch_seed() for key in keys],
        [int(key.generator().integers(2**63)) for key in keys],
    ):
        assert len(set(streams)) == len(keys)


def test_keys_keep_their_streams() -> None:
    # A change of these numbers changes every result that was ever published with a seed.
    key = Key(3).at("chip", 1)
    assert key == Key(3, ("chip", 1)) == Key(np.int64(3)).at("chip").at(np.int64(1))  # type: ignore[arg-type]
    assert key.words() == Key(np.int64(3)).at("chip", np.int64(1)).words()  # type: ignore[arg-type]
    assert key.words() == (881633232, 4133871083)
    assert key.torch_seed() == 6814149702501845042
    assert key.generator().integers(2**32, size=2).tolist() == [4264029707, 1265595384]
    assert 0 <= key.torch_seed() < 2**63


def test_words_use_every_bit() -> None:
    words = np.array([Key(seed).words() for seed in range(2000)], np.uint32)
    share = np.unpackbits(words.view(np.uint8), axis=1).mean(axis=0)
    assert np.abs(share - 0.5).max() * 2.0 * np.sqrt(2000) < LARGEST_Z


@pytest.mark.parametrize("seed", [-1, 1.0, "1", True, None])
def test_a_bad_seed_is_refused(seed: object) -> None:
    with pytest.raises(InputError, match=r"seed is .*; expected an integer >= 0"):
        Key(seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("part", [1.5, None, True, ("a",), b"a"])
def test_a_bad_part_is_refused(part: object) -> None:
    with pytest.raises(InputError, match=r"expected a str or an int"):
        Key(0).at("fine", part)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": np.array([1, -2])}, r"samples is -2 at \(1,\)"),
        ({"samples": np.array([0.5])}, "float64 values; expected integers"),
        ({"samples": np.zeros((2, 2), int)}, r"shape \(2, 2\)"),
        ({"width": -1}, "width is -1"),
        ({"step": 2**32}, "step is"),
        ({"dtype": np.float16}, "dtype is float16; expected float32 or float64"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    for draw in (normals, uniforms):
        with pytest.raises(InputError, match=message):
            draw(KEY, **({"samples": np.arange(3), "width": 4} | arguments))  # type: ignore[arg-type]


def test_empty_requests_are_empty() -> None:
    for batch, width in itertools.product((0, 2), (0, 3)):
        assert normals(KEY, np.arange(batch), width).shape == (batch, width)
