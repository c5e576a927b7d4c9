"""How many are enough: monotone, complete, and said in words."""

import pytest

from darkroom.errors import RecipeError
from darkroom.preprocess.amount import RANGES, advice

ORDER = ["too few", "enough", "plenty"]


@pytest.mark.parametrize("method", [*RANGES, "from scratch"])
def test_more_pictures_are_never_judged_fewer(method: str) -> None:
    verdicts = [ORDER.index(advice(10**power, None, method).verdict) for power in range(10)]
    assert verdicts == sorted(verdicts)
    assert verdicts[0] == 0
    assert verdicts[-1] == 2
    low, high = advice(1, None, method).typical
    assert advice(low, None, method).verdict == advice(high, None, method).verdict == "enough"
    assert advice(low - 1, None, method).verdict == "too few"


def test_larger_pictures_want_more() -> None:
    lows = [advice(1, None, "from scratch", size=size).typical[0] for size in (16, 32, 64, 256, 512, 4096)]
    assert lows == sorted(lows)
    assert lows[0] < lows[-1]


def test_it_says_what_is_rare_and_what_variants_are() -> None:
    said = " ".join(advice(126, {"cat": 100, "<b>newt</b>": 3, "dog": 23}, "lora", variants=4).paragraphs)
    assert "<b>newt</b>', has 3" in said
    assert "1 of them has less than a tenth" in said
    assert "504 training rows" in said
    assert "not new pictures" in said
    assert "rules of thumb" in said
    assert "variants = " in " ".join(advice(10, None, "lora").paragraphs)


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(RecipeError, match="method = 'magic' is not a kind of training: textual inversion"):
        advice(1, None, "magic")
