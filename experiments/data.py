"""Data sets by name.

Nothing here downloads: digits and diabetes come with scikit-learn, mnist1d, vowels-synthetic, parity-3, coincidence and yin-yang
are made, spoken-digits is spoken by the program espeak-ng, the formants of vowels-peterson-barney lie beside this file, and the
rest is read from a folder: MNIST or Fashion-MNIST as IDX files, sounds as WAV files, SHD or SSC as HDF5 files. A name may carry
options: ``parity-3?noise=0.2&reference=1``.
"""

import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_name
from inmaterio.experiments.data_cache import cache_folder as cache_folder
from inmaterio.experiments.data_cache import cached
from inmaterio.experiments.data_names import full_name, options_of, real_number, whole_number
from inmaterio.experiments.dataset import Dataset as Dataset  # with `Split` and `split`, where callers look for them
from inmaterio.experiments.event_data import load_events
from inmaterio.experiments.idx_files import read_idx_folder
from inmaterio.experiments.level_crossings import CROSSINGS, mnist1d_crossings
from inmaterio.experiments.sound_data import SYNTHETIC, load_peterson_barney, load_synthetic_vowels, load_wav_folder
from inmaterio.experiments.splits import Split as Split
from inmaterio.experiments.splits import split as split
from inmaterio.experiments.spoken_digits import SPOKEN_DIGITS, load_spoken_digits
from inmaterio.experiments.temporal_tasks import COINCIDENCE, YIN_YANG, load_coincidence, load_yin_yang


@dataclass(frozen=True, slots=True)
class Source:
    """A data set that can be had: one line about it, and what makes it from (text behind the colon, cache folder)."""

    about: str
    load: Callable[[str, Path | None], Dataset]


def load_data(name: str, *, cache: Path | None = None) -> Dataset:
    """Load a data set by name; the same name gives the same numbers.

    Parameters
    ----------
    name : str
        A key of `DATA`, with a path for FOLDER in ``idx:FOLDER`` and others. Behind a ``?`` may stand options, joined by
        ``&``:

        - ``wav:FOLDER?rate=8000&samples=800&classes=ae,ei,iy``: sampling rate in hertz (10000 when left out), samples per row
          (1000), and which classes (all);
        - ``vowels-synthetic?rate=8000&samples=800&vowels=ae,iy&repetitions=2``: as above, of the vowels of `formants.VOWELS`, and
          how often each speaker says each (1);
        - for either, ``bands=40``: levels in so many bands of frequency in place of the waveform;
        - ``parity-3?rows=600&noise=0.1&reference=1``: rows, a multiple of 8; standard deviation of the noise; whether a
          constant 1 stands as a fourth input (0: it does not);
        - ``shd:FOLDER?step=10e-3&channels=140&steps=100&aligned=1&binary=0&cut=1``, and so ``ssc:FOLDER?merge=1``: see
          `inmaterio.experiments.event_data`;
        - ``coincidence?rows=1000&steps=100&channels=3&gap=12&jitter=0&noise=0``, ``yin-yang?rows=7000&steps=50&bias=1``: see
          `inmaterio.experiments.temporal_tasks`;
        - ``mnist1d-crossings?levels=-1.5,1.5&steps=40``: see `inmaterio.experiments.level_crossings`;
        - ``spoken-digits?languages=en,de&voices=30&repetitions=4&channels=24&steps=80&step=10e-3&snr=10,30``: needs the program
          espeak-ng; see `inmaterio.experiments.spoken_digits`.
    cache : Path, optional
        Folder for what takes long to make; `cache_folder` when None.

    Returns
    -------
    Dataset

    Raises
    ------
    InputError
        When the name or an option is unknown (the nearest are offered) or the files of a folder are bad.
    """
    head, _, folder = name.partition(":")
    if head in FOLDERS and folder.partition("?")[0]:
        return DATA[FOLDERS[head]].load(folder, cache)
    if head in FOLDERS:
        raise InputError(f"data set {name!r} names no folder; expected {FOLDERS[head]}, such as {EXAMPLES[head]}")
    head, mark, options = name.partition("?")
    if head in WITH_OPTIONS:
        return DATA[head].load(options if mark else "", cache)
    return DATA[check_name("data set", name, DATA)].load("", cache)


