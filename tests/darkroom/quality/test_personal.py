import random

import pytest

from darkroom.quality.personal import kinds, luhn, masked

PERSONAL = {
    "an e-mail address": ["jane.doe@example.com", "jane [at] example.com", "doe at example dot com",
    "ｊａｎｅ＠ｅｘａｍｐｌｅ．ｃｏｍ"],
    "a phone number": [
        "+46 70 123 45 67", "tel. 08-555 010 42", "call 555-0100", "(555) 123-4567", "555-234-5678", "06 12 34 56 78",
        "13812345678", "0044 20 7946 0958", "020 7946 0958", "电话：010-12345678", "+1 (555) 010-9999", "0171/2345678",
    ],
    "a card number": ["4111 1111 1111 1111", "5500-0055-5555-5559", "378282246310005"],
    "a bank account": ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432"],
    "an identity number": ["078-05-1120", "811218-9876", "11010519491231002X", "passport no AB1234567"],
    "a password or key": ["password: hunter2", "api_key = abcdef0123"],
    "a network address": ["192.168.10.12"],
    "a place's coordinates": ["59.32931, 18.06858"],
    "a date of birth": ["born 1981-12-18", "DOB: 1/2/81"],
    "a postal address": [
        "12 Example Street, London SW1A 1AA", "Example Street 12, 123 45 Exampletown",
        "Musterstraße 1, 12345 Musterstadt",
        "5 rue de la Paix, 75002 Paris", "100 Main St, Springfield, IL 62701",
    ],
    "a home address": ["lives at 12 Example Street"],
}  # fmt: skip
HARMLESS = [
    "10 000 pixels", "1 000 000 stars", "12 345 678 people", "1,234,567.89", "1999-2005", "2024-01-01 12:00:00",
    "12/31/1999",
    "1920x1080", "ISBN 978-3-16-148410-0", "a 1967 Ford Mustang 289", "version 1.2.3.4", "f/2.8 1/200s ISO 3200 50mm",
    "Boeing 747-400 and 737-800", "100-200 people", "scores 21-15 21-18 21-19", "3.14159265", "call of duty 2 4 6",
    "EAN 4006381333931", "1280 1024 768", "1/2 3/4 5/8 7/8", "3 lemons @ 2 dollars", "a key on a table",
    "the year 2020, 10:30",
    "a shop at 221 Baker Street, London", "Route 66 drive 1950", "5th Avenue, New York, 10 people",
    "room 12345 on the way", "a 3D emoji of a brown square, shiny and small, number 10141",
    "a born leader of 1812", "number 7", "a ring of 100 2000 30", "size 38-40-42", "No. 5 of 12, 1998",
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in PERSONAL.items() for text in texts])
def test_personal_data_is_found_wherever_it_stands_and_covered(kind: str, text: str) -> None:
    for whole in (text, f"a photo of a cat, {text}", f"a cat ({text})"):
        assert kind in kinds(whole)
        assert kinds(masked(whole)) == []


@pytest.mark.parametrize("text", HARMLESS)
def test_digits_that_are_nobodys_are_left_alone(text: str) -> None:
    assert kinds(text) == []
    assert masked(text) == text


def test_a_card_is_one_by_its_check_digit_alone() -> None:
    rng = random.Random(0)
    for _ in range(50):
        stem = "4" + "".join(str(rng.randrange(10)) for _ in range(14))
        cards = [f"{stem}{last}" for last in range(10)]
        assert sum(map(luhn, cards)) == 1
        assert all(("a card number" in kinds(f"card {card}")) == luhn(card) for card in cards)
