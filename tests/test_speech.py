"""Synthetic vowels against linear prediction, which knows nothing of how they were made, and the table behind them."""

import numpy as np
import pytest
from scipy.linalg import solve_toeplitz
from scipy.signal import sosfreqz

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.experiments import speech
from inmaterio.experiments.formants import KINDS, VOWELS, formant_statistics, formant_table
from inmaterio.experiments.speech import (
    SyntheticVowels,
    draw_formants,
    pulse_train,
    resonator,
    synthesise,
    synthetic_vowels,
    vocal_tract,
)

RATE = 10_000.0


def generator(*path: str | int) -> np.random.Generator:
    return Key(0, path).generator()


@pytest.fixture(scope="module")
def made() -> SyntheticVowels:
    return synthetic_vowels()


def linear_prediction(wave: np.ndarray, order: int) -> np.ndarray:
    """Frequencies of the resonances by linear prediction, autocorrelation method: J. Makhoul, Proc. IEEE 63, 561 (1975)."""
    emphasised = np.append(wave[0], wave[1:] - 0.97 * wave[:-1]) * np.hamming(len(wave))
    correlation = np.correlate(emphasised, emphasised, "full")[len(wave) - 1 :][: order + 1]
    predictor = solve_toeplitz(correlation[:-1], correlation[1:])
    roots = np.roots(np.append(1.0, -predictor))
    roots = roots[roots.imag > 0]
    hertz, bandwidth = np.angle(roots) * RATE / (2 * np.pi), -np.log(np.abs(roots)) * RATE / np.pi
    return np.sort(hertz[(bandwidth < 600) & (hertz > 150)])


def test_the_table_is_the_published_one() -> None:
    # Peterson and Barney (1952): 33 men, 28 women and 15 children said ten vowels twice, 1520 in all.
    table = formant_table()
    assert table.hertz.shape == (1520, 4)
    speakers = {kind: len(np.unique(table.speakers[table.kinds == place])) for place, kind in enumerate(KINDS)}
    assert speakers == {"man": 33, "woman": 28, "child": 15}
    assert np.bincount(table.vowels).tolist() == [152] * 10
    assert set(np.bincount(table.speakers).tolist()) == {20}
    assert ((table.hertz[:, 0] > 80) & (table.hertz[:, 3] < 4500) & (table.hertz[:, 1] < table.hertz[:, 3])).all()
    assert np.count_nonzero(table.hertz[:, 1] >= table.hertz[:, 2]) == 5  # one number where two formants had run together


def test_statistics_say_what_is_known_of_vowels() -> None:
    found = formant_statistics()
    for kind in range(3):
        mean = dict(zip(VOWELS, found.mean_hz[kind], strict=True))
        # The vowel triangle: heed and who'd are close (low first formant), hod is open; heed is front (high second), who'd back.
        assert min(mean, key=lambda vowel: mean[vowel][1]) == "iy" and max(mean, key=lambda vowel: mean[vowel][1]) == "aa"
        assert max(mean, key=lambda vowel: mean[vowel][2]) == "iy" and min(mean, key=lambda vowel: mean[vowel][2]) in ("uw", "ao")
        assert min(mean, key=lambda vowel: mean[vowel][3]) == "er"  # the low third formant of r
    # Vocal tracts grow shorter from men to women to children, so that all formants rise.
    scale = np.log(found.mean_hz[:, :, 1:]).mean(axis=(1, 2))
    assert scale[0] < scale[1] < scale[2]
    table = formant_table()
    spread = np.log(table.hertz[(table.kinds == 0) & (table.vowels == 0)]).std(axis=0, ddof=1)
    parts = np.array([found.pitch_spread[0], *[found.tract_spread[0]] * 3])
    np.testing.assert_allclose(np.hypot(parts, found.residual_spread[0, 0]), spread, rtol=0.35)


def test_a_resonator_has_its_poles_where_the_formula_puts_them() -> None:
    section = resonator(1500.0, 80.0, RATE)
    poles = np.roots(section[3:])
    np.testing.assert_allclose(np.abs(np.angle(poles)) * RATE / (2 * np.pi), 1500.0, rtol=1e-12)
    np.testing.assert_allclose(-np.log(np.abs(poles)) * RATE / np.pi, 80.0, rtol=1e-9)
    hertz = np.linspace(0.0, 5000.0, 20001)
    gain = np.abs(sosfreqz(section[None], hertz, fs=RATE)[1])
    assert gain[0] == pytest.approx(1.0, rel=1e-12)
    peak = hertz[np.argmax(gain)]
    assert peak == pytest.approx(1500.0, abs=2.0)
    above = hertz[gain >= gain.max() / np.sqrt(2)]
    assert above[-1] - above[0] == pytest.approx(80.0, rel=0.01)  # the bandwidth is that at -3 dB


