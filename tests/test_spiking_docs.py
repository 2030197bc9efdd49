"""The examples of docs/spiking.md run, one after another."""

import importlib
import re
from pathlib import Path

import pytest
from engine_packages import require_package

BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.engines
@pytest.mark.filterwarnings("ignore:.*deprecated.*:DeprecationWarning")
def test_examples_run(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("brian2", "nir"):
        require_package(name)
    preferences = importlib.import_module("brian2").prefs
    before = preferences["codegen.target"]
    names: dict[str, object] = {}
    blocks = BLOCK.findall((repository / "docs" / "spiking.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 2
    try:
        for block in blocks:
            exec(compile(block, "docs/spiking.md", "exec"), names)
    finally:
        preferences["codegen.target"] = before
    spikes = re.fullmatch(r"\[(\d+)\] \(2, 4\)\n(\d+)\n", capsys.readouterr().out)
    assert spikes and int(spikes[1]) > int(spikes[2]) > 50
    assert names["again"] == names["description"]
