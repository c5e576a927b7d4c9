import random
import unicodedata

import pytest

from darkroom.quality.text import LONGEST, clean

# What a person wrote and nothing must touch.
RIGHT = [
    "a photo of a cat", "façade", "Ünïcode", "naïve café ☕", "“curly” it’s", "手寫數字七", "数字7、8", "½ ℃ ①",
    "São Paulo",
    "VOILÀ", "Å åäö ÅÄÖ", "Schloß Straße", "AT&T", "Q&A & R&D", "a < b and c > d", "I <3 cats", "a photo of <sks> dog",
    "2 * 3 * 4", "f*** that", "snake_case here", "node.js and e.g. this. That", "St.Louis", "16:9",
    "Tiffany & Co. ring",
    "می‌خواهم", "👨‍👩‍👧 family ❤️", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "שלום עולם", "नमस्ते", "한국어 자막", "#1 dad",
    "3 lemons @ 2 dollars", "100% cotton",
    "C:\\new\\t", "(left) and [right]", "a 3D emoji of keycap: *", "кошка на окне", "1girl, solo, (red hat:1.2)",
    "ﬁne",
]  # fmt: skip


@pytest.mark.parametrize("text", RIGHT)
def test_right_text_is_left_alone(text: str) -> None:
    assert clean(text).text == text
    assert clean(text).mended == ()


@pytest.mark.parametrize("text", [text for text in RIGHT if any(ord(one) > 0xBF for one in text)])
@pytest.mark.parametrize("wrong", ["latin-1", "cp1252"])
def test_text_read_in_a_wrong_encoding_comes_back_or_is_left_alone(text: str, wrong: str) -> None:
    try:
        broken = text.encode().decode(wrong)
    except UnicodeDecodeError:
        return
    mended = clean(broken)
    if "mojibake repaired" in mended.mended:
        assert mended.text == text


def test_most_texts_in_a_wrong_encoding_do_come_back() -> None:
    texts = [
        "façade of a café",
        "naïve “quotes” here",
        "手寫數字七在紙上",
        "кошка на окне",
        "São Paulo à noite",
        "größer",
    ]
    assert [clean(text.encode().decode("latin-1")).text for text in texts] == texts


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<p>a cat</p><br/><a href='https://example.com/buy?id=1'>Buy now!</a>", "a cat"),
        ("<img src=x onerror=alert(1)> a cat", "a cat"),
        ("<script>alert(1)</script>a cat<style>p {}</style>", "a cat"),
        ("&lt;b&gt;a cat&lt;/b&gt; &amp;amp; a dog", "a cat & a dog"),
        ("<img src='x.jpg' alt='a red car'>", "a red car"),
        ("<b>red</b>dish", "reddish"),
        ("<p>one</p><p>two</p>", "one two"),
        ("<![CDATA[a cat]]>", "a cat"),
        ("<dc:description xml:lang='en'>a cat</dc:description>", "a cat"),
        ("a cat<!-- really -->", "a cat"),
        ("a cat <img src=x onerror", "a cat"),
        ("a&nbsp;cat", "a cat"),
        ("**a** [cat](https://example.com) ![on a mat](x.png)", "a cat on a mat"),
        ("[b]a cat[/b]", "a cat"),
        ("[[File:x.jpg|thumb|a cat]]", "a cat"),
        ("<lora:style:0.8> a cat", "a cat"),
        ("a cat https://example.com/x?y=1#z", "a cat"),
        ("a cat (www.example.org)", "a cat"),
        ("a cat, from https://example.com/cats.", "a cat."),
        ("a cat @jane_doe", "a cat"),
        ("a cat, photo by @jane.doe on instagram", "a cat"),
        ("a cat #cat #cats #catlife", "a cat"),
        ('{"caption": "a cat", "id": 7}', "a cat"),
        ('["a cat"]', "a cat"),
        ("a%20cat", "a cat"),
        ("caf\\u00e9 noir", "café noir"),
        ("a\x00 c\x1b[31mat\u202e", "a cat"),
        ("a\u200b c\u00adat\ufeff", "a cat"),
        ("\t a\u00a0 cat\r\n", "a cat"),
        ("𝓪 𝓬𝓪𝓽", "a cat"),
        ("e\u0301te\u0301", "été"),
        ("c\u0300\u0301\u0302\u0303\u0304at", "cat"),
    ],
)
def test_what_is_mended_and_what_is_left(text: str, left: str) -> None:
    found = clean(text)
    assert found.text == left
    assert found.stable
    assert found.mended


def test_cleaning_twice_is_cleaning_once_and_leaves_no_control_or_space_behind() -> None:
    rng = random.Random(0)
    marks = [chr(rng.randrange(0x110000)) for _ in range(300)] + list("<>&;[](){}*_`#@:/\\\"'|-=.") * 6
    for _ in range(300):
        once = clean("".join(rng.choices([*marks, "a cat", " ", "amp", "b"], k=rng.randint(1, 40))))
        if once.stable:
            assert clean(once.text).text == once.text
            assert not clean(once.text).mended
            assert not any(unicodedata.category(character) in ("Cc", "Cs", "Co") for character in once.text)
            assert once.text == unicodedata.normalize("NFC", once.text).strip()


@pytest.mark.parametrize(
    "piece",
    ["<a href=", "<", "</", "<!--", "&", "[", "[[", "![", "**a", "_a", "by ", "#a ", "@a", "a@", "www.", "http://",
    "\\u",
     "\u0301", "[img]", "(", '{"', "é", "`", "photo by "],
)  # fmt: skip
def test_texts_made_to_cost_time_do_not(piece: str) -> None:
    from time import process_time

    start = process_time()
    clean((piece * LONGEST)[:LONGEST] + " x@")
    assert process_time() - start < 5
