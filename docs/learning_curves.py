"""Draw the picture of the README from a comparison: ``python docs/learning_curves.py runs/digits``."""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np

from inmaterio.experiments.run_directory import read_run

LOOKS = {
    "equilibrium-propagation": ("#0072B2", "-"),
    "contrastive-hebbian": ("#D55E00", "-"),
    "implicit-differentiation": ("#009E73", ":"),
    "twin-deployed": ("#E69F00", ":"),
    "readout-only": ("#56B4E9", "--"),
    "shuffled-labels": ("#CC79A7", "--"),
    "bp-feedforward": ("#000000", "-."),
}


def main(folder: Path) -> None:
    rows = json.loads((folder / "comparison.json").read_text())["rows"]
    substrates = [name for name in dict.fromkeys(row["substrate"] for row in rows) if name != "digital-feedforward"]
    plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "inmaterio", "font.size": 9, "font.family": "sans-serif"}
    figure, axes = plt.subplots(1, len(substrates), figsize=(8, 3.2), sharey=True, layout="constrained")
    for axis, substrate in zip(np.atleast_1d(axes), substrates, strict=True):
        for row in rows:
            if row["substrate"] not in (substrate, "digital-feedforward"):
                continue
            errors = np.array([read_run(Path(path))[1]["train_error"].values for path in row["runs"]])
            colour, line = LOOKS[row["rule"]]
            epochs = np.arange(1, errors.shape[1] + 1)
            axis.plot(epochs, 100 * errors.mean(axis=0), line, color=colour, label=row["rule"])
            axis.fill_between(epochs, 100 * errors.min(axis=0), 100 * errors.max(axis=0), color=colour, alpha=0.12, lw=0)
        axis.set(yscale="log", xlabel="epoch", title=substrate, ylim=(0.05, 110), xticks=[1, 5, 10, 15, 20])
        axis.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
        axis.grid(alpha=0.3)
    np.atleast_1d(axes)[0].set_ylabel("error on the training rows, %")
    handles, labels = np.atleast_1d(axes)[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
