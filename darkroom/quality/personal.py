"""Personal data in texts: found by its form and its check digits, named by its kind, never repeated.

The rules want evidence beyond digits, since years, sizes and counts are digits too: a phone number starts with ``+``,
is written in a phone number's groups, or stands after a word such as "tel"; cards and identity numbers must have right
check digits (ISO/IEC 7812-1's Luhn sum, ISO 13616's remainder by 97, GB 11643's by 11).
"""

import re
import unicodedata
from collections.abc import Callable, Iterator

# Nothing below can match a text that has neither of these; most captions are done with here.
_DIGIT = re.compile(r"\d")
_FEWEST_DIGITS, _FEWEST_OF_ADDRESS = 6, 4
_WORDS = (
    "@", "(at", "[at", "{at", "( at", "[ at", "{ at", " dot ", "pass", "pwd", "key", "token", "sk-", "ghp_", "gho_",
    "akia", "secret", "lives at", "live at", "address", "birth", "born", "dob", "d.o.b", "geboren", "出生", "ssn",
    "security", "personnummer", "national id", "identity", "licen", "id card", "身份证", "护照",
)  # fmt: skip

_MAIL = re.compile(
    r"[\w.+%-]{1,64}\s?@\s?[\w-]{1,63}(?:\.[\w-]{1,63}){1,6}"
    r"|[\w.+-]{1,64}\s*[(\[{]\s*at\s*[)\]}]\s*[\w-]{1,63}\s*(?:\.|[(\[{]\s*dot\s*[)\]}]|\bdot\b)\s*[A-Za-z]{2,24}"
    r"|\b[\w.+-]{2,64}\s+at\s+[\w-]{1,63}\s+dot\s+(?:com|net|org|edu|info|io|co|de|fr|uk|se|cn|jp|example)\b",
    re.IGNORECASE,
)
_SECRET = re.compile(
    r"\b(?:pass\s?word|passwd|pwd|pass\s?phrase|api[_ -]?key|secret|access[_ -]?token)\s*(?:[:=]|\bis\b)\s*\S{4,}"
    r"|\bAKIA[0-9A-Z]{16}\b|\bsk-[A-Za-z0-9_-]{20,}|\bgh[po]_[A-Za-z0-9]{20,}",
    re.IGNORECASE,
)
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?\b")
_CARD = re.compile(r"(?<![\w.])[2-6]\d{3}(?:[ -]?\d){9,15}(?!\w)")
_SOCIAL = re.compile(r"(?<![\w-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")
_NORDIC = re.compile(r"(?<![\w-])(?:19|20)?\d{2}(?:0[1-9]|1[0-2])[0-3]\d[-+]\d{4}(?![\w-])")
_CHINESE = re.compile(r"(?<!\w)[1-8]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])[0-3]\d\d{3}[\dXx](?!\w)")
_NAMED_NUMBER = re.compile(
    r"(?:\bpassport|\bssn\b|social security|personnummer|national id|identity (?:card|number)|driver'?s? licen[cs]e"
    r"|\bid card|身份证|护照)\W{0,3}(?:(?:no|nr|number|num)\b\W{0,3}|号码?\W{0,3})?(?=[A-Z0-9 -]*\d{4})[A-Z0-9-]{5,}",
    re.IGNORECASE,
)
_BIRTH = re.compile(
    r"(?:\bd\.?o\.?b\.?|\bdate of birth|\bborn(?: on)?|\bgeboren am|出生日期)\W{1,3}\d{1,4}[./-]\d{1,2}[./-]\d{1,4}"
    r"|\b(?:d\.?o\.?b\.?|date of birth)\W{1,3}\d{1,2}(?:st|nd|rd|th)? [a-z]{3,9},? \d{2,4}",
    re.IGNORECASE,
)
_NETWORK = re.compile(r"(?<![\w.])(?<!version )(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\w)")
_PLACE = re.compile(r"(?<![\w.])[-+]?\d{1,2}\.\d{4,}°?\s*[NS]?\s*[,;/ ]\s*[-+]?\d{1,3}\.\d{4,}(?!\w)")
# Only as addresses are written, with capitals: "a 3D emoji of a red square, number 10141" is none.
_STREET = (
    r"(?:Street|St\.?|Road|Rd\.?|Avenue|Ave\.?|Lane|Ln\.?|Drive|Dr\.?|Boulevard|Blvd\.?|Way|Court|Ct\.?|Square|Place)"
)
_POST_CODE = r"(?:[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}|(?:[A-Z]{1,2}[- ])?\d{5}(?:-\d{4})?|\d{3} \d{2})"
# 12 Example Street, London SW1A 1AA; Example Street 12, 123 45 Exampletown; 5 rue Exemple, 75002 Paris
_ADDRESS = re.compile(
    rf"\b\d{{1,5}}[A-Za-z]? (?:[A-Z][\w'.-]{{1,20}} ){{1,3}}{_STREET},? "
    rf"(?:[A-Z][\w'.-]{{1,20}},? ){{0,4}}{_POST_CODE}(?!\w)"
    rf"|\b[A-Z][\w'.-]{{1,25}}(?: {_STREET}|stra(?:ß|ss)e|str\.|gatan?|väg(?:en)?|veien|vej|straat|laan|katu)"
    rf" \d{{1,4}}[A-Za-z]?,? {_POST_CODE} [A-Z]"
    rf"|\b\d{{1,4}},? (?:rue|avenue|boulevard|calle|via|piazza) [^\d,]{{2,40}}, ?\d{{5}} [A-Z]"
)
_HOME = re.compile(r"\b(?:home address|my address|lives? at)\b\W{0,3}[^.]{0,60}\d", re.IGNORECASE)

