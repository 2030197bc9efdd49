"""Signals as events: a spike whenever a signal passes a level, one channel for up and one for down.

The send-on-delta scheme of few fixed levels: M. Miskowicz, "Send-on-delta concept: an event-based data reporting strategy",
Sensors 6, 49 (2006); as a converter: Y. P. Tsividis, "Event-driven data acquisition and digital signal processing", IEEE Trans.
Circuits Syst. II 57, 577 (2010).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inmaterio.devices.validation import InputError, check_array, check_range
from inmaterio.experiments.data_names import full_name, options_of, whole_number
from inmaterio.experiments.dataset import Dataset

CROSSINGS = "mnist1d-crossings"

LEVELS = (-1.5, 1.5)
"""In standard deviations of all values of mnist1d, which its maker scales to mean 0 and standard deviation 1 over its 5000 rows
together. Numbers of this file, the same for every row and split. They rest on a count of events in all of these rows, test
rows among them, and on no label: at -1 and 1 a row has 7.4 on average; here 3.9, and 140 rows have none; at -2 and 2 one row in
five has none."""

SECONDS = 40e-3
"""What a row of mnist1d is taken to last: a sample a millisecond."""


def level_crossings(values: ArrayLike, levels: Sequence[float], steps: int) -> NDArray[np.uint8]:
    """Events of signals that pass levels.

    A signal is drawn through its samples by straight lines and looked at in `steps` moments, from its first sample to its last.
    Channel 2 k spikes in a step where it is above level k and was not before, channel 2 k + 1 where it is no longer. Before
    its first sample a signal counts as 0.

    Parameters
    ----------
    values : array_like, shape (n, samples)
        Signals.
    levels : sequence of float
        In the unit of `values`, rising.
    steps : int
        At least `samples`; as many as those, and nothing is interpolated.

    Returns
    -------
    ndarray of uint8, shape (n, steps * 2 * len(levels))
        0 or 1; element t * channels + c.

    Raises
    ------
    InputError
        When levels do not rise or the steps are too few.
    """
    signals = check_array("signals", values, shape=(None, None)).astype(np.float64)
    samples = check_range("samples", signals.shape[1], low=2)
    check_range("steps", steps, low=samples, high=10_000)
    limits = check_array("levels", np.asarray(levels, dtype=np.float64), shape=(None,))
    if not len(limits) or (np.diff(limits) <= 0).any():
        raise InputError(f"levels are {', '.join(f'{one:g}' for one in limits)}; expected rising ones, at least one")
    place = np.linspace(0, samples - 1, steps)
    left = np.minimum(place.astype(np.int64), samples - 2)
    rest = place - left
    drawn = signals[:, left] * (1.0 - rest) + signals[:, left + 1] * rest
    above = np.concatenate([np.zeros((len(drawn), 1)), drawn], axis=1)[:, :, None] > limits
    up, down = above[:, 1:] & ~above[:, :-1], ~above[:, 1:] & above[:, :-1]
    return np.stack([up, down], axis=3).reshape(len(drawn), -1).astype(np.uint8)


def mnist1d_crossings(mnist1d: Dataset, text: str) -> Dataset:
    """The data set ``mnist1d-crossings?levels=-1.5,1.5&steps=40``: another form of mnist1d, with its rows and test rows.

    Raises
    ------
    InputError
        When an option is unknown or bad.
    """
    chosen = options_of(CROSSINGS, text, ("levels", "steps"))
    steps = whole_number(chosen, "steps", mnist1d.features)
    try:
        levels = [float(one) for one in chosen["levels"].split(",")] if "levels" in chosen else list(LEVELS)
    except ValueError:
        raise InputError(f"option levels of {CROSSINGS} is {chosen['levels']!r}; expected numbers such as -1.5,1.5") from None
    shown = " and ".join(f"{one:g}" for one in levels)
    return replace(
        mnist1d,
        name=full_name(CROSSINGS, text),
        inputs=level_crossings(mnist1d.inputs, levels, steps),
        feature_unit="spikes",
        kind="spikes",
        steps=steps,
        seconds_per_step=SECONDS / steps,
        notes=(f"mnist1d as crossings, up and down, of levels fixed at {shown} standard deviations of all its values",),
    )
