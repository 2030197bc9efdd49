"""Delays learned together with weights: dilated convolutions with learnable spacings (DCLS).

Every synapse of the chip's twin is a kernel over the whole delays d = 0..max_delay,

    K_d = w g_d / (sum_m g_m + 1e-7),   g_d = exp(-((d - p) / s)^2 / 2),   s = sigma + 0.27,

with its weight w and its delay p learned by backpropagation through time. sigma falls from `sigma_start`, where a synapse
hears of nearly every delay, by the same factor at each update to `sigma_end` after a part `annealing` of them, and stays
there. The chip itself rounds the delays that it is asked to hold, and it is the chip that predicts. For the last part
`fine_tune` of the updates, delays stay where they are and weights alone are trained, on rounded delays.

Other ways to predict (`Rule.others`), both with the values as they were when fine-tuning began: ``before rounding`` is the twin
with its kernels, ``rounded`` the twin with rounded delays.

As published: kernels, the factor from update to update (there per epoch), a quarter of the training for it, rounding, the loss
(cross entropy of a chip's ``softmax-sum``), the rate of delays a hundred times that of weights with a cosine and without
decay, biases without decay, delays held in their range. Published rates are for Adam with weight decay 1e-5 and, for weights,
the schedule ``one-cycle`` up to 5e-3: choose these in the training's configuration. Not as published: delays begin uniform
over their range (there one in max_delay + 1 begins at the largest), and rates and sigma change at every update.

Batch normalisation between synapses and neurons, as published, is the substrate's: ``spiking-normalised`` trains with it, gains
and shifts at the rate of weights without decay, and folds it into what its chip holds. On any other spiking chip there is none:
then the first weights decide how active hidden neurons are, and their spread (the training's ``gain``) has to be chosen for the
data. Dropout, as published, is `dropout` (there 0.4 for SHD, 0.25 for SSC; 0 here unless it is set): what a hidden neuron sends
to the next layer is dropped for a whole sample with this probability, or else multiplied by 1 / (1 - dropout). It is for updates
alone: their losses and outputs are with it, predictions without.

Source: Hammouamri, Khalfaoui-Hassani and Masquelier, ICLR 2024, arXiv:2306.17670.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from inmaterio.devices.randomness import Key, uniforms
from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.learning_rules.contract import Batch, Diagnostics, Rule, Update
from inmaterio.learning_rules.perturbations import check_loss
from inmaterio.learning_rules.schedules import Group
from inmaterio.simulators.capabilities import Array, Requirement, Samples, Write, requires
from inmaterio.simulators.digital_twin import count_twin_pass, to_array, to_tensor, twin_gradient
from inmaterio.simulators.substrate import check_batch

REQUIRES: Mapping[str, Requirement] = {"substrate": requires("Forward", "Spiking", "Twin", "Program")}
DEFAULTS: Mapping[str, Any] = {"rates": 5e-3, "loss": "cross_entropy", "fine_tune": 0.1}
PROGRAMS = False

_DELAYS = Group(rate_factor=20.0, schedule="cosine", decayed=False)  # 0.1, where weights rise from 1e-3 to 5e-3
_UNDECAYED = Group(decayed=False)
GROUPS: Mapping[str, Group] = {
    "delay": _DELAYS,
    "recurrent_delay": _DELAYS,
    "bias": _UNDECAYED,
    "gain": _UNDECAYED,
    "shift": _UNDECAYED,
}

KINDS = ("learned", "fixed", "none")


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """How far training has come.

    Attributes
    ----------
    updates : int
        Made so far.
    before : mapping of str to ndarray
        Parameters that were asked for when fine-tuning began, and running statistics where there are; empty until then.
    """

    updates: int = 0
    before: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyperparameters of one rule.

    Attributes
    ----------
    loss : str
        ``"cross_entropy"`` or ``"mse"``.
    delays : str
        ``"learned"``; ``"fixed"``: rounded, they stay where they begin; ``"none"``: the first update sets them all to 0. The last
        two are controls.
    sigma_start, sigma_end : float
        Steps. `sigma_start` 0 stands for half of the largest delay.
    annealing : float
        Part of the updates in which sigma falls.
    fine_tune : float
        Part of the updates, at their end, that train weights alone on rounded delays.
    total_updates : int
        Of the whole training; a run says it by itself.
    dropout : float
        Probability, in [0, 1), that a hidden neuron sends nothing to the next layer in one sample of an update.
    """

    loss: str
    delays: str
    sigma_start: float
    sigma_end: float
    annealing: float
    fine_tune: float
    total_updates: int
    dropout: float = 0.0

    def sigma(self, update: int) -> float:
        """Steps, at an update that is not of fine-tuning."""
        part = min(1.0, update / max(1.0, self.annealing * self.total_updates))
        return float(self.sigma_start * (self.sigma_end / self.sigma_start) ** part)

    @property
    def first_fine(self) -> int:
        """Number of the first update of fine-tuning."""
        return round(self.total_updates * (1.0 - self.fine_tune))


