"""The values of a spiking network as they leave for another engine: whole, in range, and nothing left out silently.

Another engine is handed what the network computes: weights, delays, biases, leaks and thresholds. What a chip does besides,
by chance or by the order in which spikes come, has no counterpart there and is refused by its name.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.synapse_memory import WordGrid, delay_grid, weight_grid
from inmaterio.devices.validation import InputError, check_array, check_name
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.spiking_description import SpikingDescription

Values = dict[str, NDArray[np.float64]]

CHIP_ONLY = (
    "tau_mismatch",
    "threshold_mismatch",
    "gain_mismatch",
    "spike_drop",
    "spike_jitter",
    "stuck_fraction",
    "link_capacity",
)
"""What belongs to one chip or to chance."""


def refuse_unmapped(description: SpikingDescription, target: str, *, more: Mapping[str, str] | None = None) -> None:
    """Refuse what `target` has no counterpart for.

    Parameters
    ----------
    description : SpikingDescription
    target : str
        Name of the engine or format, for the message.
    more : mapping of str to str, optional
        Further options that are refused unless they are off (0, False or None), and what to do instead.

    Raises
    ------
    InputError
        With the option, its value and what was expected.
    """
    advice = dict.fromkeys(CHIP_ONLY, "it belongs to one chip or to chance") | dict(more or {})
    for name, reason in advice.items():
        value = getattr(description, name)
        if value is not None and value:
            raise InputError(f"{name} is {value}, which {target} has no counterpart for ({reason}); expected it off")


def checked_values(description: SpikingDescription, values: Mapping[str, Array]) -> Values:
    """Every parameter of the description as float64, copied; biases that are not given are zero.

    Parameters
    ----------
    description : SpikingDescription
    values : mapping of str to ndarray
        By the names and shapes of `SpikingDescription.parameters`: what the chip holds (as read back without noise), or what
        was asked of one that rounds nothing.

    Raises
    ------
    InputError
        Unknown or missing name, wrong shape, value out of range; a delay that is no whole number of steps or no multiple of
        `delay_resolution`; a weight off the levels of `weight_bits`, or a bias off those of `bias_bits`.
    """
    wanted = description.parameters()
    for name in values:
        check_name("parameter", name, wanted)
    found: Values = {}
    for name, parameter in wanted.items():
        if name not in values and not name.startswith("bias_"):
            raise InputError(f"{name} is missing; expected an array {parameter.shape}")
        given = values.get(name, np.zeros(parameter.shape))
        array = np.array(
            check_array(name, given, shape=parameter.shape, low=parameter.low, high=parameter.high, unit=parameter.unit),
            dtype=np.float64,
        )
        if "delay_" in name:
            grid = delay_grid(description.max_delay, description.delay_resolution, "nearest")
            _on_grid(name, array, grid, "a multiple of {} steps")
        else:
            bits = description.weight_bits if "weight_" in name else description.bias_bits
            if bits is not None:
                _on_grid(name, array, weight_grid(description.weight_max, bits), f"a level of {bits} bits, a multiple of {{}}")
        found[name] = array
    return found


def _on_grid(name: str, array: NDArray[np.float64], grid: WordGrid, expected: str) -> None:
    """Refuse what a memory of this grid cannot hold; float32 of it may have come back from one."""
    off = np.abs(grid.place(name, array) - array) > 1e-4 * grid.step
    if off.any():
        place = tuple(int(i) for i in np.argwhere(off)[0])
        raise InputError(f"{name} is {array[place]:g} at {place}; expected {expected.format(f'{grid.step:g}')}")
