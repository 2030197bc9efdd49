"""Spoken digits that anyone can make: espeak-ng says them, a small cochlea hears them.

English and German digits, 20 classes as in SHD, by voices that differ in timbre and accent, at speeds, pitches, times and
levels of noise drawn for every row. Semi-synthetic: rules and formants of espeak-ng were fitted to speech by its makers; no
voice was recorded. espeak-ng of one version gives the same samples for the same words, and all draws hang on the names of
voice, language and digit and the number of the repetition, so that the same versions give the same bits, and fewer voices or
repetitions some of the same rows.
"""

import hashlib
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_name, check_range
from inmaterio.experiments.cochlea import Cochlea
from inmaterio.experiments.data_cache import cache_folder, cached
from inmaterio.experiments.data_names import full_name, options_of, real_number, whole_number
from inmaterio.experiments.dataset import Dataset
from inmaterio.experiments.wav_files import read_wav

Floats = NDArray[np.float64]

SPOKEN_DIGITS = "spoken-digits"

PROGRAM = "espeak-ng"

WORDS = {
    "en": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "de": ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"),
}

ACCENTS = {"en": ("gmw/en", "gmw/en-US", "gmw/en-GB-scotland"), "de": ("gmw/de",)}
"""Languages as files of espeak-ng: a voice speaks one of each, taken in turns. Files, because by the name en-gb of the language
espeak-ng 1.51 loses the variant behind the plus and all voices are one."""

# fmt: off
VOICES = (
    "m1", "f1", "m2", "f2", "m3", "f3", "m4", "f4", "m5", "f5", "m6", "Alicia", "m7", "Andrea", "m8", "Annie", "david", "anika",
    "Denis", "aunty", "Henrique", "belinda", "miguel", "linda", "quincy", "steph", "robert", "grandma", "victor", "grandpa",
)
# fmt: on
"""Variants of espeak-ng 1.51 that are meant to sound like people; the others are robots, whispers, or one of these again."""

SPEEDS = (140, 230)
"""Words per minute, from and to, whole numbers."""

PITCHES = (25, 75)
"""Of espeak-ng's 0 to 99, whole numbers; 50 is each voice's own."""

LATEST_START_S = 0.1

SILENCE = 0.01
"""What is below this share of a word's largest sample at its ends is no part of it."""

COCHLEA = Cochlea()

RECIPE = 1
"""Raised when what is made from the same settings changes, so that nothing made before is taken for it."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is said, how often, and how it is heard.

    Attributes
    ----------
    languages : tuple of str
        Of `WORDS`, each once.
    voices : int
        The first so many of `VOICES`.
    repetitions : int
        How often each voice says each digit.
    snr_db : tuple of float
        Least and largest ratio of a word's power to that of the white noise around it, dB.
    step_s : float
        Duration of a step, s.
    steps : int
    cochlea : Cochlea

    Raises
    ------
    InputError
        When a language is unknown or named twice, or a number out of range.
    """

    languages: tuple[str, ...] = ("en", "de")
    voices: int = len(VOICES)
    repetitions: int = 4
    snr_db: tuple[float, float] = (10.0, 30.0)
    step_s: float = 10e-3
    steps: int = 80
    cochlea: Cochlea = COCHLEA

    def __post_init__(self) -> None:
        for language in self.languages:
            check_name("language", language, WORDS)
        if not self.languages or len(set(self.languages)) < len(self.languages):
            raise InputError(
                f"languages are {', '.join(self.languages) or 'none'}; expected {' or '.join(WORDS)} or both, each once"
            )
        check_range("voices", self.voices, low=2, high=len(VOICES))
        check_range("repetitions", self.repetitions, low=1, high=1000)
        check_range("largest signal-to-noise ratio", self.snr_db[1], low=self.snr_db[0], high=200.0, unit="dB")
        check_range("least signal-to-noise ratio", self.snr_db[0], low=-50.0, unit="dB")
        check_range("step", self.step_s, low=1e-4, high=1.0, unit="s")
        check_range("steps", self.steps, low=1, high=10_000)

    @property
    def words(self) -> tuple[tuple[str, str], ...]:
        """Language and word of each class."""
        return tuple((language, word) for language in self.languages for word in WORDS[language])


