"""A small comparison on disk, in the form that `compare` writes, with curves and counts made up from formulas."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from inmaterio.devices.costs import CostTable
from inmaterio.experiments.configuration import (
    DataConfig,
    RuleConfig,
    RunConfig,
    SubstrateConfig,
    TrainingConfig,
    to_toml,
)
from inmaterio.experiments.controls import BP_FEEDFORWARD, READOUT_ONLY, SHUFFLED_LABELS, TWIN_DEPLOYED
from inmaterio.experiments.energy import estimate, per_sample
from inmaterio.experiments.run_directory import build_dataset, fingerprint, write_dataset
from inmaterio.experiments.training import FINAL_CURVES
from inmaterio.simulators.capabilities import Parameter

EPOCHS = 6
ROWS = 1437
DATA_NOTES = "made: curves and counts from formulas"


@dataclass(frozen=True)
class Line:
    """One line of the comparison: what it reaches, and what a sample of training or inference costs in events."""

    name: str
    substrate: str
    control: bool
    rule: str
    final: float
    passes: float
    cosine: tuple[float | None, float | None]
    training: Mapping[tuple[str, str, str, str], float]
    inference: Mapping[tuple[str, str, str, str], float]
    seconds: float
    residual: float = 0.0
    unsettled: float = 0.0
    changes: Mapping[str, Any] | None = None
    options: Mapping[str, Any] | None = None
    trained: tuple[int, int] = (0, 4810)


def analog(bits: str) -> dict[tuple[str, str, str, str], float]:
    """Events of one sample of training on an analog network."""
    counts: dict[tuple[str, str, str, str], float] = {}
    for phase, share in (("train/free", 1.0), ("train/nudged", 2.0)):
        counts |= {
            (phase, "substrate", "input DAC", f"dac_conversion_{bits}"): 64.0 * share,
            (phase, "substrate", "state ADC", f"adc_conversion_{bits}"): 74.0 * share,
            (phase, "substrate", "neurons", "amplifier_second"): 74.0 * 2e-7 * share,
            (phase, "substrate", "array weight_1", "ohmic_joule"): 3e-12 * share,
            (phase, "substrate", "array weight_2", "ohmic_joule"): 8e-13 * share,
            (phase, "substrate", "sample and hold", "sample_hold"): 74.0 * share,
        }
    counts[("train/update", "substrate", "array weight_1", "device_write")] = 410.0
    counts[("train/update", "substrate", "array weight_2", "device_write")] = 64.0
    counts[("train/update", "host", "optimiser", "mac_fp32")] = 500.0
    counts[("train/update", "host", "optimiser", "byte_dram")] = 4000.0
    return counts


def inference_of(training: Mapping[tuple[str, str, str, str], float]) -> dict[tuple[str, str, str, str], float]:
    return {("infer", *key[1:]): amount for key, amount in training.items() if key[0] == "train/free"}


# Of one sample in batches of 100: each layer's parameters are read once per batch, its inputs and states for every sample.
DIGITAL = {
    ("train/free", "substrate", "layer_1", "mac_fp32"): 4096.0,
    ("train/free", "substrate", "layer_2", "mac_fp32"): 640.0,
    ("train/free", "substrate", "layer_1", "byte_sram"): 4 * ((64 * 64 + 64) / 100 + 64 + 64),
    ("train/free", "substrate", "layer_2", "byte_sram"): 4 * ((10 * 64 + 10) / 100 + 64 + 10),
    ("train/backward", "substrate", "layer_1", "mac_fp32"): 4736.0,
    ("train/update", "host", "optimiser", "mac_fp32"): 240.0,
    ("train/update", "host", "optimiser", "byte_dram"): 300.0,
}


def example_lines() -> list[Line]:
    """Two rules and three controls on an ideal and an imperfect substrate, and the digital baseline."""
    ep, chl, bp = "equilibrium-propagation", "contrastive-hebbian", "backpropagation"
    readout, shuffled, deployed = {"trained": "readout"}, {"labels": "shuffled"}, {"placement": "twin-deployed"}
    lines = []
    for name, bits, worse in (("hopfield-ideal", "ideal", 0.0), ("hopfield-imperfect", "8b", 0.02)):
        train = analog(bits)
        infer = inference_of(train)
        unsettled = 0.034 if worse else 0.0
        twin = DIGITAL | {("train/update", "substrate", "array weight_1", "device_write"): 4096 / ROWS / EPOCHS}
        lines += [
            Line(ep, name, False, ep, 0.022 + worse, 3.0, (0.991 - 8 * worse, 0.998), train, infer, 4e-6, 3e-4),
            Line(chl, name, False, chl, 0.031 + worse, 2.0, (0.84 - worse, 0.99), train, infer, 3e-6, 0.021, unsettled),
            Line(READOUT_ONLY, name, True, ep, 0.045 + worse, 3.0, (None, 0.97), train, infer, 4e-6, changes=readout),
            Line(SHUFFLED_LABELS, name, True, ep, 0.87, 3.0, (0.4, 0.8), train, infer, 4e-6, changes=shuffled),
            Line(
                TWIN_DEPLOYED,
                name,
                True,
                bp,
                0.025 + worse,
                1.0,
                (1.0, 1.0),
                twin,
                infer,
                0.0,
                changes=deployed,
            ),
        ]
    lines.append(
        Line(BP_FEEDFORWARD, "digital-feedforward", True, bp, 0.021, 1.0, (1.0, 1.0), DIGITAL, inference_of(DIGITAL), 0.0)
    )
    return lines


def physical_lines() -> list[Line]:
    """Two rules on a network of digital maps and on one with 8 physical parameters, each with its ablations; and the baseline.

    Errors are such that the physics helps the first rule against none, and harms the second.
    """
    found = []
    for substrate, physical in (("quiet-network", 0), ("tunable-network", 8)):
        train = analog("8b")
        for rule, final, without, linear in (("backpropagation", 0.10, 0.20, 0.102), ("delta-rule", 0.30, 0.15, 0.40)):
            digital = {"backpropagation": 2442, "delta-rule": 330}[rule]
            about: dict[str, Any] = {"substrate": substrate, "rule": rule, "passes": 2.0, "cosine": (0.9, 1.0), "seconds": 1e-6}
            about |= {"training": train, "inference": inference_of(train)}
            found.append(Line(rule, control=False, final=final, trained=(digital, physical), **about))
            for words, ablation, error, more in (
                ("without physics", "no-physics", without, 320),
                ("with linear physics", "linear-physics", linear, 0),
            ):
                about |= {"training": DIGITAL, "inference": inference_of(DIGITAL), "passes": 0.0, "seconds": 0.0}
                about["options"] = {"ablation": ablation}
                found.append(Line(f"{rule} {words}", control=True, final=error, trained=(digital + more, 0), **about))
    return [*found, example_lines()[-1]]


def write_example_run(out: Path, line: Line, seed: int, chip: int = 0) -> Path:
    """A run directory made from formulas: the error falls from 60 % to `line.final`, counts grow by equal steps."""
    config = RunConfig(
        data=DataConfig("digits"),
        substrate=SubstrateConfig(line.substrate, (64,), dict(line.options or {}), chip),
        rule=RuleConfig(line.rule),
        training=replace(TrainingConfig(epochs=EPOCHS, fit_on="train+validation"), **(line.changes or {})),
        seed=seed,
    )
    epochs = np.arange(1, EPOCHS + 1)
    wobble = 1.0 + 0.06 * seed - 0.03 * chip
    error = line.final * wobble + (0.6 - min(line.final, 0.6)) * np.exp(-1.1 * epochs / wobble)
    history = [
        {
            "train_loss": float(error[i]),
            "train_error": float(error[i]),
            "validation_error": np.nan,
            "disturbed_error": np.nan,
            "residual_max": line.residual,
            "unsettled_fraction": line.unsettled,
            "symmetry": np.nan,
            "updates": 72.0 * (i + 1),
            "device_passes": line.passes * ROWS * (i + 1),
            "modelled_time_s": line.seconds * ROWS * (i + 1) or np.nan,
        }
        for i in range(EPOCHS)
    ]
    ledgers = []
    for epoch in epochs:
        events: list[list[str | float]] = [[*key, amount * ROWS * int(epoch)] for key, amount in line.training.items()]
        tallies: list[list[str | float]] = [["train/free", "substrate", "sample", float(ROWS * int(epoch))]]
        if epoch == EPOCHS:
            events += [[*key, amount * 100] for key, amount in line.inference.items()]
            tallies.append(["infer", "substrate", "sample", 100.0])
        ledgers.append({"events": events, "tallies": tallies})
    probes = [
        {
            "epoch": e,
            "cosine": {f"layer_{k + 1}": None if c is None else c - 0.02 * c * e / EPOCHS for k, c in enumerate(line.cosine)},
        }
        for e in (0, 1, EPOCHS // 2, EPOCHS)
    ]
    scalars: dict[str, float | int | str] = {
        "test_error": line.final * wobble,
        "chance_error": 0.9,
        "metric": "error",
        "task": "classification",
        "loss": "mse",
        "data_notes": DATA_NOTES,
        "trained_digital": line.trained[0],
        "trained_physical": line.trained[1],
        "inference_samples": 100.0,
        "hash": fingerprint(config)[:16],
        "configuration_sha256": fingerprint(config),
        **{key: history[-1][key] for key in FINAL_CURVES},
    }
    folder = out / fingerprint(config)[:16]
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(to_toml(config), encoding="utf-8")
    (folder / "log.txt").write_text("done\n", encoding="utf-8")
    shapes = {"weight_1": (64, 64), "bias_1": (64,), "weight_2": (10, 64), "bias_2": (10,)}
    parameters = {name: Parameter(shape, layer=int(name[-1]), readout=name[-1] == "2") for name, shape in shapes.items()}
    held = {name: np.zeros(shape) for name, shape in shapes.items()}
    write_dataset(build_dataset(history, ledgers, probes, parameters, held, held, scalars), folder)
    return folder


def example_row(line: Line, folders: Sequence[str], costs: CostTable) -> dict[str, Any]:
    """One row of ``comparison.json``, from the formulas rather than from the run directories."""
    errors = [line.final * (1.0 + 0.06 * seed) for seed in range(len(folders))]
    training = estimate({key: amount * ROWS * EPOCHS for key, amount in line.training.items()}, costs)
    inference = per_sample(
        estimate({key: 100 * amount for key, amount in line.inference.items()}, costs, phases=("infer",)), 100.0
    )
    nothing = {"P10": None, "P50": None, "P90": None}
    return {
        "data": "digits",
        "split": "0",
        "substrate": line.substrate,
        "rule": line.name,
        "control": line.control,
        "write_mode": "master copy",
        "seeds": len(folders),
        "chips": 1,
        "loss": "mse",
        "metric": "error",
        "test_error_mean": float(np.mean(errors)),
        "test_error_std": float(np.std(errors, ddof=1)) if len(errors) > 1 else None,
        "updates": 72.0 * EPOCHS,
        "device_passes": line.passes * ROWS * EPOCHS,
        "modelled_time_s": line.seconds * ROWS * EPOCHS or None,
        "cosine": {f"layer_{k + 1}": c for k, c in enumerate(line.cosine)},
        "energy_J": {"scope": "train_total", **(training.total._asdict() if training.total else nothing)},
        "run": folders[0],
        "runs": list(folders),
        "rate_factor": 1.0,
        "residual_max": line.residual,
        "unsettled_fraction": line.unsettled,
        "energy_inference_J": {"scope": "inference_per_sample", **(inference.total._asdict() if inference.total else nothing)},
        "chance_error": 0.9,
        "data_notes": DATA_NOTES,
        "trained_digital": line.trained[0],
        "trained_physical": line.trained[1],
        "work": {"update": work_of(line.training, line.passes, 20.0), "inference": work_of(line.inference, 1.0, 1.0)},
        "rates_tried": 3,
        "rate_at_edge": False,
        "difference_bp_feedforward": None,
        "difference_readout_only": None,
        "difference_without_physics": None,
        "difference_with_linear_physics": None,
    }


def work_of(counts: Mapping[tuple[str, str, str, str], float], passes: float, samples: float) -> dict[str, float]:
    """What so many samples take."""
    conversions = sum(amount for key, amount in counts.items() if "_conversion_" in key[3])
    macs = sum(amount for key, amount in counts.items() if key[3].startswith("mac_"))
    return {"passes": passes * samples, "conversions": conversions * samples, "macs": macs * samples}


def write_example(
    out: Path, costs: CostTable, lines: Sequence[Line] | None = None, *, quick: bool = True, seeds: int = 2
) -> dict[str, Any]:
    """A whole comparison on disk; returns the document of ``comparison.json``."""
    rows = []
    for line in example_lines() if lines is None else lines:
        folders = [write_example_run(out, line, seed) for seed in range(seeds)]
        rows.append(example_row(line, [folder.name for folder in folders], costs))
    command = "inmaterio compare --data digits --quick" if quick else "inmaterio compare --data digits"
    settings = {
        "data": "digits",
        "substrates": ["hopfield-ideal", "hopfield-imperfect"],
        "rules": ["equilibrium-propagation", "contrastive-hebbian"],
        "quick": quick,
        "seeds": seeds,
        "chips": 1,
        "hidden": [64],
        "epochs": EPOCHS,
        "batch_size": 20,
        "rate_factors": [0.3, 1.0, 3.0],
        "write_mode": "master copy",
        "split_seeds": [0],
        "loss": None,
        "optimiser": "sgd",
        "hyper": {},
        "options": {},
        "command": command,
        "notes": [
            "rule 'in-situ-adjoint' cannot train substrate 'hopfield-ideal': hopfield-ideal lacks capability Adjoint",
            "control implicit-differentiation left out on hopfield-imperfect: lacks trait symmetric",
            "kept rate of delta-rule on hopfield-ideal (2) lies at the edge of the rates tried",
        ],
    }
    tried = [
        {"rate_factor": 0.3, "validation_error": 0.05},
        {"rate_factor": 1.0, "validation_error": 0.03},
        {"rate_factor": 3.0, "validation_error": None},
    ]
    about = {"rule": "equilibrium-propagation", "substrate": "hopfield-ideal", "reused": False}
    tuning = [{**about, "rate_factor": 1.0, "validation_error": 0.03, "tried": tried, "command": command}]
    document = {"settings": settings, "rows": rows, "tuning": tuning}
    (out / "comparison.json").write_text(json.dumps(document), encoding="utf-8")
    return document
