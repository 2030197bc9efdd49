"""What cannot be done in the equilibrium family, typed by a user: one line that says the values, exit code 2."""

from pathlib import Path

import pytest

from inmaterio.experiments.command_line import main

RESISTIVE = "resistive-ideal"
TIGHT = "tolerance = 1e-12, free_steps = 3, nudged_steps = 3"


def config(substrate: str, rule: str, options: str = "", hyper: str = "") -> str:
    return f"""
[data]
train_limit = 40
test_limit = 20
[substrate]
name = "{substrate}"
hidden = [8]
options = {{{options}}}
[rule]
name = "{rule}"
hyper = {{{hyper}}}
[training]
epochs = 1
"""


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            config(RESISTIVE, "equilibrium-propagation", hyper="beta = 1000.0"),
            ["beta is -1000, a conductance of -0.01 S; the smallest conductance sum of an output is", "below which |beta|"],
        ),
        (
            config(RESISTIVE, "equilibrium-propagation", hyper=TIGHT),
            ["the free phase has a residual of", "units of activity after 3 sweeps; expected at most 1e-12: allow more steps"],
        ),
        (
            config(RESISTIVE, "equilibrium-propagation", "g_min = -1e-6"),
            ["g_min is -1e-06 S; expected a number in [0, 2.5e-05) S"],
        ),
        (
            config(RESISTIVE, "equilibrium-propagation", "g_min = 0.0, levels = 2"),
            ["conductances of node 0 of layer 1 sum to 0 S; expected more than 0 S"],
        ),
        (
            config(RESISTIVE, "equilibrium-propagation", hyper='loss = "cross_entropy"'),
            ["loss 'cross_entropy' needs outputs between 0 and 1; those of a resistive network are voltages: expected 'mse'"],
        ),
        (
            config("crossbars-ideal", "dual-propagation", 'activation = "silu"'),
            ["rule 'dual-propagation' cannot train substrate 'crossbars-ideal': crossbars-ideal lacks trait monotone"],
        ),
        (
            config("crossbars-ideal", "dual-propagation", hyper='variant = "original", alpha = 0.0'),
            ["alpha is 0 for variant 'original'", "expected 0.5"],
        ),
        (
            config("hopfield-ideal", "holomorphic-equilibrium-propagation", hyper="points = 0"),
            ["points is 0 nudges; expected a number in [1, inf) nudges"],
        ),
        (
            config("hopfield-ideal", "holomorphic-equilibrium-propagation", hyper="radius = 50.0, points = 4, tolerance = 1e-6"),
            ["the nudged phase with beta 50 does not settle: its residual is", "expected at most 1e-06, try a smaller radius"],
        ),
        (
            config("hopfield-imperfect", "holomorphic-equilibrium-propagation", hyper="points = 4"),
            ["hopfield-imperfect lacks trait holomorphic"],
        ),
        (
            config("hopfield-asymmetric", "equilibrium-propagation"),
            ["hopfield-asymmetric lacks capability LocalContrast and trait symmetric"],
        ),
    ],
)
def test_one_line_and_exit_code_2(typed: str, said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.toml"
    path.write_text(typed)
    with pytest.raises(SystemExit) as left:
        main(["run", str(path), "--out", str(tmp_path / "runs")])
    written = capsys.readouterr()
    assert (left.value.code, written.out) == (2, "")
    # above it at most the bar of progress
    line = written.err.splitlines()[-1]
    assert "error: " in line
    for part in said:
        assert part in line
    assert "Traceback" not in written.err
