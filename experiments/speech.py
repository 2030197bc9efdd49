"""Vowels by source and filter: a train of pulses through resonators at given formants.

Semi-synthetic: means and spreads of the formants were measured (`inmaterio.experiments.formants`), the sounds are made.

The filter is the cascade of D. H. Klatt, "Software for a cascade/parallel formant synthesizer", J. Acoust. Soc. Am. 67,
971 (1980): digital resonators y[n] = a x[n] + b y[n-1] + c y[n-2] with

    c = -exp(-2 pi bandwidth / rate),  b = 2 exp(-pi bandwidth / rate) cos(2 pi frequency / rate),  a = 1 - b - c,

one at frequency 0 for the shape of the glottal pulse, one per formant, and a first difference for the radiation from
the lips. Bandwidths are that program's defaults.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.signal import sosfilt

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.experiments.formants import KINDS, VOWELS, formant_statistics

Floats = NDArray[np.float64]

BANDWIDTHS_HZ = (50.0, 70.0, 110.0, 250.0, 200.0)
"""Of the first five formants; those above take the last (Klatt 1980, default configuration)."""

GLOTTAL_BANDWIDTH_HZ = 100.0
"""Of the resonator at frequency 0 that makes pulses of impulses (Klatt 1980, default configuration)."""

HIGHEST_FORMANT = 0.45
"""Resonances above this share of the sampling rate are left out: a digital resonator there has its image beside it."""

JITTER = 0.005
"""Standard deviation of a glottal period, relative to its mean. Our choice: a voice is never quite periodic."""

WARM_UP_S = 0.05
"""Sound made and thrown away before what is kept: the narrowest resonance rings for 1 / (50 pi) s."""

SPEAKERS = {"man": 45, "woman": 48, "child": 0}
"""How many of each kind: as many adults as in the recordings that the task of Hughes et al. (2019) uses."""

DEFAULT_VOWELS = ("ae", "eh", "iy")
"""Hughes et al. (2019) use ae, ei and iy; ei is a diphthong, which the table lacks, and eh is the nearest vowel in it."""


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticVowels:
    """Vowels that were made.

    Attributes
    ----------
    waves : ndarray, shape (n, samples)
        Sound pressure; the squares of each row sum to 1.
    labels : ndarray of int64, shape (n,)
        Index of the vowel in `vowels`.
    speakers : ndarray of int64, shape (n,)
        Number of the speaker, from 0: men, then women, then children.
    hertz : ndarray, shape (n, 4)
        Fundamental and first three formants each was made with.
    vowels : tuple of str
    """

    waves: Floats
    labels: NDArray[np.int64]
    speakers: NDArray[np.int64]
    hertz: Floats
    vowels: tuple[str, ...]


def resonator(frequency_hz: float, bandwidth_hz: float, rate_hz: float) -> Floats:
    """Second-order section of one resonance, with gain 1 at frequency 0.

    Returns
    -------
    ndarray, shape (6,)
        As `scipy.signal.sosfilt` takes it.
    """
    radius = np.exp(-np.pi * bandwidth_hz / rate_hz)
    b, c = 2.0 * radius * np.cos(2.0 * np.pi * frequency_hz / rate_hz), -(radius**2)
    return np.array([1.0 - b - c, 0.0, 0.0, 1.0, -b, -c])


def vocal_tract(formants_hz: ArrayLike, rate_hz: float) -> Floats:
    """Sections of the whole cascade: radiation, glottal pulse, formants.

    Parameters
    ----------
    formants_hz : array_like, shape (formants,)
        Rising; those above `HIGHEST_FORMANT` of the rate are left out.
    rate_hz : float
        Sampling rate.

    Returns
    -------
    ndarray, shape (sections, 6)
    """
    formants = np.asarray(formants_hz, dtype=np.float64)
    kept = formants[formants <= HIGHEST_FORMANT * rate_hz]
    sections = [np.array([1.0, -1.0, 0.0, 1.0, 0.0, 0.0]), resonator(0.0, GLOTTAL_BANDWIDTH_HZ, rate_hz)]
    for place, frequency in enumerate(kept):
        sections.append(resonator(float(frequency), BANDWIDTHS_HZ[min(place, len(BANDWIDTHS_HZ) - 1)], rate_hz))
    return np.array(sections)


def pulse_train(fundamental_hz: float, rate_hz: float, samples: int, generator: np.random.Generator) -> Floats:
    """Impulses at the fundamental, with jitter and a random start, of no harmonic above half the rate.

    The sum of cos(k phase) over k = 1 ... harmonics is sin((harmonics + 1/2) phase) / (2 sin(phase / 2)) - 1/2; the phase
    runs straight from pulse to pulse.
    """
    harmonics = int(0.5 * rate_hz / (fundamental_hz * (1.0 + 6.0 * JITTER)))
    count = int(samples / rate_hz * fundamental_hz * 1.5) + 4
    periods = (1.0 + JITTER * np.clip(generator.standard_normal(count), -6.0, 6.0)) / fundamental_hz
    begins = np.cumsum(periods) - periods[0] * (1.0 + generator.random())
    phase = 2.0 * np.pi * np.interp(np.arange(samples) / rate_hz, begins, np.arange(count))
    half = np.sin(phase / 2.0)
    near = np.abs(half) < 1e-9
    ratio = np.sin((harmonics + 0.5) * phase) / np.where(near, 1.0, 2.0 * half)
    return np.asarray(np.where(near, float(harmonics), ratio - 0.5), dtype=np.float64)


def synthesise(
    fundamental_hz: float, formants_hz: ArrayLike, *, rate_hz: float, samples: int, generator: np.random.Generator
) -> Floats:
    """One steady vowel.

    Parameters
    ----------
    fundamental_hz : float
        Pulses per second, at least 20 and at most a tenth of the rate.
    formants_hz : array_like, shape (formants,)
        Resonances, rising.
    rate_hz : float
        Sampling rate.
    samples : int
        How many.
    generator : numpy generator
        For jitter and start.

    Returns
    -------
    ndarray, shape (samples,)
        The squares sum to 1.

    Raises
    ------
    InputError
        When a number is out of range or the formants do not rise.
    """
    check_range("sampling rate", rate_hz, low=200.0, high=1e6, unit="Hz")
    check_range("fundamental", fundamental_hz, low=20.0, high=rate_hz / 10.0, unit="Hz")
    check_range("samples", samples, low=2)
    formants = check_array("formants", formants_hz, shape=(None,), low=1.0, unit="Hz").astype(np.float64)
    if (np.diff(formants) <= 0).any():
        raise InputError(f"formants are {', '.join(f'{one:g}' for one in formants)} Hz; expected rising ones")
    warm_up = round(WARM_UP_S * rate_hz)
    source = pulse_train(fundamental_hz, rate_hz, warm_up + samples, generator)
    sound = sosfilt(vocal_tract(formants, rate_hz), source)[warm_up:]
    return np.asarray(sound / np.sqrt(np.sum(sound**2)), dtype=np.float64)


def higher_formants(kind: int) -> Floats:
    """Fourth and further resonances of a kind of speaker, shape (7,), in hertz.

    Those of a uniform tube, closed at one end, whose third resonance is the kind's mean third formant: 7/5, 9/5, ... of it.
    """
    third = float(formant_statistics().mean_hz[kind, :, 3].mean())
    return np.asarray(third * np.arange(7, 21, 2) / 5.0, dtype=np.float64)


def draw_formants(kind: int, vowels: Sequence[int], repetitions: int, generator: np.random.Generator) -> Floats:
    """Fundamental and formants of one speaker, shape (vowels, repetitions, 4), in hertz.

    The kind's geometric mean of each vowel times exp(speaker's tract or pitch + rest), both normal with the spreads of the table:
    so the median of what is drawn is the table's geometric mean, and the arithmetic mean, larger by the factor
    exp(spread^2 / 2), the table's arithmetic mean, which is the published one. The rest is drawn without correlation between
    formants, and drawn again when the formants do not rise by a tenth: that moves the means of er by up to 4 %, of iy, aa and
    ao of women and children by up to 3 %, and all others by less than 1 %.
    """
    about = formant_statistics()
    speaker = np.array([about.pitch_spread[kind], *[about.tract_spread[kind]] * 3])
    speaker *= generator.standard_normal(2)[[0, 1, 1, 1]]
    drawn = np.empty((len(vowels), repetitions, 4))
    for place, vowel in enumerate(vowels):
        for repetition in range(repetitions):
            hertz = np.zeros(4)
            while not (hertz[2:] > 1.1 * hertz[1:3]).all():
                hertz = about.geometric_mean_hz[kind, vowel] * np.exp(
                    speaker + about.residual_spread[kind, vowel] * generator.standard_normal(4)
                )
            drawn[place, repetition] = hertz
    return drawn


def synthetic_vowels(
    *,
    vowels: Sequence[str] = DEFAULT_VOWELS,
    speakers: Mapping[str, int] = SPEAKERS,
    repetitions: int = 1,
    rate_hz: float = 10_000.0,
    samples: int = 1000,
    key: Key | None = None,
) -> SyntheticVowels:
    """Vowels of made-up speakers with the measured means and spreads of formants; the same arguments give the same numbers.

    A speaker's draws depend on kind and number alone, so that more speakers leave the others as they are.

    Parameters
    ----------
    vowels : sequence of str
        Of `VOWELS`, each once: the classes.
    speakers : mapping of str to int
        How many of each of `KINDS`.
    repetitions : int
        Times that each speaker says each vowel.
    rate_hz : float
        Sampling rate, 5000 Hz or more: the fundamental of a child may be 400 Hz.
    samples : int
        Per vowel.
    key : Key, optional
        Of the draws; a constant when None.

    Returns
    -------
    SyntheticVowels

    Raises
    ------
    InputError
        When a vowel or kind is unknown or a number out of range.
    """
    for vowel in vowels:
        check_name("vowel", vowel, VOWELS)
    if len(set(vowels)) < max(2, len(vowels)):
        raise InputError(f"vowels are {', '.join(vowels) or 'none'}; expected at least two, each once")
    for kind, count in speakers.items():
        check_range(f"number of speakers, {check_name('kind of speaker', kind, KINDS)}", count, low=0)
    check_range("repetitions", repetitions, low=1)
    check_range("sampling rate", rate_hz, low=5000.0, high=1e6, unit="Hz")
    key = Key(1952, ("synthetic vowels",)) if key is None else key
    waves, labels, numbers, used = [], [], [], []
    number = 0
    for place, kind in enumerate(KINDS):
        above = higher_formants(place)
        for speaker in range(speakers.get(kind, 0)):
            # All ten vowels are drawn, so that a speaker does not depend on which of them are asked for.
            generator = key.at(kind, speaker).generator()
            drawn = draw_formants(place, range(len(VOWELS)), repetitions, generator)
            for label, vowel in enumerate(vowels):
                for repetition, hertz in enumerate(drawn[VOWELS.index(vowel)]):
                    own = key.at(kind, speaker, vowel, repetition).generator()
                    # A tract with a high third formant has the others above it higher too.
                    formants = np.concatenate([hertz[1:], above[above > 1.1 * hertz[3]]])
                    waves.append(synthesise(float(hertz[0]), formants, rate_hz=rate_hz, samples=samples, generator=own))
                    labels.append(label)
                    numbers.append(number)
                    used.append(hertz)
            number += 1
    if not waves:
        raise InputError("speakers are none; expected at least one")
    return SyntheticVowels(
        np.array(waves), np.array(labels, dtype=np.int64), np.array(numbers, dtype=np.int64), np.array(used), tuple(vowels)
    )