_DIGITS = re.compile(r"(?<![\w.,])(?:\+|\(\+?)?\d[\d\s().\-–/]{4,22}\d(?![\w]|[.,]\d|\s?[%$€£])")
_CALL = re.compile(
    r"(?:\btel(?:efon|efono|efone|ephone)?\b|\btlf\b|\bph(?:one)?\b|\bcall(?: me| us| now)?\b|\bmob(?:ile|il)?\b"
    r"|\bcell\b|\bfax\b|\bwhats\s?app\b|\bsms\b|\btext me\b|\bt[ée]l\b|\bviber\b|电话|手机|電話|тел\b|телефон)"
    r"[\s.:#()no-]{0,8}\Z",
    re.IGNORECASE,
)
_THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:([ .,\u00a0\u202f])\d{3})(?:\1\d{3})*")
_DATE = re.compile(r"(?:\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{2,4})(?:[\s-]+\d{1,2}){0,3}")
_GROUPED = re.compile(
    r"\(0?\d{1,4}\)[\s.-]?\d{2,4}(?:[\s.-]?\d{2,4}){1,3}"  # (555) 123-4567
    r"|(?:1[-.\s])?[2-9]\d{2}[-.][2-9]\d{2}[-.]\d{4}"  # 555-234-5678
    r"|0\d{1,4}(?:[\s\-–/.]\d{2,4}){2,5}|0\d{1,4}[\s\-–/]\d{5,8}"  # 08-555 010 42, 06 12 34 56 78, 0171 2345678
    r"|0[1-9]\d{8,9}|1[3-9]\d{9}"  # 0701234567, 13812345678
)
HANDLE = re.compile(
    r"(?:\b(?:photo(?:graph)?|image|pic|credits?|shot|taken|posted|follow|by|via|from|cc|ig|insta(?:gram)?|twitter"
    r"|tiktok|snap(?:chat)?|telegram)\b[\s:]{1,3}){0,3}"  # bounded, or hostile texts cost time without bound
    r"(?<![\w.@/])@[A-Za-z_](?=[\w.]*[A-Za-z])[\w.]{1,29}(?<!\.)(?:\s+on\s+(?:socials?|social media|insta(?:gram)?"
    r"|twitter|x|tiktok|snap(?:chat)?|facebook|telegram|youtube)\b)?"
    r"|\b(?:instagram|insta|ig|snapchat|tiktok|telegram|twitter|wechat|kik|skype)(?:\s(?:id|handle|name))?"
    r"\s?[:=]\s?@?[A-Za-z_][\w.]{2,29}",
    re.IGNORECASE,
)


def kinds(text: str) -> list[str]:
    """What personal data ``text`` holds, as "an e-mail address", "a phone number" …; sorted, each once."""
    return sorted({kind for kind, _, _ in _find(text)})


