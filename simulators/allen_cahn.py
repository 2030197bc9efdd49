"""An Allen-Cahn medium: a grid of bistable cells that diffuse into one another, driven by patterns of light.

::

    inputs --> patterns of light --> inner cells ~ diffusion ~ output cells --> detectors
                                     (rows x columns)           (last column)

The concentration u of cell c moves by

    u_t = div(D grad u) - r w'(u) + r (h + sum_i illumination_ci x_i),    w(u) = quartic / 4 u^4 + quadratic / 2 u^2

with a trainable diffusivity per edge, D_e = diffusivity (1 + diffusivity_change_e), a trainable local field h per cell and a
trainable pattern per input. That is the gradient flow of an energy F (`allen_cahn_medium`), so that equilibrium propagation is
exact, with what one cell or edge shows:

    dF/d(diffusivity_change_e) = kappa / 2 (u_i - u_j)^2,   kappa = D / (h^2 r)
    dF/dh_c = -u_c,   dF/d(illumination_ci) = -u_c x_i

Inputs fall on inner cells alone: what an output shows has come to it by diffusion, whose couplings are all positive; signs are
made by the light.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.converters import Converter, convert
from inmaterio.devices.randomness import Key, normal_array
from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.simulators.allen_cahn_description import AllenCahnDescription
from inmaterio.simulators.allen_cahn_medium import Medium, MediumOracle, largest_state, relax_medium, steepest
from inmaterio.simulators.capabilities import (
    Array,
    Clamp,
    Nudge,
    Outer,
    Parameter,
    Port,
    Request,
    Samples,
    Settled,
    Start,
    Write,
)
from inmaterio.simulators.reaction_diffusion import Floats, check_step, check_widths, largest_step, spread_over
from inmaterio.simulators.substrate import AbstractSubstrate, check_batch, check_request


@final
class AllenCahnMedium(AbstractSubstrate):
    """One medium made to an `AllenCahnDescription`.

    Capabilities: Forward, Relaxing, LocalContrast, Program, ReadBack. States are two layers: the cells that are no outputs, row
    by row, and the outputs.

    Parameters
    ----------
    description : AllenCahnDescription
    chip : Key
        Stream of the static errors of this chip.
    """

    def __init__(self, description: AllenCahnDescription, chip: Key) -> None:
        self.description = description
        self._grid = grid = description.grid
        inputs, _, outputs = check_widths(description.widths)
        at = spread_over(grid.rows, outputs) * grid.columns + grid.columns - 1
        is_output = np.zeros(grid.cells, dtype=bool)
        is_output[at] = True
        self._at, self._inner = at, np.flatnonzero(~is_output)
        first, second = grid.ends()
        self._readout_edges = is_output[first] | is_output[second]
        # where there are no inner cells the light falls on the outputs
        self._lit = self._inner if len(self._inner) else at
        parameters = self._describe(inputs)
        ports = {"input": Port(inputs, "1", -1.0, 1.0), "output": Port(outputs, "1", -np.inf, np.inf)}
        super().__init__(parameters, ports)
        self._held = {name: np.zeros(one.shape) for name, one in parameters.items()}
        draws = normal_array(chip.at("diffusivity"), (grid.edges,))
        self._spread = np.exp(description.diffusivity_spread * draws)
        limit = np.inf if description.state_bits is None else description.state_range
        self._dac = Converter(bits=description.input_bits, low=-1.0, high=1.0)
        self._adc = Converter(bits=description.state_bits, low=-limit, high=limit, noise=description.state_noise)
        self._state = np.zeros((0, grid.rows, grid.columns))
        self._free = np.zeros((0, grid.rows, grid.columns))

    def _describe(self, inputs: int) -> dict[str, Parameter]:
        d = self.description
        inner_edges, readout_edges = int(np.sum(~self._readout_edges)), int(np.sum(self._readout_edges))
        low, high = d.least_diffusivity - 1.0, d.largest_diffusivity - 1.0
        elementwise = ("Write", "Add")
        every = {
            "illumination": Parameter((len(self._lit), inputs), "1", -d.illumination_max, d.illumination_max),
            "field": Parameter((len(self._inner),), "1", -d.field_max, d.field_max, accepts=elementwise, initial=0.0),
            "diffusivity_change": Parameter((inner_edges,), "1", low, high, accepts=elementwise, initial=0.0),
            "readout_field": Parameter((len(self._at),), "1", -d.field_max, d.field_max, 2, True, elementwise, 0.0),
            "readout_diffusivity_change": Parameter((readout_edges,), "1", low, high, 2, True, elementwise, 0.0),
        }
        return {name: one for name, one in every.items() if one.shape[0]}

    @property
    def capabilities(self) -> frozenset[str]:
        """Names of `capabilities.CAPABILITIES`."""
        return frozenset({"Forward", "Relaxing", "LocalContrast", "Program", "ReadBack"})

    @property
    def traits(self) -> frozenset[str]:
        """``symmetric`` and ``reciprocal``, since one edge serves both directions; ``gradient-flow``."""
        return frozenset({"symmetric", "reciprocal", "gradient-flow"})

    def settle(
        self,
        inputs: Array,
        *,
        samples: Samples,
        key: Key,
        nudge: Nudge | Clamp | None = None,
        start: Start = "rest",
        steps: int | None = None,
        tolerance: float | None = None,
        record: bool = False,
        read: Literal["all", "outputs"] = "all",
    ) -> Settled:
        """Relax under the light of the inputs; see `capabilities.Relaxing`.

        A nudge adds beta (target - u) to the reaction of the output cells, which is -dF/du of beta C with C the squared error.
        A sample is integrated by steps that depend on its own drive alone.

        Parameters
        ----------
        inputs : ndarray, shape (batch, inputs)
        samples : ndarray of int64, shape (batch,)
        key : Key
            Noise of the detectors.
        nudge : Nudge or None
            Of loss ``mse``.
        start : str or tuple of ndarray
            A tuple holds inner cells (batch, n) and outputs (batch, n_out).
        steps : int, optional
            Number of updates; with `tolerance` the largest number (default 10 000).
        tolerance : float, optional
            Residual at which the whole batch has settled.
        record : bool
            Also read every cell after each update.
        read : str
            ``"outputs"`` reads the outputs alone, and holds nothing.

        Raises
        ------
        InputError
            On bad shapes or values, when neither steps nor tolerance is given, on a clamp, a complex beta or another loss, when
            the step of the integration is not safe, or nothing holds the medium.
        """
        checked = check_batch(inputs, samples, self._ports["input"])
        samples = np.ascontiguousarray(samples, dtype=np.int64)
        batch = len(checked)
        if steps is None and tolerance is None:
            raise InputError("settle needs steps or a tolerance; neither was given")
        limit = int(check_range("steps", 10_000 if steps is None else steps, low=1, unit="updates"))
        if tolerance is not None:
            check_range("tolerance", tolerance, low=0.0, unit="units of concentration")
        check_name("read", read, ("all", "outputs"))
        beta, target = self._nudge(nudge, batch)
        state = self._start(start, batch)
        force, pull = self._force(checked), np.zeros(self._grid.cells)
        force[:, self._at] += beta * target
        pull[self._at] = beta
        dt, substeps = self._steps(force, state, beta)
        grid, d = self._grid, self.description
        across, along = grid.split(self._conductance())
        residual = np.zeros(batch)
        shape = (grid.rows, grid.columns)
        trajectory = np.zeros((limit, batch, *shape) if record else (0, 0, 0, 0))
        done = relax_medium(
            state,
            force.reshape(batch, *shape),
            pull.reshape(shape),
            across,
            along,
            float(d.quartic),
            float(d.quadratic),
            dt,
            substeps,
            limit,
            -1.0 if tolerance is None else float(tolerance),
            residual,
            trajectory,
        )
        self._state = state
        hold = nudge is None and read == "all"
        if hold:
            self._free = state.copy()
        self._charge(batch, done, nudge is not None, read, done if record else 1, hold=hold)
        measured = self._measure(state, samples, key, read)
        records: tuple[Array, ...] = ()
        if record:
            by_step = [self._measure(row, samples, key.at("record", t), "all") for t, row in enumerate(trajectory[:done])]
            records = tuple(np.stack(layer) for layer in zip(*by_step, strict=True))
        return Settled(measured, residual, done, tolerance, records)

    def forward(self, inputs: Array, *, samples: Samples, key: Key) -> Array:
        """Outputs (batch, outputs) after `settle_steps` updates from u = 0, as measured."""
        return self.settle(inputs, samples=samples, key=key, steps=self.description.settle_steps, read="outputs").states[-1]

    def local_contrast(self, inputs: Array, states: tuple[Array, ...]) -> Mapping[str, Outer | Array]:
        """Batch mean of dF/dtheta: half squared differences over each edge times kappa, -u, and -u times the inputs.

        Parameters
        ----------
        inputs : ndarray, shape (batch, inputs)
        states : tuple of ndarray
            Inner cells and outputs, as measured.
        """
        whole = self._joined("states", states, len(inputs))
        first, second = self._grid.ends()
        edges = 0.5 * self.description.conductance * np.mean((whole[:, first] - whole[:, second]) ** 2, axis=0)
        field = -whole.mean(axis=0)
        found: dict[str, Outer | Array] = {
            "illumination": Outer(whole[:, self._lit], inputs, -1.0),
            "field": field[self._inner],
            "diffusivity_change": edges[~self._readout_edges],
            "readout_field": field[self._at],
            "readout_diffusivity_change": edges[self._readout_edges],
        }
        return {name: found[name] for name in self._parameters}

    def program(self, requests: Mapping[str, Request], *, key: Key) -> None:
        """Write parameters: with `write_noise`, clipped to their ranges; one write per element.

        Raises
        ------
        InputError
            When a parameter is unknown or values do not fit; nothing is written then.
        """
        values = {}
        for name, request in requests.items():
            parameter = self._parameters[check_name("parameter", name, self._parameters)]
            check_request(name, request, parameter)
            change = request.dense() if isinstance(request, Outer) else request.values
            held = 0.0 if isinstance(request, Write) else self._held[name]
            wanted = held + np.asarray(change, dtype=np.float64)
            if self.description.write_noise:
                wanted = wanted + self.description.write_noise * key.at(name).generator().normal(size=wanted.shape)
            values[name] = np.clip(wanted, parameter.low, parameter.high)
        self._tally("program_call", 1)
        for name, one in values.items():
            self._count(name, "device_write", one.size)
        self._spend(self.description.seconds_per_write)
        self._held |= values

    def read_back(self, *, key: Key) -> Mapping[str, Array]:
        """Value of every parameter, with the errors of its devices; every element is read once. `key` is not used."""
        for name, values in self._held.items():
            self._count(name, "device_read", values.size)
        found = {name: values.copy() for name, values in self._held.items()}
        if self.description.diffusivity_spread or not np.all(self._spread == 1.0):
            for name, edges in (
                ("diffusivity_change", ~self._readout_edges),
                ("readout_diffusivity_change", self._readout_edges),
            ):
                if name in found:
                    found[name] = (1.0 + found[name]) * self._spread[edges] - 1.0
        return found

    def disturb(self, size: float, key: Key) -> None:
        """Change every edge's diffusivity for good by a factor of logarithm `size` times a normal number, as a knock does."""
        check_range("size of the disturbance", size, low=0.0, high_open=True)
        self._spread = self._spread * np.exp(size * normal_array(key.at("disturb"), self._spread.shape))

    def oracle(self) -> MediumOracle:
        """The exact model of this very medium, without noise; never counted."""
        d = self.description
        illumination = np.zeros((self._grid.cells, self._ports["input"].size))
        illumination[self._lit] = self._held["illumination"]
        medium = Medium(self._grid, self._conductance(), float(d.quartic), float(d.quadratic))
        return MediumOracle(
            medium,
            d.conductance,
            self._spread.copy(),
            illumination,
            self._field(),
            self._at,
            self._inner,
            self._lit,
            self._readout_edges,
            tuple(self._parameters),
        )

    def snapshot(self) -> dict[str, Any]:
        """Held values, static errors, states and clock."""
        held = {f"held/{name}": values.copy() for name, values in self._held.items()}
        own = {"clock_s": self._clock_s, "state": self._state.copy(), "free": self._free.copy(), "spread": self._spread.copy()}
        return own | held

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go back to a snapshot, to the same bits.

        Raises
        ------
        InputError
            When an entry is missing or does not fit; nothing is changed then.
        """
        for name in ("clock_s", "state", "free", "spread", *(f"held/{name}" for name in self._parameters)):
            check_name("entry of the snapshot", name, snapshot)
        shape = (None, self._grid.rows, self._grid.columns)
        state, free = (np.array(check_array(name, snapshot[name], shape=shape), dtype=np.float64) for name in ("state", "free"))
        spread = np.array(check_array("spread", snapshot["spread"], shape=self._spread.shape), dtype=np.float64)
        held = {
            name: np.array(check_array(name, snapshot[f"held/{name}"], shape=one.shape), dtype=np.float64)
            for name, one in self._parameters.items()
        }
        self._state, self._free, self._spread, self._held = state, free, spread, held
        self._clock_s = float(snapshot["clock_s"])

    # How it does it --------------------------------------------------------------------------------------------------

    def _conductance(self) -> Floats:
        """kappa of every edge."""
        change = np.zeros(self._grid.edges)
        for name, edges in (("diffusivity_change", ~self._readout_edges), ("readout_diffusivity_change", self._readout_edges)):
            if name in self._held:
                change[edges] = self._held[name]
        return np.asarray(self.description.conductance * (1.0 + change) * self._spread)

    def _field(self) -> Floats:
        field = np.zeros(self._grid.cells)
        field[self._inner] = self._held.get("field", 0.0)
        field[self._at] = self._held["readout_field"]
        return field

    def _force(self, inputs: Array) -> Floats:
        drive = convert(self._dac, np.asarray(inputs, dtype=np.float64))
        force = np.tile(self._field(), (len(drive), 1))
        force[:, self._lit] += drive @ self._held["illumination"].T
        return force

    def _steps(self, force: Floats, state: Floats, beta: float) -> tuple[Floats, NDArray[np.int64]]:
        """Step of each sample in units of 1/r, and how many of them make an update."""
        d = self.description
        bound = largest_state(np.abs(force).max(axis=1), d.quartic, d.quadratic + min(beta, 0.0))
        if not np.isfinite(bound).all():
            raise InputError(f"beta is {beta:g}; nothing holds a quadratic well under it, expected more than {-d.quadratic:g}")
        largest = np.maximum(bound, np.abs(state).max(axis=(1, 2), initial=0.0))
        slope = d.reaction_per_s * steepest(largest, d.quartic, d.quadratic + max(beta, 0.0))
        diffusivity = float(self._conductance().max(initial=0.0)) * d.cell_m**2 * d.reaction_per_s
        safe = largest_step(diffusivity, d.cell_m, slope)
        longest = 0.5 * safe if d.step_s is None else np.full(len(safe), check_step(d.step_s, float(safe.min())))
        substeps = np.maximum(np.ceil(d.update_s / longest * (1.0 - 1e-12)), 1.0)
        return d.reaction_per_s * d.update_s / substeps, substeps.astype(np.int64)

    def _nudge(self, nudge: Nudge | Clamp | None, batch: int) -> tuple[float, Array]:
        outputs = len(self._at)
        if nudge is None:
            return 0.0, np.zeros((batch, outputs))
        if isinstance(nudge, Clamp):
            raise InputError("this medium lacks capability ClampOutput: its outputs cannot be held")
        if isinstance(nudge.beta, complex):
            raise InputError(f"beta is {nudge.beta}; this medium has real states and takes a real beta")
        if nudge.loss != "mse":
            raise InputError(f"loss is {nudge.loss!r}; outputs of this medium are not confined to [0, 1], expected 'mse'")
        return float(nudge.beta), np.asarray(check_array("target", nudge.target, shape=(batch, outputs)), dtype=np.float64)

    def _joined(self, what: str, states: tuple[Array, ...], batch: int) -> Floats:
        """All cells (batch, cells) from the two layers of states."""
        if len(states) != 2:
            raise InputError(f"{what} holds {len(states)} layers; expected inner cells and outputs: were only outputs read?")
        whole = np.empty((batch, self._grid.cells))
        whole[:, self._inner] = check_array(f"inner cells of {what}", states[0], shape=(batch, len(self._inner)))
        whole[:, self._at] = check_array(f"outputs of {what}", states[1], shape=(batch, len(self._at)))
        return whole

    def _start(self, start: Start, batch: int) -> Floats:
        """A fresh array (batch, rows, columns) to begin from."""
        grid = self._grid
        if isinstance(start, tuple):
            return self._joined("start", start, batch).reshape(batch, grid.rows, grid.columns)
        check_name("start", start, ("rest", "last", "free"))
        if start == "rest":
            return np.zeros((batch, grid.rows, grid.columns))
        source = self._state if start == "last" else self._free
        if len(source) != batch:
            raise InputError(f"start {start!r} needs an earlier settling of {batch} samples; {len(source)} are there")
        return source.copy()

    def _measure(self, state: Floats, samples: Samples, key: Key, read: str) -> tuple[Array, ...]:
        noise = key.at("detectors") if self._adc.noise > 0.0 else None
        whole = convert(self._adc, state.reshape(len(state), -1), key=noise, samples=samples)
        outputs = whole[:, self._at]
        return (outputs,) if read == "outputs" else (whole[:, self._inner], outputs)

    def _charge(self, batch: int, updates: int, nudged: bool, read: str, reads: int, *, hold: bool) -> None:
        d, outputs, inputs = self.description, len(self._at), self._ports["input"].size
        seconds = updates * d.update_s + reads * d.seconds_per_conversion
        detectors = outputs if read == "outputs" else self._grid.cells
        self._count("input DAC", self._dac.event("dac"), batch * inputs)
        self._count("light sources", "source_second", batch * seconds * (inputs + (outputs if nudged else 0)))
        if nudged:
            self._count("nudge DAC", self._dac.event("dac"), batch * outputs)
        self._count("state ADC", self._adc.event("adc"), batch * reads * detectors)
        if hold:
            self._count("sample-and-hold", "sample_hold", batch * self._grid.cells)
        for name, amount in (("device_pass", batch), ("step", batch * updates), ("sample", 0 if nudged else batch)):
            self._tally(name, amount)
        self._spend(batch * seconds)


OPTIONS = AllenCahnDescription
"""What the options of `build` are, and of what types."""

PRESETS: Mapping[str, Mapping[str, Any]] = {"allen-cahn": {}}
"""Substrates of this file by name."""


def build(widths: Sequence[int], *, chip: Key, **options: Any) -> AllenCahnMedium:
    """A medium.

    Parameters
    ----------
    widths : sequence of int
        Inputs, inner cells, outputs; see `AllenCahnDescription`.
    chip : Key
        Stream of its static errors.
    **options
        Other fields of `AllenCahnDescription`.

    Raises
    ------
    InputError
        On an unknown option or a value out of range.

    Examples
    --------
    >>> medium = build((64, 60, 10), chip=Key(0))
    >>> medium.parameters["illumination"].shape
    (60, 64)
    """
    known = [field.name for field in fields(AllenCahnDescription) if field.name != "widths"]
    for name in options:
        check_name("option of an Allen-Cahn medium", name, known)
    return AllenCahnMedium(AllenCahnDescription(tuple(widths), **options), chip)
