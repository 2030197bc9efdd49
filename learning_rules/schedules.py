"""How learning rates change over a run, and groups of parameters whose rates change each in its own way."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from inmaterio.devices.validation import check_name, check_range

SCHEDULES = ("constant", "cosine", "one-cycle")

RISING_PART, FIRST_DIVISOR, LAST_DIVISOR = 0.3, 25.0, 1e4
"""Of ``one-cycle``: part of the updates in which the rate rises; what divides it at the first; what divides that at the last."""


def schedule(name: str, step: int, total_steps: int) -> float:
    """What multiplies every rate at a step.

    ``constant``: 1. ``cosine``: (1 + cos(pi step / total_steps)) / 2. ``one-cycle``: along half a cosine from 1/25 up to 1 in
    the first 30 % of the steps, then along another down to 4e-6 at the last: torch's OneCycleLR [1]_ with its defaults, the rate
    being its `max_lr`.

    Parameters
    ----------
    name : str
        One of `SCHEDULES`.
    step : int
        0 for the first; at most `total_steps`.
    total_steps : int

    Raises
    ------
    InputError
        When the name is unknown or a number is out of range.

    References
    ----------
    .. [1] Smith and Topin, arXiv:1708.07120.
    """
    check_name("schedule", name, SCHEDULES)
    check_range("total_steps", total_steps, low=1)
    check_range("step", step, low=0, high=total_steps)
    if name == "constant":
        return 1.0
    if name == "cosine":
        return _half_cosine(1.0, 0.0, step / total_steps)
    top, end = RISING_PART * total_steps - 1.0, total_steps - 1.0
    first = 1.0 / FIRST_DIVISOR
    if step <= top:
        return _half_cosine(first, 1.0, step / top)
    return _half_cosine(1.0, first / LAST_DIVISOR, min(1.0, (step - top) / (end - top)))


def _half_cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * part))


@dataclass(frozen=True, slots=True)
class Group:
    """How some parameters of a rule are trained otherwise than the rest.

    A rule says so in a mapping ``GROUPS`` of its module, from the kind of a parameter (its name without its number) to its group.

    Attributes
    ----------
    rate_factor : float
        What their rate is multiplied by.
    schedule : str or None
        One of `SCHEDULES`; None: that of the run.
    decayed : bool
        Whether the run's weight decay is theirs too.
    """

    rate_factor: float = 1.0
    schedule: str | None = None
    decayed: bool = True

    def __post_init__(self) -> None:
        check_range("rate_factor of a group", self.rate_factor, low=0.0, high_open=True)
        if self.schedule is not None:
            check_name("schedule of a group", self.schedule, SCHEDULES)


PLAIN = Group()
"""The group of a parameter that is in none."""


def group_of(name: str, groups: Mapping[str, Group]) -> Group:
    """The group of a parameter: ``delay_2`` and ``block/delay_2`` are of the kind ``delay``."""
    last = name.rpartition("/")[2]
    stem, _, number = last.rpartition("_")
    return groups.get(stem if number.isdigit() else last, PLAIN)
