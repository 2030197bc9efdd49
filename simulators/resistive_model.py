"""The exact model of a nonlinear resistive network: its co-content, its steady states and gradients through them.

Used as oracle, with the conductances a chip really holds, and inside the twin, with those that were asked for. Voltages are in
units of activity, conductances in units of `siemens_unit`. With the factors c_k of `ResistiveDescription.energy_scales` the
steady state is the minimum of

    E = sum_k c_k [ 1/2 sum_ij g_k[i, j] (v_k[i] - A_k v_{k-1}[j])^2 - I_k^T v_k ]    under the diodes

and c_k times the currents into the nodes of layer k is -dE/dv_k. The adjoint of a loss C(v_L), d2E/dv2 u = dC/dv over the nodes
whose diode does not conduct and u = 0 at the others, gives

    dC/dg_k[i, j] = -c_k mean_b (v_k[i] - A_k v_{k-1}[j]) (u_k[i] - A_k u_{k-1}[j]),   dC/dI_k = c_k mean_b u_k

with u_0 = 0 at the sources (implicit differentiation). A real diode adds its small-signal conductance to d2E/dv2 instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.converters import Converter, convert
from inmaterio.devices.validation import InputError
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.fixed_point import loss_values, split_layers
from inmaterio.simulators.resistive_description import NudgingCurrents, ResistiveCircuit, ResistiveDescription
from inmaterio.simulators.resistive_flat import flatten
from inmaterio.simulators.resistive_grounding import check_grounded
from inmaterio.simulators.resistive_kernels import settle_flat
from inmaterio.simulators.resistive_shockley import settle_shockley

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ResistiveModel:
    """A network in float64.

    Attributes
    ----------
    description : ResistiveDescription
    weights : sequence of ndarray, each (n_k, n_{k-1}), k = 1..L
        n_0 counts the sources.
    biases : sequence of ndarray, each (n_k,)
        Currents in units of `siemens_unit` times `volts_per_output`.
    """

    description: ResistiveDescription
    weights: Sequence[Float]
    biases: Sequence[Float]

    def sources(self, inputs: Array) -> Float:
        """Source voltages (batch, 2 n_0) in units of activity: the inputs and their negatives."""
        driven = np.asarray(inputs, dtype=np.float64) * (self.description.input_volts / self.description.volts_per_output)
        return np.concatenate([driven, -driven], axis=1)

    def circuit(self, inputs: Array) -> ResistiveCircuit:
        """The circuit in SI units."""
        description = self.description
        unit = description.siemens_unit
        return description.circuit(
            tuple(weight * unit for weight in self.weights),
            tuple(bias * unit * description.volts_per_output for bias in self.biases),
            self.sources(inputs) * description.volts_per_output,
        )

    def settle(
        self,
        inputs: Array,
        *,
        beta: float = 0.0,
        target: Array | None = None,
        tolerance: float | None = 1e-14,
        steps: int = 10_000,
    ) -> tuple[Float, ...]:
        """Steady state, from 0 V.

        Parameters
        ----------
        inputs : ndarray, shape (batch, n_0)
        beta : float
            Nudge, in units of `siemens_unit`; 0 for none.
        target : ndarray, shape (batch, n_L), optional
            Of the nudge, in units of activity.
        tolerance : float or None
            Residual that must be reached, relative to the largest source (at least 1 unit); None makes just `steps` sweeps.
        steps : int

        Returns
        -------
        tuple of ndarray, each (batch, n_k)
            In units of activity.

        Raises
        ------
        InputError
            When conductances join a node to no source, or the residual stays above the tolerance.
        """
        sources = self.sources(inputs)
        batch = len(sources)
        scale = max(1.0, float(np.abs(sources).max()))
        wanted = None if tolerance is None else tolerance * scale
        volts = self.description.volts_per_output
        if self.description.diode == "shockley":
            goal = np.zeros((batch, len(self.weights[-1]))) if target is None else np.asarray(target, dtype=np.float64)
            nudge = NudgingCurrents(beta * self.description.siemens_unit, goal * volts) if beta else None
            # without a number of steps it settles to rounding, or raises
            settled = settle_shockley(self.circuit(inputs), nudge=nudge, steps=None if tolerance is not None else steps)
            return tuple(np.asarray(layer, dtype=np.float64) / volts for layer in settled.volts)
        flat = flatten(self.description, self.weights)
        if not flat.row_sums.all():
            # some node hangs on no node below it
            check_grounded(self.circuit(inputs))
        blocks = [np.broadcast_to(current, (batch, len(current))).copy() for current in self.biases]
        blocks[0] += sources @ self.weights[0].T
        state = np.zeros(batch * flat.totals.size)
        goal = np.zeros((0, 0)) if target is None else np.ascontiguousarray(target, dtype=np.float64)
        _, residual, _ = settle_flat(
            flat,
            state,
            np.concatenate([block.ravel() for block in blocks]),
            beta=beta,
            target=goal,
            steps=steps,
            tolerance=wanted,
            scratch=np.empty(2 * batch * int(flat.widths.max())),
        )
        states = split_layers(state, batch, flat.widths)
        if wanted is not None and not residual.max() <= wanted:
            raise InputError(
                f"the model's residual is {residual.max() * volts:.2g} V after {steps} sweeps; expected at most "
                f"{wanted * volts:.2g} V: a smaller gain or |beta| settles faster"
            )
        return states

    def voltages(self, inputs: Array, states: Sequence[Array]) -> list[Float]:
        """Sources and nodes, layer by layer."""
        return [self.sources(inputs), *(np.asarray(state, dtype=np.float64) for state in states)]

    def node_currents(self, inputs: Array, states: Sequence[Array]) -> list[Float]:
        """What flows into each node through resistors, amplifiers and bias, each (batch, n_k).

        In units of `siemens_unit` times `volts_per_output`; zero at a steady state where no diode or nudge acts.
        """
        gains, returns = self.description.layer_gains(), self.description.layer_returns()
        voltages = self.voltages(inputs, states)
        into = []
        for k, (weight, current) in enumerate(zip(self.weights, self.biases, strict=True)):
            found = gains[k] * (voltages[k] @ weight.T) - voltages[k + 1] * weight.sum(axis=1) + current
            if k + 1 < len(self.weights):
                above = self.weights[k + 1]
                found += returns[k + 1] * (voltages[k + 2] @ above - gains[k + 1] * voltages[k + 1] * above.sum(axis=0))
            into.append(found)
        return into

    def energy(self, inputs: Array, states: Sequence[Array]) -> Float:
        """E of each sample at these states: see the module; without the content of real diodes."""
        voltages, gains, scales = self.voltages(inputs, states), self.description.layer_gains(), self.description.energy_scales()
        total = np.zeros(len(voltages[0]))
        for k, (weight, current) in enumerate(zip(self.weights, self.biases, strict=True)):
            below, here = gains[k] * voltages[k], voltages[k + 1]
            quadratic = (
                here**2 @ weight.sum(axis=1) + below**2 @ weight.sum(axis=0) - 2.0 * np.sum((here @ weight) * below, axis=1)
            )
            total += scales[k] * (0.5 * quadratic - here @ current)
        return total

    def diode_conductances(self, inputs: Array, states: Sequence[Array]) -> list[Float]:
        """Small-signal conductance of the diode at each node, each (batch, n_k), in units of `siemens_unit`.

        An ideal diode has 0, or infinity where it conducts: where what else flows into the node at 0 V would push it to the
        side that the diode closes.
        """
        description = self.description
        if description.diode == "shockley":
            slope = description.slope_volts / description.volts_per_output
            scale = description.saturation / (description.slope_volts * description.siemens_unit)
            return [
                scale * np.abs(sign) * np.exp(-sign * np.asarray(state, dtype=np.float64) / slope)
                for sign, state in zip(description.layer_diodes(), states, strict=True)
            ]
        found = []
        totals = np.split(flatten(description, self.weights).totals, np.cumsum(description.widths[1:-1]))
        currents = self.node_currents(inputs, states)
        for sign, state, total, into in zip(description.layer_diodes(), states, totals, currents, strict=True):
            pushed = into + total * np.asarray(state, dtype=np.float64)
            found.append(np.where((sign != 0) & (sign * pushed <= 0.0), np.inf, 0.0))
        return found

    def adjoint(
        self,
        inputs: Array,
        states: Sequence[Array],
        output_error: Array,
        *,
        tolerance: float | None = 1e-14,
        steps: int = 10_000,
    ) -> list[Float]:
        """u of the module for each sample, by the same sweeps, top layer first.

        Parameters
        ----------
        inputs : ndarray, shape (batch, n_0)
        states : sequence of ndarray, each (batch, n_k)
            A steady state, or measured states taken for one.
        output_error : ndarray, shape (batch, n_L)
            dC/dv_L of each sample.
        tolerance : float or None
            Largest change in the last sweep, relative to the largest adjoint; None makes just `steps` sweeps.
        steps : int

        Returns
        -------
        list of ndarray, each (batch, n_k)

        Raises
        ------
        InputError
            When the adjoint does not settle.
        """
        gains, returns = self.description.layer_gains(), self.description.layer_returns()
        layers = len(self.weights)
        error = np.asarray(output_error, dtype=np.float64)
        sums = np.split(flatten(self.description, self.weights).totals, np.cumsum(self.description.widths[1:-1]))
        loads = [total + diode for total, diode in zip(sums, self.diode_conductances(inputs, states), strict=True)]
        u = [np.zeros_like(load) for load in loads]
        for sweep in range(steps):
            change = 0.0
            for k in reversed(range(layers)):
                drive = error.copy() if k == layers - 1 else returns[k + 1] * (u[k + 1] @ self.weights[k + 1])
                if k > 0:
                    drive += gains[k] * (u[k - 1] @ self.weights[k].T)
                new = drive / loads[k]
                change = max(change, float(np.abs(new - u[k]).max()))
                u[k] = new
            largest = max(float(np.abs(layer).max()) for layer in u)
            if tolerance is None:
                continue
            if change <= tolerance * max(largest, np.finfo(float).tiny):
                break
            if not np.isfinite(change) or sweep == steps - 1:
                raise InputError(
                    f"the adjoint's relative residual is {change / max(largest, 1e-300):.2g} after {sweep + 1} sweeps; "
                    f"expected at most {tolerance:g}"
                )
        return u

    def gradient(self, inputs: Array, states: Sequence[Array], adjoint: Sequence[Array]) -> dict[str, Float]:
        """Gradient of the batch-mean loss with respect to weights and biases, from the adjoint of each sample's loss."""
        gains, scales = self.description.layer_gains(), self.description.energy_scales()
        voltages = self.voltages(inputs, states)
        vectors = [np.zeros_like(voltages[0]), *adjoint]
        batch = len(voltages[0])
        found: dict[str, Float] = {}
        for k in range(len(self.weights)):
            below, here, under, over = gains[k] * voltages[k], voltages[k + 1], gains[k] * vectors[k], vectors[k + 1]
            outer = here.T @ under + over.T @ below
            product = np.sum(here * over, axis=0)[:, None] + np.sum(below * under, axis=0)[None, :] - outer
            found[f"weight_{k + 1}"] = -scales[k] / batch * product
            if self.description.bias:
                found[f"bias_{k + 1}"] = scales[k] * over.mean(axis=0)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class ResistiveOracle:
    """What this chip would do without noise per use: for tests and probes, never for a rule.

    Attributes
    ----------
    model : ResistiveModel
        With the conductances the devices really have.
    input_dac : Converter
        Its rounding is part of the chip.
    """

    model: ResistiveModel
    input_dac: Converter

    def driven(self, inputs: Array) -> Float:
        """The inputs as converted, without noise."""
        clean = Converter(bits=self.input_dac.bits, low=self.input_dac.low, high=self.input_dac.high, unit=self.input_dac.unit)
        return np.asarray(convert(clean, np.asarray(inputs, dtype=np.float64)), dtype=np.float64)

    def states(self, inputs: Array) -> tuple[Float, ...]:
        """Free steady state, each layer (batch, n_k), in units of activity."""
        return self.model.settle(self.driven(inputs))

    def outputs(self, inputs: Array) -> Float:
        """Last layer of `states`."""
        return self.states(inputs)[-1]

    def energy(self, inputs: Array, states: tuple[Array, ...]) -> Float:
        """E of each sample at these states: see `ResistiveModel.energy`."""
        return self.model.energy(self.driven(inputs), states)

    def loss(self, inputs: Array, targets: Array, loss: str) -> float:
        """Batch-mean loss at the free steady state."""
        return float(loss_values(self.outputs(inputs), targets, loss).mean())

    def loss_gradient(self, inputs: Array, targets: Array, loss: str) -> dict[str, Float]:
        """Gradient of the batch-mean loss with respect to each parameter, by implicit differentiation."""
        check_loss(loss)
        driven = self.driven(inputs)
        states = self.model.settle(driven)
        return self.model.gradient(driven, states, self.model.adjoint(driven, states, states[-1] - targets))


def check_loss(loss: str) -> None:
    """See that a loss fits outputs that are voltages.

    Raises
    ------
    InputError
        When it is not mse.
    """
    if loss != "mse":
        raise InputError(
            f"loss {loss!r} needs outputs between 0 and 1; those of a resistive network are voltages: expected 'mse'"
        )
