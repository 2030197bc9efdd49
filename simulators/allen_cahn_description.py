"""What is the same for every chip of an Allen-Cahn medium: grid, diffusivities, well, times, converters."""

from dataclasses import dataclass

import numpy as np

from inmaterio.devices.validation import check_range
from inmaterio.simulators.allen_cahn_medium import largest_state, steepest
from inmaterio.simulators.reaction_diffusion import Grid, check_step, check_widths, largest_step


@dataclass(frozen=True, slots=True)
class AllenCahnDescription:
    """Everything about the medium that is the same for every chip made to it.

    Attributes
    ----------
    widths : tuple of int
        Inputs, inner cells, outputs; several hidden widths are added up, for a medium has no layers. The grid has as many full
        columns of inner cells as it takes, and one more, the last, that holds the outputs.
    rows : int or None
        Rows of the grid, at least the outputs, which are then spread over the last column; None for one row per output.
    cell_m : float
        Side h of a cell in m.
    diffusivity_m2_per_s : float
        Diffusivity of an edge whose change is 0, in m^2/s. 2.5e-9, of the order of small molecules in water.
    least_diffusivity, largest_diffusivity : float
        Limits that an edge can be written to, in units of `diffusivity_m2_per_s`; the least one above 0.
    reaction_per_s : float
        r in 1/s. Together with the two above kappa is 1, assumed.
    quartic, quadratic : float
        a >= 0 and b of the well w: two wells at +-sqrt(-b/a) for b < 0, one for b >= 0. One by default: with two, neighbours
        fall into the same well, domains rather than inputs decide what an output shows, and classes are learnt more slowly.
    illumination_max, field_max : float
        Limits of the patterns and of the local field, in units of concentration.
    update_s : float
        Time of one update, in s; inside it the flow is integrated in shorter steps.
    step_s : float or None
        Longest step of the integration, in s; None for half of the largest safe one of each sample, which also keeps the order
        of states.
    settle_steps : int
        Updates of `forward`.
    diffusivity_spread : float
        Static: standard deviation of the logarithm of each edge's diffusivity, which neither requests nor rules know of.
    write_noise : float
        Standard deviation of every written element, in units of its parameter.
    input_bits, state_bits : int or None
        Resolution of the converters; None for ideal ones, which have no price.
    state_noise : float
        Noise of the detectors, in units of concentration.
    state_range : float
        Full scale of the detectors, in units of concentration.
    seconds_per_conversion, seconds_per_write : float
        Time of reading the detectors once, and of one write call, in s. A millisecond each, assumed: a camera and a light
        modulator at 1 kHz.
    """

    widths: tuple[int, ...]
    rows: int | None = None
    cell_m: float = 5e-5
    diffusivity_m2_per_s: float = 2.5e-9
    least_diffusivity: float = 0.05
    largest_diffusivity: float = 4.0
    reaction_per_s: float = 1.0
    quartic: float = 1.0
    quadratic: float = 0.5
    illumination_max: float = 4.0
    field_max: float = 2.0
    update_s: float = 0.5
    step_s: float | None = None
    settle_steps: int = 40
    diffusivity_spread: float = 0.0
    write_noise: float = 0.0
    input_bits: int | None = None
    state_bits: int | None = None
    state_noise: float = 0.0
    state_range: float = 4.0
    seconds_per_conversion: float = 1e-3
    seconds_per_write: float = 1e-3

    def __post_init__(self) -> None:
        _, _, outputs = check_widths(self.widths)
        if self.rows is not None:
            check_range("rows", self.rows, low=outputs, unit="cells")
        for name, unit in (
            ("cell_m", "m"),
            ("diffusivity_m2_per_s", "m^2/s"),
            ("reaction_per_s", "1/s"),
            ("update_s", "s"),
            ("illumination_max", ""),
            ("field_max", ""),
            ("state_range", ""),
        ):
            check_range(name, getattr(self, name), low=0.0, low_open=True, high_open=True, unit=unit)
        check_range("least_diffusivity", self.least_diffusivity, low=0.0, high=1.0, low_open=True)
        check_range("largest_diffusivity", self.largest_diffusivity, low=1.0, high_open=True)
        check_range("quartic", self.quartic, low=0.0, high_open=True)
        # without a quartic term only a single well holds the medium
        check_range("quadratic", self.quadratic, low=-np.inf if self.quartic > 0.0 else 0.0, low_open=True, high_open=True)
        check_range("settle_steps", self.settle_steps, low=1, unit="updates")
        for name in ("diffusivity_spread", "write_noise", "state_noise"):
            check_range(name, getattr(self, name), low=0.0, high_open=True)
        for name in ("seconds_per_conversion", "seconds_per_write"):
            check_range(name, getattr(self, name), low=0.0, high=1.0, unit="s")
        if self.step_s is not None:
            well = steepest(largest_state(0.0, self.quartic, self.quadratic), self.quartic, self.quadratic)
            limit = largest_step(self.diffusivity_m2_per_s, self.cell_m, self.reaction_per_s * float(well))
            check_step(self.step_s, float(limit))

    @property
    def grid(self) -> Grid:
        """Inner columns and the one of the outputs."""
        _, inner, outputs = check_widths(self.widths)
        rows = outputs if self.rows is None else int(self.rows)
        return Grid(rows, -(-inner // rows) + 1)

    @property
    def conductance(self) -> float:
        """kappa = D / (h^2 r) of an edge whose change is 0."""
        return self.diffusivity_m2_per_s / (self.cell_m**2 * self.reaction_per_s)
