"""How the chip of a run changes in mid-training: nobody tells the rule.

The key of a change names the seed and the epoch only, so that runs of one seed on chips of one kind are knocked in the same
way, whatever trains them. What the change leaves behind is in the chip's snapshot, and so in every checkpoint.
"""

import math
from typing import Any

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.experiments.assembly import CALIBRATION_ROWS, Parts


def check_disturbance(parts: Parts) -> None:
    """Make sure that what a configuration asks for can be done and seen.

    Raises
    ------
    InputError
        When the substrate cannot be disturbed, cannot be calibrated again though it should, or there are no validation rows.
    """
    config = parts.config
    if config.disturbance.kind == "none":
        return
    if not callable(getattr(_physics(parts), "disturb", None)):
        raise InputError(
            f"substrate {config.substrate.name!r} cannot be disturbed: it has no disturb(size, key); "
            "expected disturbance.kind = 'none' or another substrate"
        )
    if config.disturbance.recalibrate and not callable(getattr(_physics(parts), "calibrate", None)):
        raise InputError(
            f"disturbance.recalibrate is set, but substrate {config.substrate.name!r} has nothing to calibrate; expected false"
        )
    if not len(parts.split.validation):
        raise InputError(
            f"data.validation_fraction is {config.data.validation_fraction:g}, which leaves no validation rows to see a "
            "disturbance on; expected more"
        )


def disturb_chip(parts: Parts, epoch: int) -> bool:
    """Change the chip if it is to change after this epoch; whether it was its time."""
    disturbance = parts.config.disturbance
    times = disturbance.times(parts.config.training.epochs)
    if disturbance.kind == "none" or epoch not in times:
        return False
    if disturbance.size:
        # independent steps: after n of them the spread is that of one of sqrt(n) their size
        _physics(parts).disturb(disturbance.size / math.sqrt(len(times)), Key(parts.config.seed).at("disturbance", epoch))
    return True


def recalibrate_chip(parts: Parts, epoch: int) -> None:
    """Calibrate the chip again after a change, where that is asked for; what it takes is charged to training."""
    if parts.config.disturbance.recalibrate and parts.config.disturbance.size:
        rows = parts.fitted[:CALIBRATION_ROWS]
        with parts.ledger.phase("train"):
            _physics(parts).calibrate(
                parts.encoding.encode(parts.dataset.inputs[rows]), rows, Key(parts.config.seed).at("recalibrate", epoch)
            )


def _physics(parts: Parts) -> Any:
    """What is disturbed: the chip, or the physical substrate before a digital readout."""
    return getattr(parts.chip, "physical", parts.chip)
