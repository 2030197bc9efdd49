"""One layer of a physical network up to its map: the physics, what is known of its detectors, and what is fitted to it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_array, check_name
from inmaterio.simulators.capabilities import Array, Backward, Parameter, Samples
from inmaterio.simulators.digital_twin import WORD_BYTES
from inmaterio.simulators.fitted_response import FittedResponse, fit_response

Floats = NDArray[np.float64]

ABLATIONS = ("none", "no-physics", "linear-physics")

CALIBRATION_DRIVES = 1000
"""Drives of each layer kept from the calibration, for fits."""

CONSTANT = 1e-6
"""Spread, relative to its size, below which a detector carries nothing but rounding."""

DRIVES_PER_SETTING = 20
"""Drives measured at each setting of the tunable elements while pairs are collected: settings are slow to write."""


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How a twin is fitted: measured pairs, hidden units, epochs."""

    pairs: int
    hidden: int
    epochs: int


@final
class PhysicalLayer:
    """Physics of one layer with its detectors z-scored; under an ablation, what stands in for it.

    Parameters
    ----------
    block : Substrate
        The physics.
    number : int
        Of the layer, from 1.
    drives : int
        Numbers that drive it.
    ablation : str
        One of `ABLATIONS`.
    settings : FitSettings
    """

    def __init__(self, block: Any, number: int, drives: int, ablation: str, settings: FitSettings) -> None:
        if "Forward" not in block.capabilities:
            raise InputError(f"physics of layer {number} lacks capability Forward; expected one that can be driven and read")
        if block.ports["input"].size != drives:
            raise InputError(f"physics of layer {number} takes {block.ports['input'].size} inputs; expected {drives}")
        self.block, self.number, self.drives, self.ablation = block, number, drives, ablation
        # without physics the drive itself is what is z-scored
        width = drives if ablation == "no-physics" else block.ports["output"].size
        self.mean, self.gain = np.zeros(width), np.ones(width)
        self.model: FittedResponse | None = None
        self._settings = settings
        self._pool: Floats = np.zeros((0, drives))
        self._fit_key = Key(0, ("never calibrated",))
        self._ledger: Ledger = block.ledger
        self._role = "substrate"

    @property
    def signals(self) -> int:
        """Numbers behind the physics, or behind what stands in for it."""
        return len(self.mean)

    @property
    def tuned(self) -> dict[str, Parameter]:
        """What can be tuned in the physics, by the physics' own names."""
        return dict(self.block.parameters) if self.ablation == "none" else {}

    def attach(self, ledger: Ledger, role: str) -> None:
        """Count the physics' events in this ledger under this role, and the host's under ``"host"``."""
        self._ledger, self._role = ledger, role
        self.block.attach(_PartOfMore(ledger, ("sample", "program_call")), role)

    def wait(self, seconds: float, *, first: bool) -> None:
        """Let time pass for the physics; it passes for all layers at once, so that only the first one's is counted."""
        hidden = ("sample", "program_call") if first else ("sample", "program_call", "second")
        self.block.attach(_PartOfMore(self._ledger, hidden), self._role)
        self.block.wait(seconds)
        self.attach(self._ledger, self._role)

    def calibrate(self, drive: Floats, samples: Samples, key: Key) -> None:
        """Measure mean and spread of every detector, and keep the drives for fits.

        Under ``linear-physics`` the linear map is fitted to these very pairs; without physics the drive itself is z-scored.
        """
        self._pool = drive[:CALIBRATION_DRIVES].copy()
        self._fit_key = key.at("first identification")
        if self.ablation == "no-physics":
            measured = drive
        else:
            measured = self.block.forward(drive, samples=samples, key=key.at("detectors"))
        spread = measured.std(axis=0)
        varies = spread > CONSTANT * np.abs(measured).max(axis=0)
        self.mean = measured.mean(axis=0)
        self.gain = np.where(varies, 1.0 / np.where(varies, spread, 1.0), 0.0)
        self.count_host(macs=2 * measured.size, words=2 * measured.size + 2 * len(spread))
        if self.ablation == "linear-physics":
            self._fit_pairs(drive, measured, hidden=0, key=key.at("linear"))

    def features(self, drive: Floats, samples: Samples, key: Key, changes: Mapping[str, Array]) -> Floats:
        """z-scored signals (batch, signals) of one pass; `changes` of tunable elements are by the physics' own names."""
        if self.ablation == "no-physics":
            measured = drive
        elif self.ablation == "linear-physics":
            model = self.fitted()
            measured = model.respond(drive)
            self.count_host(macs=len(drive) * model.linear.size, words=model.linear.size + measured.size)
        elif changes:
            measured = self.block.perturbed(drive, changes, samples=samples, key=key)
        else:
            measured = self.block.forward(drive, samples=samples, key=key)
        self.count_host(macs=measured.size, words=2 * len(self.mean))
        return np.asarray(self.gain * (measured - self.mean))

    def adjoint(self, drive: Floats, gradient: Floats, samples: Samples, key: Key) -> Backward:
        """Gradient of the tunable elements and the drive from that of the z-scored signals (batch, signals)."""
        self.count_host(macs=gradient.size, words=2 * len(self.gain))
        if self.ablation == "no-physics":
            return Backward({}, gradient * self.gain)
        if self.ablation == "linear-physics":
            model = self.fitted()
            self.count_host(macs=len(drive) * model.linear.size, words=model.linear.size)
            return Backward({}, (gradient * self.gain) @ model.linear[:, :-1])
        return self.block.adjoint(drive, gradient * self.gain, samples=samples, key=key)  # type: ignore[no-any-return]

    def fit(self, key: Key | None = None) -> None:
        """Measure pairs of drive and response, and fit the model to them; what stands in under an ablation stays as it is.

        Drives are such as the layer meets: half of them those kept from the calibration, each element moved a little, so that
        slopes show; a quarter mixtures of two of those; a quarter such mixtures halfway to a uniform draw. All are uniform where
        nothing was kept. Tunable elements are drawn uniformly from their ranges, anew every few drives. Without a key that of
        the calibration is taken.
        """
        if self.ablation != "none":
            return
        key = self._fit_key if key is None else key
        pairs, pool = self._settings.pairs, self._pool
        rng = key.at("drives").generator()
        drive = rng.uniform(-1.0, 1.0, (pairs, self.drives))
        if len(pool):
            one, other = (pool[rng.integers(len(pool), size=pairs)] for _ in range(2))
            share = np.where(np.arange(pairs) < pairs // 2, 1.0, rng.uniform(0.0, 1.0, pairs))[:, None]
            far = np.where(np.arange(pairs) < 3 * pairs // 4, 0.1, 0.5)[:, None]
            drive = rng.permutation(np.clip((1.0 - far) * (share * one + (1.0 - share) * other) + far * drive, -1.0, 1.0))
        inputs, responses = self._measure(drive, rng, key)
        self._fit_pairs(inputs, responses, hidden=self._settings.hidden, key=key.at("fit"))

    def _fit_pairs(self, inputs: Floats, responses: Floats, *, hidden: int, key: Key) -> None:
        epochs, ledger = self._settings.epochs, self._ledger
        self.model = fit_response(inputs, responses, hidden=hidden, epochs=epochs, key=key, ledger=ledger)

    def _measure(self, drive: Floats, rng: np.random.Generator, key: Key) -> tuple[Floats, Floats]:
        """What the model is to be a function of, and the responses."""
        samples, tuned = np.arange(len(drive)), self.tuned
        if not tuned:
            return drive, self.block.forward(drive, samples=samples, key=key.at("pairs"))
        held = self.block.read_back(key=key.at("read back"))
        settings, measured = [], []
        for i, rows in enumerate(np.array_split(samples, max(1, len(samples) // DRIVES_PER_SETTING))):
            setting = {name: rng.uniform(one.low, one.high, one.shape) for name, one in tuned.items()}
            change = {name: setting[name] - held[name] for name in tuned}
            measured.append(self.block.perturbed(drive[rows], change, samples=rows, key=key.at("pairs", i)))
            settings.append(np.tile(np.concatenate([setting[name].ravel() for name in tuned]), (len(rows), 1)))
        return np.concatenate([drive, np.concatenate(settings)], axis=1), np.concatenate(measured)

    def fitted(self) -> FittedResponse:
        """The model.

        Raises
        ------
        InputError
            When nothing is fitted yet.
        """
        if self.model is None:
            raise InputError("the linear map in place of the physics is not fitted; calibrate the network first")
        return self.model

    def snapshot(self) -> dict[str, Any]:
        """Calibration, model, and the physics' own snapshot under ``physics/``."""
        own: dict[str, Any] = {"mean": self.mean.copy(), "gain": self.gain.copy(), "drives": self._pool.copy()}
        own |= {"key_seed": self._fit_key.seed, "key_path": json.dumps(self._fit_key.path)}
        if self.model is not None:
            own |= {f"model/{name}": one for name, one in self.model.to_arrays().items()}
        return own | {f"physics/{name}": one for name, one in self.block.snapshot().items()}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go back to a snapshot, to the same bits.

        Raises
        ------
        InputError
            When an entry is missing or does not fit.
        """
        shapes = {"mean": self.mean.shape, "gain": self.gain.shape, "drives": (None, self.drives)}
        own = {}
        for name, shape in shapes.items():
            check_name(f"entry of the snapshot of layer {self.number}:", name, snapshot)
            own[name] = np.array(check_array(name, snapshot[name], shape=shape), dtype=np.float64)
        for name in ("key_seed", "key_path"):
            check_name(f"entry of the snapshot of layer {self.number}:", name, snapshot)
        self._fit_key = Key(int(snapshot["key_seed"]), tuple(json.loads(str(snapshot["key_path"]))))
        self.block.restore({name.removeprefix("physics/"): one for name, one in snapshot.items() if name.startswith("physics/")})
        model = {name.removeprefix("model/"): one for name, one in snapshot.items() if name.startswith("model/")}
        self.model = FittedResponse.from_arrays(model) if model else None
        self.mean, self.gain, self._pool = own["mean"], own["gain"], own["drives"]

    def count_host(self, *, macs: int = 0, operations: int = 0, words: int = 0) -> None:
        """Count the host's work for this layer."""
        for event, amount in (("mac_fp32", macs), ("alu_fp32", operations), ("byte_sram", WORD_BYTES * words)):
            if amount:
                self._ledger.count("host", f"map {self.number}", event, amount)


@final
class _PartOfMore:
    """The ledger as a layer's physics sees it: a sample that passes through several layers is still one sample."""

    def __init__(self, ledger: Ledger, hidden: tuple[str, ...]) -> None:
        self._ledger, self._hidden = ledger, hidden

    def tally(self, role: str, name: str, amount: float) -> None:
        if name not in self._hidden:
            self._ledger.tally(role, name, amount)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)