def masked(text: str) -> str:
    """``text`` in NFKC with what :func:`kinds` speaks of covered by ``█``, to be shown to people."""
    plain = _plain(text)
    for _, start, end in _find(text):
        plain = plain[:start] + "█" * (end - start) + plain[end:]
    return plain


def _plain(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def _find(text: str) -> Iterator[tuple[str, int, int]]:
    """(kind, start, end) in the text's NFKC form, in which full-width digits are digits."""
    plain = _plain(text)
    lower = plain.lower()
    digits = len(_DIGIT.findall(plain))
    numbers = digits >= _FEWEST_DIGITS
    rules = (_OF_WORDS if any(word in lower for word in _WORDS) else ()) + (_OF_NUMBERS if numbers else ())
    for kind, pattern, holds in rules + (_OF_ADDRESSES if digits >= _FEWEST_OF_ADDRESS else ()):
        for match in pattern.finditer(plain):
            if holds(match.group()):
                yield kind, match.start(), match.end()
    if not numbers:
        return
    for match in _DIGITS.finditer(plain):
        if _is_phone(match.group(), _CALL.search(plain[max(0, match.start() - 24) : match.start()]) is not None):
            yield "a phone number", match.start(), match.end()


def _is_phone(found: str, announced: bool) -> bool:
    if found.startswith("(") and ")" not in found:
        found = found[1:]
    digits = sum(character.isdigit() for character in found)
    if not 6 <= digits <= 16 or (_DATE.fullmatch(found) and not announced):
        return False
    if found.startswith(("+", "(+")) or (found.startswith("00") and digits >= 11 and not found.isdigit()):
        return digits >= 8
    if announced:
        return True
    if _THOUSANDS.fullmatch(found) or (digits == 13 and found.startswith(("978", "979"))):
        return False
    return digits >= 9 and _GROUPED.fullmatch(found) is not None


def _numbers(text: str) -> list[int]:
    return [int(character) for character in text if character.isdigit()]


def luhn(text: str) -> bool:
    """Whether the digits of ``text`` have a right Luhn sum."""
    total = 0
    for place, digit in enumerate(reversed(_numbers(text))):
        doubled = digit * 2 if place % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def _card(found: str) -> bool:
    digits = _numbers(found)
    return 14 <= len(digits) <= 19 and len(set(digits)) > 1 and luhn(found)


def _iban(found: str) -> bool:
    plain = re.sub(r"[ -]", "", found)
    if not 15 <= len(plain) <= 34:
        return False
    return int("".join(str(int(character, 36)) for character in plain[4:] + plain[:4])) % 97 == 1


def _nordic(found: str) -> bool:
    digits = "".join(character for character in found if character.isdigit())[-10:]
    return luhn(digits) and 1 <= int(digits[4:6]) <= 31


def _chinese(found: str) -> bool:
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    rest = sum(weight * int(digit) for weight, digit in zip(weights, found[:17], strict=True)) % 11
    return "10X98765432"[rest] == found[17].upper()


def _network(found: str) -> bool:
    parts = [int(part) for part in found.split(".")]
    return max(parts) <= 255 and sum(part >= 10 for part in parts) >= 2


def _always(found: str) -> bool:  # noqa: ARG001  (one of the rules' last parts)
    return True


_Rule = tuple[str, re.Pattern[str], Callable[[str], bool]]
_OF_WORDS: tuple[_Rule, ...] = (
    ("an e-mail address", _MAIL, _always),
    ("a password or key", _SECRET, _always),
    ("an identity number", _NAMED_NUMBER, _always),
    ("a date of birth", _BIRTH, _always),
    ("a home address", _HOME, _always),
)
_OF_NUMBERS: tuple[_Rule, ...] = (
    ("a bank account", _IBAN, _iban),
    ("a card number", _CARD, _card),
    ("an identity number", _SOCIAL, _always),
    ("an identity number", _NORDIC, _nordic),
    ("an identity number", _CHINESE, _chinese),
    ("a network address", _NETWORK, _network),
    ("a place's coordinates", _PLACE, _always),
)
_OF_ADDRESSES: tuple[_Rule, ...] = (("a postal address", _ADDRESS, _always),)