def build(
    *,
    substrate: Any,
    loss: str = "cross_entropy",
    delays: str = "learned",
    sigma_start: float = 0.0,
    sigma_end: float = 0.23,
    annealing: float = 0.25,
    fine_tune: float = 0.1,
    dropout: float = 0.0,
    total_updates: int = 0,
) -> Rule:
    """The rule on one substrate; parameters as in `Settings`.

    Raises
    ------
    InputError
        When the substrate lacks a capability or has no delays, a hyperparameter is out of range, or the outputs cannot have this
        loss.
    """
    missing = REQUIRES["substrate"].missing(substrate)
    if missing:
        raise InputError(f"delay learning cannot train this substrate: it {missing}")
    check_loss(loss, substrate.ports["output"])
    check_name("delays", delays, KINDS)
    names = delay_names(substrate)
    if not names and delays != "none":
        raise InputError(f"delays is {delays!r}, but the substrate has none; expected 'none', or a substrate with delays")
    check_range("sigma_start", sigma_start, low=0.0, high_open=True, unit="steps")
    check_range("sigma_end", sigma_end, low=0.0, low_open=True, high_open=True, unit="steps")
    for name, value in (("annealing", annealing), ("fine_tune", fine_tune)):
        check_range(name, value, low=0.0, high=1.0)
    check_range("dropout", dropout, low=0.0, high=1.0, high_open=True)
    check_range("total_updates", total_updates, low=1, unit="updates")
    longest = max((substrate.parameters[name].high for name in names), default=0.0)
    start = max(float(sigma_start) or 0.5 * longest, float(sigma_end))
    parts = float(sigma_end), float(annealing), float(fine_tune)
    settings = Settings(loss, delays, start, *parts, int(total_updates), float(dropout))
    others = {"before rounding": False, "rounded": True} if delays == "learned" else {}
    return Rule(
        init,
        partial(update, substrate, settings),
        partial(predict, substrate),
        {name: partial(predict_before, substrate, settings, rounded) for name, rounded in others.items()},
    )


def delay_names(substrate: Any) -> tuple[str, ...]:
    """The parameters that are delays: those measured in steps."""
    return tuple(name for name, about in substrate.parameters.items() if about.unit == "step")


def init(key: Key) -> State:
    """No update has been made."""
    return State()