def _load_digits(_: str, cache: Path | None) -> Dataset:
    from sklearn.datasets import load_digits

    found = load_digits()
    return Dataset(
        name="digits",
        inputs=np.asarray(found.data, dtype=np.float64),
        task="classification",
        labels=np.asarray(found.target, dtype=np.int64),
        classes=10,
        target_names=tuple(str(digit) for digit in range(10)),
        feature_unit="inked pixels of a 4 x 4 block, 0 to 16",
    )


def _load_diabetes(_: str, cache: Path | None) -> Dataset:
    from sklearn.datasets import load_diabetes

    # scikit-learn's own scaling of each feature sees all rows; standardising by training rows undoes any such scaling.
    found = load_diabetes()
    return Dataset(
        name="diabetes",
        inputs=np.asarray(found.data, dtype=np.float64),
        task="regression",
        targets=np.asarray(found.target, dtype=np.float64)[:, None],
        target_names=("progression of diabetes one year after baseline",),
        feature_unit="sqrt(442) standard deviations from the mean of all rows",
        target_unit="score, 25 to 346",
    )


def _load_mnist1d(_: str, cache: Path | None) -> Dataset:
    # The numbers are made by these three, so that another version of one makes its own file.
    versions = "-".join(f"{package}-{version(package)}" for package in ("mnist1d", "numpy", "scipy"))
    arrays = cached((cache or cache_folder()) / f"{versions}.cache", _make_mnist1d)
    inputs = np.concatenate([arrays["x"], arrays["x_test"]]).astype(np.float64)
    labels = np.concatenate([arrays["y"], arrays["y_test"]]).astype(np.int64)
    return Dataset(
        name="mnist1d",
        inputs=inputs,
        task="classification",
        labels=labels,
        classes=10,
        target_names=tuple(str(digit) for digit in range(10)),
        feature_unit="standard deviations of all values",
        default_split=_published(len(arrays["x"]), len(inputs)),
    )


def _load_crossings(text: str, cache: Path | None) -> Dataset:
    return mnist1d_crossings(_load_mnist1d("", cache), text)


def _load_idx(folder: str, cache: Path | None) -> Dataset:
    try:
        place = Path(folder).expanduser()
    except RuntimeError as error:  # ~name of nobody
        raise InputError(f"data set idx:{folder}: {error}") from error
    files = read_idx_folder(place)
    images = np.concatenate([files.train_images, files.test_images])
    labels = np.concatenate([files.train_labels, files.test_labels]).astype(np.int64)
    classes = int(labels.max()) + 1
    return Dataset(
        name=f"idx:{folder}",
        inputs=images.reshape(len(images), -1).astype(np.float64),
        task="classification",
        labels=labels,
        classes=classes,
        target_names=tuple(str(label) for label in range(classes)),
        feature_unit="grey level, 0 to 255",
        default_split=_published(len(files.train_images), len(images)),
    )


def _load_shd(text: str, cache: Path | None) -> Dataset:
    return load_events("shd", text)


def _load_ssc(text: str, cache: Path | None) -> Dataset:
    return load_events("ssc", text)


def _load_parity(text: str, cache: Path | None) -> Dataset:
    """Key and order of draws are fixed: a longer set begins with the rows of a shorter one."""
    chosen = options_of(PARITY, text, ("rows", "noise", "reference"))
    rows, reference = whole_number(chosen, "rows", 600), whole_number(chosen, "reference", 0)
    if rows < 8 or rows % 8:
        raise InputError(f"option rows of {PARITY} is {rows}; expected a multiple of 8, as many of each of the 8 patterns")
    if reference not in (0, 1):
        raise InputError(f"option reference of {PARITY} is {reference}; expected 0 or 1")
    noise = real_number(PARITY, chosen, "noise", PARITY_NOISE, low=0.0, high=10.0)
    patterns = np.arange(rows) % 8
    bits = patterns[:, None] >> np.arange(3) & 1
    inputs = 2.0 * bits - 1.0 + noise * Key(3, (PARITY,)).generator().standard_normal((rows, 3))
    return Dataset(
        name=full_name(PARITY, text),
        inputs=np.column_stack([inputs, np.ones((rows, reference))]),
        task="classification",
        labels=(bits.sum(axis=1) % 2).astype(np.int64),
        classes=2,
        target_names=("even", "odd"),
        feature_unit="-1 or 1 for a bit of 0 or 1, with noise",
        kind="bits",
        notes=(f"made: normal noise of standard deviation {noise:g} on each of three bits",),
    )


