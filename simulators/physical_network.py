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

Two ablations stand in for the physics in controls: ``no-physics`` (the maps are fed by the drive itself, z-scored likewise)
and ``linear-physics`` (by the best linear map from drive to response, of the same size, fitted to the pairs that the
calibration measured).

Source of the architecture: Momeni, Rahmani, Mallejac, del Hougne and Fleury, Science 382, 1297 (2023).
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from inmaterio.simulators.physical_layer import ABLATIONS, FitSettings, PhysicalLayer
from inmaterio.simulators.physical_network_model import (
    RESPONSES,
    NetworkOracle,
    drive_of,
    make_twin,
    pull_drive,
)
from inmaterio.simulators.substrate import AbstractSubstrate, check_batch, check_request

Floats = NDArray[np.float64]

PHYSICS: Mapping[str, str] = {
    "cavity": "cavity",
    "metasurface": "metasurface",
    "diffractive": "diffractive_layers",
    "fisher-kpp": "fisher_kpp",
}
"""Modules that build physics, by name: a new kind of physics adds a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a physical network is made.

    Attributes
    ----------
    physics : str
        One of `PHYSICS`.
    detectors : int
        Signals measured behind the physics of each layer; 0: as many as drive it, so that a map has as many parameters with the
        physics as with anything that stands in for it.
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
    detectors: int = 0
    physics_options: dict[str, Any] = field(default_factory=dict)
    tunable: int = 0
    skip: bool = False
    response: str = "positive"
    labels: bool = True
    ablation: str = "none"
    twin_pairs: int = 3000
    twin_hidden: int = 100
    twin_epochs: int = 100

    def __post_init__(self) -> None:
        check_name("physics", self.physics, PHYSICS)
        check_name("response", self.response, RESPONSES)
        check_name("ablation", self.ablation, ABLATIONS)
        check_range("detectors", self.detectors, low=0)
        check_range("tunable", self.tunable, low=0, unit="elements")
        check_range("twin_pairs", self.twin_pairs, low=20, unit="pairs")
        check_range("twin_hidden", self.twin_hidden, low=0, unit="units")
        check_range("twin_epochs", self.twin_epochs, low=1)


OPTIONS = Options

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "cavity": {"physics": "cavity"},
    "linear-cavity": {"physics": "cavity", "physics_options": {"quadratic": 0.0, "cubic": 0.0}},
    "cubic-cavity": {"physics": "cavity", "physics_options": {"quadratic": 0.0, "cubic": 0.0, "medium_hz": 1500.0}},
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
        module.build((size, chosen.detectors or size), chip=chip.at("layer", k), **tuned, **chosen.physics_options)
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
        Physics of each layer, each with ``Forward`` and with as many inputs as drive it; any black box may stand here, one in
        another process as well.
    widths : tuple of int
        Inputs, outputs of every map.
    options : Options

    Raises
    ------
    InputError
        When a block lacks ``Forward`` or is of another size, or there are not as many as maps.
    """

    def __init__(self, blocks: Sequence[Any], widths: tuple[int, ...], options: Options) -> None:
        if len(blocks) != len(widths) - 1:
            raise InputError(f"there are {len(blocks)} physical systems; expected {len(widths) - 1}, one before each map")
        self._labels = widths[-1] if options.labels else 0
        settings = FitSettings(options.twin_pairs, options.twin_hidden, options.twin_epochs)
        sizes = (widths[0] + self._labels, *widths[1:-1])
        self._layers = tuple(
            PhysicalLayer(block, k, size, options.ablation, settings)
            for k, (block, size) in enumerate(zip(blocks, sizes, strict=True), start=1)
        )
        parameters: dict[str, Parameter] = {}
        for layer, width in zip(self._layers, widths[1:], strict=True):
            k, readout = layer.number, layer.number == len(blocks)
            fan_in = layer.signals + (layer.drives if options.skip else 0)
            parameters[f"weight_{k}"] = Parameter((width, fan_in), layer=k, readout=readout, digital=True)
            parameters[f"bias_{k}"] = Parameter((width,), layer=k, readout=readout, digital=True)
            parameters |= {f"physics_{k}/{name}": replace(one, layer=k, readout=False) for name, one in layer.tuned.items()}
        ports = {"input": Port(widths[0], "1", -1.0, 1.0), "output": Port(widths[-1], "1", -np.inf, np.inf)}
        super().__init__(parameters, ports)
        self._widths, self._options = widths, options
        self._maps: dict[str, Floats] = {name: np.zeros(one.shape) for name, one in parameters.items() if one.digital}
        self._last: tuple[Array, tuple[Layer, ...]] | None = None
        self._waited_s = 0.0
        self.attach(self._ledger, self._role)

    @property
    def capabilities(self) -> frozenset[str]:
        names = {"Forward", "ReadStates", "ReadLayers", "InjectNode", "PerturbParameters", "Program", "ReadBack", "Twin"}
        names |= {"Identification"} | ({"InjectLabel"} if self._labels else set())
        blocks = [layer.block for layer in self._layers] if self._options.ablation == "none" else []
        if all("Adjoint" in block.capabilities for block in blocks):
            names |= {"Adjoint"}
        if any(block.parameters and "PerturbParameters" not in block.capabilities for block in blocks):
            names -= {"PerturbParameters"}
        return frozenset(names)

    @property
    def traits(self) -> frozenset[str]:
        return frozenset({"mapped"}) if all(one.digital for one in self._parameters.values()) else frozenset()

    @property
    def clock_s(self) -> float:
        """Time the physics has taken, in s: the layers work one after the other; the host's time is not modelled."""
        # all layers wait at the same time
        return float(sum(layer.block.clock_s for layer in self._layers)) - (len(self._layers) - 1) * self._waited_s

    @property
    def requested(self) -> Mapping[str, Array]:
        """What was asked for by the last writes: known without a reading."""
        values = {**self._maps, **self._tuned_values()}
        return {name: values[name].copy() for name in self._parameters}

    @property
    def fidelity(self) -> tuple[float, ...]:
        """R^2 of the fitted model of each layer on pairs held out; empty before a fit."""
        return tuple(layer.model.fidelity for layer in self._layers if layer.model is not None)

    def attach(self, ledger: Ledger, role: str) -> None:
        """Count the physics' events in this ledger under this role, and the maps' under ``"host"``."""
        super().attach(ledger, role)
        for layer in self._layers:
            layer.attach(ledger, role)

    def wait(self, seconds: float) -> None:
        """Let time pass for the physics of every layer."""
        for layer in self._layers:
            layer.wait(seconds, first=layer.number == 1)
        self._waited_s += seconds

    def disturb(self, size: float, key: Key) -> None:
        """Change the physics of every layer for good by a relative `size`: for experiments, never for a rule."""
        for layer in self._layers:
            if not callable(getattr(layer.block, "disturb", None)):
                raise InputError(f"the physics of layer {layer.number} has no disturb; expected one that can be changed for good")
        for layer in self._layers:
            layer.block.disturb(size, key.at("layer", layer.number))
        self._last = None

    def calibrate(self, inputs: Array, samples: Samples, key: Key) -> None:
        """Measure mean and spread of every detector once, layer by layer, and z-score the detectors with them from now on.

        Program the first values of the maps before. Where labels can be driven in, every other row has a random one. A detector
        that does not vary is held at zero. The drives met are kept for fits. Under ``linear-physics`` the linear map is fitted
        now; under ``no-physics`` the drives themselves are z-scored.
        """
        check_range("rows to calibrate on", len(inputs), low=2)
        labels = None
        if self._labels:
            labels = np.eye(self._labels)[key.at("labels").generator().integers(self._labels, size=len(inputs))]
            labels[::2] = 0.0
        drive, skip = self._first_drive(inputs, labels)
        for layer in self._layers:
            layer.calibrate(drive, samples, key.at("layer", layer.number))
            if layer.number < len(self._layers):
                met = self._map(layer, drive, skip, samples, key.at("again", layer.number), {})
                drive, skip = self._next_drive(layer, met.outputs)
        self._tally("sample", len(np.unique(samples)))

    def layers(
        self, inputs: Array, *, samples: Samples, key: Key, labels: Array | None = None, depth: int | None = None
    ) -> tuple[Layer, ...]:
        """Every map as it was met: a pass of the physics per layer and row.

        Raises
        ------
        InputError
            When inputs or labels do not fit, labels are given to a network without places for them, or the depth is none of
            its.
        """
        return self._pass(inputs, samples, key, labels=labels, depth=depth)

    def states(self, inputs: Array, *, samples: Samples, key: Key) -> tuple[Array, ...]:
        """What enters the map of every layer, and the outputs."""
        met = self._pass(inputs, samples, key)
        return (*(one.features for one in met), met[-1].outputs)

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
        if len(offsets) != len(self._layers):
            raise InputError(f"there are {len(offsets)} arrays of offsets; expected {len(self._layers)}, one per map")
        for k, (width, offset) in enumerate(zip(self._widths[1:], offsets, strict=True), start=1):
            check_array(f"offset behind map {k}", offset, shape=(len(inputs), width))
        return self._pass(inputs, samples, key, offsets=offsets)[-1].outputs

    def perturbed(self, inputs: Array, changes: Mapping[str, Array], *, samples: Samples, key: Key) -> Array:
        """Outputs while the named parameters hold their values plus `changes`.

        Raises
        ------
        InputError
            When a parameter is unknown or a change does not fit it.
        """
        for name, change in changes.items():
            parameter = self._parameters[check_name("parameter", name, self._parameters)]
            size = check_array(f"change of {name}", change, shape=parameter.shape, unit=parameter.unit).size
            if parameter.digital:
                self._layers[parameter.layer - 1].count_host(operations=size, words=2 * size)
        return self._pass(inputs, samples, key, changes=changes)[-1].outputs

    def adjoint(self, inputs: Array, gradient: Array, *, samples: Samples, key: Key) -> Backward:
        """Gradient of each sample's loss, carried back through the maps in the host and through the physics by experiment.

        The readings of the last pass are held; where that was of other inputs, a pass is made first. Every layer then takes
        the forward and the adjoint pass of its own experiment; the first one only where its physics can be tuned.

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
        met = self._last[1]
        found: dict[str, Estimate] = {}
        toward = np.zeros((len(inputs), self._layers[0].drives))
        for layer in reversed(self._layers):
            k, weight = layer.number, self._maps[f"weight_{layer.number}"]
            found[f"weight_{k}"], found[f"bias_{k}"] = Outer(wanted, met[k - 1].features), wanted.mean(axis=0)
            layer.count_host(operations=wanted.size, words=wanted.size)
            if k == 1 and not layer.tuned:
                break
            drive, _ = self._first_drive(inputs, None) if k == 1 else drive_of(met[k - 2].outputs, self._options.response)
            back = wanted @ weight
            layer.count_host(macs=len(inputs) * weight.size, words=weight.size + back.size)
            measured = layer.adjoint(drive, back[:, : layer.signals], samples, key.at("layer", k))
            found |= {f"physics_{k}/{name}": one for name, one in measured.parameters.items()}
            past = back[:, layer.signals :] if back.shape[1] > layer.signals else np.zeros_like(drive)
            if k == 1:
                toward = measured.inputs + past
            else:
                wanted = pull_drive(met[k - 2].outputs, measured.inputs, past, self._options.response)
                layer.count_host(operations=6 * wanted.size, words=2 * wanted.size)
        return Backward({name: found[name] for name in self._parameters}, toward[:, : self._widths[0]])

    def identify(self, *, key: Key) -> float:
        """Measure fresh pairs on every layer and fit its model; the mean over layers of R^2 on the pairs held out.

        Under an ablation the model is what stands in for the physics: nothing is measured, and the answer is 1.
        """
        for layer in self._layers:
            layer.fit(key.at("identify", layer.number))
        return float(np.mean(self.fidelity)) if self._options.ablation == "none" else 1.0

    def twin(self) -> Any:
        """Differentiable model at the values requested by now: exact maps, fitted physics.

        Fitted when it is first asked for, which is counted where it happens. Called with what `states` measured it is linearised
        there: outputs are the measured ones, and only the physics' slopes are the model's.
        """
        if self._options.ablation == "none" and not self.fidelity:
            for layer in self._layers:
                layer.fit()
        models = [None if self._options.ablation == "no-physics" else layer.fitted() for layer in self._layers]
        return make_twin(self._maps, self._tuned_values(), self._scales(), models, self._options, self._labels)

    def program(self, requests: Mapping[str, Request], *, key: Key) -> None:
        """Write maps exactly, in the host's memory, and physical parameters through their devices.

        Raises
        ------
        InputError
            When a parameter is unknown or values do not fit; nothing is written then.
        """
        values: dict[str, Floats] = {}
        physical: list[dict[str, Request]] = [{} for _ in self._layers]
        work = []
        for name, request in requests.items():
            parameter = self._parameters[check_name("parameter", name, self._parameters)]
            check_request(name, request, parameter)
            if not parameter.digital:
                physical[parameter.layer - 1][name.partition("/")[2]] = request
                continue
            change = request.dense() if isinstance(request, Outer) else request.values
            held = 0.0 if isinstance(request, Write) else self._maps[name]
            with np.errstate(over="ignore"):  # refused in the next line
                values[name] = held + np.asarray(change, dtype=np.float64)
            check_array(name, values[name])
            macs = request.macs if isinstance(request, Outer) else 0
            added = change.size if isinstance(request, Add) else 0
            work.append((parameter.layer - 1, macs, added, change.size * (1 if isinstance(request, Write) else 2)))
        for layer, asked in zip(self._layers, physical, strict=True):
            if asked:
                layer.block.program(asked, key=key.at("layer", layer.number))
        self._tally("program_call", 1)
        for place, macs, added, words in work:
            self._layers[place].count_host(macs=macs, operations=added, words=words)
        self._maps |= values
        self._last = None

    def read_back(self, *, key: Key) -> Mapping[str, Array]:
        """Maps exactly, physical parameters as their devices read."""
        values: dict[str, Array] = {}
        for name, one in self._maps.items():
            values[name] = one.copy()
            self._layers[self._parameters[name].layer - 1].count_host(words=one.size)
        for layer in self._layers:
            if layer.tuned:
                read = layer.block.read_back(key=key.at("layer", layer.number))
                values |= {f"physics_{layer.number}/{name}": one for name, one in read.items()}
        return {name: values[name] for name in self._parameters}

    def snapshot(self) -> dict[str, Any]:
        """Maps, and what every layer keeps under ``layer_k/``."""
        own: dict[str, Any] = {"waited_s": self._waited_s, **{name: one.copy() for name, one in self._maps.items()}}
        for layer in self._layers:
            own |= {f"layer_{layer.number}/{name}": one for name, one in layer.snapshot().items()}
        return own

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go back to a snapshot, to the same bits.

        Raises
        ------
        InputError
            When an entry is missing or does not fit.
        """
        maps = {}
        check_name("entry of the snapshot", "waited_s", snapshot)
        for name, values in self._maps.items():
            check_name("entry of the snapshot", name, snapshot)
            maps[name] = np.array(check_array(name, snapshot[name], shape=values.shape), dtype=np.float64)
        for layer in self._layers:
            place = f"layer_{layer.number}/"
            layer.restore({name.removeprefix(place): one for name, one in snapshot.items() if name.startswith(place)})
        self._maps, self._last, self._waited_s = maps, None, float(snapshot["waited_s"])

    def oracle(self) -> NetworkOracle | None:
        """The exact network of this very chip; None where the physics of a layer has no exact model."""
        physics = [layer.block.oracle() if self._options.ablation == "none" else None for layer in self._layers]
        if self._options.ablation == "none" and any(not hasattr(one, "pullback") for one in physics):
            return None
        maps = {name: one.copy() for name, one in self._maps.items()}
        models = [layer.model for layer in self._layers]
        return NetworkOracle(maps, physics, self._scales(), models, self._options, self._labels, self._ports["output"])

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
        depth = len(self._layers) if depth is None else depth
        check_range("depth", depth, low=1, high=len(self._layers), unit="layers")
        drive, skip = self._first_drive(checked, labels)
        found = []
        for layer in self._layers[:depth]:
            met = self._map(layer, drive, skip, samples, key.at("layer", layer.number), changes or {})
            if offsets is not None:
                met = Layer(met.features, met.outputs + np.asarray(offsets[layer.number - 1], dtype=np.float64))
                layer.count_host(operations=met.outputs.size, words=met.outputs.size)
            found.append(met)
            if layer.number < depth:
                drive, skip = self._next_drive(layer, met.outputs)
        self._tally("sample", len(np.unique(samples)))
        plain = labels is None and offsets is None and changes is None and depth == len(self._layers)
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

    def _next_drive(self, layer: PhysicalLayer, outputs: Array) -> tuple[Floats, Floats]:
        # response, square and sum, root, division, scaling
        layer.count_host(macs=outputs.size, operations=3 * outputs.size + len(outputs), words=2 * outputs.size)
        return drive_of(outputs, self._options.response)

    def _map(
        self, layer: PhysicalLayer, drive: Floats, skip: Floats, samples: Samples, key: Key, changes: Mapping[str, Array]
    ) -> Layer:
        """One layer: physics, then map."""
        place = f"physics_{layer.number}/"
        physical = {name.removeprefix(place): one for name, one in changes.items() if name.startswith(place)}
        features = layer.features(drive, samples, key, physical)
        if self._options.skip:
            features = np.concatenate([features, skip], axis=1)
        weight, bias = (
            self._maps[name] + np.asarray(changes.get(name, 0.0)) for name in (f"weight_{layer.number}", f"bias_{layer.number}")
        )
        outputs = features @ weight.T + bias
        words = weight.size + bias.size + features.size + outputs.size
        layer.count_host(macs=len(drive) * weight.size, operations=outputs.size, words=words)
        return Layer(features, outputs)

    def _scales(self) -> list[tuple[Floats, Floats]]:
        return [(layer.mean.copy(), layer.gain.copy()) for layer in self._layers]

    def _tuned_values(self) -> dict[str, Floats]:
        """Requested values of the physical parameters: what the host asked for, known without a reading."""
        return {
            f"physics_{layer.number}/{name}": np.asarray(one)
            for layer in self._layers
            if layer.tuned
            for name, one in layer.block.requested.items()
        }
