"""Licences: one spelling for many, and none allowed by accident."""

import time

import pandas as pd
import pytest

from darkroom.errors import RecipeError
from darkroom.quality.licences import judge, normalise, remarks, restrictions

SAME = {
    "CC-BY-4.0": [
        "CC BY 4.0", "cc-by-4.0", "CC_BY_4.0", "ccby 4.0", "https://creativecommons.org/licenses/by/4.0/",
        "http://creativecommons.org/licenses/by/4.0/deed.de", "Creative Commons Attribution 4.0 International",
        "Attribution 4.0 International (CC BY 4.0)", "CC-BY-4.0 (dataset); photo from unsplash.com, see references.txt",
        "© 2020 Ada, CC BY 4.0",
    ],
    "CC-BY-NC-SA-2.0": [
        "CC BY-NC-SA 2.0", "https://creativecommons.org/licenses/by-nc-sa/2.0/",
        "Attribution-NonCommercial-ShareAlike 2.0 Generic", "cc by nc sa 2.0",
    ],
    "CC-BY-NC-ND-4.0": ["CC BY-NC-ND 4.0", "Attribution-NonCommercial-NoDerivatives 4.0 International"],
    "CC-BY-SA-3.0": ["CC BY-SA 3.0", "cc-by-sa-3.0", "https://creativecommons.org/licenses/by-sa/3.0/us/"],
    "CC0-1.0": [
        "CC0", "cc0 1.0", "CC-0", "CC0 1.0 Universal", "https://creativecommons.org/publicdomain/zero/1.0/",
        "CC0 (Lav Varshney)", "Creative Commons Zero v1.0 Universal",
    ],
    "public-domain": [
        "public domain", "Public Domain", "public domain (scikit-image: NASA)", "PDM 1.0",
        "https://creativecommons.org/publicdomain/mark/1.0/",
    ],
    "MIT": ["MIT", "mit license", "The MIT License", "MIT (Microsoft)", "https://opensource.org/licenses/MIT"],
    "Apache-2.0": ["Apache 2.0", "Apache License, Version 2.0", "apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0"],
    "unknown": ["", "  ", "unknown", "Unknown", "n/a", "N/A", "None", "null", "-", "not specified"],
    "all-rights-reserved": ["All rights reserved", "© 2020 ACME. All Rights Reserved.", "Copyright ACME", "(c) me"],
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_every_way_to_write_a_licence_is_one(name: str) -> None:
    assert {normalise(text) for text in [name, *SAME[name]]} == {name}


def test_texts_that_only_look_like_a_licence_are_left_alone() -> None:
    names = set(SAME) | {"BSD-3-Clause", "Unsplash"}
    for text in ("permitted", "commit", "summit photos", "not public domain", "not under MIT", "my terms", "stock"):
        assert normalise(text) not in names
        assert normalise(normalise(text)) == normalise(text)


def test_several_licences_leave_a_choice_or_bind_together() -> None:
    assert judge(["MIT OR Apache-2.0", "CC0 / public domain (x)"], ("Apache-2.0", "public domain")) == [None, None]
    assert judge(["MIT; images all rights reserved", "MIT (non-commercial use only)"], ("MIT",)) != [None, None]
    assert restrictions("MIT; images all rights reserved") == ("any use",)


def test_what_is_not_allowed_is_refused_and_named() -> None:
    rows = ["CC BY 4.0", "CC-BY-SA-4.0", "MIT", None, "", "cc-by-nc-4.0", "strange terms", 7]
    refused = judge(pd.Series(rows, dtype=object), ("cc by", "mit"))
    assert [why is None for why in refused] == [True, False, True, False, False, False, False, False]
    assert refused[1] == "check: licence not allowed: CC-BY-SA-4.0"
    assert refused[3] == refused[4] == "check: licence not allowed: unknown"
    assert "strange terms" in str(refused[6])
    assert judge(rows, ()) == [None] * len(rows)
    assert judge([None, "?"], ("unknown",)) == [None, None]


def test_a_pattern_allows_what_forbids_only_where_it_says_so() -> None:
    licences = ["CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-NC-4.0", "CC-BY-ND-4.0", "all rights reserved"]
    allowed = {
        pattern: [why is None for why in judge(licences, (pattern,))]
        for pattern in ("CC-BY", "CC-BY*", "CC-BY-NC*", "*", "CC-BY-NC-4.0", "all rights reserved")
    }
    assert allowed["CC-BY"] == [True, False, False, False, False]
    assert allowed["CC-BY*"] == [True, True, False, False, False]
    assert allowed["CC-BY-NC*"] == allowed["CC-BY-NC-4.0"] == [False, False, True, False, False]
    assert allowed["*"] == [True, True, False, False, False]
    assert allowed["all rights reserved"] == [False, False, False, False, True]


def test_an_allowed_licence_allows_itself_however_it_is_written() -> None:
    for name, texts in SAME.items():
        for text in texts:
            if text.strip():
                assert judge([name], (text,)) == [None]
    with pytest.raises(RecipeError, match=r"check\.licences"):
        judge(["MIT"], ("MIT", " "))


def test_remarks_say_what_is_forbidden() -> None:
    found = remarks(["CC0", "CC BY-NC-ND 4.0", None, "© all rights reserved"])
    assert found[0] is None
    assert found[2] is None
    assert found[1] == "check: restrictive licence: CC-BY-NC-ND-4.0 forbids commercial use and changes"
    assert str(found[3]).endswith("forbids any use")


def test_hostile_texts_take_no_time_and_little_room() -> None:
    texts = [
        "cc-by" + "-nc" * 100_000 + "!",
        "attribution " * 50_000,
        "© " * 100_000,
        "<script>" * 9999,
        "\x00\n\ud800",
    ]
    start = time.process_time()
    assert all(len(normalise(text)) < 1000 for text in texts)
    assert all(len(str(why)) < 1500 for why in judge(texts, ("MIT",)))
    assert time.process_time() - start < 1
