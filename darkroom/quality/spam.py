"""Adverts and stuffed texts: refused when the evidence is heavy, remarked on when it is light.

A sign in a picture may say "SALE 50 % off": what stands in quotes is not counted, and two light signs do not refuse.
"""

import re
from collections import Counter

from .patterns import either, word_list

REFUSED = 3  # points
_STRONG = either(  # two points each
    r"\b(?:buy|order|shop|call|act|book|subscribe|join|dm|apply|click|enrol?l) (?:it )?now\b",
    r"\bclick (?:here|the link|below)\b|\blink in (?:my |the )?(?:bio|profile|description)\b",
    r"\badd to (?:cart|basket)\b",
    r"\bfree (?:shipping|delivery|trial|gift|download)\b|\b(?:promo|discount|coupon|voucher) codes?\b",
    r"\bdm (?:me|us|for)\b|\b(?:follow|subscribe to|like and share) (?:me|us|our|my|for)\b",
    r"\blimited[- ](?:time|stock|offer)\b|\bmoney[- ]back\b|\bwhile stocks? lasts?\b",
    r"\b100 ?% (?:free|guaranteed|satisfaction|original)\b|\bbest prices? (?:guaranteed|online|ever)\b",
    r"\b(?:visit|check out) our (?:web ?site|store|shop|page|online)\b|\bmake money\b|\bearn \$|\bwork from home\b",
    r"\b(?:online )?casino\b.*\b(?:bonus|free|win)\b|\bviagra\b|\bcialis\b|\bporn\b|\bxxx\b|\bbacklinks?\b|\bforex\b",
    r"\bcheap\b.*\b(?:replica|rolex|followers)\b|\bcrypto (?:giveaway|investment)\b",
    r"立即购买|点击购买|加微信|免费领取|包邮|限时抢购",
    r"jetzt kaufen|versandkostenfrei|achetez maintenant",
    r"livraison gratuite|compra ahora|envío gratis|купить сейчас|бесплатная доставка",
)
_WEAK = either(  # one each
    r"\b\d{1,2} ?% off\b|\bon sale\b|\bbig sale\b|\bdiscounts?\b|\bcheap(?:est)?\b|\bbest (?:price|deal|seller)s?\b",
    r"\bspecial offer\b|\bhot deal\b|\bbargain\b|\bin stock\b|\bfree\b(?= !|!)|\bwholesale\b|\bretweet\b|\bgiveaway\b",
    r"\bsubscribe\b|\bfor sale\b|(?<!\w)[$€£¥₽]\s?\d+(?:[.,]\d{2})?\b|\b\d+(?:[.,]\d{2})? ?(?:usd|eur|gbp|sek)\b",
)
# A text without one of these words or signs has no pattern of the two tables: most are done with here.
_TRIGGERS = word_list(
    """now click link cart basket free code codes dm follow subscribe like limited money stock stocks 100 best visit
    check earn work casino viagra cialis porn xxx backlink backlinks forex replica rolex followers crypto off sale
    discount discounts cheap cheapest special hot bargain wholesale retweet giveaway usd eur gbp sek kaufen
    versandkostenfrei maintenant gratuite ahora gratis сейчас бесплатная"""
)
_SIGNS = re.compile(r"[$€£¥₽买购信领邮]")
_QUOTED = either(r"\"[^\"]{1,80}\"", r"“[^”]{1,80}”", r"「[^」]{1,80}」", r"«[^»]{1,80}»", r"(?<!\w)'[^']{3,60}'(?!\w)")
_SHOUTS = re.compile(r"[!！]{2,}")
_RUN = re.compile(r"([^\W\d_])\1{7,}", re.IGNORECASE)
_PUNCTUATION_RUN = re.compile(r"([^\w\s])\1{4,}")
_HASHTAG = re.compile(r"(?:\A|(?<=\s))#\w+")
_PICTOGRAPH = re.compile(r"[\U0001f300-\U0001faff\u2600-\u27bf]")
_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_PIECES = re.compile(r"[,;|.!\n]+")
_SMALL = word_list("a an the of in on at to and with is by for from de la le el der die das und")


def spam(text: str) -> tuple[str | None, list[str]]:
    """(why the text is refused, or None; what is to be remarked on)."""
    remarks: list[str] = []
    words = _WORD.findall(text.casefold())
    if (why := _repeats(text, words)) is not None:
        return why, remarks
    if not _TRIGGERS.isdisjoint(words) or _SIGNS.search(text):
        own = _QUOTED.sub(" ", text)
        strong = len(_STRONG.findall(own))
        points = 2 * strong + len({found.casefold() for found in _WEAK.findall(own)})
        if strong:
            points += _SHOUTS.search(own) is not None
        if points >= REFUSED or (strong and len(words) <= 4):
            return "an advert", remarks
        if points:
            remarks.append("words of an advert")
    tags = len(_HASHTAG.findall(text)) if "#" in text else 0
    if tags >= 3 and tags * 2 > len(words):
        return "hashtags", remarks
    if tags >= 3:
        remarks.append("hashtags")
    if len(words) >= 4 and text.isupper() and sum(map(len, words)) >= 16:
        remarks.append("all in capitals")
    if _PUNCTUATION_RUN.search(text):
        remarks.append("repeated punctuation")
    if not text.isascii() and len(_PICTOGRAPH.findall(text)) > max(7, len(text) // 4):
        remarks.append("a wall of pictographs")
    return None, remarks


def _repeats(text: str, words: list[str]) -> str | None:
    """What is stuffed in.

    A letter eight times in a row; a word that is over half of the text, or a third and there eight times, or there
    five times in a row; a phrase of three words or more thrice between commas; less than a quarter of forty words new.
    """
    if _RUN.search(text):
        return "a letter repeated"
    if len(words) < 5:
        return None
    different = len(set(words))
    if len(words) - different >= 4 and (counts := Counter(word for word in words if word not in _SMALL)):
        word, times = max(counts.items(), key=lambda item: (item[1], item[0]))
        if times >= 5 and (
            (times >= 8 and 3 * times > len(words)) or 2 * times > len(words) or " ".join([word] * 5) in " ".join(words)
        ):
            return "a word repeated"
    if len(words) >= 40 and different < 0.25 * len(words):
        return "few words repeated"
    pieces = _PIECES.split(text) if len(words) > different else []
    phrases = Counter(piece.strip().casefold() for piece in pieces if len(piece.split()) >= 3)
    if phrases and max(phrases.values()) >= 3:
        return "a phrase repeated"
    return None
