"""Makes nir_readers.json: what other readers of NIR do with the graphs that this package writes.

    python tests/golden/make_nir_readers.py [READER ...]

Every reader is installed by pip into a folder of its own, without what it requires: torch, nir, numpy and h5py are those of this
Python, but for a version that the reader pins. It then runs as a process, which reads each file of NIR, presents the inputs
step by step, and hands back the spikes of the last layer. They are compared with those of this package's simulator. A reader that
is named is tried alone, and those that are not keep what the file says of them. Norse builds C++ for minutes, and is
only tried when it is named.

Weights are multiples of 2^-10 and the leak is 7/8, in float32, so that sums of weights are exact in any order.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FILE = Path(__file__).with_name("nir_readers.json")
STEPS, CHANNELS, WIDTHS = 40, 8, (12, 4)
INSTALL_SECONDS, READ_SECONDS = 1200, 300

READERS: Mapping[str, Sequence[str]] = {
    "snntorch": ("snntorch==1.0.0", "nirtorch==2.6"),
    "spikingjelly": ("spikingjelly==2.0.0", "nirtorch==2.6", "loguru"),
    "sinabs": ("sinabs==3.1.3", "nirtorch==2.6", "nir==1.0.4", "pbr"),
    "sinabs with a newer nir": ("sinabs==3.1.3", "nirtorch==2.6", "nir==1.0.8", "pbr"),
    "rockpool": ("rockpool==3.1.0", "nirtorch==2.6"),
    "norse": ("norse==1.0.0", "nirtorch==2.6"),
}
"""What pip installs for each, beside what is here; the first word is the reader. sinabs pins an older nir than writes here."""

SLOW = ("norse",)

GRAPHS: Mapping[str, Mapping[str, Any]] = {
    "chain": {},
    "chain, steps of 1 ms": {"seconds_per_step": 1e-3},
    "chain with biases": {"biases": True},
    "chain, membranes out": {"readout": "mean-membrane"},
    "delay per sender": {"delays": "axonal", "max_delay": 5},
    "delay per synapse": {"delays": "synaptic", "max_delay": 5},
    "loop": {"recurrent": True},
}
"""Networks by name: options in place of a chain of two layers of neurons without delays, in steps of 0.1 ms, spikes out."""


def network(name: str) -> tuple[Any, dict[str, NDArray[np.float64]]]:
    """Description and values of a graph, from raw words of Philox, which no version of numpy may change."""
    from inmaterio.simulators.spiking_description import SpikingDescription

    options: dict[str, Any] = {"delays": "none", "readout": "spike-count", "seconds_per_step": 1e-4, **GRAPHS[name]}
    biased = options.pop("biases", False)
    leaks = {"leak": 0.875, "output_leak": 0.875, "dtype": "float32"}
    description = SpikingDescription((STEPS * CHANNELS, *WIDTHS), steps=STEPS, **leaks, **options)
    values = {}
    for place, (parameter, about) in enumerate(description.parameters().items()):
        words = (np.random.Philox(key=place).random_raw(int(np.prod(about.shape))) >> np.uint64(32)).astype(np.int64)
        words = words.reshape(about.shape)
        if "delay" in parameter:
            values[parameter] = (words % (description.max_delay + 1)).astype(np.float64)
        elif parameter.startswith("bias"):
            values[parameter] = (words % 40) / 1024 if biased else np.zeros(about.shape)
        else:
            values[parameter] = (words % 700 - 200) / 1024
    return description, values


def inputs() -> NDArray[np.float64]:
    """Spikes of one sample, (steps, channels): a fifth of them."""
    words = np.random.Philox(key=1000).random_raw(STEPS * CHANNELS) >> np.uint64(32)
    return (words.reshape(STEPS, CHANNELS) % np.uint64(5) == 0).astype(np.float64)


def ours(name: str) -> NDArray[np.float64]:
    """What the last layer puts out here, (steps, width): spikes, or membranes where it has none."""
    from inmaterio.devices.ledger import Ledger
    from inmaterio.devices.randomness import Key
    from inmaterio.simulators.capabilities import Write
    from inmaterio.simulators.spiking_network import SpikingNetwork

    description, values = network(name)
    chip, ledger = SpikingNetwork(description, Key(0)), Ledger()
    chip.attach(ledger, "substrate")
    with ledger.phase("initialise"):
        chip.program({one: Write(value) for one, value in values.items()}, key=Key(1))
    with ledger.phase("infer"):
        shown = chip.run(inputs().reshape(1, -1), samples=np.arange(1), key=Key(2), membranes=True)
    out = shown.spikes[-1] if description.spiking_outputs else shown.membranes[-1]
    return np.asarray(out[0], dtype=np.float64)


def digest() -> str:
    """SHA-256 of the graphs' values and the inputs: whether the file belongs to them."""
    arrays = [inputs(), *(value for name in GRAPHS for value in network(name)[1].values())]
    return hashlib.sha256(b"".join(np.ascontiguousarray(one).tobytes() for one in arrays)).hexdigest()


def main() -> None:
    named = sys.argv[1:]
    before = json.loads(FILE.read_text(encoding="utf-8")) if named and FILE.exists() else {"readers": {}}
    wanted = {name: READERS[name] for name in named or [name for name in READERS if name not in SLOW]}
    found = dict(before["readers"])
    with tempfile.TemporaryDirectory() as folder:
        write_graphs(Path(folder))
        for reader, requirements in wanted.items():
            found[reader] = tried(reader, requirements, Path(folder))
    document = {
        "made_by": {name: importlib.metadata.version(name) for name in ("nir", "numpy", "torch")},
        "network_sha256": digest(),
        "ours": {name: round(float(np.abs(ours(name)).sum()), 6) for name in GRAPHS},
        "readers": {name: found[name] for name in READERS if name in found},
    }
    FILE.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print_table(document)


