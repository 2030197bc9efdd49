"""A square room fenced by wires, with antennas and obstacles in it and metasurface elements along its walls.

All of it is dipoles of `coupled_dipoles`: a wire is one that resonates at 0 Hz, as the free electrons of a conductor do.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_name, check_range
from inmaterio.simulators.coupled_dipoles import SPEED_OF_LIGHT, Dipoles

Floats = NDArray[np.float64]

Detector = Literal["amplitude", "intensity"]

PLACES = Key(0, ("reverberant room",))
"""Where antennas and obstacles come from: the same for every chip."""

WIRE_STRENGTH = 2.0
"""chi / c of a scatterer that resonates at 0 Hz: at f its 1/alpha is -k^2/4, about that of a thin conducting wire."""

ELEMENT_STRENGTH = 0.3
"""chi / c of an element of the metasurface: by radiation alone its line is 2.25 % of its frequency wide."""

ANTENNA_STRENGTH = 0.5
"""chi / c of an antenna: a line 6 % wide."""

ELEMENT_ABSORPTION = 0.01
"""gamma / (2 pi f_0) of an element."""

CLEARANCE = 0.4
"""Least distance of what stands inside the room, in wavelengths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A square room fenced by wires a quarter wavelength apart, elements along the inside of its walls.

    Attributes
    ----------
    centre_hz : float
        Frequency f_0 in the middle of the band, at which elements resonate at x = 0, in Hz.
    bandwidth_hz : float
        From the lowest to the highest frequency that is measured, in Hz.
    frequencies : int
        How many are measured, evenly spaced; one is measured at f_0.
    sweep : float
        Shift of an element's resonance at x = 1, relative to f_0. More of it, more nonlinearity.
    wall_absorption : float
        gamma / (2 pi f_0) of wires in walls and room. Less of it, longer reverberation.
    obstacles : int
        Wires at random places in the room.
    detector : {"amplitude", "intensity"}
        Whether |H| or |H|^2 is measured.

    Raises
    ------
    InputError
        When a value is out of its limits.
    """

    centre_hz: float = 2.5e9
    bandwidth_hz: float = 50e6
    frequencies: int = 3
    sweep: float = 0.01
    wall_absorption: float = 0.1
    obstacles: int = 8
    detector: Detector = "amplitude"

    def __post_init__(self) -> None:
        check_range("centre frequency", self.centre_hz, low=0.0, low_open=True, high_open=True, unit="Hz")
        check_range("bandwidth", self.bandwidth_hz, low=0.0, high=self.centre_hz, unit="Hz")
        check_range("number of frequencies", self.frequencies, low=1)
        if self.frequencies > 1 and self.bandwidth_hz == 0.0:
            raise InputError(f"bandwidth is 0 Hz with {self.frequencies} frequencies; expected larger than 0 Hz")
        check_range("sweep", self.sweep, low=0.0, low_open=True, high=0.5)
        check_range("absorption of the walls", self.wall_absorption, low=0.0, high_open=True)
        check_range("number of obstacles", self.obstacles, low=0)
        check_name("detector", self.detector, ("amplitude", "intensity"))

    def measured_hz(self) -> Floats:
        """Frequencies at which the receivers listen, (frequencies,)."""
        if self.frequencies == 1:
            return np.array([self.centre_hz])
        return self.centre_hz + self.bandwidth_hz * np.linspace(-0.5, 0.5, self.frequencies)


def furnish(room: Room, elements: int, antennas: int) -> Dipoles:
    """Everything in the room, at its nominal place: elements, antennas (the transmitter first), obstacles, walls.

    The room grows with what stands in it: elements are at least half a wavelength apart on average, and what is inside has at
    least one square wavelength.
    """
    inside = antennas + room.obstacles
    side = max(4.0, 0.125 * elements + 1.0, float(np.sqrt(inside)) + 1.5)  # in wavelengths
    wall = int(np.ceil(4.0 * side))
    along = np.arange(wall) * side / wall
    fence = np.concatenate([_edge(number, along, 0.0, side) for number in range(4)])
    turn = 4.0 * (np.arange(elements) + 0.5) / elements
    gap = 0.25
    rows = [_edge(n, gap + (turn[turn.astype(int) == n] - n) * (side - 2.0 * gap), gap, side) for n in range(4)]
    generator = PLACES.generator()
    placed: list[NDArray[np.float64]] = []
    while len(placed) < inside:  # what is placed keeps at most half of the room from the next, so a free place is soon found
        place = generator.uniform(0.75, side - 0.75, 2)
        if all(np.hypot(*(place - other)) >= CLEARANCE for other in placed):
            placed.append(place)
    wavelength = SPEED_OF_LIGHT / room.centre_hz
    wires = room.obstacles + len(fence)
    angular = 2.0 * np.pi * room.centre_hz

    def by_kind(element: float, antenna: float, wire: float) -> Floats:
        return np.repeat([element, antenna, wire], [elements, antennas, wires])

    return Dipoles(
        wavelength * np.concatenate([*rows, np.array(placed), fence]),
        by_kind(room.centre_hz, room.centre_hz, 0.0),
        SPEED_OF_LIGHT * by_kind(ELEMENT_STRENGTH, ANTENNA_STRENGTH, WIRE_STRENGTH),
        angular * by_kind(ELEMENT_ABSORPTION, 0.0, room.wall_absorption),
    )


def _edge(number: int, along: Floats, inward: float, side: float) -> Floats:
    """Points of one of the four walls, `along` from its corner and `inward` from it, (points, 2)."""
    across = np.full_like(along, inward)
    corner = {
        0: (along, across),
        1: (side - across, along),
        2: (side - along, side - across),
        3: (across, side - along),
    }
    return np.stack(corner[number], axis=1)