def test_the_filter_is_the_published_difference_equation() -> None:
    # Klatt (1980), equation 1, sample by sample.
    source = generator("source").standard_normal(200)
    expected = np.append(source[0], np.diff(source))
    for frequency, bandwidth in ((0.0, 100.0), (500.0, 50.0), (1500.0, 70.0), (2500.0, 110.0)):
        c = -np.exp(-2 * np.pi * bandwidth / RATE)
        b = 2 * np.exp(-np.pi * bandwidth / RATE) * np.cos(2 * np.pi * frequency / RATE)
        a = 1 - b - c
        y1 = y2 = 0.0
        for n, x in enumerate(expected):
            y2, y1 = y1, a * x + b * y1 + c * y2
            expected[n] = y1
    found = speech.sosfilt(vocal_tract([500.0, 1500.0, 2500.0, 4600.0], RATE), source)  # 4600 Hz is above 0.45 of the rate
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_pulses_have_all_harmonics_alike_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "JITTER", 0.0)
    spectrum = np.abs(np.fft.rfft(pulse_train(130.0, RATE, 1000, generator("pulses")))) / 500.0  # 13 whole periods
    harmonics = np.zeros(501)
    harmonics[13:501:13] = 1.0
    np.testing.assert_allclose(spectrum, harmonics, atol=1e-9)


def test_jitter_moves_pulses_about_their_mean() -> None:
    pulses = pulse_train(100.0, RATE, 20_000, generator("jitter"))
    at = np.flatnonzero((pulses[1:-1] > 0.5 * pulses.max()) & (pulses[1:-1] >= pulses[:-2]) & (pulses[1:-1] > pulses[2:]))
    periods = np.diff(at)
    assert periods.mean() == pytest.approx(100.0, rel=0.005)
    assert 0.2 < periods.std() < 1.5  # 0.5 samples of jitter, and rounding to whole samples


@pytest.mark.parametrize("vowel", [(270, 2290, 3010), (660, 1720, 2410), (730, 1090, 2440), (300, 870, 2240), (490, 1350, 1690)])
def test_linear_prediction_finds_the_formants_of_a_low_voice(vowel: tuple[int, int, int]) -> None:
    wave = synthesise(80.0, [*vowel, 3400.0, 4300.0], rate_hz=RATE, samples=2000, generator=generator("voice"))
    np.testing.assert_allclose(linear_prediction(wave, 12)[:3], vowel, rtol=0.04)


@pytest.mark.parametrize(("first", "last", "limits"), [(0, 45, (0.04, 0.015, 0.01)), (45, 93, (0.08, 0.025, 0.015))])
def test_linear_prediction_finds_the_formants_of_the_set(
    made: SyntheticVowels, first: int, last: int, limits: tuple[float, float, float]
) -> None:
    # Harmonics lie far apart in a high voice and pull single estimates, those of low formants most: the median is looked at.
    rows = np.flatnonzero((made.speakers >= first) & (made.speakers < last))
    errors, strange = [], []
    for row, another in zip(rows, np.roll(rows, 45), strict=True):
        found = linear_prediction(made.waves[row], 12)
        for hertz, into in ((made.hertz[row], errors), (made.hertz[another], strange)):
            into.append([np.abs(found - one).min() / one for one in hertz[1:]])
    assert (np.median(errors, axis=0) < limits).all()
    assert (np.median(strange, axis=0) > limits).all()  # another vowel's formants are not found


def test_the_pitch_is_the_one_drawn(made: SyntheticVowels) -> None:
    for row in range(0, len(made.waves), 31):
        wave = made.waves[row]
        correlation = np.correlate(wave, wave, "full")[len(wave) - 1 :]
        period = RATE / made.hertz[row, 0]
        window = np.arange(int(0.8 * period), int(1.2 * period) + 2)
        assert window[np.argmax(correlation[window])] == pytest.approx(period, abs=0.03 * period + 1)


def test_the_set_is_as_described(made: SyntheticVowels) -> None:
    assert made.waves.shape == (279, 1000) and made.waves.dtype == np.float64
    np.testing.assert_allclose(np.sum(made.waves**2, axis=1), 1.0, rtol=1e-12)
    assert made.vowels == ("ae", "eh", "iy")
    assert np.bincount(made.labels).tolist() == [93] * 3 and np.bincount(made.speakers).tolist() == [3] * 93
    # 45 men: the mean of drawn formants is that of the table within five standard errors.
    about = formant_statistics()
    for label, vowel in enumerate(made.vowels):
        rows = (made.labels == label) & (made.speakers < 45)
        place = VOWELS.index(vowel)
        spread = np.hypot(about.residual_spread[0, place], [about.pitch_spread[0], *[about.tract_spread[0]] * 3])
        expected = about.mean_hz[0, place]
        assert (np.abs(made.hertz[rows].mean(axis=0) - expected) < 5 * expected * spread / np.sqrt(45)).all()


