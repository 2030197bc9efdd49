"""How the rows of a data set are split into training, validation and test."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.validation import InputError, check_range

if TYPE_CHECKING:
    from inmaterio.experiments.data import Dataset

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


def split(
    dataset: "Dataset",
    *,
    split_seed: int,
    validation_fraction: float = 0.2,
    train_limit: int | None = None,
    test_limit: int | None = None,
) -> Split:
    """Split the rows of a data set.

    Without a published split, ``default_rng(split_seed).permutation(n)`` orders the rows: the first floor(4 n / 5) are for
    training and validation, the others for test (1437 and 360 of the 1797 digits). With one, its test rows are kept for
    every seed and the same permutation orders its training rows. Validation rows are the last ones of that order. Where the
    published split has validation rows too, those are kept for every seed, in their order, and `validation_fraction` is ignored.

    With groups, such as speakers, the generator first permutes the groups instead: those of the first floor(4 g / 5) are for
    training and validation, the others for test, and of the fitted groups the last ones, `validation_fraction` of them rounded,
    are for validation. Inside each part the rows are mixed. No group is ever on two sides.

    Parameters
    ----------
    dataset : Dataset
        What to split.
    split_seed : int
        At least 0.
    validation_fraction : float
        Share of the rows that are not for test, in [0, 1), rounded to whole rows; with groups, share of the groups. Ignored
        where validation rows are published.
    train_limit, test_limit : int, optional
        Use no more than the first so many rows for training and validation, and for test: of the published order, or of the
        permutation where there is none. Rows are left out of groups then, not groups as a whole. Published validation rows keep
        their share of `train_limit`, rounded, and at least one row.

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
    if dataset.default_split is not None and len(dataset.default_split.validation):
        return _keep_published(dataset.name, dataset.default_split, generator, train_limit, test_limit)
    if dataset.groups is not None:
        return _split_groups(dataset, dataset.groups, generator, validation_fraction, train_limit, test_limit)
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


def _keep_published(
    name: str, published: Split, generator: np.random.Generator, train_limit: int | None, test_limit: int | None
) -> Split:
    """A split whose three parts are published: only the order of its training rows is drawn."""
    train, validation, test = published.train, published.validation, published.test
    if not len(train) or not len(test):
        raise InputError(
            f"published split of {name} has {len(train)} rows for training and {len(test)} for test; expected at least 1 each"
        )
    both = len(train) + len(validation)
    if train_limit is not None and train_limit < both:
        if train_limit < 2:
            raise InputError(
                f"train_limit is {train_limit}; expected at least 2 for data set {name}, whose validation rows are published"
            )
        kept = min(max(round(train_limit * len(train) / both), 1), train_limit - 1)
        train, validation = train[:kept], validation[: train_limit - kept]
    return Split(generator.permutation(train), validation.copy(), test[:test_limit].copy())


def _split_groups(
    dataset: "Dataset",
    groups: Rows,
    generator: np.random.Generator,
    validation_fraction: float,
    train_limit: int | None,
    test_limit: int | None,
) -> Split:
    if dataset.default_split is None:
        names = generator.permutation(np.unique(groups))
        order = generator.permutation(len(dataset)).astype(np.int64)
        chosen = np.isin(groups[order], names[: 4 * len(names) // 5])
        fitted, test = order[chosen][:train_limit], order[~chosen]
    else:
        fitted, test = dataset.default_split.train_and_validation[:train_limit], dataset.default_split.test
        names = generator.permutation(np.unique(groups[fitted]))
        fitted = generator.permutation(fitted)
    names = names[np.isin(names, groups[fitted])]
    kept = len(names) - round(validation_fraction * len(names))
    trained = np.isin(groups[fitted], names[:kept])
    train, validation = fitted[trained], fitted[~trained]
    if not len(train) or not len(test):
        left = f"{len(train)} rows for training and {len(test)} for test"
        count = f"{len(dataset)} rows in {len(np.unique(groups))} groups"
        raise InputError(f"data set {dataset.name} of {count} leaves {left}; expected at least 1 each")
    return Split(train, validation, test[:test_limit].copy())


def _check_whole(name: str, value: int, low: int) -> None:
    if not isinstance(check_range(name, value, low=low), (int, np.integer)):
        raise InputError(f"{name} is {value!r}; expected a whole number of at least {low}")
