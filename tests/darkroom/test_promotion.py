"""What a judgement leads to."""

import pytest

from darkroom.evaluation.gate import Judgement
from darkroom.promotion import decide
from darkroom.recipe import parse

TABLE = {
    "version": 1,
    "name": "tiny",
    "collect": {"source": "digits"},
    "model": {"vae": "a", "text_encoder": "b"},
    "train": {"steps": 1},
}


@pytest.mark.parametrize(
    ("verdict", "promote", "is_champion", "was_deciding", "decision"),
    [
        ("PASS", "auto", False, True, "promoted"),
        ("PASS", "ask", False, True, "challenger"),
        ("INCONCLUSIVE", "auto", False, True, "challenger"),
        ("FAIL", "auto", False, True, "kept_champion"),
        ("PASS", "auto", True, True, "promoted"),  # killed after the alias had moved
        ("PASS", "auto", True, False, "unchanged"),  # the champion, measured anew
        ("FAIL", "auto", True, False, "unchanged"),
    ],
)
def test_decisions(verdict: str, promote: str, is_champion: bool, was_deciding: bool, decision: str) -> None:
    plan = parse({**TABLE, "register": {"promote": promote}}, "x")
    judgement = Judgement(verdict, ("because",), "fid")
    assert decide(judgement, plan, is_champion, was_deciding) == decision
