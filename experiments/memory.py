"""Whether layers fit into memory, asked before anything is allocated."""

import os
from collections.abc import Sequence
from pathlib import Path

from inmaterio.devices.validation import InputError

COUPLING_BYTES = 32
"""Least memory that training takes per coupling of a dense network: requested and held value, first value, gradient."""


def show_widths(widths: Sequence[int]) -> str:
    """Widths as people write them."""
    return f"widths {'-'.join(map(str, widths))}"


def check_memory(widths: Sequence[int]) -> None:
    """Refuse layers whose dense couplings cannot be trained in this machine's memory, before anything is allocated.

    Raises
    ------
    InputError
        With the bytes it would take and those that are there.
    """
    needed, there = COUPLING_BYTES * sum(m * n for m, n in zip(widths, widths[1:], strict=False)), _memory_bytes()
    if needed > there:
        raise InputError(
            f"{show_widths(widths)} take at least {needed / 1e9:.3g} GB, and {there / 1e9:.3g} GB of memory are there; "
            "expected narrower layers in substrate.hidden"
        )


def _memory_bytes() -> float:
    """Memory of this machine, or what a control group leaves of it; infinite where the system does not say."""
    try:
        there = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return float("inf")
    try:
        return min(there, float(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        return there
