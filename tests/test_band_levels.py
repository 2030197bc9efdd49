"""Levels in bands of frequency."""

import numpy as np
import pytest

from inmaterio.devices.validation import InputError
from inmaterio.experiments.band_levels import band_levels
from inmaterio.experiments.data import load_data


def test_a_tone_is_heard_in_its_own_band_and_shares_add_up() -> None:
    rate, samples, bands = 10_000, 1000, 20
    times = np.arange(samples) / rate
    tones = np.array([np.sin(2 * np.pi * hertz * times) for hertz in (620.0, 1130.0, 4890.0)])
    levels = band_levels(tones, bands)
    assert list(levels.argmax(axis=1)) == [2, 4, 19]  # bands of 250 Hz
    assert levels.max(axis=1) == pytest.approx(0.0, abs=0.01)
    noise = np.random.default_rng(0).normal(size=(3, samples))
    assert (10 ** band_levels(noise, bands)).sum(axis=1) == pytest.approx(1.0)
    assert band_levels(5.0 * noise, bands) == pytest.approx(band_levels(noise, bands))


def test_bad_input() -> None:
    with pytest.raises(InputError, match="row 1 is silent"):
        band_levels(np.array([np.ones(100), np.zeros(100)]), 4)
    with pytest.raises(InputError, match=r"bands is 30; expected a number in \[2, 12\]"):
        band_levels(np.ones((1, 100)), 30)


def test_the_vowels_are_offered_as_levels_too() -> None:
    found = load_data("vowels-synthetic?bands=40")
    assert found.inputs.shape == (279, 40)
    assert found.kind == "features"
    assert found.groups is not None
