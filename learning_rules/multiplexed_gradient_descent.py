"""Multiplexed gradient descent: every parameter carries a waveform of its own, and the loss is demodulated with each of them.

Parameters are perturbed all the time, theta_i(t) = theta_i + s c_i w_i(t), with c the typical scale of a parameter and w a code;
what the loss C(t) does in step with a parameter's waveform is that parameter's part of the gradient (homodyne detection):

    one-sided     G_i = mean_t (C(t) - C_0) w_i(t) / (s c_i <w_i^2>)       C_0: the loss without perturbation
    two-sided     G_i = mean_t 1/2 [C(+w(t)) - C(-w(t))] w_i(t) / (s c_i <w_i^2>)

Three times say how it runs, in units of which the smallest is the clock of this rule:

    tau_p       one value of every waveform is held
    tau_x       one group of rows is shown: `perturbations` tau_p, after C_0 was measured for it
    tau_theta   parameters are changed: an update, over all groups of the batch

Waveforms go on from group to group and from update to update. `rows` = 1 shows one row after the other, as a stream of data does;
0 shows the whole batch at once. Codes over P elements, exact on a loss linear in theta after a whole period:

    sequential   one element after the other, period P                     finite differences
    random       signs drawn anew, no period                               simultaneous perturbation
    walsh        rows of a Hadamard matrix, period 2^m > P
    sinusoid     sin(2 pi (i + 1) t / N), distinct and below N/2, N = 2 P + 2

On a quadratic loss two-sided is exact for all that have a period, one-sided only sinusoids are (a product of three sines has no
mean), and a constant added to C_0 does nothing to walsh and sinusoids. Windows shorter than a period see other parts of it in
turn; their average over time is the gradient, each alone is not. Random codes never need whole periods.

Source: McCaughan, Oripov, Ganesh, Nam, Dane and Buckley, APL Machine Learning 1, 026118 (2023).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.learning_rules.contract import Batch, Diagnostics, Rule, Update
from inmaterio.learning_rules.perturbations import (
    VARIANTS,
    Floats,
    check_loss,
    count_correlation,
    counted_losses,
    parameter_count,
    typical_scales,
)
from inmaterio.simulators.capabilities import Array, Parameter, Requirement, Samples, requires

REQUIRES: Mapping[str, Requirement] = {"substrate": requires("Forward", "PerturbParameters", "Program")}
DEFAULTS: Mapping[str, Any] = {
    "rates": 0.005,
    "loss": "mse",
    "code": "random",
    "size": 0.1,
    "perturbations": 1,
    "rows": 5,
    "variant": "two-sided",
    "shared_noise": False,
}
PROGRAMS = False

CODES = ("sequential", "random", "walsh", "sinusoid")


@dataclass(frozen=True, slots=True)
class State:
    """Where the waveforms are: number of tau_p that have passed."""

    time: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyperparameters of one rule.

    Attributes
    ----------
    loss : str
        ``"mse"`` or ``"cross_entropy"``.
    code : str
        One of `CODES`.
    size : float
        s, amplitude of a waveform in units of its parameter's typical scale (`perturbations.typical_scales`).
    perturbations : int
        tau_x / tau_p.
    rows : int
        Rows of the batch that are shown at once; 0 all.
    variant : str
        One of `perturbations.VARIANTS`.
    shared_noise : bool
        Whether all passes of a group see the same read noise, as those read at the same instant would.
    """

    loss: str
    code: str
    size: float
    perturbations: int
    rows: int
    variant: str
    shared_noise: bool


def build(
    *,
    substrate: Any,
    loss: str = "mse",
    code: str = "random",
    size: float = 0.1,
    perturbations: int = 1,
    rows: int = 5,
    variant: str = "two-sided",
    shared_noise: bool = False,
) -> Rule:
    """The rule on one substrate.

    Parameters
    ----------
    substrate : Substrate
        With ``Forward``, ``PerturbParameters`` and ``Program``.
    loss, code, size, rows, variant, shared_noise
        As in `Settings`.
    perturbations : int
        tau_x / tau_p; 0 for a whole period of the code.

    Raises
    ------
    InputError
        When the substrate lacks a capability, a hyperparameter is out of range, the outputs cannot have this loss, or a whole
        period is asked of random codes.
    """
    missing = REQUIRES["substrate"].missing(substrate)
    if missing:
        raise InputError(f"multiplexed gradient descent cannot train this substrate: it {missing}")
    check_loss(loss, substrate.ports["output"])
    check_name("code", code, CODES)
    check_range("size", size, low=0.0, low_open=True, high_open=True)
    check_range("perturbations", perturbations, low=0)
    check_range("rows", rows, low=0)
    check_name("variant", variant, VARIANTS)
    if not perturbations:
        if code == "random":
            raise InputError("perturbations is 0 for code 'random', which has no period; expected at least 1")
        perturbations = period(code, parameter_count(substrate.parameters))
    settings = Settings(loss, code, float(size), int(perturbations), int(rows), variant, shared_noise)
    return Rule(init, partial(update, substrate, settings), partial(predict, substrate))


