import random
from collections import Counter

from darkroom.quality.origins import FEWEST_ROWS, large_origins, out_of_place, stray_labels

COLOURS = ["red", "blue", "green", "black", "white"]
CLOTHES = Counter(
    (f"a photo of a {colour} {it} on a hanger", "shop") for colour in COLOURS for it in ("hat", "shirt", "coat", "sock")
)
FRUITS = Counter(
    (f"fresh {colour} {it} in the grocery market", "market") for colour in COLOURS for it in ("plum", "kiwi", "fig")
)
BOTH = CLOTHES + FRUITS + FRUITS


def test_captions_that_were_swapped_between_origins_are_found_and_no_others() -> None:
    assert out_of_place(BOTH) == {}
    swapped = Counter(
        {("fresh red plum in the grocery market", "shop"): 1, ("a photo of a red hat on a hanger", "market"): 1}
    )
    assert out_of_place(BOTH + swapped).keys() == swapped.keys()


def test_origins_with_the_same_captions_are_not_told_apart() -> None:
    rng = random.Random(0)
    words = ["cat", "dog", "bird", "on", "a", "mat", "red", "blue", "sleeping", "tree"]
    captions = Counter((" ".join(rng.sample(words, 5)), rng.choice(["one", "two"])) for _ in range(200))
    assert out_of_place(captions) == {}


def test_small_and_single_origins_are_left_alone() -> None:
    assert large_origins(["one"] * 1000 + [None] * 50) == []
    assert large_origins(["one"] * 1000 + ["two"] * (FEWEST_ROWS - 1)) == []
    assert large_origins(["one"] * FEWEST_ROWS + ["two"] * 1000) == ["two", "one"]


def test_a_label_that_strayed_is_found_where_origins_share_no_labels() -> None:
    labels = Counter({("hat", "shop"): 50, ("coat", "shop"): 40, ("plum", "market"): 30, ("plum", "shop"): 2})
    assert stray_labels(labels) == {("plum", "shop"): "market"}
    assert stray_labels(labels + Counter({("hat", "market"): 20, ("coat", "market"): 20})) == {}
