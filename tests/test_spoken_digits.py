"""Spoken digits: that voices and words differ, that they come again, how they are split, and what is said when they cannot be."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from inmaterio.devices.validation import InputError
from inmaterio.experiments import spoken_digits
from inmaterio.experiments.cochlea import Cochlea
from inmaterio.experiments.configuration import DataConfig, RunConfig
from inmaterio.experiments.data import Dataset, load_data, split
from inmaterio.experiments.run_hash import config_hash
from inmaterio.experiments.spoken_digits import VOICES, WORDS, Recipe, load_spoken_digits, make, program_version, say

SMALL = Recipe(languages=("en",), voices=3, repetitions=2, steps=60, cochlea=Cochlea(channels=8))


@pytest.fixture(scope="module")
def program() -> str:
    """Path of espeak-ng; skips where it is absent, fails where `INMATERIO_REQUIRE_ENGINES` is 1."""
    if shutil.which("espeak-ng") is None:
        if os.environ.get("INMATERIO_REQUIRE_ENGINES") == "1":
            pytest.fail("espeak-ng is not on PATH and INMATERIO_REQUIRE_ENGINES is 1: install the system package espeak-ng")
        pytest.skip("espeak-ng is not on PATH; the system package espeak-ng has it")
    return program_version()[0]


@pytest.fixture(scope="module")
def made(program: str) -> dict[str, np.ndarray]:
    return make(SMALL, program)


@pytest.fixture(scope="module")
def kept(program: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    """A small set in a cache of its own."""
    cache = tmp_path_factory.mktemp("cache")
    return cache, load_spoken_digits("voices=5&repetitions=1&channels=8", cache)


def test_the_same_settings_give_the_same_bits(made: dict[str, np.ndarray], program: str) -> None:
    again = make(SMALL, program)
    np.testing.assert_array_equal(again["counts"], made["counts"])
    assert made["counts"].shape == (60, 480) and made["counts"].dtype == np.uint8 and made["counts"].any(axis=1).all()


def test_fewer_voices_and_repetitions_are_some_of_the_rows(made: dict[str, np.ndarray], program: str) -> None:
    fewer = make(Recipe(languages=("en",), voices=2, repetitions=1, steps=60, cochlea=Cochlea(channels=8)), program)
    np.testing.assert_array_equal(fewer["counts"], made["counts"][:40:2])


def test_every_voice_is_one_of_its_own(program: str, tmp_path: Path) -> None:
    # espeak-ng 1.51 forgets a variant behind some names of a language: all voices would be one.
    for language in WORDS:
        said = {
            say(program, WORDS[language][1], language, voice, speed=150, pitch=50, file=tmp_path / "w.wav")[0].tobytes()
            for voice in range(len(VOICES))
        }
        assert len(said) == len(VOICES) >= 20
    assert len(set(VOICES)) == len(VOICES)


def test_words_speeds_and_pitches_are_heard(program: str, tmp_path: Path) -> None:
    def spoken(word: str, speed: int = 150, pitch: int = 50, language: str = "de") -> np.ndarray:
        sound, rate = say(program, word, language, 0, speed=speed, pitch=pitch, file=tmp_path / "w.wav")
        assert rate == 22_050 and np.mean(sound**2) == pytest.approx(1.0)
        return sound

    assert len({spoken(word).tobytes() for word in WORDS["de"]}) == 10
    assert len(spoken("sieben", speed=230)) < 0.8 * len(spoken("sieben", speed=140))

    def fundamental(sound: np.ndarray) -> float:
        """From the autocorrelation, between 60 and 400 Hz."""
        lags = np.correlate(sound, sound, "full")[len(sound) - 1 :]
        return 22_050 / (55 + int(np.argmax(lags[55:367])))

    assert fundamental(spoken("neun", pitch=75)) > 1.2 * fundamental(spoken("neun", pitch=25))
    # An umlaut is a letter, not two others: without it, the word is another.
    assert spoken("fünf").tobytes() != spoken("funf").tobytes()


def test_voices_are_groups_of_the_split(kept: tuple[Path, Dataset]) -> None:
    _, found = kept
    assert found.inputs.shape == (100, 640) and (found.steps, found.channels, found.kind) == (80, 8, "spikes")
    assert found.classes == 20 and found.target_names[:2] == ("zero", "one") and found.target_names[15] == "fünf"
    assert np.bincount(found.labels).tolist() == [5] * 20
    assert found.groups is not None and np.bincount(found.groups).tolist() == [20] * 5
    parts = split(found, split_seed=0, validation_fraction=0.25)
    sides = [set(found.groups[part].tolist()) for part in (parts.train, parts.validation, parts.test)]
    assert [len(side) for side in sides] == [3, 1, 1] and len(set.union(*sides)) == 5
    assert "semi-synthetic" in found.notes[0] and "5 voices" in found.notes[0]


def test_the_cache_is_used(kept: tuple[Path, Dataset], monkeypatch: pytest.MonkeyPatch) -> None:
    cache, found = kept
    (file,) = cache.iterdir()
    assert f"espeak-ng-{program_version()[1]}-numpy-" in file.name
    monkeypatch.setattr(spoken_digits, "make", lambda *_: pytest.fail("made again"))
    again = load_spoken_digits("channels=8&voices=5&repetitions=1", cache)
    np.testing.assert_array_equal(again.inputs, found.inputs)
    monkeypatch.setattr(spoken_digits, "make", lambda *_: {"counts": np.ones((40, 640)), "cut": 0})
    assert len(load_spoken_digits("channels=8&voices=2&repetitions=1", cache).inputs) == 40  # others have a file of their own


def test_words_that_last_longer_than_a_row_are_counted(program: str, tmp_path: Path) -> None:
    found = load_spoken_digits("languages=en&voices=2&repetitions=1&channels=4&steps=15", tmp_path)
    assert found.steps == 15 and "of 20 words last longer than a row, and their ends are not heard" in found.notes[1]


@pytest.mark.slow
def test_time_tells_what_rates_do_not(program: str) -> None:
    dataset = load_data("spoken-digits")
    parts = split(dataset, split_seed=0)
    raster = dataset.inputs.reshape(len(dataset), dataset.steps, dataset.channels)

    def accuracy(features: np.ndarray) -> float:
        fitted, test = parts.train_and_validation, parts.test
        classifier = LogisticRegression(C=0.1, max_iter=300).fit(features[fitted], dataset.labels[fitted])
        return float(classifier.score(features[test], dataset.labels[test]))

    # Counts of each channel in the whole word, against counts in each eighth of it: 480 test rows, 3 standard errors .07.
    rates = accuracy(raster.sum(axis=1) / 10.0)
    eighths = accuracy(raster.reshape(len(raster), 8, 10, -1).sum(axis=2).reshape(len(raster), -1) / 3.0)
    assert rates < 0.75 and eighths > rates + 0.07


def test_without_the_program_the_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError) as caught:
        load_data("spoken-digits")
    assert str(caught.value) == (
        "espeak-ng is not on PATH, and data set spoken-digits is spoken by it; "
        "expected it installed: package espeak-ng of Debian, Ubuntu, Fedora and Homebrew"
    )


def test_a_program_that_fails_is_told(program: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    named = config_hash(RunConfig(data=DataConfig("spoken-digits?voices=5")))
    broken = tmp_path / "espeak-ng"
    broken.write_text(
        '#!/bin/sh\nif [ "$1" = --version ]; then echo "eSpeak NG 1.49 Data at: /"; exit; fi\necho "no voice" >&2; exit 1\n'
    )
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert program_version() == (str(broken), "1.49")
    assert config_hash(RunConfig(data=DataConfig("spoken-digits?voices=5"))) != named
    with pytest.raises(InputError) as caught:
        load_spoken_digits("", tmp_path)
    assert "cannot say 'zero' with voice gmw/en+m1: no voice; expected version 1.51 with its data" in str(caught.value)
    broken.write_text("#!/bin/sh\n")
    with pytest.raises(InputError, match="--version says ''; expected a version such as 1.51"):
        load_spoken_digits("", tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("languages=en,fr", "unknown language 'fr'"),
        ("languages=de,de", "languages are de, de; expected en or de or both, each once"),
        ("voices=31", "voices is 31; expected a number in [2, 30]"),
        ("repetitions=0", "repetitions is 0; expected a number in [1, 1000]"),
        ("snr=loud", "option snr of spoken-digits is 'loud'; expected two numbers in dB such as 10,30"),
        ("snr=30,10", "largest signal-to-noise ratio is 10 dB; expected a number in [30, 200] dB"),
        ("step=0", "option step of spoken-digits is 0 s; expected a number in (0, inf) s"),
        ("steps=0", "steps is 0; expected a number in [1, 10000]"),
        ("channels=1", "channels of the cochlea is 1; expected"),
        ("voice=1", "unknown option of spoken-digits: 'voice'; nearest: voices"),
    ],
)
def test_bad_options_are_told_in_one_line(options: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_data(f"spoken-digits?{options}")
    assert message in str(caught.value) and "\n" not in str(caught.value)