def period(code: str, elements: int) -> int:
    """Number of tau_p after which the waveforms of this many elements begin again; 0 for random codes, which never do.

    Raises
    ------
    InputError
        When the code is unknown.
    """
    check_name("code", code, CODES)
    if code == "walsh":
        return 1 << elements.bit_length()
    return {"sequential": elements, "sinusoid": 2 * elements + 2}.get(code, 0)


def waveforms(code: str, time: int, elements: int, key: Key) -> Floats:
    """Value of every element's waveform, shape (elements,), during one tau_p; `key` is that of the random signs at this time."""
    if code == "random":
        return np.asarray(2.0 * key.generator().integers(0, 2, elements) - 1.0)
    index, phase = np.arange(1, elements + 1), time % period(code, elements)
    if code == "sequential":
        return np.asarray(np.where(index == phase + 1, 1.0, 0.0))
    if code == "walsh":
        return np.asarray(1.0 - 2.0 * (np.bitwise_count(index & phase) % 2))
    # the product is reduced in whole numbers: waveforms are the same bits in every period
    return np.asarray(np.sin(2.0 * np.pi * (index * phase % period(code, elements)) / period(code, elements)))


def mean_square(code: str, elements: int) -> float:
    """<w^2> of a waveform over a period."""
    return {"sequential": 1.0 / elements, "sinusoid": 0.5}.get(code, 1.0)


def init(key: Key) -> State:
    """Waveforms begin."""
    return State()


def update(substrate: Any, settings: Settings, state: State, batch: Batch, key: Key) -> Update:
    """tau_theta: per sample `perturbations` passes (two-sided twice that) in phase ``perturbed``; one-sided one in ``free`` too.

    Two-sided there is no free pass: outputs and loss in the diagnostics are means over the perturbed passes, the free ones up to
    O(s^2). Groups are made in order of the samples' indices, so that the order of the batch does not matter.

    Raises
    ------
    InputError
        When the batch does not fit the ports.
    """
    parameters, output = substrate.parameters, substrate.ports["output"]
    targets = check_array("target", batch.targets, shape=(len(batch), output.size), unit=output.unit)
    elements, scales, one_sided = parameter_count(parameters), typical_scales(parameters), settings.variant == "one-sided"
    order = np.argsort(batch.samples, kind="stable")
    width = settings.rows or len(batch)
    found, seen, losses = np.zeros(elements), np.zeros((len(batch), output.size)), np.zeros(len(batch))
    time = state.time
    for first in range(0, len(batch), width):
        rows = order[first : first + width]
        inputs, wanted, samples = batch.inputs[rows], targets[rows], batch.samples[rows]
        free, passes, judged = np.zeros(len(rows)), [], []
        instant = ("group", first) if settings.shared_noise else ()
        if one_sided:
            with substrate.ledger.phase("free"):
                passes.append(substrate.forward(inputs, samples=samples, key=key.at("noise", *(instant or (time, "free")))))
                judged.append(counted_losses(substrate, settings.loss, passes[-1], wanted))
                free = judged[-1]
        with substrate.ledger.phase("perturbed"):
            for _ in range(settings.perturbations):
                wave = waveforms(settings.code, time, elements, key.at("code", time))
                sides = []
                for side, size in (("plus", settings.size), ("minus", -settings.size))[: 1 if one_sided else 2]:
                    changes = split(size * wave, parameters, scales)
                    outputs = substrate.perturbed(
                        inputs, changes, samples=samples, key=key.at("noise", *(instant or (time, side)))
                    )
                    sides.append(counted_losses(substrate, settings.loss, outputs, wanted))
                    if not one_sided:
                        passes.append(outputs)
                        judged.append(sides[-1])
                change = sides[0] - free if one_sided else 0.5 * (sides[0] - sides[1])
                found += float(change.sum()) * wave
                count_correlation(substrate, elements)
                time += 1
        seen[rows], losses[rows] = np.mean(passes, axis=0), np.mean(judged, axis=0)
    found /= len(batch) * settings.perturbations * settings.size * mean_square(settings.code, elements)
    estimates = split(found, parameters, {name: 1.0 / scale for name, scale in scales.items()})
    return Update(State(time), estimates, Diagnostics(float(losses.mean()), seen))


def split(values: Floats, parameters: Mapping[str, Parameter], scales: Mapping[str, float]) -> dict[str, Array]:
    """One vector over all elements as arrays by parameter, each multiplied by its scale."""
    parts: dict[str, Array] = {}
    place = 0
    for name, one in parameters.items():
        size = int(np.prod(one.shape, dtype=int))
        parts[name] = scales[name] * values[place : place + size].reshape(one.shape)
        place += size
    return parts


def predict(substrate: Any, state: State, inputs: Array, samples: Samples, key: Key) -> Array:
    """Outputs (batch, outputs) of one forward pass."""
    return substrate.forward(inputs, samples=samples, key=key)  # type: ignore[no-any-return]
