"""Level crossings against a slow, obvious twin, and mnist1d as such."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from inmaterio.devices.validation import InputError
from inmaterio.experiments import data
from inmaterio.experiments.data import load_data, split
from inmaterio.experiments.level_crossings import level_crossings


def naive(signal: np.ndarray, levels: list[float], steps: int) -> np.ndarray:
    """Walk along one signal."""
    spikes = np.zeros((steps, 2 * len(levels)), int)
    drawn = np.interp(np.linspace(0, len(signal) - 1, steps), np.arange(len(signal)), signal)
    for k, level in enumerate(levels):
        was_above = level < 0
        for t, value in enumerate(drawn):
            if value > level and not was_above:
                spikes[t, 2 * k] = 1
            if not value > level and was_above:
                spikes[t, 2 * k + 1] = 1
            was_above = value > level
    return spikes.ravel()


@given(
    signals=arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(2, 9)), elements=st.integers(-8, 8).map(lambda n: n / 3)),
    levels=st.lists(st.integers(-4, 4).map(lambda n: n / 2 + 0.1), min_size=1, max_size=3, unique=True).map(sorted),
    more=st.integers(0, 12),
)
def test_crossings_equal_their_slow_twin(signals: np.ndarray, levels: list[float], more: int) -> None:
    steps = signals.shape[1] + more
    found = level_crossings(signals, levels, steps)
    np.testing.assert_array_equal(found, [naive(signal, levels, steps) for signal in signals])
    assert found.dtype == np.uint8


def test_up_and_down_of_each_level_have_a_channel_each() -> None:
    rising_and_falling = np.array([[0.0, 1.2, 2.5, 1.2, -3.0]])
    spikes = level_crossings(rising_and_falling, [-1.0, 1.0, 2.0], 5).reshape(5, 6)
    # step, channel: up through 1 in step 1, through 2 in step 2, down through 2 in step 3, through 1 and -1 in step 4
    assert np.argwhere(spikes).tolist() == [[1, 2], [2, 4], [3, 5], [4, 1], [4, 3]]


def test_finer_steps_see_each_crossing_once_and_sooner() -> None:
    signal = np.array([[0.0, 4.0, 0.0]])
    assert np.flatnonzero(level_crossings(signal, [1.0], 3)).tolist() == [2, 5]
    assert np.flatnonzero(level_crossings(signal, [0.9], 21)).tolist() == [2 * 3, 2 * 18 + 1]  # .9 is passed in between 2 and 3


def test_mnist1d_crossings_are_mnist1d(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = load_data("mnist1d", cache=tmp_path)
    monkeypatch.setattr(data, "_load_mnist1d", lambda text, cache: whole)
    found = load_data("mnist1d-crossings")
    assert found.inputs.shape == (5000, 160) and (found.steps, found.channels, found.kind) == (40, 4, "spikes")
    np.testing.assert_array_equal(found.labels, whole.labels)
    np.testing.assert_array_equal(split(found, split_seed=3).validation, split(whole, split_seed=3).validation)
    np.testing.assert_array_equal(found.inputs[7], naive(whole.inputs[7], [-1.5, 1.5], 40))
    assert "fixed at -1.5 and 1.5 standard deviations" in found.notes[0]
    # The figures of the docstring of LEVELS.
    assert whole.inputs.mean() == pytest.approx(0.0, abs=1e-12)
    assert whole.inputs.std() == pytest.approx(1.0)
    events = {level: load_data(f"mnist1d-crossings?levels=-{level},{level}").inputs.sum(axis=1) for level in (1, 1.5, 2)}
    assert [round(float(one.mean()), 1) for one in events.values()] == [7.4, 3.9, 2.2]
    assert [int((one == 0).sum()) for one in events.values()] == [0, 140, 1053]
    finer = load_data("mnist1d-crossings?steps=120&levels=0.5")
    assert (finer.steps, finer.channels, finer.seconds_per_step) == (120, 2, pytest.approx(1e-3 / 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("levels=1,0", "levels are 1, 0; expected rising ones, at least one"),
        ("levels=low", "option levels of mnist1d-crossings is 'low'; expected numbers such as -1.5,1.5"),
        ("levels=nan", "levels is nan at (0,); expected finite numbers"),
        ("steps=39", "steps is 39; expected a number in [40, 10000]"),
        ("crossings=2", "unknown option of mnist1d-crossings: 'crossings'"),
    ],
)
def test_bad_options_are_told(options: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_data(f"mnist1d-crossings?{options}")
    assert message in str(caught.value)
