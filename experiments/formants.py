"""Measured formants of American English vowels, and how they vary between speakers.

The table ``formants.csv`` beside this file holds the fundamental and the first three formants of ten vowels, spoken
twice by 33 men, 28 women and 15 children between h and d ("heed", "hid", ...).
Source: G. E. Peterson, H. L. Barney, "Control methods used in a study of the vowels", J. Acoust. Soc. Am. 24, 175
(1952). The file's first lines say which copy of the numbers it is.
"""

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

VOWELS = ("iy", "ih", "eh", "ae", "ah", "aa", "ao", "uh", "uw", "er")
"""heed, hid, head, had, hud, hod, hawed, hood, who'd, heard."""

KINDS = ("man", "woman", "child")
"""Kinds of speaker."""

FILE = Path(__file__).with_name("formants.csv")


@dataclass(frozen=True, slots=True, eq=False)
class FormantTable:
    """One row per recorded vowel.

    Attributes
    ----------
    kinds, vowels : ndarray of int64, shape (n,)
        Index in `KINDS` and in `VOWELS`.
    speakers : ndarray of int64, shape (n,)
        Number of the speaker, from 0.
    hertz : ndarray, shape (n, 4)
        Fundamental and first three formants.
    """

    kinds: NDArray[np.int64]
    speakers: NDArray[np.int64]
    vowels: NDArray[np.int64]
    hertz: Floats


@dataclass(frozen=True, slots=True, eq=False)
class FormantStatistics:
    """Means, and relative spreads of the logarithms of the formants.

    Attributes
    ----------
    mean_hz : ndarray, shape (kinds, vowels, 4)
        Of fundamental and formants over speakers and repetitions: arithmetic, as it was published.
    geometric_mean_hz : ndarray, shape (kinds, vowels, 4)
        As above, of the logarithms: lower by about half of their spread squared, 0.1 to 2.6 %.
    pitch_spread, tract_spread : ndarray, shape (kinds,)
        Standard deviation between speakers of what a speaker's fundamental, and of what all formants of a speaker together,
        are above the mean of the kind: natural logarithms.
    residual_spread : ndarray, shape (kinds, vowels, 4)
        Standard deviation of what is left in each.
    """

    mean_hz: Floats
    geometric_mean_hz: Floats
    pitch_spread: Floats
    tract_spread: Floats
    residual_spread: Floats


@functools.cache
def formant_table() -> FormantTable:
    """The measured table, read once: nobody writes into it."""
    with FILE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    return FormantTable(
        kinds=np.array([KINDS.index(row["kind"]) for row in rows], dtype=np.int64),
        speakers=np.array([int(row["speaker"]) - 1 for row in rows], dtype=np.int64),
        vowels=np.array([VOWELS.index(row["vowel"]) for row in rows], dtype=np.int64),
        hertz=np.array([[float(row[name]) for name in ("f0", "f1", "f2", "f3")] for row in rows]),
    )


@functools.cache
def formant_statistics() -> FormantStatistics:
    """Means and spreads of `formant_table`.

    With d = ln(hertz) - mean of ln(hertz) over the speakers of the kind, a speaker's pitch is the mean of d over the
    fundamentals of his vowels and his tract the mean of d over all their formants: a longer vocal tract lowers all alike.
    """
    table = formant_table()
    mean = np.empty((len(KINDS), len(VOWELS), 4))
    geometric, residual = np.empty_like(mean), np.empty_like(mean)
    pitch, tract = np.empty(len(KINDS)), np.empty(len(KINDS))
    for kind in range(len(KINDS)):
        logarithms = np.log(table.hertz)
        for vowel in range(len(VOWELS)):
            rows = (table.kinds == kind) & (table.vowels == vowel)
            mean[kind, vowel] = table.hertz[rows].mean(axis=0)
            middle = logarithms[rows].mean(axis=0)
            geometric[kind, vowel] = np.exp(middle)
            logarithms[rows] -= middle
        speakers = np.unique(table.speakers[table.kinds == kind])
        pitches, tracts = np.empty(len(speakers)), np.empty(len(speakers))
        for place, speaker in enumerate(speakers):
            rows = table.speakers == speaker
            pitches[place], tracts[place] = logarithms[rows, 0].mean(), logarithms[rows, 1:].mean()
            logarithms[rows] -= np.array([pitches[place], *[tracts[place]] * 3])
        pitch[kind], tract[kind] = pitches.std(ddof=1), tracts.std(ddof=1)
        for vowel in range(len(VOWELS)):
            residual[kind, vowel] = logarithms[(table.kinds == kind) & (table.vowels == vowel)].std(axis=0, ddof=1)
    return FormantStatistics(mean, geometric, pitch, tract, residual)
