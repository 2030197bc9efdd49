"""A multilayer physical network: a driven physical system and a known linear map per layer.

::

    x, label --> drive_1 --> [ physics 1 ] --> a_1 --> W_1, b_1 --> y_1 --> drive_2 --> [ physics 2 ] --> ... --> y_L

For layer k, with f the physics (fixed, and unknown to whoever trains the maps), z-scored by statistics measured once:

    drive_1 = [x; label]          drive_k = clip(n_{k-1} / 3, -1, 1)
    n_k = phi(y_k) / rms(phi(y_k))                  phi: the magnitude, the positive part, or nothing
    a_k = gain (f_k(drive_k) - mean)                measured
    y_k = W_k [a_k; s_k] + b_k                      s_k: the digital skip, [x; label] or n_{k-1}, when it is asked for

The maps are digital and exact: the host holds them, and their work is counted. Any substrate with the capability
``Forward`` serves as physics. What the physics does is only ever measured: no map is trained through a model of it unless a
rule fits one (`FittedResponse`), for which it pays.

Two ablations stand in for the physics in controls: ``no-physics`` (the maps are fed by the drive itself) and
``linear-physics`` (by the best linear map from drive to response, of the same size, fitted to measured pairs).

Source of the architecture: Momeni, Rahmani, Mallejac, del Hougne and Fleury, Science 382, 1297 (2023).
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.simulators.capabilities import (
    Add,
    Array,
    Backward,
    Estimate,
    Layer,
    Outer,
    Parameter,
    Port,
    Request,
    Samples,
    Write,
)
from inmaterio.simulators.digital_twin import WORD_BYTES
from inmaterio.simulators.fitted_response import FittedResponse, fit_response
from inmaterio.simulators.physical_network_model import (
    DRIVE_REACH,
    RESPONSES,
    NetworkOracle,
    make_twin,
    normalise,
    pull_drive,
)
from inmaterio.simulators.substrate import AbstractSubstrate, check_batch, check_request

Floats = NDArray[np.float64]

PHYSICS: Mapping[str, str] = {"cavity": "cavity", "metasurface": "metasurface", "diffractive": "diffractive_layers"}
"""Modules that build physics, by name: a new kind of physics adds a line."""

ABLATIONS = ("none", "no-physics", "linear-physics")

CALIBRATION_DRIVES = 1000
"""Drives of each layer kept from the calibration, for fits."""

CONSTANT = 1e-6
"""Spread, relative to its size, below which a detector carries nothing but rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a physical network is made.

    Attributes
    ----------
    physics : str
        One of `PHYSICS`.
    detectors : int
        Signals measured behind the physics of each layer.
    physics_options : dict
        Options of the physics itself: see its module.
    tunable : int
        Physical elements per layer that can be tuned; 0: the maps are all there is to train.
    skip : bool
        Whether what drives the physics also goes past it into the map.
    response : str
        What becomes of a map's outputs before they drive the next layer, one of `RESPONSES`.
    labels : bool
        Whether one more input per output is kept free for a label.
    ablation : str
        One of `ABLATIONS`.
    twin_pairs, twin_hidden, twin_epochs : int
        Measured pairs per layer that a twin is fitted to, and hidden units and epochs of the fit.
    """

    physics: str = "cavity"
    detectors: int = 64
    physics_options: dict[str, Any] = field(default_factory=dict)
    tunable: int = 0
    skip: bool = False
    response: str = "magnitude"
    labels: bool = True
    ablation: str = "none"
    twin_pairs: int = 2000
    twin_hidden: int = 100
    twin_epochs: int = 60

    def __post_init__(self) -> None:
        check_name("physics", self.physics, PHYSICS)
        check_name("response", self.response, RESPONSES)
        check_name("ablation", self.ablation, ABLATIONS)
        check_range("detectors", self.detectors, low=1)
        check_range("tunable", self.tunable, low=0, unit="elements")
        check_range("twin_pairs", self.twin_pairs, low=20, unit="pairs")
        check_range("twin_hidden", self.twin_hidden, low=0, unit="units")
        check_range("twin_epochs", self.twin_epochs, low=1)


OPTIONS = Options

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "cavity": {"physics": "cavity"},
    "cavity-tunable": {"physics": "cavity", "tunable": 16},
    "metasurface": {"physics": "metasurface"},
    "metasurface-tunable": {"physics": "metasurface", "tunable": 16},
    "diffractive": {"physics": "diffractive"},
}


def build(widths: Sequence[int], *, chip: Key, **options: Any) -> "PhysicalNetwork":
    """A network, its maps zero until they are programmed; parameters as in `Options`.

    Parameters
    ----------
    widths : sequence of int
        Inputs, outputs of every map; one layer of physics stands before each map.
    chip : Key
        Stream of static errors; every layer has a chip of its own.

    Raises
    ------
    InputError
        When an option is out of range, or the physics refuses its own.
    """
    chosen = Options(**options)
    if len(widths) < 2:
        raise InputError(f"widths are {tuple(widths)}; expected at least an input and an output width")
    for width in widths:
        check_range("width", width, low=1, unit="nodes")
    module: Any = importlib.import_module(f"inmaterio.simulators.{PHYSICS[chosen.physics]}")
    tuned = {"tunable": chosen.tunable} if chosen.tunable else {}
    sizes = (widths[0] + (widths[-1] if chosen.labels else 0), *widths[1:-1])
    blocks = [
        module.build((size, chosen.detectors), chip=chip.at("layer", k), **tuned, **chosen.physics_options)
        for k, size in enumerate(sizes, start=1)
    ]
    return PhysicalNetwork(blocks, tuple(int(width) for width in widths), chosen)


@final
class PhysicalNetwork(AbstractSubstrate):
    """A composite of driven physical systems and digital maps.

    Parameters are weight_k (n_k, fan-in) and bias_k (n_k,) of every map, and ``physics_k/NAME`` for what can be tuned in the
    physics of layer k. With the latter the trait ``mapped`` is gone: then not every parameter has two measured ends.

    Parameters
    ----------
    blocks : sequence of Substrate
        Physics of each layer, each with ``Forward`` and with as many inputs as drive it; called blocks so that any black box
        may stand here, one in another process as well.
    widths : tuple of int
        Inputs, outputs of every map.
    options : Options

    Raises
    ------
    InputError
        When a block lacks ``Forward`` or is of another size, or there are not as many as maps.
    """

    def __init__(self, blocks: Sequence[Any], widths: tuple[int, ...], options: Options) -> None:
        layers, labels = len(widths) - 1, widths[-1] if options.labels else 0
        if len(blocks) != layers:
            raise InputError(f"there are {len(blocks)} physical systems; expected {layers}, one before each map")
        parameters: dict[str, Parameter] = {}
        self._drives = (widths[0] + labels, *widths[1:-1])
        for k, (block, size) in enumerate(zip(blocks, self._drives, strict=True), start=1):
            if "Forward" not in block.capabilities:
                raise InputError(f"physics of layer {k} lacks capability Forward; expected one that can be driven and read")
            if block.ports["input"].size != size:
                raise InputError(f"physics of layer {k} takes {block.ports['input'].size} inputs; expected {size}")
            fan_in = size if options.ablation == "no-physics" else block.ports["output"].size + (size if options.skip else 0)
            readout = k == layers
            parameters[f"weight_{k}"] = Parameter((widths[k], fan_in), layer=k, readout=readout, digital=True)
            parameters[f"bias_{k}"] = Parameter((widths[k],), layer=k, readout=readout, digital=True)
            if options.ablation == "none":
                for name, one in block.parameters.items():
                    parameters[f"physics_{k}/{name}"] = Parameter(
                        one.shape, one.unit, one.low, one.high, k, False, one.accepts, one.initial
                    )
        ports = {"input": Port(widths[0], "1", -1.0, 1.0), "output": Port(widths[-1], "1", -np.inf, np.inf)}
        super().__init__(parameters, ports)
        self._blocks, self._widths, self._options, self._labels = tuple(blocks), widths, options, labels
        self._maps: dict[str, Floats] = {
            name: np.zeros(one.shape) for name, one in parameters.items() if not name.startswith("physics_")
        }
        signals = [block.ports["output"].size for block in blocks]
        self._mean, self._gain = [np.zeros(size) for size in signals], [np.ones(size) for size in signals]
        self._pool: list[Floats] = [np.zeros((0, size)) for size in self._drives]
        self._models: list[FittedResponse | None] = [None] * layers
        self._last: tuple[Array, tuple[Layer, ...]] | None = None

    @property
    def capabilities(self) -> frozenset[str]:
        names = {"Forward", "ReadStates", "ReadLayers", "InjectNode", "PerturbParameters", "Program", "ReadBack", "Twin"}
        if self._options.ablation == "none":
            names |= {"Identification"}
        if self._labels:
            names |= {"InjectLabel"}
        ablated = self._options.ablation != "none"
        if ablated or all("Adjoint" in block.capabilities for block in self._blocks):
            names |= {"Adjoint"}
        tunable = [block for block in self._blocks if block.parameters]
        if not ablated and any("PerturbParameters" not in block.capabilities for block in tunable):
            names -= {"PerturbParameters"}
        return frozenset(names)

    @property
    def traits(self) -> frozenset[str]:
        tuned = any(name.startswith("physics_") for name in self._parameters)
        return frozenset() if tuned else frozenset({"mapped"})

    @property
    def clock_s(self) -> float:
        """Time the physics has taken, in s: the layers work one after the other; the host's time is not modelled."""
        return float(sum(block.clock_s for block in self._blocks))

    @property
    def requested(self) -> Mapping[str, Array]:
        """What was asked for by the last writes: known without a reading."""
        physical = {name: one for block in self._tuned_values() for name, one in block.items()}
        return {name: self._maps[name].copy() if name in self._maps else physical[name].copy() for name in self._parameters}

    @property
    def fidelity(self) -> tuple[float, ...]:
        """R^2 of the fitted model of each layer on pairs held out; empty before a fit."""
        return tuple(model.fidelity for model in self._models if model is not None)

    def attach(self, ledger: Ledger, role: str) -> None:
        """Count the physics' events in this ledger under this role, and the maps' under ``"host"``."""
        super().attach(ledger, role)
        for block in self._blocks:
            block.attach(_WithoutSamples(ledger), role)

    def wait(self, seconds: float) -> None:
        """Let time pass for the physics of every layer."""
        for block in self._blocks:
            block.wait(seconds)

    def disturb(self, size: float, key: Key) -> None:
        """Change the physics of every layer for good by a relative `size`: for experiments, never for a rule."""
        for k, block in enumerate(self._blocks, start=1):
            block.disturb(size, key.at("layer", k))

    def calibrate(self, inputs: Array, samples: Samples, key: Key) -> None:
        """Measure mean and spread of every detector once, layer by layer, and z-score the detectors with them from now on.

        Program the first values of the maps before. A detector that does not vary is held at zero. The drives met are kept for
        fits. Under ``linear-physics`` the linear map is fitted now; under ``no-physics`` nothing is measured.
        """
        check_range("rows to calibrate on", len(inputs), low=2)
        drive, skip = self._first_drive(inputs, None)
        for k, block in enumerate(self._blocks):
            self._pool[k] = drive[:CALIBRATION_DRIVES].copy()
            if self._options.ablation != "no-physics":
                measured = block.forward(drive, samples=samples, key=key.at("layer", k + 1))
                spread = measured.std(axis=0)
                varies = spread > CONSTANT * np.abs(measured).max(axis=0)
                self._mean[k] = measured.mean(axis=0)
                self._gain[k] = np.where(varies, 1.0 / np.where(varies, spread, 1.0), 0.0)
                self._count_host(k + 1, macs=2 * measured.size, words=2 * measured.size + 2 * len(spread))
            if self._options.ablation == "linear-physics":
                self._fit(k, hidden=0, key=key.at("fit", k + 1))
            layer = self._map(k, drive, skip, samples, key.at("again", k + 1))
            drive, skip = self._next_drive(layer.outputs, k + 1)
        self._tally("sample", len(np.unique(samples)))

    def layers(
        self, inputs: Array, *, samples: Samples, key: Key, labels: Array | None = None, depth: int | None = None
    ) -> tuple[Layer, ...]:
        """Every map as it was met: a pass of the physics per layer and row.

        Raises
        ------
        InputError
            When inputs or labels do not fit, labels are given to a network without places for them, or the depth is none of its.
        """
        return self._pass(inputs, samples, key, labels=labels, depth=depth)

    def states(self, inputs: Array, *, samples: Samples, key: Key) -> tuple[Array, ...]:
        """What enters the map of every layer, and the outputs."""
        layers = self._pass(inputs, samples, key)
        return (*(layer.features for layer in layers), layers[-1].outputs)

    def forward(self, inputs: Array, *, samples: Samples, key: Key) -> Array:
        """Outputs (batch, outputs) of the last map."""
        return self._pass(inputs, samples, key)[-1].outputs

    def inject(self, inputs: Array, offsets: tuple[Array, ...], *, samples: Samples, key: Key) -> Array:
        """Outputs while known offsets (batch, n_k) are added to what leaves each map.

        Raises
        ------
        InputError
            When there is not one array of offsets per map.
        """
        for k, (width, offset) in enumerate(zip(self._widths[1:], offsets, strict=False), start=1):
            check_array(f"offset behind map {k}", offset, shape=(len(inputs), width))
        if len(offsets) != len(self._blocks):
            raise InputError(f"there are {len(offsets)} arrays of offsets; expected {len(self._blocks)}, one per map")
        return self._pass(inputs, samples, key, offsets=offsets)[-1].outputs

    def perturbed(self, inputs: Array, changes: Mapping[str, Array], *, samples: Samples, key: Key) -> Array:
        """Outputs while the named parameters hold their values plus `changes`.

        Raises
        ------
        InputError
            When a parameter is unknown or a change does not fit it.
        """
        words = 0
        for name, change in changes.items():
            parameter = self._parameters[check_name("parameter", name, self._parameters)]
            words += check_array(f"change of {name}", change, shape=parameter.shape, unit=parameter.unit).size
        self._count_host(0, operations=words, words=2 * words)
        return self._pass(inputs, samples, key, changes=changes)[-1].outputs

    def adjoint(self, inputs: Array, gradient: Array, *, samples: Samples, key: Key) -> Backward:
        """Gradient of each sample's loss, carried back through the maps in the host and through the physics by experiment.

        The readings of the last pass are held; where that was of other inputs, a pass is made first. Every layer then takes
        the forward and the adjoint pass of its own experiment; the first one only where its physics has parameters.

        Raises
        ------
        InputError
            When a layer's physics allows no adjoint experiment, or the gradient does not fit.
        """
        if "Adjoint" not in self.capabilities:
            raise InputError("the physics of a layer lacks capability Adjoint: no experiment on it gives the gradient")
        wanted = np.asarray(check_array("gradient", gradient, shape=(len(inputs), self._widths[-1])), dtype=np.float64)
        if self._last is None or not np.array_equal(self._last[0], inputs):
            self._pass(inputs, samples, key.at("forward"))
        assert self._last is not None
        layers = self._last[1]
        found: dict[str, Estimate] = {}
        toward = np.zeros((len(inputs), self._drives[0]))
        for k in range(len(layers) - 1, -1, -1):
            weight = self._maps[f"weight_{k + 1}"]
            found[f"weight_{k + 1}"] = Outer(wanted, layers[k].features)
            found[f"bias_{k + 1}"] = wanted.mean(axis=0)
            block = self._blocks[k]
            tuned = self._options.ablation == "none" and bool(block.parameters)
            if k == 0 and not tuned:
                break
            drive, _ = self._first_drive(inputs, None) if k == 0 else self._drive_of(layers[k - 1].outputs)
            back = wanted @ weight
            self._count_host(k + 1, macs=len(inputs) * weight.size, words=weight.size + back.size)
            signals = 0 if self._options.ablation == "no-physics" else len(self._mean[k])
            on_skip = back[:, signals:] if self._options.skip or not signals else np.zeros_like(drive)
            on_drive = np.zeros_like(drive)
            if self._options.ablation == "linear-physics":
                model = self._model(k)
                on_drive = (back[:, :signals] * self._gain[k]) @ model.linear[:, :-1]
                self._count_host(k + 1, macs=len(inputs) * model.linear.size)
            elif signals:
                measured = block.adjoint(drive, back[:, :signals] * self._gain[k], samples=samples, key=key.at("layer", k + 1))
                found |= {f"physics_{k + 1}/{name}": one for name, one in measured.parameters.items()}
                on_drive = measured.inputs
            if k == 0:
                toward = on_drive + on_skip
            else:
                wanted = pull_drive(layers[k - 1].outputs, on_drive, on_skip, self._options.response)
                self._count_host(k, operations=6 * wanted.size, words=2 * wanted.size)
        return Backward({name: found[name] for name in self._parameters}, toward[:, : self._widths[0]])

    def identify(self, *, key: Key) -> float:
        """Measure fresh pairs on every layer and fit its model; the mean over layers of R^2 on the pairs held out.

        A third of the drives are those kept from the calibration, a third these scaled and mixed with random ones, the rest
        uniform; tuned values are drawn uniformly from their ranges, in units of the range.
        """
        for k in range(len(self._blocks)):
            self._fit(k, hidden=self._options.twin_hidden, key=key.at("identify", k + 1))
        return float(np.mean(self.fidelity))

    def twin(self) -> Any:
        """Differentiable model at the values requested by now: exact maps, fitted physics.

        Fitted when it is first asked for, which is counted where it happens. Called with what `states` measured it is linearised
        there: outputs are the measured ones, and only the physics' slopes are the model's.
        """
        if self._options.ablation != "no-physics" and any(model is None for model in self._models):
            if self._options.ablation == "linear-physics":
                raise InputError("the linear map in place of the physics is not fitted; calibrate the network first")
            self.identify(key=Key(0).at("first identification"))
        tuned = {name: one for block in self._tuned_values() for name, one in block.items()}
        return make_twin(self._maps, tuned, self._scales(), self._models, self._options, self._labels)

    def program(self, requests: Mapping[str, Request], *, key: Key) -> None:
        """Write maps exactly, in the host's memory, and physical parameters through their devices.

        Raises
        ------
        InputError
            When a parameter is unknown or values do not fit; nothing is written then.
        """
        values: dict[str, Floats] = {}
        physical: list[dict[str, Request]] = [{} for _ in self._blocks]
        work = []
        for name, request in requests.items():
            check_request(name, request, self._parameters[check_name("parameter", name, self._parameters)])
            layer = self._parameters[name].layer
            if name.startswith("physics_"):
                physical[layer - 1][name.partition("/")[2]] = request
                continue
            change = request.dense() if isinstance(request, Outer) else request.values
            held = 0.0 if isinstance(request, Write) else self._maps[name]
            with np.errstate(over="ignore"):  # refused in the next line
                values[name] = held + np.asarray(change, dtype=np.float64)
            check_array(name, values[name])
            macs = request.macs if isinstance(request, Outer) else 0
            work.append(
                (
                    layer,
                    macs,
                    change.size if isinstance(request, Add) else 0,
                    change.size * (1 if isinstance(request, Write) else 2),
                )
            )
        for k, (block, asked) in enumerate(zip(self._blocks, physical, strict=True), start=1):
            if asked:
                block.program(asked, key=key.at("layer", k))
        self._tally("program_call", 1)
        for layer, macs, operations, words in work:
            self._count_host(layer, macs=macs, operations=operations, words=words)
        self._maps |= values
        self._last = None

    def read_back(self, *, key: Key) -> Mapping[str, Array]:
        """Maps exactly, physical parameters as their devices read."""
        values: dict[str, Array] = {}
        for name in self._parameters:
            if not name.startswith("physics_"):
                values[name] = self._maps[name].copy()
                self._count_host(self._parameters[name].layer, words=values[name].size)
        for k, block in enumerate(self._blocks, start=1):
            if any(name.startswith(f"physics_{k}/") for name in self._parameters):
                values |= {f"physics_{k}/{name}": one for name, one in block.read_back(key=key.at("layer", k)).items()}
        return {name: values[name] for name in self._parameters}

    def snapshot(self) -> dict[str, Any]:
        """Maps, calibration, fitted models, and the physics' own snapshots under ``layer_k/``."""
        own: dict[str, Any] = {name: one.copy() for name, one in self._maps.items()}
        for k, block in enumerate(self._blocks):
            place = f"layer_{k + 1}"
            own |= {
                f"{place}/mean": self._mean[k].copy(),
                f"{place}/gain": self._gain[k].copy(),
                f"{place}/drives": self._pool[k].copy(),
            }
            model = self._models[k]
            own |= {} if model is None else {f"{place}/model/{name}": one for name, one in model.to_arrays().items()}
            own |= {f"{place}/physics/{name}": one for name, one in block.snapshot().items()}
        return own

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go back to a snapshot, to the same bits.

        Raises
        ------
        InputError
            When an entry is missing or does not fit.
        """
        maps = {}
        for name, values in self._maps.items():
            check_name("entry of the snapshot", name, snapshot)
            maps[name] = np.array(check_array(name, snapshot[name], shape=values.shape), dtype=np.float64)
        for k, block in enumerate(self._blocks):
            place = f"layer_{k + 1}/"
            for name in ("mean", "gain", "drives"):
                check_name("entry of the snapshot", place + name, snapshot)
            inner = {name.removeprefix(place): value for name, value in snapshot.items() if name.startswith(place)}
            shape = self._mean[k].shape
            check_array(f"{place}mean", inner["mean"], shape=shape)
            check_array(f"{place}gain", inner["gain"], shape=shape)
            block.restore({name.removeprefix("physics/"): one for name, one in inner.items() if name.startswith("physics/")})
            self._mean[k], self._gain[k] = np.array(inner["mean"]), np.array(inner["gain"])
            self._pool[k] = np.array(inner["drives"])
            model = {name.removeprefix("model/"): one for name, one in inner.items() if name.startswith("model/")}
            self._models[k] = FittedResponse.from_arrays(model) if model else None
        self._maps, self._last = maps, None

    def oracle(self) -> NetworkOracle | None:
        """The exact network of this very chip; None where the physics of a layer has no exact model."""
        if self._options.ablation == "none":
            physics = [block.oracle() for block in self._blocks]
            if any(not hasattr(one, "pullback") for one in physics):
                return None
        else:
            physics = [None] * len(self._blocks)
        maps = {name: one.copy() for name, one in self._maps.items()}
        return NetworkOracle(
            maps, physics, self._scales(), list(self._models), self._options, self._labels, self._ports["output"]
        )

    def _pass(
        self,
        inputs: Array,
        samples: Samples,
        key: Key,
        *,
        labels: Array | None = None,
        depth: int | None = None,
        offsets: tuple[Array, ...] | None = None,
        changes: Mapping[str, Array] | None = None,
    ) -> tuple[Layer, ...]:
        checked = check_batch(inputs, samples, self._ports["input"])
        depth = (
            len(self._blocks) if depth is None else int(check_range("depth", depth, low=1, high=len(self._blocks), unit="layers"))
        )
        drive, skip = self._first_drive(checked, labels)
        found = []
        for k in range(depth):
            layer = self._map(k, drive, skip, samples, key.at("layer", k + 1), changes)
            if offsets is not None:
                layer = Layer(layer.features, layer.outputs + np.asarray(offsets[k], dtype=np.float64))
                self._count_host(k + 1, operations=layer.outputs.size, words=layer.outputs.size)
            found.append(layer)
            if k + 1 < depth:
                drive, skip = self._next_drive(layer.outputs, k + 1)
        self._tally("sample", len(np.unique(samples)))
        plain = labels is None and offsets is None and changes is None and depth == len(self._blocks)
        self._last = (np.array(inputs), tuple(found)) if plain else None
        return tuple(found)

    def _first_drive(self, inputs: Array, labels: Array | None) -> tuple[Floats, Floats]:
        """Drive and skip of the first layer: the data, with the label or zeros behind it."""
        data = np.asarray(inputs, dtype=np.float64)
        if labels is not None and not self._labels:
            raise InputError("labels were given to a network without inputs for them; expected option labels = true")
        if self._labels:
            shape = (len(data), self._labels)
            given = np.zeros(shape) if labels is None else check_array("labels", labels, shape=shape, low=-1.0, high=1.0)
            data = np.concatenate([data, np.asarray(given, dtype=np.float64)], axis=1)
        return data, data

    def _drive_of(self, outputs: Array) -> tuple[Floats, Floats]:
        normal = normalise(outputs, self._options.response)
        return np.clip(normal / DRIVE_REACH, -1.0, 1.0), normal

    def _next_drive(self, outputs: Array, layer: int) -> tuple[Floats, Floats]:
        # response, square and sum, root, division, scaling
        self._count_host(layer, macs=outputs.size, operations=3 * outputs.size + len(outputs), words=2 * outputs.size)
        return self._drive_of(outputs)

    def _map(
        self, k: int, drive: Floats, skip: Floats, samples: Samples, key: Key, changes: Mapping[str, Array] | None = None
    ) -> Layer:
        """One layer: physics, calibration, map."""
        batch, changes = len(drive), changes or {}
        if self._options.ablation == "no-physics":
            features = skip
        else:
            if self._options.ablation == "linear-physics":
                signals = self._model(k).respond(drive)
                self._count_host(k + 1, macs=batch * self._model(k).linear.size, words=self._model(k).linear.size + signals.size)
            else:
                place = f"physics_{k + 1}/"
                physical = {name.removeprefix(place): one for name, one in changes.items() if name.startswith(place)}
                block = self._blocks[k]
                if physical:
                    signals = block.perturbed(drive, physical, samples=samples, key=key)
                else:
                    signals = block.forward(drive, samples=samples, key=key)
            features = self._gain[k] * (signals - self._mean[k])
            if self._options.skip:
                features = np.concatenate([features, skip], axis=1)
        weight, bias = self._maps[f"weight_{k + 1}"], self._maps[f"bias_{k + 1}"]
        weight = weight + changes.get(f"weight_{k + 1}", 0.0)
        bias = bias + changes.get(f"bias_{k + 1}", 0.0)
        outputs = features @ weight.T + bias
        scaled = 0 if self._options.ablation == "no-physics" else batch * len(self._mean[k])
        words = weight.size + bias.size + batch * (features.shape[1] + len(bias))
        self._count_host(k + 1, macs=batch * weight.size + scaled, operations=batch * len(bias), words=words)
        return Layer(features, outputs)

    def _fit(self, k: int, *, hidden: int, key: Key) -> None:
        """Measure pairs of drive and response on one layer and fit its model."""
        block, pairs, size = self._blocks[k], self._options.twin_pairs, self._drives[k]
        rng = key.at("drives").generator()
        drive = rng.uniform(-1.0, 1.0, (pairs, size))
        pool, third = self._pool[k], pairs // 3
        if len(pool):
            drive[:third] = pool[rng.integers(len(pool), size=third)]
            scale = rng.uniform(0.3, 1.5, (third, 1))
            drive[third : 2 * third] = np.clip(
                scale * pool[rng.integers(len(pool), size=third)] + 0.1 * drive[third : 2 * third], -1, 1
            )
        samples = np.arange(pairs)
        inputs, responses = drive, None
        tuned = dict(block.parameters.items()) if self._options.ablation == "none" else {}
        if tuned:
            # one setting of the physics per group of drives: a setting is written, then several drives are read
            values, groups = [], np.array_split(samples, max(1, pairs // 20))
            measured = []
            held = block.read_back(key=key.at("read back"))
            for i, rows in enumerate(groups):
                setting = {name: rng.uniform(one.low, one.high, one.shape) for name, one in tuned.items()}
                change = {name: setting[name] - held[name] for name in tuned}
                measured.append(block.perturbed(drive[rows], change, samples=rows, key=key.at("pairs", i)))
                values.append(np.repeat([np.concatenate([setting[name].ravel() for name in tuned])], len(rows), axis=0))
            inputs = np.concatenate([drive, np.concatenate(values)], axis=1)
            responses = np.concatenate(measured)
        else:
            responses = block.forward(drive, samples=samples, key=key.at("pairs"))
        self._models[k] = fit_response(
            inputs, responses, hidden=hidden, epochs=self._options.twin_epochs, key=key.at("fit"), ledger=self._ledger
        )

    def _model(self, k: int) -> FittedResponse:
        model = self._models[k]
        if model is None:
            raise InputError("the linear map in place of the physics is not fitted; calibrate the network first")
        return model

    def _scales(self) -> list[tuple[Floats, Floats]]:
        return [(mean.copy(), gain.copy()) for mean, gain in zip(self._mean, self._gain, strict=True)]

    def _tuned_values(self) -> list[dict[str, Floats]]:
        """Requested values of the physical parameters of each layer: what the host asked for, known without a reading."""
        if self._options.ablation != "none":
            return []
        return [
            {f"physics_{k}/{name}": np.asarray(one) for name, one in block.requested.items()} if block.parameters else {}
            for k, block in enumerate(self._blocks, start=1)
        ]

    def _count_host(self, layer: int, *, macs: int = 0, operations: int = 0, words: int = 0) -> None:
        component = f"map {layer}" if layer else "maps"
        for event, amount in (("mac_fp32", macs), ("alu_fp32", operations), ("byte_sram", WORD_BYTES * words)):
            if amount:
                self._ledger.count("host", component, event, amount)


@final
class _WithoutSamples:
    """The ledger as a layer's physics sees it: a sample that passes through several layers is still one sample."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def tally(self, role: str, name: str, amount: float) -> None:
        if name not in ("sample", "program_call"):
            self._ledger.tally(role, name, amount)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)
