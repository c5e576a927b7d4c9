import random
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from darkroom.quality.captions import judge_captions, tokens_of
from darkroom.quality.text import clean
from darkroom.reasons import kind_of
from darkroom.recipe import Check
from darkroom.weights.digit_captions import held_out_captions, known_captions
from darkroom.weights.locate import locate

ALL_WAYS = Check(mend=("text", "sidecar", "label", "template"))

# Pieces that hostile and careless texts are made of.
PIECES = [
    "a photo of a cat", "<b>", "</b>", "<script>", "</script>", "<img src=x", "&lt;", "&amp;", "&#0;", "&#xd800;", " ",
    "https://x.org/a", "www.a.com", "\u200b", "\u200d", "\ufe0f", "\u202e", "\ufeff", "\x00", "\x1b[31m", "\\u00e9",
    "%20", "**", "_", "`", "[a](b)", "![", "](", "{", "}", '"', "'", "@jane_doe", "#tag", "jane@example.com", "Ã©",
    "â€œ",     "e\u0301", "手寫", "👍", "\ud83d", "\n", "<!--", "-->", "<![CDATA[", "]]>", "<!DOCTYPE", "<?xml",
    '{"caption": "',
    '"}', "𝓯", "\u0300\u0301\u0302\u0303", "photo by ", "/", "\\", "..", "seven", "TODO", "buy now", "!!!", "$5", "<3",
    "<sks>", "\ue0ff", "ig: jane", "+46 70 123 45 67",
]  # fmt: skip


def table(captions: list[object], **columns: list[object]) -> pd.DataFrame:
    count = len(captions)
    rows = {
        "row_id": [f"r{place}" for place in range(count)],
        "id": [f"{place:064x}" for place in range(count)],
        "path": [f"images/IMG_{place:04}.jpg" for place in range(count)],
        "caption": captions,
        "label": [None] * count,
        "sidecar": [None] * count,
        "licence": ["CC0-1.0"] * count,
        "reasons": [[] for _ in range(count)],
    }
    return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in (rows | columns).items()})


def texts(column: pd.Series) -> list[str | None]:
    return [value if isinstance(value, str) else None for value in column]


def refused(reasons: list[list[str]]) -> list[list[str]]:
    return [[kind_of(one) for one in row] for row in reasons]


