"""Slow, obvious twins of rules for spiking networks: traces that run forwards in time, and an unrolled network in torch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def online_sum(spikes, delays, leak_factors, eligibility_factor, low_pass, signal):
    """sum over rows and steps of signal_j[t] F(e_ji)[t], with traces per synapse and of the past nothing but spikes in flight.

    spikes (batch, steps, from); delays (to, from); leak_factors (batch, steps, to), from step t to t + 1; eligibility_factor and
    signal (batch, steps, to); low_pass a number.
    """
    batch, steps, senders = spikes.shape
    receivers = delays.shape[0]
    total = np.zeros((receivers, senders))
    for b in range(batch):
        trace, filtered = np.zeros((2, receivers, senders))
        flying = np.zeros((delays.max() + 1, receivers, senders))  # a ring: what arrives in the next steps
        for t in range(signal.shape[1]):
            for i in range(senders if t < steps else 0):
                for j in range(receivers):
                    flying[(t + delays[j, i]) % len(flying), j, i] += spikes[b, t, i]
            for j in range(receivers):
                trace[j] *= leak_factors[b, t - 1, j] if t else 0.0
            trace += flying[t % len(flying)]
            flying[t % len(flying)] = 0.0
            filtered = low_pass * filtered + eligibility_factor[b, t][:, None] * trace
            total += signal[b, t][:, None] * filtered
    return total


class Spike(torch.autograd.Function):
    """1 where h reaches the threshold; backwards a pseudo-derivative."""

    @staticmethod
    def forward(context, h, threshold, strict, surrogate, gamma):
        context.save_for_backward(h)
        context.about = (threshold, surrogate, gamma)
        return ((h > threshold) if strict else (h >= threshold)).to(h.dtype)

    @staticmethod
    def backward(context, gradient):
        (h,) = context.saved_tensors
        threshold, surrogate, gamma = context.about
        if surrogate == "triangle":
            slope = gamma / threshold * torch.clamp(1 - torch.abs(h - threshold) / threshold, min=0)
        else:
            slope = 2.5 / (1 + (np.pi / 2 * 5 * (h - threshold)) ** 2)
        return gradient * slope, None, None, None, None


class Unrolled:
    """A network of a description and values, unrolled in time, with chosen paths taken as given.

    `membranes`: v[t - 1] is followed. `emptied`: a hard reset empties what v holds of the past, else the reset is subtracted and
    taken as given. `layers`: spikes of a layer are followed into the next one. Recurrent spikes are never followed. `smear`: the
    standard deviation of Gaussians by which arrivals move with `shifts`, zeros of the delays' shapes.
    """

    def __init__(
        self,
        description: Any,
        values: Mapping[str, np.ndarray],
        inputs: np.ndarray,
        *,
        membranes: bool = True,
        emptied: bool = True,
        layers: bool = True,
        surrogate: str = "triangle",
        gamma: float = 0.3,
        smear: tuple[float, int] | None = None,
    ) -> None:
        self.values = {name: torch.tensor(np.array(one, dtype=np.float64)) for name, one in values.items()}
        self.delays = {name: one.long() for name, one in self.values.items() if "delay" in name}
        self.shifts = {name: torch.zeros(one.shape, dtype=torch.float64) for name, one in self.delays.items()}
        for tensor in (*self.values.values(), *self.shifts.values()):
            tensor.requires_grad_()
        self.about, self.smear, self.known = description, smear, None
        x = torch.tensor(inputs.reshape(len(inputs), description.steps, -1), dtype=torch.float64)
        self.inputs = torch.nn.functional.pad(x, (0, 0, 0, description.tail_steps))
        self.options = (membranes, emptied, layers, surrogate, gamma)
        if smear is not None:
            with torch.no_grad():
                self.smear = None
                self.run()
                self.known, self.smear = self.spikes, smear
        self.run()

    def run(self) -> None:
        about = self.about
        membranes, emptied, layers, surrogate, gamma = self.options
        count, batch, widths = len(about.widths) - 1, len(self.inputs), about.widths[1:]
        v = [torch.zeros(batch, width, dtype=torch.float64) for width in widths]
        waiting = [torch.zeros(batch, width) for width in widths]
        emitted, drives, h_all = ([[] for _ in widths] for _ in range(3))
        given = [self.inputs[:, t] for t in range(about.total_steps)]
        for t in range(about.total_steps):
            for k in range(count):
                last = k == count - 1
                before = given[: t + 1] if k == 0 else emitted[k - 1] if layers else [one.detach() for one in emitted[k - 1]]
                full = None if self.known is None else self.inputs if k == 0 else self.known[k - 1]
                drive = self.arriving(f"weight_{k + 1}", f"delay_{k + 1}", before, t, 0, full) + self.values[f"bias_{k + 1}"]
                if about.recurrent and not last:
                    own = [one.detach() for one in emitted[k]]
                    full = None if self.known is None else self.known[k]
                    drive = drive + self.arriving(f"recurrent_weight_{k + 1}", f"recurrent_delay_{k + 1}", own, t, 1, full)
                held = waiting[k] > 0
                past = v[k] if membranes else v[k].detach()
                h = torch.where(held, past, (about.output_leak if last else about.leak) * past + drive)
                h_all[k].append(h)
                drives[k].append(drive)
                v[k] = h
                if last and not about.spiking_outputs:
                    continue
                s = Spike.apply(h, about.threshold, about.strict, surrogate, gamma)
                s = torch.where(held, torch.zeros_like(s), s)
                fired = s.detach()
                waiting[k] = torch.where(
                    fired > 0, torch.full_like(waiting[k], about.refractory_steps), waiting[k] - held.float()
                )
                if about.reset == "soft":
                    v[k] = h - about.threshold * fired
                else:
                    v[k] = h * (1 - fired) if emptied else h - (h * fired).detach()
                emitted[k].append(s)
        self.membranes = [torch.stack(one, 1) for one in h_all]
        self.drives = drives
        self.emitted = [torch.stack(one, 1) for one in emitted if one]
        self.spikes = [one.detach() for one in self.emitted]
        out = self.membranes[-1]
        if about.readout == "softmax-sum":
            self.scores = torch.softmax(out, 2).sum(1)
        elif about.readout == "mean-membrane":
            self.scores = out.mean(1)
        else:
            self.scores = self.emitted[-1].sum(1)

    def arriving(self, weight: str, delay: str, before: list[torch.Tensor], t: int, later: int, full: Any) -> torch.Tensor:
        w = self.values[weight]
        delays = self.delays[delay].expand(w.shape) if delay in self.delays else torch.zeros(w.shape, dtype=torch.long)
        delays = delays + later
        silent = torch.zeros_like(self.inputs[:, 0, :1]).expand(-1, w.shape[1])
        reach = int(delays.max())
        window = torch.stack([before[u] if 0 <= u < len(before) else silent for u in range(t - reach, t + 1)], 1)
        arrived = window.gather(1, (reach - delays.T).T.reshape(1, -1, w.shape[1]).expand(len(window), -1, -1))
        if self.smear is not None:
            sigma, wide = self.smear
            apart = t - torch.arange(full.shape[1])[:, None, None] - delays - self.shifts[delay].expand(w.shape)
            taps = torch.exp(-0.5 * (apart / sigma) ** 2) / (sigma * (2 * np.pi) ** 0.5) * (torch.abs(apart) <= wide)
            smooth = torch.einsum("bui,uji->bji", full, taps)
            arrived = arrived + smooth - smooth.detach()
        return torch.einsum("bji,ji->bj", arrived, w)

    def loss(self, name: str, targets: np.ndarray) -> torch.Tensor:
        return loss_of(self.scores, name, targets)

    def gradients(self, loss: torch.Tensor) -> dict[str, np.ndarray]:
        wanted = {**{n: v for n, v in self.values.items() if "delay" not in n}, **self.shifts}
        found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True, retain_graph=True)
        return {
            name: (torch.zeros_like(value) if one is None else one).numpy()
            for (name, value), one in zip(wanted.items(), found, strict=True)
        }


def loss_of(scores: torch.Tensor, name: str, targets: np.ndarray) -> torch.Tensor:
    y = torch.tensor(targets, dtype=torch.float64)
    if name == "mse":
        return 0.5 * ((scores - y) ** 2).sum(-1).mean()
    return -(y * torch.log_softmax(scores, -1)).sum(-1).mean()
