"""Folders of recorded sounds: classes and speakers from names, one sampling rate, the middle of each recording.

Two layouts are read:

- one folder per class, with the recordings of that class in it: ``ae/m01_1.wav``;
- recordings side by side, named as by J. Hillenbrand, L. A. Getty, M. J. Clark, K. Wheeler, J. Acoust. Soc. Am. 97, 3099
  (1995): m, w, b or g for man, woman, boy or girl, a number of two digits, the vowel in two letters: ``m01ae.wav``.

The speaker is what stands before the vowel in such a name, and before the first ``_`` in any other.
"""

import math
import re
import struct
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import wavfile
from scipy.signal import resample_poly

from inmaterio.devices.validation import InputError, check_name, check_range

Floats = NDArray[np.float64]

HILLENBRAND = re.compile(r"([mwbg]\d\d)([a-z]{2})", re.IGNORECASE)
"""Speaker and vowel of a name."""

LAYOUT = "a folder for each class with .wav files in it, or files named like m01ae.wav"


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """One file.

    Attributes
    ----------
    samples : ndarray, shape (n,)
        Sound pressure in units of its own: integers as they stand, 8 bits less 128.
    rate_hz : int
    channels : int
        How many the file has; `samples` is their mean.
    """

    samples: Floats
    rate_hz: int
    channels: int


@dataclass(frozen=True, slots=True, eq=False)
class WavFolder:
    """Recordings of one length, rate and energy.

    Attributes
    ----------
    waves : ndarray, shape (n, samples)
        The squares of each row sum to 1.
    labels, speakers : ndarray of int64, shape (n,)
        Index in `class_names` and in `speaker_names`.
    class_names, speaker_names : tuple of str
        In order of the alphabet; the classes in the order asked for, if any was.
    notes : tuple of str
        What was done to the recordings that one may want to know: one line each.
    """

    waves: Floats
    labels: NDArray[np.int64]
    speakers: NDArray[np.int64]
    class_names: tuple[str, ...]
    speaker_names: tuple[str, ...]
    notes: tuple[str, ...]