@pytest.mark.parametrize("kind", [0, 2])
def test_drawn_formants_have_the_median_and_the_mean_of_the_table(kind: int) -> None:
    # Two vowels whose formants lie so far apart that hardly any are drawn again.
    vowels, source = [VOWELS.index("eh"), VOWELS.index("ae")], generator("draws")
    drawn = np.array([draw_formants(kind, vowels, 1, source)[:, 0] for _ in range(6000)])
    about, table = formant_statistics(), formant_table()
    for place, vowel in enumerate(vowels):
        rows = table.hertz[(table.kinds == kind) & (table.vowels == vowel)]
        np.testing.assert_allclose(about.mean_hz[kind, vowel], rows.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(about.geometric_mean_hz[kind, vowel], np.prod(rows ** (1.0 / len(rows)), axis=0), rtol=1e-12)
        # The spread of the fundamental is 14 %: standard errors are 0.2 % of the mean and 0.25 % of the median.
        np.testing.assert_allclose(drawn[:, place].mean(axis=0), rows.mean(axis=0), rtol=6e-3)
        np.testing.assert_allclose(np.median(drawn[:, place], axis=0), about.geometric_mean_hz[kind, vowel], rtol=6e-3)
        # Draws about the arithmetic mean would have had a mean too high by spread^2 / 2, which is more than that.
        assert 0.5 * (about.pitch_spread[kind] ** 2 + about.residual_spread[kind, vowel, 0] ** 2) > 8e-3


def test_the_same_arguments_give_the_same_numbers(made: SyntheticVowels) -> None:
    again = synthetic_vowels()
    np.testing.assert_array_equal(again.waves, made.waves)
    other = synthetic_vowels(vowels=("iy", "uw"), speakers={"man": 2, "child": 1}, repetitions=2)
    assert other.waves.shape == (12, 1000)
    np.testing.assert_array_equal(other.speakers, [0] * 4 + [1] * 4 + [2] * 4)
    np.testing.assert_array_equal(other.labels, [0, 0, 1, 1] * 3)
    assert len(np.unique(other.waves, axis=0)) == 12
    once = synthetic_vowels(
        vowels=("uw", "iy"), speakers={"man": 1}
    )  # a speaker does not depend on who and what else is asked for
    ten = synthetic_vowels(vowels=VOWELS, speakers={"man": 1})
    np.testing.assert_array_equal(once.waves[1], ten.waves[0])
    assert not np.array_equal(synthetic_vowels(speakers={"man": 1}, key=Key(1)).waves[0], ten.waves[3])


def test_formants_rise_in_every_row() -> None:
    everything = synthetic_vowels(vowels=VOWELS, speakers={"man": 20, "woman": 20, "child": 20}, samples=50)
    assert (everything.hertz[:, 2:] > 1.1 * everything.hertz[:, 1:3]).all()


def test_bad_requests_are_told_in_one_line() -> None:
    def voice(
        fundamental: float = 100.0, resonances: tuple[float, ...] = (500.0,), rate: float = RATE, samples: int = 10
    ) -> object:
        return synthesise(fundamental, resonances, rate_hz=rate, samples=samples, generator=generator("bad"))

    for action, message in (
        (lambda: voice(fundamental=5.0), "fundamental is 5 Hz; expected a number in [20, 1000] Hz"),
        (lambda: voice(rate=100.0), "sampling rate is 100 Hz; expected a number in [200, 1e+06] Hz"),
        (lambda: voice(samples=1), "samples is 1; expected"),
        (lambda: voice(resonances=(500.0, 400.0)), "formants are 500, 400 Hz; expected rising ones"),
        (lambda: voice(resonances=(0.0, 400.0)), "formants is 0 Hz at (0,); expected at least 1 Hz"),
        (lambda: synthetic_vowels(vowels=("ae", "ei")), "unknown vowel 'ei'; nearest: "),
        (lambda: synthetic_vowels(vowels=("ae",)), "vowels are ae; expected at least two, each once"),
        (lambda: synthetic_vowels(vowels=("ae", "iy", "ae")), "vowels are ae, iy, ae; expected at least two, each once"),
        (lambda: synthetic_vowels(speakers={"men": 3}), "unknown kind of speaker 'men'; nearest: man"),
        (lambda: synthetic_vowels(speakers={"man": -1}), "number of speakers, man is -1; expected"),
        (lambda: synthetic_vowels(speakers={}), "speakers are none; expected at least one"),
        (lambda: synthetic_vowels(repetitions=0), "repetitions is 0; expected"),
        (lambda: synthetic_vowels(rate_hz=1000.0), "sampling rate is 1000 Hz; expected a number in [5000, 1e+06] Hz"),
    ):
        with pytest.raises(InputError) as caught:
            action()  # type: ignore[no-untyped-call]
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
