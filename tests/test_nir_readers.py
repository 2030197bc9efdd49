"""What other readers of NIR did with graphs of ours, in a file that a script of the golden folder makes, and what docs say."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden import make_nir_readers as golden


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(golden.FILE.read_text(encoding="utf-8"))
    assert found["network_sha256"] == golden.digest(), "the file belongs to other graphs; make it again"
    return found


def outcomes(kept: dict[str, Any], reader: str) -> dict[str, str]:
    return {name: one["outcome"] for name, one in kept["readers"][reader]["graphs"].items()}


def test_our_spikes_are_those_that_were_compared(kept: dict[str, Any]) -> None:
    here = {name: golden.ours(name) for name in golden.GRAPHS}
    assert {name: round(float(np.abs(one).sum()), 6) for name, one in here.items()} == pytest.approx(kept["ours"])
    assert min(one.sum() for name, one in here.items() if "membranes" not in name) > 20
    trains = {name: one.tobytes() for name, one in here.items()}
    assert trains["chain"] == trains["chain, steps of 1 ms"], "what a step lasts changes nothing here"
    assert len(set(trains.values())) == len(trains) - 1, "delays, a loop and biases all change spikes"


def test_a_difference_is_seen() -> None:
    here = golden.ours("chain")
    assert golden.compared(here, here)["outcome"] == "same"
    late = np.roll(here, 1, axis=0)
    found = golden.compared(here, late)
    assert (found["outcome"], found["differing"]) == ("differs", int((here != late).sum()))
    assert golden.compared(here, here[1:])["outcome"] == "other shape"


def test_no_reader_takes_a_delay_and_the_docs_say_what_each_takes(kept: dict[str, Any], repository: Path) -> None:
    assert set(kept["readers"]) == set(golden.READERS)
    same = {reader: {name for name, outcome in outcomes(kept, reader).items() if outcome == "same"} for reader in kept["readers"]}
    chain, millisecond, biased = "chain", "chain, steps of 1 ms", "chain with biases"
    assert same.pop("snntorch") == {chain, biased}
    assert same.pop("spikingjelly") == {chain, millisecond, biased}
    assert not any(same.values())
    for reader in kept["readers"]:
        for name in ("delay per sender", "delay per synapse", "loop", "chain, membranes out"):
            assert outcomes(kept, reader)[name] == "refused"
    # What is read without a word, and runs otherwise.
    assert [(r, n) for r in kept["readers"] for n, one in outcomes(kept, r).items() if one == "differs"] == [
        ("snntorch", millisecond),
        ("sinabs with a newer nir", biased),
    ]
    text = (repository / "docs" / "spiking.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^\*\*What other readers do with it\*\*.*?(?=^## )", text, re.MULTILINE | re.DOTALL)
    assert "tests/golden/make_nir_readers.py" in section
    said = section.lower()
    for about in kept["readers"].values():
        reader, _, version = about["requirements"][0].partition("==")
        assert f"{reader} {version}" in said
