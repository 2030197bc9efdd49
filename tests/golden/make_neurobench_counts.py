"""Makes neurobench_counts.json: synaptic operations of a small spiking network, as NeuroBench counts them.

    python tests/golden/make_neurobench_counts.py

where the package neurobench 2.3.0 is installed; of what it requires, torch and snntorch are enough.

No delays, no biases, a third of the weights zero. NeuroBench sees a torch module: one ``nn.Linear`` per layer, called once per
step. Its Effective_ACs are nonzero inputs times nonzero weights where a call's inputs are all -1, 0 or 1; else the whole call
counts as Effective_MACs. It hooks ``nn.Linear`` and its like only: a layer that delays spikes counts as nothing there.
"""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.simulators.spiking_description import SpikingDescription

FILE = Path(__file__).with_name("neurobench_counts.json")
SAMPLES, STEPS, CHANNELS = 6, 40, 20
DESCRIPTION = SpikingDescription(
    (STEPS * CHANNELS, 30, 16, 5), steps=STEPS, delays="none", leak=0.875, output_leak=0.875, dtype="float64"
)


def network() -> dict[str, NDArray[np.float64]]:
    """Weights, multiples of 2^-10, from raw words of Philox, which no version of numpy may change."""
    values = {}
    for place, (name, parameter) in enumerate(DESCRIPTION.parameters().items()):
        words = (np.random.Philox(key=place).random_raw(int(np.prod(parameter.shape))) >> np.uint64(32)).astype(np.int64)
        weights = np.where(words % 3 == 0, 0, words // 3 % 900 - 300) / 1024
        values[name] = weights.reshape(parameter.shape) if name.startswith("weight") else np.zeros(parameter.shape)
    return values


def inputs(largest: int) -> NDArray[np.float64]:
    """Events (samples, steps * channels): a tenth of them, of sizes 1..largest."""
    words = (np.random.Philox(key=100 + largest).random_raw(SAMPLES * STEPS * CHANNELS) >> np.uint64(32)).astype(np.int64)
    return np.where(words % 10 == 0, 1 + words // 10 % largest, 0).reshape(SAMPLES, -1).astype(float)


def count(largest: int) -> dict[str, Any]:
    """NeuroBench's counts over all samples, and the spikes of each layer that it saw."""
    import torch
    from neurobench.hooks.layer import LayerHook
    from neurobench.metrics.workload import SynapticOperations
    from neurobench.models import TorchModel

    values = network()

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.ModuleList()
            for k, (fan_in, width) in enumerate(zip(DESCRIPTION.layer_widths, DESCRIPTION.widths[1:], strict=False), start=1):
                layer = torch.nn.Linear(fan_in, width, bias=False, dtype=torch.float64)
                layer.weight.data = torch.tensor(values[f"weight_{k}"])
                self.linear.append(layer)
            self.spikes = [0] * (len(self.linear) - 1)

        def forward(self, batch: Any) -> Any:
            membranes = [torch.zeros(len(batch), layer.out_features, dtype=torch.float64) for layer in self.linear]
            for t in range(STEPS):
                sent = batch[:, t]
                for k, layer in enumerate(self.linear):
                    membranes[k] = DESCRIPTION.leak * membranes[k] + layer(sent)
                    if k < len(self.spikes):
                        fired = membranes[k] >= DESCRIPTION.threshold
                        membranes[k] = torch.where(fired, 0.0, membranes[k])
                        self.spikes[k] += int(fired.sum())
                        sent = fired.double()
            return membranes[-1]

    events = torch.tensor(inputs(largest).reshape(SAMPLES, STEPS, CHANNELS))
    net = Net()
    model, metric = TorchModel(net), SynapticOperations()
    model.connection_hooks += [LayerHook(layer) for layer in model.connection_layers()]
    with torch.no_grad():
        found = metric(model, model(events), (events, torch.zeros(SAMPLES)))
    return {**found, "samples": SAMPLES, "spikes": net.spikes}


def main() -> None:
    versions = {name: importlib.metadata.version(name) for name in ("neurobench", "torch")}
    counts = {"made_by": versions, "binary": count(1), "counts_up_to_3": count(3)}
    FILE.write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    print(FILE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
