"""Data sets by name.

Nothing here downloads: digits and diabetes come with scikit-learn, mnist1d, vowels-synthetic and parity-3 are made, the
formants of vowels-peterson-barney lie beside this file, MNIST or Fashion-MNIST are read from a folder of IDX files, and
recorded sounds from a folder of WAV files. A name may carry options: ``parity-3?noise=0.2&reference=1``.
"""

import hashlib
import io
import logging
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.experiments.formants import VOWELS, formant_table
from inmaterio.experiments.idx_files import read_idx_folder
from inmaterio.experiments.splits import Rows
from inmaterio.experiments.splits import Split as Split  # with `split`, beside load_data, where callers look for them
from inmaterio.experiments.splits import split as split

log = logging.getLogger(__name__)

KINDS = ("features", "waveform", "bits")
"""What the inputs of a row are: quantities of their own, samples of one signal, or bits of -1 and 1 with noise. The last
two are all on one scale, and zero means nothing: no feature is scaled or shifted apart from the others."""


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Inputs and their answers.

    Attributes
    ----------
    name : str
        As `load_data` takes it.
    inputs : ndarray of float64, shape (n, features)
        In `feature_unit`.
    task : str
        ``"classification"`` or ``"regression"``.
    labels : ndarray of int64, shape (n,), or None
        Class of each row, 0 to ``classes - 1``; None for regression.
    targets : ndarray of float64, shape (n, outputs), or None
        In `target_unit`; None for classification.
    classes : int
        Number of classes; 0 for regression.
    target_names : tuple of str
        One per class, or one per output.
    feature_unit, target_unit : str
        What one unit of the numbers is.
    default_split : Split or None
        The split the set is published with, its validation part empty; None when it has none.
    groups : ndarray of int64, shape (n,), or None
        Who or what each row comes from, such as the speaker: `split` keeps all rows of a group on one side. None when every row
        stands for itself.
    kind : str
        One of `KINDS`: how the inputs may be scaled.
    notes : tuple of str
        What a reader of results has to know of the data: that they are made, resampled, and the like. One line each.

    Raises
    ------
    InputError
        When shapes, numbers of rows or labels do not fit each other, or a published split has a group on both sides.
    """

    name: str
    inputs: NDArray[np.float64]
    task: Literal["classification", "regression"]
    labels: Rows | None = None
    targets: NDArray[np.float64] | None = None
    classes: int = 0
    target_names: tuple[str, ...] = ()
    feature_unit: str = "1"
    target_unit: str = "1"
    default_split: Split | None = None
    groups: Rows | None = None
    kind: Literal["features", "waveform", "bits"] = "features"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name("task", self.task, ("classification", "regression"))
        check_name("kind of inputs", self.kind, KINDS)
        check_array("inputs", self.inputs, shape=(None, None))
        check_range("number of rows", len(self.inputs), low=1)
        if self.task == "classification":
            if self.labels is None or self.targets is not None:
                raise InputError(f"data set {self.name} is for classification; expected labels and no targets")
            check_range("number of classes", self.classes, low=2)
            check_array("labels", self.labels, shape=(len(self.inputs),), low=0, high=self.classes - 1)
        else:
            if self.targets is None or self.labels is not None or self.classes:
                raise InputError(f"data set {self.name} is for regression; expected targets, no labels and 0 classes")
            check_array("targets", self.targets, shape=(len(self.inputs), None))
        if self.groups is not None:
            check_array("groups", self.groups, shape=(len(self.inputs),))
            if self.default_split is not None:
                fitted, test = self.default_split.train_and_validation, self.default_split.test
                both = np.intersect1d(self.groups[fitted], self.groups[test])
                if len(both):
                    raise InputError(f"published split of {self.name} has group {both[0]} on both sides; expected whole groups")

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def features(self) -> int:
        """Numbers per row."""
        return int(self.inputs.shape[1])

    @property
    def outputs(self) -> int:
        """Places an output port needs: the classes, or the targets per row."""
        return self.classes if self.targets is None else int(self.targets.shape[1])

    @property
    def answers(self) -> Rows | NDArray[np.float64]:
        """The labels or the targets, whichever there are."""
        found = self.labels if self.targets is None else self.targets
        assert found is not None  # held by __post_init__
        return found


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
        A key of `DATA`, with a path for FOLDER in ``idx:FOLDER`` and ``wav:FOLDER``. Behind a ``?`` may stand options, joined by
        ``&``:

        - ``wav:FOLDER?rate=8000&samples=800&classes=ae,ei,iy``: sampling rate in hertz (10000 when left out), samples per row
          (1000), and which classes (all);
        - ``vowels-synthetic?rate=8000&samples=800&vowels=ae,iy&repetitions=2``: as above, of the vowels of `formants.VOWELS`, and
          how often each speaker says each (1);
        - for either, ``bands=40``: levels in so many bands of frequency in place of the waveform;
        - ``parity-3?rows=600&noise=0.1&reference=1``: rows, a multiple of 8; standard deviation of the noise; whether a
          constant 1 stands as a fourth input (0: it does not).
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


def cache_folder() -> Path:
    """Where this user's made data are kept: below XDG_CACHE_HOME when that is an absolute path, else the platform's place."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    if home and Path(home).is_absolute():  # the XDG base directory specification has relative paths ignored
        base = Path(home)
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path.home() / ".cache"
    return base / "inmaterio" / "data"


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
    arrays = _cached((cache or cache_folder()) / f"{versions}.cache", _make_mnist1d)
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


