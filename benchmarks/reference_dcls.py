"""Reference: a training step with delays by the package dcls, in a process of its own (see ``peer_process.py``).

Its convolution with Gaussian kernels, version "gauss", and between the layers a loop over the steps in plain torch: membrane,
spike with an arctangent for its derivative, hard reset that is not differentiated. Numbers below the smallest normal one, which
kernels with a small sigma are full of, slow a processor down; they are flushed to zero here, as nothing of ours makes any.
"""

import contextlib
import json
import sys
from typing import Any

SHARPNESS = 5.0


class Job:
    """The network, its data, and its gradient."""

    def __init__(self, inputs: str, sigma: float, leak: float, output_leak: float) -> None:
        import numpy as np
        import torch
        from DCLS.construct.modules import Dcls1d  # type: ignore[import-not-found]

        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        given = np.load(inputs)
        self._leaks, self._torch = (leak, output_leak), torch
        self._spikes = torch.from_numpy(given["spikes"]).permute(0, 2, 1).contiguous()  # (batch, channels, steps)
        self._labels = torch.from_numpy(given["labels"])
        layers = sum(name.startswith("weight_") for name in given.files)
        taps = int(given["taps"])
        self._layers = []
        for k in range(1, layers + 1):
            weight, delay = given[f"weight_{k}"], given[f"delay_{k}"]
            layer = Dcls1d(weight.shape[1], weight.shape[0], 1, dilated_kernel_size=taps, bias=True, version="gauss")
            with torch.no_grad():
                layer.weight[:] = torch.from_numpy(weight)[..., None]
                layer.P[0] = torch.from_numpy((taps - 1) / 2 - delay)[..., None]
                layer.SIG[:] = sigma
                layer.bias[:] = torch.from_numpy(given[f"bias_{k}"])
            layer.SIG.requires_grad_(False)
            self._layers.append(layer)

        class Spike(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, over: torch.Tensor) -> torch.Tensor:
                ctx.save_for_backward(over)
                return (over >= 0).to(over.dtype)

            @staticmethod
            def backward(ctx: Any, *gradients: Any) -> Any:
                (over,) = ctx.saved_tensors
                return gradients[0] * (SHARPNESS / 2) / (1 + (torch.pi / 2 * SHARPNESS * over) ** 2)

        self._spike: Any = Spike.apply

    def gradients(self) -> list[Any]:
        """Of weights, positions and biases, layer by layer."""
        torch = self._torch
        below = self._spikes
        for place, layer in enumerate(self._layers):
            taps = layer.dilated_kernel_size[0]
            drive = layer(torch.nn.functional.pad(below, (taps - 1, 0))).permute(2, 0, 1).contiguous().unbind(0)
            last = place == len(self._layers) - 1
            leak = self._leaks[last]
            membrane = torch.zeros_like(drive[0])
            kept = []
            for now in drive:
                membrane = leak * membrane + now
                if last:
                    kept.append(membrane)
                else:
                    spike = self._spike(membrane - 1.0)
                    membrane = membrane * (1.0 - spike.detach())
                    kept.append(spike)
            below = torch.stack(kept, 2)
        scores = below.softmax(1).sum(2)
        loss = torch.nn.functional.cross_entropy(scores, self._labels)
        wanted = [one for layer in self._layers for one in (layer.weight, layer.P, layer.bias)]
        return list(torch.autograd.grad(loss, wanted))

    def run(self) -> None:
        """One step, without the optimiser."""
        self.gradients()

    def save(self, path: str, double: bool) -> None:
        """Write the gradient, in float64 on request."""
        import numpy as np

        if double:
            self._spikes = self._spikes.double()
            for layer in self._layers:
                layer.double()
        found = iter(self.gradients())
        named = {}
        for k in range(1, len(self._layers) + 1):
            named[f"weight_{k}"] = next(found)[..., 0].numpy()
            named[f"delay_{k}"] = -next(found)[0, ..., 0].numpy()
            named[f"bias_{k}"] = next(found).numpy()
        np.savez(path, **named)
        if double:
            self._spikes = self._spikes.float()
            for layer in self._layers:
                layer.float()


def main() -> None:
    """Answer until the input ends."""
    job: Any = None
    answers = sys.stdout
    for line in sys.stdin:
        request = json.loads(line)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                wanted = request.pop("do")
                if wanted == "prepare":
                    job = Job(**request)
                result = job.save(**request) if wanted == "save" else job.run() if wanted == "run" else None
            answer = {"result": result}
        except Exception as error:  # whatever it is, the other side prints it
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
