"""Data sets, and how their rows are split into training, validation and test.

Nothing here downloads: digits and diabetes come with scikit-learn, mnist1d makes itself, and MNIST or Fashion-MNIST are
read from a folder of IDX files.
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
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.experiments.idx_files import read_idx_folder

log = logging.getLogger(__name__)

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Which rows of a data set serve for what: indices, disjoint."""

    train: Rows
    validation: Rows
    test: Rows

    @property
    def train_and_validation(self) -> Rows:
        """Training rows, then validation rows: what the final fit uses once the settings are chosen."""
        return np.concatenate([self.train, self.validation])


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

    Raises
    ------
    InputError
        When shapes, numbers of rows or labels do not fit each other.
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

    def __post_init__(self) -> None:
        check_name("task", self.task, ("classification", "regression"))
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
        A key of `DATA`, with a path for FOLDER in ``idx:FOLDER``.
    cache : Path, optional
        Folder for what takes long to make; `cache_folder` when None.

    Returns
    -------
    Dataset

    Raises
    ------
    InputError
        When the name is unknown (the nearest are offered) or the files of a folder are bad.
    """
    head, _, folder = name.partition(":")
    if head == "idx" and folder:
        return DATA[FOLDER_NAME].load(folder, cache)
    if head == "idx":
        raise InputError(f"data set {name!r} names no folder; expected {FOLDER_NAME}, such as idx:/data/mnist")
    return DATA[check_name("data set", name, DATA)].load("", cache)


def split(
    dataset: Dataset,
    *,
    split_seed: int,
    validation_fraction: float = 0.2,
    train_limit: int | None = None,
    test_limit: int | None = None,
) -> Split:
    """Split the rows of a data set.

    Without a published split, ``default_rng(split_seed).permutation(n)`` orders the rows: the first floor(4 n / 5) are for
    training and validation, the others for test (1437 and 360 of the 1797 digits). With one, its test rows are kept for
    every seed and the same permutation orders its training rows. Validation rows are the last ones of that order.

    Parameters
    ----------
    dataset : Dataset
        What to split.
    split_seed : int
        At least 0.
    validation_fraction : float
        Share of the rows that are not for test, in [0, 1), rounded to whole rows.
    train_limit, test_limit : int, optional
        Use no more than the first so many rows for training and validation, and for test: of the published order, or of the
        permutation where there is none.

    Returns
    -------
    Split
        Disjoint; it covers every row when there are no limits.

    Raises
    ------
    InputError
        When a number is out of range or no row is left for training or test.
    """
    _check_whole("split_seed", split_seed, 0)
    check_range("validation_fraction", validation_fraction, low=0, high=1, high_open=True)
    for name, limit in (("train_limit", train_limit), ("test_limit", test_limit)):
        if limit is not None:
            _check_whole(name, limit, 1)
    generator = np.random.default_rng(split_seed)
    if dataset.default_split is None:
        order = generator.permutation(len(dataset)).astype(np.int64)
        fitted, test = np.split(order, [4 * len(order) // 5])
        fitted = fitted[:train_limit]
    else:
        published, test = dataset.default_split.train_and_validation, dataset.default_split.test
        fitted = generator.permutation(published[:train_limit])
    kept = len(fitted) - round(validation_fraction * len(fitted))
    if kept < 1 or len(test) < 1:
        left = f"{max(kept, 0)} rows for training and {len(test)} for test"
        raise InputError(f"data set {dataset.name} of {len(dataset)} rows leaves {left}; expected at least 1 each")
    return Split(fitted[:kept], fitted[kept:], test[:test_limit].copy())


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


FOLDER_NAME = "idx:FOLDER"

DATA: Mapping[str, Source] = MappingProxyType(
    {
        "digits": Source("1797 handwritten digits of 8 x 8 pixels, with scikit-learn", _load_digits),
        "mnist1d": Source("4000 + 1000 noisy one-dimensional digits of 40 points, made by the package mnist1d", _load_mnist1d),
        "diabetes": Source("442 patients, 10 features, one value to predict, with scikit-learn", _load_diabetes),
        FOLDER_NAME: Source("a folder of IDX files: MNIST, Fashion-MNIST and sets laid out like them, gzip or not", _load_idx),
    }
)
"""Every data set by name."""


def _check_whole(name: str, value: int, low: int) -> None:
    if not isinstance(check_range(name, value, low=low), (int, np.integer)):
        raise InputError(f"{name} is {value!r}; expected a whole number of at least {low}")


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