def _load_wav(text: str, cache: Path | None) -> Dataset:
    from inmaterio.experiments.wav_files import read_wav_folder

    folder, _, options = text.partition("?")
    try:
        place = Path(folder).expanduser()
    except RuntimeError as error:
        raise InputError(f"data set wav:{folder}: {error}") from error
    chosen = _options("wav:FOLDER", options, ("rate", "samples", "classes", "bands"))
    rate, samples = _whole(chosen, "rate", 10_000), _whole(chosen, "samples", 1000)
    classes = chosen["classes"].split(",") if "classes" in chosen else None
    found = read_wav_folder(place, rate_hz=rate, samples=samples, classes=classes)
    for note in found.notes:
        log.warning("wav:%s: %s", folder, note)
    return Dataset(
        name=f"wav:{text}",
        task="classification",
        labels=found.labels,
        classes=len(found.class_names),
        target_names=found.class_names,
        groups=found.speakers,
        **_sounds(found.waves, rate, chosen),
        notes=found.notes,
    )


def _load_synthetic_vowels(text: str, cache: Path | None) -> Dataset:
    from inmaterio.experiments.speech import DEFAULT_VOWELS, synthetic_vowels

    chosen = _options(SYNTHETIC, text, ("rate", "samples", "vowels", "repetitions", "bands"))
    rate = _whole(chosen, "rate", 10_000)
    found = synthetic_vowels(
        vowels=chosen["vowels"].split(",") if "vowels" in chosen else DEFAULT_VOWELS,
        repetitions=_whole(chosen, "repetitions", 1),
        rate_hz=rate,
        samples=_whole(chosen, "samples", 1000),
    )
    return Dataset(
        name=f"{SYNTHETIC}?{text}" if text else SYNTHETIC,
        task="classification",
        labels=found.labels,
        classes=len(found.vowels),
        target_names=found.vowels,
        groups=found.speakers,
        **_sounds(found.waves, rate, chosen),
        notes=(
            "semi-synthetic: sounds made by source and filter for made-up speakers, from the means and spreads of the formants "
            "that Peterson and Barney (1952) measured; no recording of a voice",
        ),
    )


def _sounds(waves: NDArray[np.float64], rate: int, chosen: Mapping[str, str]) -> dict[str, Any]:
    """Inputs of a set of sounds: the waveform, or with the option ``bands`` the levels in so many bands."""
    if "bands" not in chosen:
        unit = f"sound pressure of unit energy, samples at {rate} Hz"
        return {"inputs": waves, "feature_unit": unit, "kind": "waveform"}
    from inmaterio.experiments.band_levels import band_levels

    bands = _whole(chosen, "bands", 40)
    unit = f"level in a band of {rate / 2 / bands:g} Hz, decades of the whole power"
    return {"inputs": band_levels(waves, bands), "feature_unit": unit, "kind": "features"}


def _load_peterson_barney(_: str, cache: Path | None) -> Dataset:
    table = formant_table()
    return Dataset(
        name="vowels-peterson-barney",
        inputs=np.log2(table.hertz / 1000.0),
        task="classification",
        labels=table.vowels.copy(),
        classes=len(VOWELS),
        target_names=VOWELS,
        feature_unit="octaves above 1000 Hz: fundamental and first three formants",
        groups=table.speakers.copy(),
        notes=("measured by Peterson and Barney (1952)",),
    )


