"""Values in texts of a command line."""

from pathlib import Path
from typing import Any

import pytest

from inmaterio.devices.validation import InputError
from inmaterio.experiments.command_line import main
from inmaterio.experiments.text_values import parse_value


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("0.5", 0.5), ("1e-3", 1e-3), ("true", True), ("inf", float("inf")), ("[1, 2]", [1, 2]), ('"a b"', "a b")]
    + [(word, word) for word in ("fixed", "mean-membrane", "drop-newest", "float32", "True")],
)
def test_toml_or_a_word(text: str, value: Any) -> None:
    found = parse_value(text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("text", ["", "two words", "3 4", "-x", "[1", "'a", "a=b", "1.2.3"])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="cannot be read; expected a number"):
        parse_value(text)


def test_a_wrong_word_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = (
        "--option",
        "spiking-ideal.readout=mean",
        "--substrate",
        "spiking-ideal",
        "--rule",
        "e-prop",
        "--out",
        str(tmp_path / "x"),
    )
    with pytest.raises(SystemExit) as ended:
        main(["compare", *texts])
    assert ended.value.code == 2
    assert "mean-membrane" in capsys.readouterr().err and not (tmp_path / "x").exists()
