"""Links that carry spikes from layer to layer: how many per step, which get lost, and how late they are.

A link carries at most `capacity` spikes per step. With more of them in a step it does one of two things:

drop-newest
    those of the lowest-numbered neurons are sent, the others are lost.
stall
    they wait. Neurons stand in a queue in the order of their spikes, by number within a step; a neuron with several waiting
    spikes stands in it once, and again at its end when one of them has left. No spike is lost while the steps last.

Each spike on its way is lost with probability `drop`, and is late by the whole number of steps nearest to a normal of standard
deviation `jitter`, half to even, or by none where that is negative: no spike arrives before it was sent.
"""

import math
from dataclasses import dataclass

import numpy as np

from inmaterio.devices.compilation import kernel
from inmaterio.devices.randomness import LARGEST_NORMAL, Key, normal_block, uniform_block
from inmaterio.devices.validation import InputError, check_name, check_range

LINK_POLICIES = ("drop-newest", "stall")
"""What a link does with more spikes in a step than it carries."""


@kernel
def is_dropped(probability: float, k0: np.uint64, k1: np.uint64, step: int, sample: int, neuron: int) -> bool:
    """Whether the spike that a neuron sends in this step gets lost."""
    draws = uniform_block(k0, k1, neuron // 4, step, sample)
    return bool(draws[neuron % 4] < probability)


@kernel
def jitter_steps(deviation: float, k0: np.uint64, k1: np.uint64, step: int, sample: int, neuron: int) -> int:
    """How many steps late the spike is that a neuron sends in this step."""
    draws = normal_block(k0, k1, neuron // 4, step, sample)
    return int(max(np.rint(deviation * draws[neuron % 4]), 0.0))


@dataclass(frozen=True, slots=True)
class SpikeLink:
    """What every link of a chip is like. By default it carries everything, at once.

    Attributes
    ----------
    capacity : int or None
        Most spikes per step; None for any number.
    policy : str
        One of `LINK_POLICIES`.
    drop : float
        Probability that a spike is lost on its way, in [0, 1).
    jitter : float
        Standard deviation, in steps, of what is added to the time of a spike before it is rounded and kept causal.

    Raises
    ------
    InputError
        When a value is out of its limits.
    """

    capacity: int | None = None
    policy: str = "drop-newest"
    drop: float = 0.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if self.capacity is not None:
            check_range("link capacity", self.capacity, low=1, unit="spikes per step")
            if int(self.capacity) != self.capacity:
                raise InputError(f"link capacity is {self.capacity} spikes per step; expected a whole number")
        check_name("link policy", self.policy, LINK_POLICIES)
        check_range("spike drop", self.drop, low=0.0, high=1.0, high_open=True)
        check_range("spike jitter", self.jitter, low=0.0, high_open=True, unit="steps")

    @property
    def latest(self) -> int:
        """Most steps that a spike can be late on its way."""
        return math.ceil(self.jitter * LARGEST_NORMAL)

    @property
    def errs(self) -> bool:
        """Whether spikes may come over it otherwise than they were made."""
        return self.draws or self.capacity is not None

    @property
    def draws(self) -> bool:
        """Whether anything on the way is up to chance."""
        return self.drop > 0.0 or self.jitter > 0.0

    def words(self, key: Key) -> tuple[int, int, int, int]:
        """Keys of the draws of one link: two words for drops, two for jitter."""
        return (*key.at("drop").words(), *key.at("jitter").words())