def update(substrate: Any, settings: Settings, state: State, batch: Batch, key: Key) -> Update:
    """dC/dtheta of the batch-mean loss C in the twin, at the values requested by now.

    Of weights, and of biases or what stands in their place, and of delays while they are learned. Forward in phase ``twin``,
    backward in phase ``backward``, both counted as the host's. Loss and outputs in the diagnostics are the twin's, with dropout
    where there is any: no device is read.

    Raises
    ------
    InputError
        When the batch does not fit the ports, or the twin's delays cannot be spread.
    """
    output, names = substrate.ports["output"], delay_names(substrate)
    inputs = check_batch(batch.inputs, batch.samples, substrate.ports["input"])
    targets = check_array("target", batch.targets, shape=(len(inputs), output.size), unit=output.unit)
    if settings.delays == "none" and names and not state.updates:
        with substrate.ledger.phase("update"):
            zeros = {name: Write(np.zeros(substrate.parameters[name].shape)) for name in names}
            substrate.program(zeros, key=key.at("no delays"))
    twin = substrate.twin()
    learning = settings.delays == "learned" and state.updates < settings.first_fine
    before = state.before
    if learning:
        _spread(twin, settings.sigma(state.updates))
    elif settings.delays == "learned" and not before:
        before = {name.replace(".", "/"): to_array(tensor) for name, tensor in twin.named_parameters()} | _statistics(twin)
    if settings.dropout:
        _drop(substrate, twin, settings.dropout, batch.samples, key.at("dropout"))
    trained = {name: about for name, about in substrate.parameters.items() if learning or name not in names}
    mean_loss, outputs, gradients = twin_gradient(twin, trained, inputs, targets, settings.loss, output)
    with substrate.ledger.phase("twin"):
        count_twin_pass(substrate.ledger, "host", twin, len(inputs), backward=False)
    with substrate.ledger.phase("backward"):
        count_twin_pass(substrate.ledger, "host", twin, len(inputs), backward=True)
    return Update(State(state.updates + 1, before), gradients, Diagnostics(mean_loss, outputs))


def predict(substrate: Any, state: State, inputs: Array, samples: Samples, key: Key) -> Array:
    """Outputs (batch, outputs) of one forward pass of the substrate itself, whose delays are whole."""
    return substrate.forward(inputs, samples=samples, key=key)  # type: ignore[no-any-return]


def predict_before(
    substrate: Any, settings: Settings, rounded: bool, state: State, inputs: Array, samples: Samples, key: Key
) -> Array:
    """Outputs (batch, outputs) of the twin with what was asked of the chip when fine-tuning began, or now where it has not.

    Counted as the host's, in the phase that is open.
    """
    import torch

    checked = check_batch(inputs, samples, substrate.ports["input"])
    twin = substrate.twin().eval()
    with torch.no_grad():
        for name, tensor in twin.named_parameters():
            if state.before:
                tensor.copy_(to_tensor(state.before[name.replace(".", "/")], tensor.dtype))
            dtype = tensor.dtype
        if state.before and _statistics(twin):
            twin.normalisation.use(state.before)
        if not rounded:
            _spread(twin, settings.sigma(min(state.updates, settings.first_fine)))
        outputs = to_array(twin(to_tensor(checked, dtype)))
    count_twin_pass(substrate.ledger, "host", twin, len(checked), backward=False)
    return outputs


def _spread(twin: Any, sigma: float) -> None:
    if not callable(getattr(twin, "use_gaussian", None)):
        raise InputError("the twin of this substrate has no use_gaussian; expected one whose delays can be spread")
    twin.use_gaussian(sigma)


def _statistics(twin: Any) -> dict[str, Array]:
    """Running statistics that a twin normalises with; empty where it does not."""
    normalisation = getattr(twin, "normalisation", None)
    return {} if normalisation is None else normalisation.held()


def _drop(substrate: Any, twin: Any, dropout: float, samples: Samples, key: Key) -> None:
    """Draw what every hidden neuron's spikes are multiplied by in each sample, 0 or 1 / (1 - dropout)."""
    import torch

    if not callable(getattr(twin, "use_dropout", None)):
        raise InputError("the twin of this substrate has no use_dropout; expected dropout 0, or one whose spikes can be dropped")
    drawn = [uniforms(key.at(k), samples, width) for k, width in enumerate(substrate.nominal().widths[1:-1], start=1)]
    twin.use_dropout([to_tensor((one >= dropout) / (1.0 - dropout), torch.float64) for one in drawn])
