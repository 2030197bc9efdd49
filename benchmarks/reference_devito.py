"""Reference: the scalar wave by devito, in a process of its own; answers lines of JSON (see ``peer_process.py``).

devito writes C for the same scheme (second order in space and time), compiles it and runs it with one thread. Its own way to let
waves leave is damping in strips, m u_tt + damp u_t = lap u, which is cheaper per cell of a strip than a matched layer.
"""

import contextlib
import json
import os
import sys
from typing import Any


class Job:
    """One operator and what it works on."""

    def __init__(self, inputs: str, absorbing_cells: int) -> None:
        os.environ["DEVITO_LOGGING"] = "ERROR"
        os.environ["DEVITO_LANGUAGE"] = "C"
        import numpy as np
        from devito import (  # type: ignore[import-not-found]
            Eq,
            Function,
            Grid,
            Operator,
            SparseTimeFunction,
            TimeFunction,
            solve,
        )

        given = np.load(inputs)
        speed, spacing, self._step = given["speed"], float(given["spacing"]), float(given["step"])
        self._steps = len(given["source"])
        extent = tuple((n - 1) * spacing for n in speed.shape)
        grid = Grid(shape=speed.shape, extent=extent, dtype=np.float32)
        field = TimeFunction(name="u", grid=grid, time_order=2, space_order=2)
        slowness = Function(name="m", grid=grid, space_order=2)
        slowness.data[:] = speed**-2.0
        equation = slowness * field.dt2 - field.laplace
        if absorbing_cells:
            damping = Function(name="damp", grid=grid, space_order=2)
            damping.data[:] = given["damping"] * speed**-2.0
            equation = equation + damping * field.dt
        source = SparseTimeFunction(name="source", grid=grid, npoint=1, nt=self._steps + 1)
        source.coordinates.data[:] = given["source_cell"] * spacing
        source.data[:-1, 0] = given["source"]
        self._probe = SparseTimeFunction(name="probe", grid=grid, npoint=1, nt=self._steps + 1)
        self._probe.coordinates.data[:] = given["probe_cell"] * spacing
        dt = grid.stepping_dim.spacing
        update = Eq(field.forward, solve(equation, field.forward))
        injected = source.inject(field=field.forward, expr=source * dt**2 / slowness)
        self._operator = Operator([update, injected, self._probe.interpolate(expr=field.forward)])
        self._field = field

    def run(self) -> None:
        self._field.data[:] = 0.0
        self._operator.apply(time_m=0, time_M=self._steps - 1, dt=self._step)

    def trace(self) -> list[float]:
        return [float(value) for value in self._probe.data[: self._steps, 0]]


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
