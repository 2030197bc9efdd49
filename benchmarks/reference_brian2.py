"""Reference: a spiking network by Brian2, compiled to a C++ program of its own; answers lines of JSON (see ``peer_process.py``).

The same neuron, v = leak v + I and a spike where v >= 1, once per step. Brian2 delivers a spike after its groups were updated, so
that it acts a step later than it would here, in every layer: that changes no count of spikes once all have come to rest.
"""

import contextlib
import importlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


class Job:
    """One compiled program."""

    def __init__(self, inputs: str) -> None:
        os.environ.setdefault("MAKEFLAGS", "-j2")
        import numpy as np

        # absent where types are checked, or there without types
        self._b = b = importlib.import_module("brian2")
        given = np.load(inputs)
        b.prefs.codegen.cpp.extra_compile_args_gcc = ["-w", "-O3", "-march=native", "-std=c++11"]
        b.prefs.devices.cpp_standalone.openmp_threads = 0
        b.set_device("cpp_standalone", build_on_run=False)
        dt = 1.0 * b.ms
        b.defaultclock.dt = dt
        leak = float(given["leak"])
        channels = given["weight_1"].shape[1]
        source = b.SpikeGeneratorGroup(channels, given["senders"], given["steps"] * dt)
        parts, before, self._monitors = [source], source, []
        for layer in (1, 2, 3):
            weight, delay = given[f"weight_{layer}"], given[f"delay_{layer}"]
            options = {} if layer == 3 else {"threshold": "v >= 1", "reset": "v = 0"}
            group = b.NeuronGroup(len(weight), "v : 1\nI : 1", name=f"layer_{layer}", **options)
            group.run_regularly(f"v = {leak!r}*v + I\nI = 0", when="groups")
            synapses = b.Synapses(before, group, "w : 1", on_pre="I_post += w", name=f"synapses_{layer}")
            receiver, sender = np.meshgrid(np.arange(weight.shape[0]), np.arange(weight.shape[1]), indexing="ij")
            synapses.connect(i=sender.reshape(-1), j=receiver.reshape(-1))
            synapses.w = weight.reshape(-1)
            synapses.delay = delay.reshape(-1) * dt
            parts += [group, synapses]
            if layer < 3:
                self._monitors.append(b.SpikeMonitor(group, record=False, name=f"monitor_{layer}"))
            before = group
        network = b.Network(*parts, *self._monitors)
        network.run((int(given["total"]) + 3) * dt)
        # kept while this process lives: results are read from it after each run
        self._folder = tempfile.mkdtemp()
        b.device.build(directory=self._folder, compile=True, run=False, debug=False)

    def run(self) -> None:
        self._b.device.run(self._folder, with_output=False, run_args=[])

    def loop(self) -> float:
        """Seconds that the program says its loop over time took in one more run."""
        self.run()
        seconds, _ = (Path(self._folder) / "results" / "last_run_info.txt").read_text().split()
        return float(seconds)

    def counts(self) -> list[list[int]]:
        return [[int(count) for count in monitor.count[:]] for monitor in self._monitors]


def main() -> None:
    """Answer until the input ends."""
    job: Any = None
    answers = sys.stdout
    for line in sys.stdin:
        request = json.loads(line)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                if request["do"] == "prepare":
                    job, result = Job(request["inputs"]), None
                else:
                    result = {"counts": job.counts, "loop": job.loop, "run": job.run}[request["do"]]()
            answer = {"result": result}
        except Exception as error:  # whatever it is, the other side prints it
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
