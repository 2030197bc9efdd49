"""A black box in another process: it can be driven and read over a pipe, and nothing else is known of it.

The process runs `BOX`, which knows numpy alone. `RemoteBlackBox` stands for it here and notes whatever crosses the pipe.
"""

import pickle
import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, final

import numpy as np

from inmaterio.devices.randomness import Key
from inmaterio.simulators.capabilities import Array, Port, Samples
from inmaterio.simulators.physical_network import Options, PhysicalNetwork
from inmaterio.simulators.substrate import AbstractSubstrate, check_batch

BOX = """
import os, pickle, sys
import numpy as np

inputs, outputs, seed, noise = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
rng = np.random.default_rng(seed)
mixing = 1.5 * rng.normal(size=(outputs, inputs)) * np.sqrt(3 / inputs)
pickle.dump(os.getpid(), sys.stdout.buffer)
while True:
    sys.stdout.buffer.flush()
    try:
        drive = pickle.load(sys.stdin.buffer)
    except EOFError:
        break
    signals = np.tanh(drive @ mixing.T) / 0.7
    pickle.dump(signals + noise * rng.normal(size=signals.shape), sys.stdout.buffer)
"""
"""A random medium whose noise is its own: it knows nothing of keys and samples."""


@final
class RemoteBlackBox(AbstractSubstrate):
    """One black box of (inputs, outputs); `driven` and `answered` hold what was sent and what came back, in order."""

    capabilities = frozenset({"Forward"})
    traits: frozenset[str] = frozenset()

    def __init__(self, widths: tuple[int, int], seed: int, noise: float = 0.0) -> None:
        super().__init__({}, {"input": Port(widths[0], "1", -1.0, 1.0), "output": Port(widths[1], "1", -np.inf, np.inf)})
        command = [sys.executable, "-c", BOX, *map(str, (*widths, seed, noise))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.driven: list[Array] = []
        self.answered: list[Array] = []
        self.process = 0

    def forward(self, inputs: Array, *, samples: Samples, key: Key) -> Array:
        checked = check_batch(inputs, samples, self._ports["input"])
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if not self.process:
            self.process = int(pickle.load(self._process.stdout))
        pickle.dump(np.array(checked), self._process.stdin)
        self._process.stdin.flush()
        answer = np.asarray(pickle.load(self._process.stdout))
        self._tally("device_pass", len(checked))
        self._tally("sample", len(np.unique(samples)))
        self.driven.append(np.array(checked))
        self.answered.append(answer.copy())
        return answer

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait(timeout=30)

    def snapshot(self) -> dict[str, Any]:
        return {"clock_s": self._clock_s}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        self._clock_s = float(snapshot["clock_s"])

    def oracle(self) -> None:
        """No model is known."""


@final
class RemoteNetwork:
    """A physical network whose layers are boxes in processes of their own, for the length of a ``with`` block."""

    def __init__(
        self, widths: tuple[int, ...], seeds: tuple[int, ...], *, detectors: int, noise: float = 0.0, **options: Any
    ) -> None:
        sizes = (widths[0] + widths[-1], *widths[1:-1])
        self.boxes = [RemoteBlackBox((size, detectors), seed, noise) for size, seed in zip(sizes, seeds, strict=True)]
        self.substrate = PhysicalNetwork(self.boxes, widths, Options(detectors=detectors, **options))

    def __enter__(self) -> "RemoteNetwork":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for box in self.boxes:
            box.close()