def write_graphs(folder: Path) -> None:
    """The graphs as files of NIR, ``0.nir``, ``1.nir`` and so on, and their inputs."""
    from inmaterio.simulators.nir_export import write_nir

    for place, name in enumerate(GRAPHS):
        write_nir(folder / f"{place}.nir", *network(name))
    np.save(folder / "inputs.npy", inputs())


def tried(reader: str, requirements: Sequence[str], folder: Path) -> dict[str, Any]:
    """What became of every graph in one reader, and which versions these were."""
    packages = folder / reader.replace(" ", "-")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(packages)]
    print(f"installing {', '.join(requirements)}", file=sys.stderr)
    done = subprocess.run([*pip, *requirements], capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode:
        return {"requirements": list(requirements), "not_installed": last_line(done.stderr or done.stdout)}
    graphs = {}
    for place, name in enumerate(GRAPHS):
        # The reader's packages go before those that are here, and this package is none of its business.
        environment = {**os.environ, "PYTHONPATH": str(packages), "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, __file__, "--read", reader, str(folder / str(place)), repr(seconds_per_step(name))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=READ_SECONDS, check=False, env=environment)
        if done.returncode:
            graphs[name] = {"outcome": "ended", "said": last_line(done.stderr)}
            continue
        answer = json.loads(done.stdout.splitlines()[-1])
        graphs[name] = answer if "outcome" in answer else compared(ours(name), np.asarray(answer["out"], dtype=np.float64))
    return {"requirements": list(requirements), "graphs": graphs}


def seconds_per_step(name: str) -> float:
    return float(network(name)[0].seconds_per_step)


def compared(here: NDArray[np.float64], there: NDArray[np.float64]) -> dict[str, Any]:
    """Whether what the last layer put out is the same, and how much differs."""
    if here.shape != there.shape:
        return {"outcome": "other shape", "said": f"{there.shape} in place of {here.shape}"}
    differ = int((here != there).sum())
    sums = {"here": round(float(np.abs(here).sum()), 6), "there": round(float(np.abs(there).sum()), 6)}
    return {"outcome": "same" if not differ else "differs", "differing": differ, "of": here.size, **sums}


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "nothing"


def print_table(document: Mapping[str, Any]) -> None:
    for reader, about in document["readers"].items():
        print(f"{reader} ({', '.join(about['requirements'])})")
        for name, one in about.get(
            "graphs", {"all": {"outcome": "not installed", "said": about.get("not_installed", "")}}
        ).items():
            more = (
                one["said"] if "said" in one else f"{one['differing']} of {one['of']} differ; sums {one['here']}, {one['there']}"
            )
            print(f"  {name:22} {one['outcome']:12} {more}")


# What follows runs in the reader's process.


def read_with_snntorch(file: Path, dt: float) -> Callable[[Any], Any]:
    import nir
    from snntorch.import_nir import import_from_nir  # type: ignore[import-not-found]

    return step_by_step(import_from_nir(nir.read(file)))  # it takes no dt


def read_with_spikingjelly(file: Path, dt: float) -> Callable[[Any], Any]:
    from spikingjelly.activation_based.nir_exchange import import_from_nir  # type: ignore[import-not-found]

    return step_by_step(import_from_nir(file, dt=dt))


def read_with_sinabs(file: Path, dt: float) -> Callable[[Any], Any]:
    import nir
    from sinabs.nir import from_nir  # type: ignore[import-not-found]

    net = from_nir(nir.read(file), batch_size=1)  # it takes no dt, and all steps at once

    def run(events: Any) -> Any:
        out = net(events)
        return out[0] if isinstance(out, tuple) else out

    return run


def read_with_rockpool(file: Path, dt: float) -> Callable[[Any], Any]:
    from rockpool.nn.modules.torch.nir import from_nir  # type: ignore[import-not-found]

    return step_by_step(from_nir(file))  # it takes no dt


def read_with_norse(file: Path, dt: float) -> Callable[[Any], Any]:
    import nir
    import norse  # type: ignore[import-not-found]

    return step_by_step(norse.torch.from_nir(nir.read(file), dt=dt))


def step_by_step(net: Callable[..., Any]) -> Callable[[Any], Any]:
    """A network that takes a step and its state, and returns what it puts out and its state, over all steps."""
    import torch

    def run(events: Any) -> Any:
        out, state = [], None
        for now in events:
            shown, state = net(now[None], state)
            out.append(shown[0] if isinstance(shown, tuple) else shown)
        return torch.stack(out)

    return run


def read(reader: str, place: str, dt: float) -> dict[str, Any]:
    """What one reader makes of one file: what the last layer put out in every step, or where it stopped and what it said."""
    import torch

    torch.set_num_threads(1)
    try:
        run = globals()[f"read_with_{reader.partition(' ')[0]}"](Path(f"{place}.nir"), dt)
    except Exception as error:  # whatever a reader raises is what is wanted
        return {"outcome": "refused", "said": said(error)}
    try:
        with torch.no_grad():
            out = run(torch.tensor(np.load(Path(place).with_name("inputs.npy")), dtype=torch.float32))
    except Exception as error:
        return {"outcome": "cannot be run", "said": said(error)}
    return {"out": out.reshape(STEPS, -1).tolist()}


def said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        with contextlib.redirect_stdout(sys.stderr):  # readers print
            answer = read(sys.argv[2], sys.argv[3], float(sys.argv[4]))
        print(json.dumps(answer))
    else:
        main()
