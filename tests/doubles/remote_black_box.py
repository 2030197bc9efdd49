"""A black box in another process: it can be driven and read over a pipe, and nothing else is known of it.

Run as a program this file is the box: a random medium that answers drives from its standard input. `RemoteBlackBox` is what
stands here for it, and notes whatever crosses the pipe.
"""

import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, final

import numpy as np

from inmaterio.devices.randomness import Key
from inmaterio.simulators.capabilities import Array, Port, Samples
from inmaterio.simulators.physical_network import Options, PhysicalNetwork
from inmaterio.simulators.substrate import AbstractSubstrate, check_batch


@final
class RemoteBlackBox(AbstractSubstrate):
    """One black box of (inputs, outputs); `driven` and `answered` hold what was sent and what came back, in order."""

    capabilities = frozenset({"Forward"})
    traits: frozenset[str] = frozenset()

    def __init__(self, widths: tuple[int, int], seed: int, noise: float = 0.0) -> None:
        super().__init__({}, {"input": Port(widths[0], "1", -1.0, 1.0), "output": Port(widths[1], "1", -np.inf, np.inf)})
        command = [sys.executable, __file__, *map(str, (*widths, seed, noise))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.driven: list[Array] = []
        self.answered: list[Array] = []
        self.process = int(self._exchange("process"))

    def _exchange(self, message: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump(message, self._process.stdin)
        self._process.stdin.flush()
        return pickle.load(self._process.stdout)

    def forward(self, inputs: Array, *, samples: Samples, key: Key) -> Array:
        checked = check_batch(inputs, samples, self._ports["input"])
        self._tally("device_pass", len(checked))
        self._tally("sample", len(np.unique(samples)))
        answer = np.asarray(self._exchange((np.array(checked), np.array(samples), key.seed, key.path)))
        self.driven.append(np.array(checked))
        self.answered.append(answer.copy())
        return answer

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        assert self._process.wait(timeout=30) == 0

    def snapshot(self) -> dict[str, Any]:
        return {"clock_s": self._clock_s}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        self._clock_s = float(snapshot["clock_s"])

    def oracle(self) -> None:
        """No model is known."""


@final
class RemoteNetwork:
    """A physical network whose layers are boxes in processes of their own, for the length of a ``with`` block."""

    def __init__(self, widths: tuple[int, ...], seeds: tuple[int, ...], *, detectors: int, noise: float = 0.0, **options: Any):
        sizes = (widths[0] + widths[-1], *widths[1:-1])
        self.boxes = [RemoteBlackBox((size, detectors), seed, noise) for size, seed in zip(sizes, seeds, strict=True)]
        self.substrate = PhysicalNetwork(self.boxes, widths, Options(detectors=detectors, **options))

    def __enter__(self) -> "RemoteNetwork":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for box in self.boxes:
            box.close()


def serve(inputs: int, outputs: int, seed: int, noise: float) -> None:
    """Answer until the pipe is closed."""
    import os

    from doubles.random_medium import RandomMedium

    medium = RandomMedium((inputs, outputs), Key(seed), read_noise=noise)
    while True:
        try:
            message = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        if message == "process":
            answer: Any = os.getpid()
        else:
            drive, samples, number, path = message
            with medium.ledger.phase("evaluate"):
                answer = medium.forward(drive, samples=samples, key=Key(number, path))
        pickle.dump(answer, sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    serve(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