def _load_parity(text: str, cache: Path | None) -> Dataset:
    """Key and order of draws are fixed: a longer set begins with the rows of a shorter one."""
    chosen = _options(PARITY, text, ("rows", "noise", "reference"))
    rows, reference = _whole(chosen, "rows", 600), _whole(chosen, "reference", 0)
    if rows < 8 or rows % 8:
        raise InputError(f"option rows of {PARITY} is {rows}; expected a multiple of 8, as many of each of the 8 patterns")
    if reference not in (0, 1):
        raise InputError(f"option reference of {PARITY} is {reference}; expected 0 or 1")
    try:
        noise = float(chosen.get("noise", PARITY_NOISE))
    except ValueError:
        raise InputError(f"option noise of {PARITY} is {chosen['noise']!r}; expected a number") from None
    check_range(f"option noise of {PARITY}", noise, low=0.0, high=10.0)
    patterns = np.arange(rows) % 8
    bits = patterns[:, None] >> np.arange(3) & 1
    inputs = 2.0 * bits - 1.0 + noise * Key(3, (PARITY,)).generator().standard_normal((rows, 3))
    return Dataset(
        name=f"{PARITY}?{text}" if text else PARITY,
        inputs=np.column_stack([inputs, np.ones((rows, reference))]),
        task="classification",
        labels=(bits.sum(axis=1) % 2).astype(np.int64),
        classes=2,
        target_names=("even", "odd"),
        feature_unit="-1 or 1 for a bit of 0 or 1, with noise",
        kind="bits",
        notes=(f"made: normal noise of standard deviation {noise:g} on each of three bits",),
    )


def _options(name: str, text: str, known: tuple[str, ...]) -> dict[str, str]:
    """Options of a name, ``key=value`` joined by ``&``."""
    found: dict[str, str] = {}
    for part in text.split("&") if text else ():
        key, _, value = part.partition("=")
        check_name(f"option of {name}:", key, known)
        if not value or key in found:
            raise InputError(f"option {part!r} of {name}; expected {key}=VALUE, once")
        found[key] = value
    return found


def _whole(options: Mapping[str, str], key: str, default: int) -> int:
    text = options.get(key, str(default))
    if not text.isascii() or not text.isdigit():
        raise InputError(f"option {key} is {text!r}; expected a whole number such as {default}")
    return int(text)


FOLDERS = {"idx": "idx:FOLDER", "wav": "wav:FOLDER"}
"""Data sets that are a folder of the user: their keys in `DATA`."""

EXAMPLES = {"idx": "idx:/data/mnist", "wav": "wav:/data/vowels"}

SYNTHETIC, PARITY = "vowels-synthetic", "parity-3"

WITH_OPTIONS = (SYNTHETIC, PARITY)

PARITY_NOISE = 0.1
"""Standard deviation of the noise on each bit of parity-3: ten of them away from the other sign, so that no row is ambiguous."""

DATA: Mapping[str, Source] = MappingProxyType(
    {
        "digits": Source("1797 handwritten digits of 8 x 8 pixels, with scikit-learn", _load_digits),
        "mnist1d": Source("4000 + 1000 noisy one-dimensional digits of 40 points, made by the package mnist1d", _load_mnist1d),
        "diabetes": Source("442 patients, 10 features, one value to predict, with scikit-learn", _load_diabetes),
        SYNTHETIC: Source(
            "279 vowels (ae, eh, iy) of 93 made-up speakers, 1000 samples at 10 kHz: semi-synthetic, from measured formants",
            _load_synthetic_vowels,
        ),
        "vowels-peterson-barney": Source(
            "1520 vowels of 10 kinds by 76 speakers: pitch and 3 measured formants", _load_peterson_barney
        ),
        PARITY: Source("600 rows of three noisy bits of -1 or 1, and whether the number of ones is odd", _load_parity),
        FOLDERS["idx"]: Source("a folder of IDX files: MNIST, Fashion-MNIST and sets laid out like them, gzip or not", _load_idx),
        FOLDERS["wav"]: Source(
            "a folder of WAV recordings, a folder for each class or named like m01ae.wav, by speaker", _load_wav
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


def _cached(path: Path, make: Callable[[], dict[str, NDArray[np.generic]]]) -> dict[str, NDArray[np.generic]]:
    """Arrays from a file, made again when it is damaged.

    The file is the SHA-256 of what follows in hexadecimal, a line end, and an .npz archive.
    """
    try:
        digest, _, archive = path.read_bytes().partition(b"\n")
        if hashlib.sha256(archive).hexdigest().encode() == digest:
            with np.load(io.BytesIO(archive), allow_pickle=False) as arrays:
                return dict(arrays)
        log.warning("%s is damaged (its hash is not the one it states); it is made again", path)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("%s cannot be read (%s); its data are made again", path, error.strerror or error)
    arrays = make()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    archive = buffer.getvalue()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f"{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(hashlib.sha256(archive).hexdigest().encode() + b"\n" + archive)
        temporary.replace(path)  # whole or not at all, also when two processes make it at once
    except OSError as error:
        log.warning("%s cannot be written (%s); its data will be made again next time", path, error.strerror or error)
    return arrays
