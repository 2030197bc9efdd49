"""Folders of recordings, written here with the standard library's wave module and struct, good and bad."""

import struct
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from inmaterio.devices.validation import InputError
from inmaterio.experiments.wav_files import Recording, central_window, read_wav, read_wav_folder, resampled


def write(path: Path, samples: np.ndarray, rate: int = 10_000, width: int = 2) -> Path:
    """PCM of `width` bytes; a row per channel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.atleast_2d(samples)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(values))
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(values.T.astype({1: "u1", 2: "<i2", 4: "<i4"}[width]).tobytes())
    return path


def tone(hertz: float, rate: int = 10_000, seconds: float = 0.05, height: float = 10_000.0) -> np.ndarray:
    return np.round(height * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate + 0.3))


def fails(action: Callable[[], object]) -> str:
    """The message of an `InputError`, one line."""
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def hillenbrand(tmp_path: Path) -> Path:
    """Two vowels of three speakers, one file with a capital name."""
    for place, name in enumerate(("m01ae", "m01iy", "w01ae", "w01iy", "b12iy")):
        write(tmp_path / f"{name}.wav", tone(200.0 + 100 * place))
    write(tmp_path / "B12AE.WAV", tone(900.0))
    (tmp_path / "README").write_text("no sound")
    return tmp_path


@pytest.mark.parametrize(("width", "values"), [(1, [0, 128, 255]), (2, [-32768, 0, 5]), (4, [-(2**31), 0, 7])])
def test_integers_are_read_as_they_stand(tmp_path: Path, width: int, values: list[int]) -> None:
    found = read_wav(write(tmp_path / "a.wav", np.array(values), rate=8000, width=width))
    assert found.samples.tolist() == [value - 128 * (width == 1) for value in values]
    assert (found.rate_hz, found.channels, found.samples.dtype) == (8000, 1, np.float64)


def float_wav(samples: list[float]) -> bytes:
    data = struct.pack(f"<{len(samples)}f", *samples)
    header = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, 10_000, 40_000, 4, 32)
    return (
        struct.pack("<4sI4s", b"RIFF", 4 + len(header) + 8 + len(data), b"WAVE")
        + header
        + struct.pack("<4sI", b"data", len(data))
        + data
    )


def test_floats_and_chunks_without_sound_are_read(tmp_path: Path) -> None:
    content = float_wav([0.5, -0.25])
    (tmp_path / "plain.wav").write_bytes(content)
    note = struct.pack("<4sI", b"note", 4) + b"abcd"
    longer = content[:4] + struct.pack("<I", len(content) - 8 + len(note)) + content[8:36] + note + content[36:]
    (tmp_path / "note.wav").write_bytes(longer)
    for name in ("plain", "note"):
        assert read_wav(tmp_path / f"{name}.wav").samples.tolist() == [0.5, -0.25]


def test_channels_are_mixed_down(tmp_path: Path) -> None:
    found = read_wav(write(tmp_path / "a.wav", np.array([[10, 20, 30], [0, -20, 10]])))
    assert found.samples.tolist() == [5, 0, 20]
    assert found.channels == 2


def test_files_that_are_no_wav_are_refused(tmp_path: Path) -> None:
    good = write(tmp_path / "good.wav", tone(300.0)).read_bytes()
    for place, content in enumerate(
        (b"", b"RIFF", b"ID3 an mp3 file in truth", good[:30], good[:40], good[: len(good) // 2], good[:-1])
    ):
        path = tmp_path / f"{place}.wav"
        path.write_bytes(content)
        message = fails(lambda path=path: read_wav(path))
        assert message.startswith(f"{path} is no WAV file that can be read (") and message.endswith(
            "expected PCM or float samples"
        )
    (tmp_path / "nan.wav").write_bytes(float_wav([0.0, float("nan"), 1.0]))
    assert fails(lambda: read_wav(tmp_path / "nan.wav")) == f"{tmp_path / 'nan.wav'} is nan at sample 1; expected finite numbers"
    assert fails(lambda: read_wav(tmp_path / "none.wav")).startswith(f"{tmp_path / 'none.wav'} cannot be read: No such file")


def test_the_window_is_the_middle_and_of_unit_energy() -> None:
    np.testing.assert_allclose(central_window(np.array([9.0, 3.0, -4.0, 9.0]), 2), [0.6, -0.8], rtol=1e-15)
    np.testing.assert_allclose(central_window(np.array([3.0, -4.0, 9.0]), 2), [0.6, -0.8], rtol=1e-15)
    np.testing.assert_allclose(central_window(np.array([3e-200, -4e-200]), 2), [0.6, -0.8], rtol=1e-15)
    assert fails(lambda: central_window(np.ones(3), 4)) == "3 samples; expected at least 4"
    assert "only silence in its middle 2 samples" in fails(lambda: central_window(np.array([1.0, 0.0, 0.0, 1.0]), 2))


@pytest.mark.parametrize("rate", [16_000, 44_100, 8000])
def test_resampling_keeps_a_tone_and_takes_away_what_is_above(rate: int) -> None:
    at = np.arange(round(0.2 * rate)) / rate
    found = resampled(Recording(np.sin(2 * np.pi * 700.0 * at), rate, 1), 10_000)
    assert len(found) == 2000
    inner = slice(300, 1700)
    np.testing.assert_allclose(found[inner], np.sin(2 * np.pi * 700.0 * np.arange(2000)[inner] / 10_000), atol=5e-3)
    if rate > 14_000:
        high = resampled(Recording(np.sin(2 * np.pi * 6500.0 * at), rate, 1), 10_000)
        assert np.abs(high[inner]).max() < 0.05  # it would be heard at 3500 Hz
    same = Recording(at, 10_000, 1)
    np.testing.assert_array_equal(resampled(same, 10_000), at)


def test_names_tell_vowel_and_speaker(hillenbrand: Path) -> None:
    found = read_wav_folder(hillenbrand, samples=100)
    assert found.class_names == ("ae", "iy") and found.speaker_names == ("b12", "m01", "w01")
    # Files in order of their names, class by class: B12AE, m01ae, w01ae, then b12iy, m01iy, w01iy.
    np.testing.assert_array_equal(found.labels, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(found.speakers, [0, 1, 2, 0, 1, 2])
    np.testing.assert_allclose(np.sum(found.waves**2, axis=1), 1.0, rtol=1e-12)
    expected = tone(200.0)[200:300]
    np.testing.assert_allclose(found.waves[1], expected / np.linalg.norm(expected), rtol=1e-12)
    assert found.notes == ()
    chosen = read_wav_folder(hillenbrand, samples=100, classes=("iy", "ae"))
    assert chosen.class_names == ("iy", "ae")
    np.testing.assert_array_equal(chosen.waves, np.concatenate([found.waves[3:], found.waves[:3]]))


def test_folders_are_classes_and_what_was_done_is_said(tmp_path: Path) -> None:
    write(tmp_path / "yes" / "anna_1.wav", tone(300.0, rate=16_000), rate=16_000)
    write(tmp_path / "yes" / "anna_2.wav", tone(300.0))
    write(tmp_path / "no" / "bert_1.wav", np.array([tone(500.0), tone(500.0)]))
    (tmp_path / ".hidden").mkdir()
    found = read_wav_folder(tmp_path, samples=400)
    assert found.class_names == ("no", "yes") and found.speaker_names == ("anna", "bert")
    np.testing.assert_array_equal(found.labels, [0, 1, 1])
    np.testing.assert_array_equal(found.speakers, [1, 0, 0])
    assert found.notes == (
        "1 of 3 recordings were resampled from 16000 Hz to 10000 Hz",
        "1 of 3 recordings have several channels and were mixed down to their mean",
    )
    np.testing.assert_allclose(found.waves[1], found.waves[2], atol=2e-3)  # the same tone from both rates


def test_without_speakers_every_file_stands_alone_and_that_is_said(tmp_path: Path) -> None:
    for name in ("a/1", "a/2", "b/1"):
        write(tmp_path / f"{name}.wav", tone(300.0))
    found = read_wav_folder(tmp_path, samples=100)
    assert len(set(found.speakers.tolist())) == 3
    assert found.notes == (
        f"the names in {tmp_path} tell no speakers, so that each of the 3 recordings counts as a speaker of its own",
    )


def test_bad_folders_are_told_in_one_line(hillenbrand: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    layout = "expected a folder for each class with .wav files in it, or files named like m01ae.wav"
    assert fails(lambda: read_wav_folder(other / "none")).startswith(
        f"{other / 'none'} is not a folder; expected one with a folder for"
    )
    assert fails(lambda: read_wav_folder(other)) == f"{other} has no .wav files and no folders; {layout}"
    write(other / "ae" / "m01ae.wav", tone(300.0))
    assert fails(lambda: read_wav_folder(other)) == f"classes of {other} are ae; expected at least two, each once"
    (other / "iy").mkdir()
    (other / "iy" / "m01iy.mp3").write_text("x")
    assert fails(lambda: read_wav_folder(other)) == f"class folder {other / 'iy'} has no .wav files; expected at least one"
    short = write(other / "iy" / "m01iy.wav", tone(300.0, rate=16_000, seconds=0.03), rate=16_000)
    assert (
        fails(lambda: read_wav_folder(other, samples=400))
        == f"{short} holds 300 samples; expected at least 400 at 10000 Hz, 0.04 s"
    )
    write(short, np.zeros(500))
    assert fails(lambda: read_wav_folder(other, samples=400)).startswith(f"{short} holds only silence in its middle 400 samples")
    write(other / "iy" / "nobody.wav", tone(300.0))
    assert fails(lambda: read_wav_folder(other)).startswith(f"{other / 'iy' / 'nobody.wav'} names no speaker, and other files do")
    write(other / "m01ae.wav", tone(300.0))
    assert fails(lambda: read_wav_folder(other)).startswith(
        f"{other} has .wav files, such as m01ae.wav, and folders of them; {layout}"
    )
    assert "unknown class of" in fails(lambda: read_wav_folder(hillenbrand, classes=("ae", "ei")))
    assert fails(lambda: read_wav_folder(hillenbrand, classes=("ae", "iy", "ae"))).endswith(
        "are ae, iy, ae; expected at least two, each once"
    )
    assert fails(lambda: read_wav_folder(hillenbrand, rate_hz=0)).startswith(
        "sampling rate is 0 Hz; expected a number in [1, 1e+06] Hz"
    )
    assert fails(lambda: read_wav_folder(hillenbrand, samples=1)).startswith("samples is 1; expected")
    write(hillenbrand / "someone.wav", tone(300.0))
    assert fails(lambda: read_wav_folder(hillenbrand)) == f"{hillenbrand / 'someone.wav'} names no speaker and vowel; {layout}"