def hostile(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    made = ["".join(rng.choices(PIECES, k=rng.randint(1, 8))) for _ in range(count)]
    ranges = (0x250, 0x3000, 0x110000)
    letters = ["".join(chr(rng.randrange(rng.choice(ranges))) for _ in range(rng.randint(1, 30))) for _ in range(count)]
    return made + letters


def test_hostile_texts_never_raise_and_what_is_kept_is_kept_as_it_is_the_next_time() -> None:
    first = judge_captions(table(hostile(400, seed=1)), Check())
    kept = [text for text, why in zip(texts(first.frame["caption"]), first.reasons, strict=True) if text and not why]
    assert len(kept) > 50
    again = judge_captions(table(kept), Check())
    assert texts(again.frame["caption"]) == kept
    assert not any(again.reasons)
    assert not any(again.frame["mended"])
    assert set(again.frame["caption_source"]) == {"source"}


def test_the_order_of_rows_and_their_index_do_not_matter() -> None:
    captions = [*hostile(60, seed=2), None, "", "a red car", "a red car", "nan"] * 2
    labels = ["T-Shirt", "t-shirt ", None, "hat", "t-shirt"] * (len(captions) // 5)
    given = table(captions, label=labels, sidecar=[None, "a dog on grass\n", "TODO", None, "x"] * (len(captions) // 5))
    given["origin"] = ["one", "two"] * (len(captions) // 2)
    plain = judge_captions(given, ALL_WAYS)
    order = list(range(len(given)))
    random.Random(3).shuffle(order)
    shuffled = judge_captions(given.iloc[order], ALL_WAYS)
    assert list(shuffled.frame.index) == order
    pd.testing.assert_frame_equal(shuffled.frame.sort_index(), plain.frame)
    assert [shuffled.reasons[order.index(place)] for place in range(len(given))] == plain.reasons
    assert [shuffled.flags[order.index(place)] for place in range(len(given))] == plain.flags


def test_captions_of_the_shipped_digits_pass_untouched() -> None:
    captions = [text for digit in [*known_captions(), *held_out_captions()] for text in digit]
    found = judge_captions(table(captions), Check())
    assert not any(found.reasons)
    assert texts(found.frame["caption"]) == captions
    assert not any(found.frame["mended"])


@pytest.mark.parametrize(
    ("caption", "kind"),
    [
        (None, "no caption"),
        ("", "no caption"),
        (" \u200b\ufeff\u00a0", "no caption"),
        ("<p></p>", "no caption"),
        ("https://example.com/a", "no caption"),
        ("a photo of {label}", "placeholder caption"),
        ("IMG_2041.JPG", "placeholder caption"),
        ("I'm sorry, I can't help with that", "placeholder caption"),
        ("ask jane.doe@example.com about it", "personal data in caption"),
        ("x" * 30 + " shirt", "spam in caption"),
        ("buy now, free shipping!!", "spam in caption"),
        ("a word and another, " * 100, "spam in caption"),
        (" ".join(str(number) + "th" for number in range(400)), "caption too long"),
        ("y" * 1_000_000, "caption too long"),
        ("c\ufffd\ufffdt \ufffd\ufffd", "garbled caption"),
        ("['a', {'b': 'c'}]", "caption is data"),
    ],
)
def test_what_is_no_caption_is_refused_by_its_kind(caption, kind) -> None:
    found = judge_captions(table([caption]), Check())
    assert refused(found.reasons) == [[kind]]


def test_a_refusal_never_repeats_what_is_personal() -> None:
    secrets = ["jane.doe@example.com", "+46 70 123 45 67", "4111 1111 1111 1111"]
    found = judge_captions(table([f"a cat, {secret}" for secret in secrets]), ALL_WAYS)
    assert all(row == ["personal data in caption"] for row in refused(found.reasons))
    said = str(found.reasons) + str(found.flags) + str(list(found.frame["mended"]))
    assert not any(secret in said for secret in secrets)


def test_a_missing_caption_comes_from_the_first_way_that_gives_one() -> None:
    given = table(
        [None, None, None, "TODO", None, "its own"],
        sidecar=["a dog on grass\n", "nan", None, None, None, "another text"],
        label=["dog", "red_car", "Green-Bell-Pepper", "t-shirt", None, "cat"],
    )
    for mend, expected in (
        (("text",), [None, None, None, "TODO", None, "its own"]),
        (("text", "sidecar"), ["a dog on grass", None, None, "TODO", None, "its own"]),
        (("sidecar", "label"), ["a dog on grass", "red car", "Green Bell Pepper", "t-shirt", None, "its own"]),
        (("template", "sidecar"), [f"a photo of {it}" for it in ("dog", "red car", "Green Bell Pepper", "t-shirt")]),
    ):
        found = judge_captions(given, Check(mend=mend))
        assert texts(found.frame["caption"])[: len(expected)] == expected
    found = judge_captions(given, ALL_WAYS)
    assert texts(found.frame["caption_source"]) == ["sidecar", "label", "label", "label", "none", "source"]
    assert [bool(row) for row in found.reasons] == [False] * 4 + [True, False]
    assert found.frame["mended"][0] == ["spaces collapsed", "from the sidecar"]
    assert [kind_of(one) for one in found.flags[5] if "sidecar" in one] == ["caption and sidecar differ"]


def test_without_text_among_the_ways_only_what_nobody_sees_is_mended() -> None:
    found = judge_captions(table(["a  cat\n", "<b>a cat</b>"]), Check(mend=()))
    assert texts(found.frame["caption"]) == ["a cat", "<b>a cat</b>"]
    assert refused(found.reasons) == [[], ["unclean caption"]]


def test_where_captions_are_optional_what_would_be_refused_is_dropped_and_remarked_on() -> None:
    captions = [None, "TODO", "jane.doe@example.com", "buy now, free shipping!!", "a cat"]
    required, optional = (judge_captions(table(captions), Check(captions=word)) for word in ("required", "optional"))
    assert not any(optional.reasons)
    assert optional.flags[:4] == required.reasons[:4]
    assert texts(optional.frame["caption"]) == [None, None, None, None, "a cat"]
    assert texts(optional.frame["caption_source"]) == ["none"] * 4 + ["source"]


def test_the_model_is_asked_once_for_pictures_that_nothing_else_captions_or_refuses() -> None:
    asked: list[str] = []

    def write(ids: list[str]) -> dict[str, str]:
        asked.extend(ids)
        return {picture: "a  <b>dog</b> on grass" if picture.endswith("0") else "TODO" for picture in ids}

    given = table([None, "TODO", None, "a cat", None], sidecar=[None, None, "a hat", None, None])
    given.at[4, "reasons"] = ["check: undecodable"]
    plan = Check(mend=("text", "sidecar", "model"), captioner="somewhere")
    found = judge_captions(given, plan, captions_by_model=write)
    assert asked == [given["id"][0], given["id"][1]]
    assert texts(found.frame["caption"])[:4] == ["a dog on grass", "TODO", "a hat", "a cat"]
    assert found.frame["caption_source"][0] == "model"
    assert found.frame["mended"][0] == ["markup removed", "spaces collapsed", "from the captioning model"]
    assert refused(found.reasons)[1] == ["placeholder caption"]


def test_a_caption_that_is_its_own_files_name_is_none_unless_it_is_words() -> None:
    captions = ["vase_00", "Vase 00", "red car", "zero", "7", "a vase on a table"]
    paths = ["x/vase_00.jpg", "vase-00.png", "red_car.jpg", "zero.png", "7.png", "vase_00.jpg"]
    found = judge_captions(table(captions, path=paths), Check())
    assert [bool(row) for row in found.reasons] == [True, True, False, False, False, False]
    assert [bool(row) for row in found.flags] == [False, False, True, True, True, False]


def shares(captions: list[str], plan: Check) -> list[bool]:
    flags = judge_captions(table(list(captions)), plan).flags
    return [any(kind_of(one) == "caption repeated" for one in row) for row in flags]


def test_a_caption_of_too_many_pictures_is_remarked_on_where_there_are_enough() -> None:
    others = [f"a cat with {number} fish" for number in range(20, 100)]
    plan = Check(max_repeats=0.2)
    assert shares(["a cat"] * 20 + others, plan) == [False] * 100
    assert shares(["a cat"] * 21 + others[:79], plan) == [True] * 21 + [False] * 79
    assert shares(["a cat"] * 20, plan) == [False] * 20


def test_languages_that_are_not_allowed_refuse_only_what_is_surely_theirs() -> None:
    captions = ["ein rotes Auto auf der nassen Straße vor dem Haus", "рыжая кошка", "Tokyo", "a cat on the sofa", "七"]
    found = judge_captions(table(captions), Check(languages=("en",)))
    assert [bool(row) for row in found.reasons] == [True, True, False, False, True]
    assert {kind_of(one) for row in found.reasons for one in row} == {"language not allowed"}
    assert not any(judge_captions(table(captions), Check()).reasons)
    assert texts(judge_captions(table(captions), Check(), language=None).frame["caption_language"]) == [None] * 5


@pytest.fixture(scope="module")
def tokens() -> Callable[[list[str]], list[int]]:
    return tokens_of(locate("builtin:digits-text-encoder").path)


def test_tokens_are_those_of_the_encoder_with_nothing_cut_off(tokens) -> None:
    from transformers import CLIPTokenizer

    reader = CLIPTokenizer.from_pretrained(locate("builtin:digits-text-encoder").path)
    captions = ["seven", "手寫數字七", "a photo of a cat " * 40]
    assert tokens(captions) == [len(reader(text, truncation=False).input_ids) for text in captions]


def test_tokenizers_without_a_fast_form_count_too(tmp_path: Path) -> None:
    from transformers import ByT5Tokenizer

    ByT5Tokenizer().save_pretrained(tmp_path)
    texts = ["seven", "手寫", "a" * 3000]
    assert tokens_of(tmp_path)(texts) == [len(text.encode()) + 1 for text in texts]  # and a mark at the end


def test_captions_that_the_encoder_would_cut_are_remarked_on(tokens) -> None:
    short, long = "a seven", " ".join(f"a {word}th seven" for word in range(20))
    most = tokens([short])[0]
    found = judge_captions(table([short, long, None]), Check(max_tokens=most), tokens)
    assert found.frame["caption_tokens"].tolist()[:2] == tokens([short, long])
    assert pd.isna(found.frame["caption_tokens"][2])
    assert [[kind_of(one) for one in row] for row in found.flags] == [[], ["caption cut by the encoder"], []]


def test_labels_written_in_two_ways_are_one_and_the_missing_are_remarked_on() -> None:
    captions = ["a t-shirt on a chair"] * 5
    found = judge_captions(table(captions, label=["t-shirt", "T-Shirt", "t-shirt ", "nan", "t-shirt"]), Check())
    assert texts(found.frame["label"]) == ["t-shirt", "t-shirt", "t-shirt", None, "t-shirt"]
    assert [kind_of(one) for one in found.flags[3] if "label" in one] == ["label missing"]
    assert found.frame["mended"][1] == ["label's spelling unified"]


def test_words_are_counted_in_scripts_with_and_without_spaces() -> None:
    found = judge_captions(table(["a well-known cat, asleep", "手寫數字七", "七"]), Check())
    assert found.frame["caption_words"].tolist() == [4, 5, 1]


def test_progress_ends_with_all_distinct_captions() -> None:
    told: list[tuple[int, int]] = []
    judge_captions(
        table(["a cat", "a dog", "a cat", None]), Check(), progress=lambda done, total: told.append((done, total))
    )
    assert told[-1] == (2, 2)


def test_cleaning_is_what_the_table_shows() -> None:
    captions = ["<b>cafÃ©</b>", "a\u00a0cat", "a cat"]
    found = judge_captions(table(captions), Check())
    assert texts(found.frame["caption"]) == [clean(text).text for text in captions]
    assert list(found.frame["mended"]) == [list(clean(text).mended) for text in captions]
