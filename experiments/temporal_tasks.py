"""Tasks in which only the times of spikes carry the answer, made from keys: any number of rows begins a longer set.

**coincidence**: every channel spikes once. In rows of the first class they spike in the order of their numbers, in those of the
second in the reverse order: channel c at

    origin + gap c    or    origin + gap (channels - 1 - c)

with the origin drawn anew for every row. The two classes are permutations of the same offsets: counts are equal, and with
gaps of many membrane time constants a spike has been forgotten when the next one comes, so that weights alone are left with
nothing. Delays gap (channels - 1 - c) let all spikes of the first class arrive at once, while of the second no two do. Every row
ends with (channels - 1) gap + gap silent steps: spikes that are delayed so far still arrive, and how the last one dies away
tells nothing. A membrane of leak l forgets by l^gap; 8 time constants are a leak of at most exp(-8 / gap), 0.513 for 12 steps.

**yin-yang**: points (x, y) of a disc that is cut into yin, yang and two dots, which are one class. Channels x, y, 1 - x and
1 - y spike once each, in step floor(coordinate steps). Source: L. Kriener, J. Goeltz, M. A. Petrovici, "The Yin-Yang dataset",
NICE 2022, arXiv:2102.08211: a disc of radius 1/2 about (1/2, 1/2), dots of radius 1/10 about (3/4, 1/2) and (1/4, 1/2), the three
classes alike in number.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.randomness import Key, normals, uniforms
from inmaterio.devices.validation import InputError, check_range
from inmaterio.experiments.data_names import full_name, options_of, real_number, whole_number, yes_or_no
from inmaterio.experiments.dataset import Dataset
from inmaterio.experiments.splits import Rows

COINCIDENCE, YIN_YANG = "coincidence", "yin-yang"

SECONDS_PER_STEP = 1e-3

MOST_ROWS, MOST_STEPS = 1_000_000, 10_000
"""Limits of the options: what is more is taken for a slip."""

DISC_RADIUS, DOT_RADIUS = 0.5, 0.1

YIN, YANG, DOT = 0, 1, 2


def coincidence_spikes(
    rows: int,
    *,
    steps: int = 100,
    channels: int = 3,
    gap: int = 12,
    jitter: float = 0.0,
    noise: float = 0.0,
    key: Key | None = None,
) -> tuple[NDArray[np.uint8], Rows]:
    """Spikes of the coincidence task; row by row, the same arguments but `rows` give the same numbers.

    Parameters
    ----------
    rows : int
        How many; classes alternate.
    steps : int
        Time steps of a row.
    channels : int
        At least 2.
    gap : int
        Steps from one spike to the next, at least 2.
    jitter : float
        Standard deviation, steps, of what is added to the time of every spike: rounded, and at most a quarter of the gap, so
        that the order stays.
    noise : float
        Expected number of spikes that mean nothing, per channel and row, anywhere in time.
    key : Key, optional
        Of the draws; a constant when None.

    Returns
    -------
    ndarray of uint8, shape (rows, steps * channels)
        0 or 1; element t * channels + c.
    ndarray of int64, shape (rows,)
        0 where channels spike in the order of their numbers, 1 where in the reverse one.

    Raises
    ------
    InputError
        When a number is out of range, or the steps are too few for the spikes and the silence behind them.
    """
    check_range("rows", rows, low=1, high=MOST_ROWS)
    check_range("channels", channels, low=2, high=1000)
    check_range("gap", gap, low=2, high=MOST_STEPS, unit="step")
    check_range("jitter", jitter, low=0.0, high=MOST_STEPS, unit="step")
    check_range("noise", noise, low=0.0, high=steps)
    span, lead = (channels - 1) * gap, gap // 4
    places = steps - lead - (2 * span + gap)
    if places < 1 or steps > MOST_STEPS:
        least = f"[{lead + 2 * span + gap + 1}, {MOST_STEPS}]"
        raise InputError(f"steps is {steps} for {channels} channels with gaps of {gap} steps; expected a number in {least}")
    key = Key(1948, (COINCIDENCE,)) if key is None else key
    samples = np.arange(rows)
    labels = samples % 2
    origin = lead + np.floor(places * uniforms(key.at("origin"), samples, 1)).astype(np.int64)
    shift = np.clip(np.rint(jitter * normals(key.at("jitter"), samples, channels)), -lead, lead).astype(np.int64)
    order = np.arange(channels)
    times = origin + gap * np.where(labels[:, None] == 0, order, order[::-1]) + shift
    spikes = np.zeros((rows, steps, channels), np.uint8)
    spikes[samples[:, None], times, order] = 1
    if noise > 0:
        spikes[uniforms(key.at("noise"), samples, steps * channels).reshape(spikes.shape) < noise / steps] = 1
    return spikes.reshape(rows, -1), labels


def yin_yang_points(rows: int, *, key: Key | None = None) -> tuple[NDArray[np.float64], Rows]:
    """Points of the figure; the same rows in any number of them.

    Parameters
    ----------
    rows : int
        How many; yin, yang and dot take turns.
    key : Key, optional
        Of the draws; a constant when None.

    Returns
    -------
    ndarray, shape (rows, 2)
        Coordinates x and y in (0, 1), uniform in each class's region.
    ndarray of int64, shape (rows,)
        `YIN`, `YANG` or `DOT`.

    Raises
    ------
    InputError
        When the number of rows is out of range.
    """
    check_range("rows", rows, low=1, high=MOST_ROWS)
    key = Key(2021, (YIN_YANG,)) if key is None else key
    labels = np.arange(rows) % 3
    points = np.empty((rows, 2))
    left, trial = np.arange(rows), 0
    while len(left):  # a point is drawn again until it falls where its class is: at worst 1 try in 16 does
        drawn = uniforms(key, left, 2, step=trial)
        fits = yin_yang_class(drawn) == labels[left]
        points[left[fits]] = drawn[fits]
        left, trial = left[~fits], trial + 1
    return points, labels


def yin_yang_class(points: NDArray[np.float64]) -> Rows:
    """Class of each of some points, shape (n, 2): `YIN`, `YANG`, `DOT`, or -1 outside the disc.

    The halves of the disc are exchanged in the half discs about its dots: yang is the upper half without the disc of half
    the radius on the right, and with the one on the left.
    """
    x, y = points.T
    half = DISC_RADIUS / 2
    right, left = np.hypot(x - 3 * half, y - DISC_RADIUS), np.hypot(x - half, y - DISC_RADIUS)
    upper = (y > DISC_RADIUS) & (right > half) | (left <= half)
    found = np.where(upper, YANG, YIN)
    found[(right <= DOT_RADIUS) | (left <= DOT_RADIUS)] = DOT
    found[np.hypot(x - DISC_RADIUS, y - DISC_RADIUS) > DISC_RADIUS] = -1
    return found


def load_coincidence(text: str, cache: Path | None) -> Dataset:
    """The data set ``coincidence?rows=1000&steps=100&channels=3&gap=12&jitter=0&noise=0``, of a step of 1 ms.

    Raises
    ------
    InputError
        When an option is unknown or out of range.
    """
    chosen = options_of(COINCIDENCE, text, ("rows", "steps", "channels", "gap", "jitter", "noise"))
    steps, channels = whole_number(chosen, "steps", 100), whole_number(chosen, "channels", 3)
    gap = whole_number(chosen, "gap", 12)
    jitter = real_number(COINCIDENCE, chosen, "jitter", 0.0, low=0.0)
    noise = real_number(COINCIDENCE, chosen, "noise", 0.0, low=0.0)
    inputs, labels = coincidence_spikes(
        whole_number(chosen, "rows", 1000), steps=steps, channels=channels, gap=gap, jitter=jitter, noise=noise
    )
    return Dataset(
        name=full_name(COINCIDENCE, text),
        inputs=inputs,
        task="classification",
        labels=labels,
        classes=2,
        target_names=("rising", "falling"),
        feature_unit="spikes",
        kind="spikes",
        steps=steps,
        seconds_per_step=SECONDS_PER_STEP,
        notes=(
            f"made: {channels} spikes {gap} steps apart in one order or the reverse, from a random origin; "
            f"that is 8 time constants of a membrane or more when its leak is at most {np.exp(-8 / gap):.3f}",
            *(
                ()
                if jitter or noise
                else ("there are as many different rows as origins and classes: test rows were trained on too",)
            ),
        ),
    )


def load_yin_yang(text: str, cache: Path | None) -> Dataset:
    """The data set ``yin-yang?rows=7000&steps=50&bias=1``, of a step of 1 ms; bias: a fifth channel that spikes in step 0.

    Raises
    ------
    InputError
        When an option is unknown or out of range.
    """
    chosen = options_of(YIN_YANG, text, ("rows", "steps", "bias"))
    steps, bias = whole_number(chosen, "steps", 50, low=2, high=MOST_STEPS), yes_or_no(chosen, "bias", False)
    points, labels = yin_yang_points(whole_number(chosen, "rows", 7000))
    early = np.floor(points * steps).astype(np.int64)
    times = np.column_stack([early, steps - 1 - early, np.zeros((len(points), int(bias)), np.int64)])
    spikes = np.zeros((len(points), steps, times.shape[1]), np.uint8)
    spikes[np.arange(len(points))[:, None], times, np.arange(times.shape[1])] = 1
    return Dataset(
        name=full_name(YIN_YANG, text),
        inputs=spikes.reshape(len(points), -1),
        task="classification",
        labels=labels,
        classes=3,
        target_names=("yin", "yang", "dot"),
        feature_unit="spikes",
        kind="spikes",
        steps=steps,
        seconds_per_step=SECONDS_PER_STEP,
        notes=(
            f"made: x, y, 1 - x and 1 - y of points of the figure of Kriener et al. (2022) as spikes in one of {steps} steps",
        ),
    )
