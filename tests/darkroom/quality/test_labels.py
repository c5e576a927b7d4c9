import random
from collections import Counter
from collections.abc import Callable
from itertools import product

import pytest

from darkroom.quality.labels import at_odds, distance, judge_labels, misspellings, odd_styles, words_of


def test_ways_to_write_a_label_become_its_commonest_and_letters_are_never_changed() -> None:
    counts = Counter({"t-shirt": 9, "T-Shirt": 3, "t-shirt ": 2, "t shirt": 1, "T_SHIRT": 1, "t-shrit": 1, "shirt": 5})
    found = judge_labels(counts)
    assert {found[written].label for written in counts} == {"t-shirt", "t-shrit", "shirt"}
    assert found["T-Shirt"].mended
    assert not found["t-shirt"].mended


@pytest.mark.parametrize("label", ["nan", "None", "NULL", "", " ", "n/a", "\u200b", "-", "<NA>"])
def test_labels_that_programs_write_for_nothing_are_none(label: str) -> None:
    assert judge_labels(Counter({label: 3, "hat": 5}))[label].label is None


@pytest.mark.parametrize("label", ["none of these", "other", "0", "7", "a/b", "http://dbpedia.org/Cat", "@home", "x_y"])
def test_odd_labels_stay(label: str) -> None:
    assert judge_labels(Counter({label: 3}))[label].label == label


def test_a_rare_label_one_slip_from_a_frequent_one_is_remarked_on_and_kept() -> None:
    counts = Counter(
        {"longsleeve": 100, "longsleve": 1, "logsleev": 2, "shirt": 90, "skirt": 80, "shirts": 2, "hat": 50, "cat": 1}
    )
    found = judge_labels(counts)
    assert {label: one.perhaps for label, one in found.items() if one.perhaps} == {
        "longsleve": "longsleeve",
        "logsleev": "longsleeve",
        "shirts": "shirt",
    }
    assert found["longsleve"].label == "longsleve"


def test_numbered_classes_are_no_slips_of_each_other() -> None:
    counts = Counter({"class 1": 100, "class 2": 1, "class 11": 1})
    assert not any(one.perhaps for one in judge_labels(counts).values())


def brute_force(totals: Counter[str], allowed: int) -> set[str]:
    frequent = [label for label in totals if totals[label] >= 10]
    return {
        label
        for label, other in product(totals, frequent)
        if label != other and totals[other] >= 10 * totals[label] and distance(label, other) <= allowed
    }


@pytest.mark.parametrize(("length", "allowed"), [(6, 1), (10, 2)])
def test_slips_found_by_deletions_are_those_of_all_pairs(length: int, allowed: int) -> None:
    rng = random.Random(length)
    words = ["".join(rng.choices("ab", k=length)) for _ in range(60)]
    totals = Counter({word: rng.choice([1, 1, 1, 20]) for word in words})
    assert set(misspellings(totals)) == brute_force(totals, allowed)


def test_distance_counts_each_edit_once() -> None:
    for one, other, edits in [
        ("cat", "cat", 0),
        ("cat", "act", 1),
        ("cat", "cats", 1),
        ("cat", "cut", 1),
        ("cat", "dog", 3),
    ]:
        assert distance(one, other) == distance(other, one) == edits


def test_a_label_as_words() -> None:
    assert words_of("Arla-Ecological-Milk") == "Arla Ecological Milk"
    assert words_of("red_car") == "red car"
    assert words_of("t-shirt") == "t-shirt"


def test_a_caption_that_alone_does_not_name_its_label_is_at_odds_with_it() -> None:
    named = Counter({("a photo of a pair of shoes", "shoes"): 20, ("a dog on a beach", "shoes"): 1})
    assert at_odds(named) == {("a dog on a beach", "shoes")}
    in_chinese = Counter({(f"手寫數字{sign}", "seven"): 5 for sign in "七八九"} | {("seven", "seven"): 5})
    assert at_odds(in_chinese) == set()
    other = Counter({("a photo of red grapefruit", "vase"): 1, ("a vase", "vase"): 1, ("a fruit", "Red-Grapefruit"): 1})
    assert at_odds(other) == {("a photo of red grapefruit", "vase")}


@pytest.mark.parametrize(
    ("habit", "other"),
    [
        *[(str.lower, other) for other in ("WATER MELON", "Watermelon", "17", "西瓜")],
        (str.upper, "water melon"),
        (str.title, "water melon"),
    ],
)
def test_a_rare_label_written_unlike_all_others_of_its_origin_is_remarked_on(
    habit: Callable[[str], str], other: str
) -> None:
    usual = [habit(name) for name in ("shirt", "long skirt", "hat", "dress", "t-shirt", "rain coat")]
    counts: Counter[tuple[str, str | None]] = Counter({(name, "shop"): 20 for name in usual})
    assert not odd_styles(counts)
    assert set(odd_styles(counts + Counter({(other, "shop"): 2}))) == {(other, "shop")}
    assert not odd_styles(counts + Counter({(other, "shop"): 20})), "a class of its own"
    assert not odd_styles(counts + Counter({(other, "market"): 2})), "another origin has its own habits"


def test_where_labels_are_few_or_written_in_many_ways_there_is_no_habit() -> None:
    few = Counter({(name, None): 30 for name in ("cat", "dog", "bird")})
    mixed = Counter({(name, None): 10 for name in ("cat", "dog", "bird", "cow", "pig", "Eiffel Tower", "Big Ben")})
    for counts in (few, mixed):
        assert not odd_styles(counts + Counter({("Watermelon", None): 1}))
