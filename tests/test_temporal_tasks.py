"""Tasks in which only time tells: that it does, that nothing else does, and that rows come again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.experiments.data import load_data, split
from inmaterio.experiments.temporal_tasks import DOT, YANG, YIN, coincidence_spikes, yin_yang_class, yin_yang_points


def raster(inputs: np.ndarray, steps: int) -> np.ndarray:
    """Rows as (rows, steps, channels)."""
    return inputs.reshape(len(inputs), steps, -1)


def spike_times(inputs: np.ndarray, steps: int) -> np.ndarray:
    """When each channel spikes, shape (rows, channels), in rows where each does so once."""
    spikes = raster(inputs, steps)
    assert (spikes.sum(axis=1) == 1).all()
    return np.argmax(spikes, axis=1)


def test_the_classes_of_coincidence_are_permutations_of_the_same_offsets() -> None:
    inputs, labels = coincidence_spikes(2000, steps=120, channels=4, gap=10)
    times = spike_times(inputs, 120)
    assert labels.tolist() == [0, 1] * 1000
    np.testing.assert_array_equal(times[0::2] - times[0::2, :1], np.tile([0, 10, 20, 30], (1000, 1)))
    np.testing.assert_array_equal(times[1::2] - times[1::2, -1:], np.tile([30, 20, 10, 0], (1000, 1)))
    origins = times.min(axis=1)
    assert len(np.unique(origins)) == 120 - 2 - 70 and np.unique(origins[0::2]).tolist() == np.unique(origins[1::2]).tolist()
    # Spikes that wait for the last of their row still arrive, and what they leave has died away by then.
    assert times.max() + 30 + 10 < 120


def test_the_delays_of_coincidence_align_one_class_and_part_the_other() -> None:
    channels, gap = 5, 8
    inputs, labels = coincidence_spikes(200, steps=150, channels=channels, gap=gap)
    arrivals = spike_times(inputs, 150) + gap * np.arange(channels)[::-1]
    assert (np.ptp(arrivals[labels == 0], axis=1) == 0).all()
    apart = np.diff(np.sort(arrivals[labels == 1], axis=1), axis=1)
    assert (apart == 2 * gap).all()


def test_neither_counts_nor_single_times_tell_coincidence() -> None:
    inputs, labels = coincidence_spikes(4000, noise=0.5, jitter=1.0)
    counts = raster(inputs, 100).sum(axis=1)
    fit, test = slice(0, 2000), slice(2000, 4000)
    error = 3 * np.sqrt(0.25 / 2000)
    by_counts = LogisticRegression().fit(counts[fit], labels[fit]).score(counts[test], labels[test])
    assert abs(by_counts - 0.5) < error
    # A membrane with a leak of .5 in front of a counter: what is left of a spike 12 steps later is 2e-4 of it.
    spikes = raster(coincidence_spikes(400)[0], 100).astype(float)
    for weights in np.random.default_rng(0).normal(size=(20, 3)):
        membrane, largest = np.zeros(400), np.full(400, -np.inf)
        for step in range(100):
            membrane = 0.5 * membrane + spikes[:, step] @ weights
            largest = np.maximum(largest, membrane)
        np.testing.assert_allclose(largest, max(weights.max(), 0.0), atol=2e-3)


@given(
    fewer=st.integers(1, 30),
    more=st.integers(0, 30),
    channels=st.integers(2, 5),
    gap=st.integers(2, 15),
    jitter=st.floats(0, 3),
    noise=st.floats(0, 3),
    seed=st.integers(0, 99),
)
def test_a_longer_coincidence_begins_with_the_shorter(
    fewer: int, more: int, channels: int, gap: int, jitter: float, noise: float, seed: int
) -> None:
    options = {"steps": 200, "channels": channels, "gap": gap, "jitter": jitter, "noise": noise, "key": Key(seed)}
    short, labels = coincidence_spikes(fewer, **options)
    long, all_labels = coincidence_spikes(fewer + more, **options)
    np.testing.assert_array_equal(long[:fewer], short)
    np.testing.assert_array_equal(all_labels[:fewer], labels)
    assert short.dtype == np.uint8 and short.max() <= 1
    if noise == 0:
        times = spike_times(long, 200)
        ordered = np.where(all_labels[:, None] == 0, times, times[:, ::-1])
        assert (np.diff(ordered, axis=1) > 0).all()  # no jitter turns the order about


def test_noise_and_jitter_are_as_large_as_asked_for() -> None:
    plain = coincidence_spikes(2000)[0]
    noisy = coincidence_spikes(2000, noise=2.0)[0]
    assert (noisy >= plain).all()
    # 6000 channels with 2 expected each, at most one per step; those on top of a spike that means something are not seen
    assert (noisy.sum() - plain.sum()) / 6000 == pytest.approx(2.0 * 0.99, rel=0.03)
    shifts = spike_times(coincidence_spikes(2000, jitter=1.0)[0], 100) - spike_times(plain, 100)
    assert shifts.std() == pytest.approx(np.sqrt(1 + 1 / 12), rel=0.05)  # rounding adds a twelfth
    assert np.abs(shifts).max() <= 3


def test_yin_yang_is_the_published_figure() -> None:
    # Kriener, Goeltz, Petrovici (2022), figure 1: middles of the dots, of the half discs, and points beside the edges.
    points = np.array(
        [[0.75, 0.5], [0.25, 0.5], [0.5, 0.9], [0.5, 0.1], [0.75, 0.7], [0.25, 0.3], [0.25, 0.35], [0.75, 0.65], [0.02, 0.02]]
    )
    assert yin_yang_class(points).tolist() == [DOT, DOT, YANG, YIN, YIN, YANG, YANG, YIN, -1]
    found, labels = yin_yang_points(6000)
    np.testing.assert_array_equal(yin_yang_class(found), labels)
    assert np.bincount(labels).tolist() == [2000] * 3
    # The figure is itself turned by half a turn, yin and yang exchanged.
    np.testing.assert_array_equal(yin_yang_class(1 - found)[labels == YIN], YANG)
    # Uniform in each region: half of a class lies in either of two halves of equal area.
    dots = found[labels == DOT]
    assert np.mean(dots[:, 0] > 0.5) == pytest.approx(0.5, abs=3 * np.sqrt(0.25 / 2000))
    assert np.mean(np.hypot(dots[:, 0] % 0.5 - 0.25, dots[:, 1] - 0.5) < 0.1 / np.sqrt(2)) == pytest.approx(0.5, abs=0.034)


def test_yin_yang_puts_coordinates_into_times() -> None:
    found = load_data("yin-yang?rows=300&steps=40&bias=1")
    points, labels = yin_yang_points(300)
    times = spike_times(found.inputs, 40)
    np.testing.assert_array_equal(times[:, :2], np.floor(points * 40))
    np.testing.assert_array_equal(times[:, 2:4], 39 - np.floor(points * 40))
    assert (times[:, 4] == 0).all()
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(load_data("yin-yang?rows=50&steps=40&bias=1").inputs, found.inputs[:50])
    assert load_data("yin-yang?rows=20").channels == 4


@pytest.mark.parametrize("name", ["coincidence?rows=100", "yin-yang?rows=90"])
def test_temporal_tasks_are_spikes_with_time(name: str) -> None:
    found = load_data(name)
    assert found.kind == "spikes" and found.inputs.dtype == np.uint8 and found.seconds_per_step == 1e-3
    assert found.features == found.steps * found.channels and found.notes[0].startswith("made: ")
    parts = split(found, split_seed=0)
    assert len(parts.validation) and len(parts.test)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("coincidence?steps=63", "steps is 63 for 3 channels with gaps of 12 steps; expected a number in [64, 10000]"),
        ("coincidence?channels=1", "channels is 1; expected a number in [2, 1000]"),
        ("coincidence?gap=1", "gap is 1 step; expected a number in [2, 10000] step"),
        ("coincidence?jitter=-1", "option jitter of coincidence is -1; expected a number in [0, inf)"),
        ("coincidence?jitter=some", "option jitter of coincidence is 'some'; expected a number"),
        ("coincidence?noise=101", "noise is 101; expected a number in [0, 100]"),
        ("coincidence?rows=0", "rows is 0; expected a number in [1, 1e+06]"),
        ("coincidence?delay=3", "unknown option of coincidence: 'delay'"),
        ("yin-yang?steps=1", "option steps is 1; expected a number in [2, 10000]"),
        ("yin-yang?bias=2", "option bias is '2'; expected 0 or 1"),
        ("yin-yang?rows=-3", "option rows is '-3'; expected a whole number such as 7000"),
    ],
)
def test_bad_options_are_told_in_one_line(name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_data(name)
    assert message in str(caught.value) and "\n" not in str(caught.value)