FOLDERS = {"idx": "idx:FOLDER", "wav": "wav:FOLDER", "shd": "shd:FOLDER", "ssc": "ssc:FOLDER"}
"""Data sets that are a folder of the user: their keys in `DATA`."""

EXAMPLES = {"idx": "idx:/data/mnist", "wav": "wav:/data/vowels", "shd": "shd:/data/SHD", "ssc": "ssc:/data/SSC"}

PARITY = "parity-3"

WITH_OPTIONS = (SYNTHETIC, PARITY, COINCIDENCE, YIN_YANG, CROSSINGS, SPOKEN_DIGITS)

PARITY_NOISE = 0.1
"""Standard deviation of the noise on each bit of parity-3: ten of them away from the other sign, so that no row is ambiguous."""

DATA: Mapping[str, Source] = MappingProxyType(
    {
        "digits": Source("1797 handwritten digits of 8 x 8 pixels, with scikit-learn", _load_digits),
        "mnist1d": Source("4000 + 1000 noisy one-dimensional digits of 40 points, made by the package mnist1d", _load_mnist1d),
        "diabetes": Source("442 patients, 10 features, one value to predict, with scikit-learn", _load_diabetes),
        SYNTHETIC: Source(
            "279 vowels (ae, eh, iy) of 93 made-up speakers, 1000 samples at 10 kHz: semi-synthetic, from measured formants",
            load_synthetic_vowels,
        ),
        "vowels-peterson-barney": Source(
            "1520 vowels of 10 kinds by 76 speakers: pitch and 3 measured formants", load_peterson_barney
        ),
        PARITY: Source("600 rows of three noisy bits of -1 or 1, and whether the number of ones is odd", _load_parity),
        COINCIDENCE: Source(
            "1000 rows of three spikes, one per channel, rising or falling: only their order in time tells the two classes apart",
            load_coincidence,
        ),
        YIN_YANG: Source("7000 points of the figure of yin and yang, coordinates as spike times", load_yin_yang),
        CROSSINGS: Source(
            "mnist1d as crossings of two levels: 40 steps of 4 channels, a spike up and one down for each", _load_crossings
        ),
        SPOKEN_DIGITS: Source(
            "2400 spoken digits, English and German, of 30 voices of espeak-ng, as spikes of a model cochlea: semi-synthetic",
            load_spoken_digits,
        ),
        FOLDERS["idx"]: Source("a folder of IDX files: MNIST, Fashion-MNIST and sets laid out like them, gzip or not", _load_idx),
        FOLDERS["wav"]: Source(
            "a folder of WAV recordings, a folder for each class or named like m01ae.wav, by speaker", load_wav_folder
        ),
        FOLDERS["shd"]: Source(
            "a folder with shd_train.h5 and shd_test.h5: spoken digits as spikes, validation by speaker", _load_shd
        ),
        FOLDERS["ssc"]: Source(
            "a folder with ssc_train.h5, ssc_valid.h5 and ssc_test.h5: spoken commands as spikes, validation as published",
            _load_ssc,
        ),
    }
)
"""Every data set by name."""


def _published(train: int, total: int) -> Split:
    rows = np.arange(total, dtype=np.int64)
    return Split(rows[:train], rows[:0], rows[train:])


def _make_mnist1d() -> dict[str, NDArray[np.generic]]:
    """About 1.5 s. It draws from numpy's global generator, from the seed 42 the package fixes."""
    with _global_generators_kept():
        from mnist1d.data import make_dataset

        made = make_dataset()
    return {name: np.asarray(made[name]) for name in ("x", "y", "x_test", "y_test")}


@contextmanager
def _global_generators_kept() -> Iterator[None]:
    """Put the global generators of Python, numpy and torch back as they were."""
    torch = sys.modules.get("torch")  # when nothing has imported it yet, it has no state to lose
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch_state = torch.get_rng_state() if torch is not None else None
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        if torch is not None:
            torch.set_rng_state(torch_state)
