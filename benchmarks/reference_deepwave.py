"""Reference: the scalar wave by deepwave, in a process of its own; answers lines of JSON (see ``peer_process.py``).

deepwave runs compiled kernels of the same scheme (``accuracy=2``) with a matched layer that it adds outside the given map: here
the map is made smaller, so that all cells together are as many as ours. No gradient is asked for and no step is kept.
"""

import contextlib
import json
import sys
import warnings
from typing import Any


class Job:
    """Tensors of one run."""

    def __init__(self, inputs: str, absorbing_cells: int) -> None:
        import deepwave  # type: ignore[import-not-found]
        import numpy as np
        import torch

        torch.set_num_threads(1)
        self._torch, self._deepwave = torch, deepwave
        given = np.load(inputs)
        n = absorbing_cells
        speed = given["speed"][n : len(given["speed"]) - n, n : given["speed"].shape[1] - n]
        # deepwave adds its sources with the opposite sign
        self._arguments = {
            "v": torch.from_numpy(np.ascontiguousarray(speed, dtype=np.float32)),
            "grid_spacing": float(given["spacing"]),
            "dt": float(given["step"]),
            "source_amplitudes": torch.from_numpy(-given["source"].astype(np.float32))[None, None],
            "source_locations": torch.from_numpy(given["source_cell"] - n)[None, None],
            "receiver_locations": torch.from_numpy(given["probe_cell"] - n)[None, None],
            "accuracy": 2,
            "pml_width": n,
            "pml_freq": float(given["frequency"]),
        }
        self._trace: Any = None

    def run(self) -> None:
        with self._torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # says that edges without a layer reflect, as they are meant to
            self._trace = self._deepwave.scalar(**self._arguments)[-1]

    def trace(self) -> list[float]:
        # sample n is the field before step n, and ours after it
        return [float(value) for value in self._trace[0, 0, 1:]]


def main() -> None:
    """Answer until the input ends."""
    job: Any = None
    answers = sys.stdout
    for line in sys.stdin:
        request = json.loads(line)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                if request["do"] == "prepare":
                    job = Job(request["inputs"], request["absorbing_cells"])
                result = job.trace() if request["do"] == "trace" else job.run()
            answer = {"result": result}
        except Exception as error:  # whatever it is, the other side prints it
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
