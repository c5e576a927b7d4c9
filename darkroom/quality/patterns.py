"""Tables of patterns, one a line, made into one expression."""

import re


def either(*patterns: str, flags: int = re.IGNORECASE) -> re.Pattern[str]:
    """One expression that matches where any of ``patterns`` does, the first that fits."""
    return re.compile("|".join(patterns), flags)


def word_list(text: str) -> frozenset[str]:
    """The words of a text, or its entries where ``|`` divides them."""
    parts = text.replace("\n", "|").split("|") if "|" in text else text.split()
    return frozenset(part.strip() for part in parts if part.strip())