def read_wav(path: Path) -> Recording:
    """Read one file; several channels are mixed down to their mean.

    Raises
    ------
    InputError
        When it cannot be read, is no WAV file of plain numbers, is cut short, or holds what is no finite number.
    """
    try:
        with warnings.catch_warnings():
            # Chunks that hold no sound are of no concern; a file that ends before its sound does is.
            warnings.simplefilter("ignore", wavfile.WavFileWarning)
            warnings.filterwarnings("error", message="Reached EOF prematurely", category=wavfile.WavFileWarning)
            rate, values = wavfile.read(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, struct.error, wavfile.WavFileWarning, ZeroDivisionError, UnboundLocalError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is no WAV file that can be read ({reason}); expected PCM or float samples") from error
    if rate < 1:
        raise InputError(f"{path} has a sampling rate of {rate} Hz; expected at least 1 Hz")
    samples = values.astype(np.float64)
    if values.dtype == np.uint8:
        samples -= 128.0
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    finite = np.isfinite(samples)
    if not finite.all():
        place = int(np.argmin(finite))
        raise InputError(f"{path} is {samples[place]} at sample {place}; expected finite numbers")
    return Recording(samples, int(rate), channels)


def resampled(recording: Recording, rate_hz: int) -> Floats:
    """Samples at another rate, band-limited by `scipy.signal.resample_poly`; as they are when the rate is the same."""
    if recording.rate_hz == rate_hz:
        return recording.samples
    divisor = math.gcd(recording.rate_hz, rate_hz)
    return np.asarray(resample_poly(recording.samples, rate_hz // divisor, recording.rate_hz // divisor), dtype=np.float64)


def central_window(samples: Floats, count: int) -> Floats:
    """The middle `count` of at least as many samples, scaled so that their squares sum to 1.

    Source of both: T. W. Hughes, I. A. D. Williamson, M. Minkov, S. Fan, Sci. Adv. 5, eaay6946 (2019).

    Raises
    ------
    InputError
        When there are fewer, or they are silent.
    """
    if len(samples) < count:
        raise InputError(f"{len(samples)} samples; expected at least {count}")
    start = (len(samples) - count) // 2
    window = samples[start : start + count]
    largest = float(np.abs(window).max())
    if largest == 0.0:
        raise InputError(f"only silence in its middle {count} samples; expected a sound")
    window = window / largest  # squares of very small or large numbers would leave the range of floats
    return np.asarray(window / np.sqrt(np.sum(window**2)))


def read_wav_folder(
    folder: Path, *, rate_hz: int = 10_000, samples: int = 1000, classes: Sequence[str] | None = None
) -> WavFolder:
    """Read a folder of recordings in one of the two layouts of this module.

    Parameters
    ----------
    folder : Path
        Where they lie; hidden files and folders, and files not named ``.wav``, are passed over.
    rate_hz : int
        Sampling rate wanted; recordings of another rate are resampled, and `notes` says so.
    samples : int
        Length wanted: the middle of each recording.
    classes : sequence of str, optional
        Only these, in this order; all when None.

    Returns
    -------
    WavFolder

    Raises
    ------
    InputError
        When the folder is missing or has another layout, a class is empty or unknown, there are fewer than two, names tell the
        speakers of some files only, or a file is bad, silent, or shorter than what is wanted.
    """
    check_range("sampling rate", rate_hz, low=1, high=1e6, unit="Hz")
    check_range("samples", samples, low=2)
    files = _files_by_class(folder)
    if classes is not None:
        for name in classes:
            check_name(f"class of {folder}:", name, files)
        files = {name: files[name] for name in classes}
    if len(files) < 2 or (classes is not None and len(classes) != len(files)):
        raise InputError(f"classes of {folder} are {', '.join(classes or files)}; expected at least two, each once")
    paths = [path for found in files.values() for path in found]
    names, notes = _speakers(folder, paths)
    waves = np.empty((len(paths), samples))
    rates: Counter[int] = Counter()
    mixed = 0
    for row, path in enumerate(paths):
        recording = read_wav(path)
        rates[recording.rate_hz] += 1
        mixed += recording.channels > 1
        try:
            waves[row] = central_window(resampled(recording, rate_hz), samples)
        except InputError as error:
            raise InputError(f"{path} holds {error} at {rate_hz} Hz, {samples / rate_hz:g} s") from error
    for rate, count in sorted(rates.items()):
        if rate != rate_hz:
            notes.append(f"{count} of {len(paths)} recordings were resampled from {rate} Hz to {rate_hz} Hz")
    if mixed:
        notes.append(f"{mixed} of {len(paths)} recordings have several channels and were mixed down to their mean")
    speaker_names = tuple(sorted(set(names)))
    return WavFolder(
        waves=waves,
        labels=np.repeat(np.arange(len(files), dtype=np.int64), [len(found) for found in files.values()]),
        speakers=np.array([speaker_names.index(name) for name in names], dtype=np.int64),
        class_names=tuple(files),
        speaker_names=speaker_names,
        notes=tuple(notes),
    )


def _files_by_class(folder: Path) -> dict[str, list[Path]]:
    try:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder; expected one with {LAYOUT}")
        inside = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        folders = {entry.name: _recordings(entry) for entry in inside if entry.is_dir()}
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror or error}") from error
    beside = [entry for entry in inside if entry.suffix.lower() == ".wav" and entry.is_file()]
    if beside and any(folders.values()):
        raise InputError(f"{folder} has .wav files, such as {beside[0].name}, and folders of them; expected {LAYOUT}")
    if not beside:
        if not folders:
            raise InputError(f"{folder} has no .wav files and no folders; expected {LAYOUT}")
        for name, found in folders.items():
            if not found:
                raise InputError(f"class folder {folder / name} has no .wav files; expected at least one")
        return folders
    classes: dict[str, list[Path]] = {}
    for path in beside:
        match = HILLENBRAND.fullmatch(path.stem)
        if match is None:
            raise InputError(f"{path} names no speaker and vowel; expected {LAYOUT}")
        classes.setdefault(match[2].lower(), []).append(path)
    return dict(sorted(classes.items()))


def _recordings(folder: Path) -> list[Path]:
    found = (entry for entry in folder.iterdir() if entry.suffix.lower() == ".wav" and not entry.name.startswith("."))
    return sorted(entry for entry in found if entry.is_file())


def _speakers(folder: Path, paths: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Speaker of each file, and notes."""
    names: list[str | None] = []
    for path in paths:
        match = HILLENBRAND.fullmatch(path.stem)
        head, mark, _ = path.stem.partition("_")
        names.append(match[1].lower() if match is not None else head if mark and head else None)
    known = [name for name in names if name is not None]
    if len(known) == len(paths):
        return known, []
    if known:
        path = paths[names.index(None)]
        raise InputError(f"{path} names no speaker, and other files do; expected a name like m01ae.wav or m01_1.wav")
    return [f"{path.parent.name}/{path.name}" for path in paths], [
        f"the names in {folder} tell no speakers, so that each of the {len(paths)} recordings counts as a speaker of its own"
    ]
