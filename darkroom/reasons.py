"""Why a row was refused, or remarked on: a text ``stage: kind: detail`` that people read and programs take apart."""

from typing import Literal

Stage = Literal["collect", "check"]


def reason(stage: Stage, kind: str, detail: str = "") -> str:
    """``reason("check", "too small", "4x4, check.min_side = 8")``; a kind is one of few, and has no colon."""
    assert ":" not in kind, "the kind ends at the first colon"
    return f"{stage}: {kind}: {detail}" if detail else f"{stage}: {kind}"


def stage_of(text: str) -> str:
    """The stage that said it."""
    return text.split(": ", 2)[0]


def kind_of(text: str) -> str:
    """What kind of fault it is: what counts are kept by, and what a release releases."""
    return text.split(": ", 2)[1]


def detail_of(text: str) -> str:
    """The particulars, or nothing."""
    parts = text.split(": ", 2)
    return parts[2] if len(parts) == 3 else ""
