"""The cochlea against its slow twin, against what is published of its parts, and closed forms."""

import naive_cochlea
import numpy as np
import pytest
from scipy.signal import gammatone, lfilter

from inmaterio.devices.validation import InputError
from inmaterio.experiments.cochlea import Cochlea, centre_frequencies, equivalent_rectangular_bandwidth

RATE = 16_000.0


def tone(hertz: float, seconds: float = 0.3, size: float = 1.0) -> np.ndarray:
    return size * np.sqrt(2.0) * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)


def test_spikes_equal_those_of_the_slow_twin() -> None:
    rng = np.random.default_rng(0)
    cochlea = Cochlea(channels=7, high_hz=5000.0, threshold=0.1, adaptation=0.1, recovery_s=0.05)
    wave = tone(700) * np.hanning(4800) + 0.1 * rng.standard_normal(4800)
    # 30 steps of 10 ms are the whole of it, 7 steps of 33 ms less
    for step_s, steps in ((10e-3, 30), (33e-3, 7)):
        found = cochlea.spikes(wave, RATE, step_s=step_s, steps=steps)
        np.testing.assert_array_equal(found, naive_cochlea.spikes(cochlea, wave, RATE, step_s=step_s, steps=steps))
        assert found.shape == (steps, 7) and found.sum() > 40


def test_the_scale_is_the_published_one() -> None:
    # Glasberg and Moore (1990): ERB of 132.6 Hz at 1 kHz, and n channels at equal distances in ERB.
    assert equivalent_rectangular_bandwidth(1000.0) == pytest.approx(132.639)
    centres = centre_frequencies(200, 100.0, 6000.0)
    assert (centres[0], centres[-1]) == (pytest.approx(100.0), pytest.approx(6000.0))
    ratio = np.diff(centres) / equivalent_rectangular_bandwidth(np.sqrt(centres[1:] * centres[:-1]))
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-4)


def test_the_filter_is_a_gammatone() -> None:
    # scipy's infinite impulse response gammatone (M. Slaney, Apple Technical Report 35) has the same impulse response's envelope.
    impulse = np.zeros(2000)
    impulse[0] = 1.0
    ours = naive_cochlea.basilar_membrane(impulse, RATE, 1000.0)
    numerator, denominator = gammatone(1000.0, "iir", fs=RATE)

    theirs = lfilter(numerator, denominator, impulse)
    spectra = [np.abs(np.fft.rfft(one, 16_000)) for one in (ours, theirs)]
    near = slice(700, 1301)  # hertz: within 20 dB of the peak
    np.testing.assert_allclose(spectra[0][near], spectra[1][near], rtol=0.02)
    assert spectra[0].argmax() == pytest.approx(1000, abs=3) and spectra[0].max() == pytest.approx(1.0, rel=0.01)


def test_the_channel_of_a_tone_spikes_most() -> None:
    cochlea = Cochlea(channels=20, high_hz=5000.0)
    centres = centre_frequencies(20, 120.0, 5000.0)
    for place in (3, 9, 15):
        counts = cochlea.spikes(tone(centres[place], size=0.05), RATE, step_s=10e-3, steps=30).sum(axis=0)
        assert counts[place] == counts.max() > 0 and counts[place] > counts[place - 5]


def test_the_rate_of_a_steady_drive_is_the_closed_form() -> None:
    # Without adaptation a membrane that is driven by I spikes every ceil(ln(1 - threshold / I) / ln(decay)) samples. The hair
    # cell of a tone of peak A at a channel's centre settles at A / pi, the mean of a rectified sine; slow, it leaves no ripple.
    cochlea = Cochlea(channels=2, low_hz=1000.0, high_hz=3000.0, adaptation=0.0, smoothing_s=0.1, threshold=0.2)
    counts = cochlea.spikes(tone(1000.0, seconds=3.0), RATE, step_s=1.0, steps=3)
    drive = (np.sqrt(2.0) / np.pi) ** 0.25
    period = np.ceil(np.log(1.0 - 0.2 / drive) * -5e-3 * RATE)
    assert period == 23 and counts[2, 0] == pytest.approx(RATE / period, abs=1)


def test_adaptation_answers_onsets_first() -> None:
    cochlea = Cochlea(channels=2, low_hz=1000.0, high_hz=3000.0)
    counts = cochlea.spikes(tone(1000.0, seconds=1.0), RATE, step_s=0.1, steps=10)[:, 0]
    assert counts[0] >= 2 * counts[5] > 0 and counts[5:].max() - counts[5:].min() <= 1


def test_silence_is_silent_and_louder_is_more() -> None:
    cochlea = Cochlea(channels=12)
    assert cochlea.spikes(np.zeros(2000), RATE, step_s=10e-3, steps=12).sum() == 0
    sums = [cochlea.spikes(tone(500, size=size), RATE, step_s=10e-3, steps=30).sum() for size in (0.01, 0.1, 1.0)]
    assert sums[0] < sums[1] < sums[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 1}, "channels of the cochlea is 1; expected a number in [2, 1000]"),
        ({"low_hz": 7000.0}, "lowest centre frequency is 7000 Hz; expected a number in [20, 6000) Hz"),
        ({"membrane_s": 0.0}, "membrane_s is 0 s; expected a number in (0, inf) s"),
        ({"threshold": 0.0}, "threshold is 0; expected"),
        ({"adaptation": -1.0}, "adaptation is -1; expected"),
    ],
)
def test_bad_constants_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Cochlea(**options)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_a_rate_that_is_too_low_is_refused() -> None:
    with pytest.raises(InputError, match="sampling rate is 8000 Hz for channels up to 6000 Hz; expected more than twice that"):
        Cochlea().spikes(np.zeros(10), 8000.0, step_s=1e-3, steps=1)
    with pytest.raises(InputError, match=r"step is 0 s; expected a number in \[6.25e-05, inf\) s"):
        Cochlea().spikes(np.zeros(10), RATE, step_s=0.0, steps=1)
