import pytest

from darkroom.quality.language import guess

SENTENCES = {
    "en": ["a photo of a cat", "a brown bear plushie with a blue hat on a rock", "two men playing chess in the park"],
    "de": ["ein rotes Auto auf der nassen Straße vor dem Haus", "eine Katze sitzt auf einem Sofa"],
    "fr": ["un chien rouge sur la plage avec une balle", "une femme avec un chapeau devant la maison"],
    "es": ["una mujer con un sombrero rojo en la calle", "un perro que juega en la playa con una pelota"],
    "it": ["una donna con un cappello rosso in un parco"],
    "pt": ["um cachorro na praia com uma bola vermelha"],
    "pl": ["czerwony samochód na ulicy obok domu"],
    "tr": ["sokakta kırmızı bir araba ve iki çocuk"],
    "vi": ["một chiếc xe màu đỏ trên đường phố"],
    "zh": ["七", "手寫數字七", "一只红色的猫"],
    "ja": ["赤い車", "猫がソファの上で寝ている"],
    "ko": ["빨간 차"],
    "el": ["γάτα"],
    "th": ["แมว"],
    "he": ["חתול"],
    "ar": ["سيارة حمراء في الشارع أمام البيت"],
}


@pytest.mark.parametrize(("language", "text"), [(name, text) for name, texts in SENTENCES.items() for text in texts])
def test_sentences_are_given_their_language(language: str, text: str) -> None:
    found = guess(text)
    assert found.language == language
    assert not found.is_none_of([language])
    assert not found.is_none_of([f"{language.upper()}-XX", "xx"])


@pytest.mark.parametrize(
    "text", ["Tokyo", "red car", "seven", "RTX4090", "7", "🔌", "", "Sagrada Familia", "a7", "семь"]
)
def test_of_what_is_too_short_nothing_is_said_and_it_is_never_refused_by_a_guess(text: str) -> None:
    assert guess(text).language is None
    if text.isascii():
        assert not guess(text).is_none_of(["fi"])


def test_letters_alone_rule_out_languages_that_are_not_written_in_them() -> None:
    assert guess("семь").is_none_of(["en", "zh"])
    assert not guess("семь").is_none_of(["uk"])
    assert guess("七").is_none_of(["en"])
    assert not guess("七").is_none_of(["ja"])