def program_version() -> tuple[str, str]:
    """Path and version of espeak-ng.

    Raises
    ------
    InputError
        When it is not there or does not say its version.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise InputError(
            f"{PROGRAM} is not on PATH, and data set {SPOKEN_DIGITS} is spoken by it; "
            f"expected it installed: package {PROGRAM} of Debian, Ubuntu, Fedora and Homebrew"
        )
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    number = next((word for word in said.split() if word[:1].isdigit()), "")
    if not number:
        raise InputError(f"{program} --version says {said.strip()!r}; expected a version such as 1.51")
    return program, number


def say(program: str, word: str, language: str, voice: int, *, speed: int, pitch: int, file: Path) -> tuple[Floats, int]:
    """One word, without the silence around it.

    Parameters
    ----------
    program : str
        Path of espeak-ng.
    word, language : str
    voice : int
        Place in `VOICES`; it chooses the accent too.
    speed, pitch : int
        Words per minute, and 0 to 99.
    file : Path
        Where the program may write.

    Returns
    -------
    ndarray, shape (samples,)
        Mean square 1.
    int
        Sampling rate, hertz.

    Raises
    ------
    InputError
        When the program fails or says nothing.
    """
    accents = ACCENTS[language]
    name = f"{accents[voice % len(accents)]}+{VOICES[voice]}"
    command = [program, "-b", "1", "-v", name, "-s", str(speed), "-p", str(pitch), "-w", str(file), word]
    file.unlink(missing_ok=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not file.is_file():
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise InputError(f"{program} cannot say {word!r} with voice {name}: {reason}; expected version 1.51 with its data")
    recording = read_wav(file)
    loud = np.flatnonzero(np.abs(recording.samples) > SILENCE * np.abs(recording.samples).max(initial=0.0))
    if not len(loud):
        raise InputError(f"{program} says nothing for {word!r} with voice {name}; expected a sound")
    heard = recording.samples[loud[0] : loud[-1] + 1]
    return heard / np.sqrt(np.mean(heard**2)), recording.rate_hz


def make(recipe: Recipe, program: str) -> dict[str, NDArray[np.generic]]:
    """Say everything and hear it: voices, then classes, then repetitions.

    Returns
    -------
    dict
        ``counts``, uint8, shape (rows, steps * channels), element t * channels + c; ``cut``, how many words end after the row.

    Raises
    ------
    InputError
        As `say`, or when an element is above 255.
    """
    window_s = recipe.steps * recipe.step_s
    rows, cut = [], 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "word.wav"
        for voice, name in enumerate(VOICES[: recipe.voices]):
            for language, word in recipe.words:
                for repetition in range(recipe.repetitions):
                    generator = Key(1951, (SPOKEN_DIGITS,)).at(name, language, word, repetition).generator()
                    speed = int(generator.integers(SPEEDS[0], SPEEDS[1] + 1))
                    pitch = int(generator.integers(PITCHES[0], PITCHES[1] + 1))
                    start, level = generator.random(2)
                    sound, rate = say(program, word, language, voice, speed=speed, pitch=pitch, file=file)
                    room = window_s - len(sound) / rate
                    cut += room < 0
                    first = int(start * rate * max(0.0, min(LATEST_START_S, room)))
                    decibels = recipe.snr_db[0] + level * (recipe.snr_db[1] - recipe.snr_db[0])
                    wave = 10.0 ** (-decibels / 20.0) * generator.standard_normal(int(np.ceil(window_s * rate)))
                    kept = sound[: len(wave) - first]
                    wave[first : first + len(kept)] += kept
                    rows.append(recipe.cochlea.spikes(wave, rate, step_s=recipe.step_s, steps=recipe.steps).ravel())
    counts = np.array(rows)
    if counts.max() > 255:
        raise InputError(f"a channel spikes {counts.max()} times in a step of {recipe.step_s:g} s; expected at most 255")
    return {"counts": counts.astype(np.uint8), "cut": np.array(cut)}


def load_spoken_digits(text: str, cache: Path | None) -> Dataset:
    """The data set ``spoken-digits?languages=en,de&voices=30&repetitions=4&channels=24&steps=80&step=10e-3&snr=10,30``.

    Rows are kept in the cache under their settings and the versions of espeak-ng and of what the numbers are made with.

    Raises
    ------
    InputError
        When espeak-ng is missing or fails, or an option is bad.
    """
    chosen = options_of(SPOKEN_DIGITS, text, ("languages", "voices", "repetitions", "channels", "steps", "step", "snr"))
    recipe = Recipe(
        languages=tuple(chosen["languages"].split(",")) if "languages" in chosen else tuple(WORDS),
        voices=whole_number(chosen, "voices", len(VOICES)),
        repetitions=whole_number(chosen, "repetitions", 4),
        snr_db=_two_numbers(chosen.get("snr", "10,30")),
        step_s=real_number(SPOKEN_DIGITS, chosen, "step", 10e-3, low=0.0, low_open=True, unit="s"),
        steps=whole_number(chosen, "steps", 80),
        cochlea=Cochlea(channels=whole_number(chosen, "channels", COCHLEA.channels)),
    )
    program, number = program_version()
    settings = repr((RECIPE, recipe, SPEEDS, PITCHES, LATEST_START_S, SILENCE, ACCENTS, VOICES[: recipe.voices]))
    digest = hashlib.blake2b(settings.encode(), digest_size=8).hexdigest()
    packages = "-".join(f"{package}-{version(package)}" for package in ("numpy", "numba"))
    file = (cache or cache_folder()) / f"{SPOKEN_DIGITS}-{digest}-{PROGRAM}-{number}-{packages}.cache"
    arrays = cached(file, lambda: make(recipe, program))
    classes = len(recipe.words)
    place = np.arange(len(arrays["counts"]), dtype=np.int64) // recipe.repetitions
    cut = int(arrays["cut"])
    notes = [
        f"semi-synthetic: spoken by {PROGRAM} {number}, no recording of a voice; {recipe.voices} voices, none on two sides of a "
        f"split, at {SPEEDS[0]} to {SPEEDS[1]} words a minute, noise {recipe.snr_db[0]:g} to {recipe.snr_db[1]:g} dB below them; "
        f"heard by a model cochlea of {recipe.cochlea.channels} channels"
    ]
    if cut:
        notes.append(f"{cut} of {len(place)} words last longer than a row, and their ends are not heard")
    return Dataset(
        name=full_name(SPOKEN_DIGITS, text),
        inputs=arrays["counts"].astype(np.uint8, copy=False),
        task="classification",
        labels=place % classes,
        classes=classes,
        target_names=tuple(word for _, word in recipe.words),
        feature_unit="spikes",
        groups=place // classes,
        kind="spikes",
        steps=recipe.steps,
        seconds_per_step=recipe.step_s,
        notes=tuple(notes),
    )


def _two_numbers(text: str) -> tuple[float, float]:
    try:
        low, high = (float(one) for one in text.split(","))
    except ValueError:
        raise InputError(f"option snr of {SPOKEN_DIGITS} is {text!r}; expected two numbers in dB such as 10,30") from None
    return low, high
