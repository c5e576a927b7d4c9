"""Addresses without the secrets that people write into them: passwords, and the queries that sign a download.

A secret comes from the environment, and nothing that a run writes has one: no recipe, log, artifact, tag or page.
"""

import base64
import re
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from .errors import RecipeError

# Names of a query's fields that let whoever has the address in: of S3, GCS, Azure and most services of their own.
SIGNING = re.compile(
    r"(?i)(?<=[?&;])(x-amz-(signature|credential|security-token)|x-goog-(signature|credential)|signature|sig|awsaccesskeyid"
    r"|(access_|auth_|api_?)?(token|key)|password|passwd|secret)=[^&;#\s]*[&;]?"
)
# user:password, also one with a slash that nobody quoted, as S3's keys have; a user alone is no secret, nor is a port.
USERINFO = re.compile(r"://([^/?#\s@:]*:(?!:|\d+(?:/|$))[^?#@]*)@")


def with_secret(text: str) -> str | None:
    """What is secret about an address: a password, or a query that signs it; None where nothing is."""
    if USERINFO.search(text):
        return "a password"
    if "://" in text and SIGNING.search(text):
        return "a query that signs it"
    return None


def without_secret(text: str) -> str:
    """An address as it may be shown and kept: without its password, and without what signs it."""
    shown = USERINFO.sub(lambda found: f"://{found[1].partition(':')[0]}@", text)
    return SIGNING.sub("", shown).rstrip("?&;") if "://" in shown and SIGNING.search(shown) else shown


def refuse(table: Any, where: str, field: str = "") -> None:
    """Raise :class:`RecipeError` for a text in a recipe's table that has a secret in it; the message has it not."""
    if isinstance(table, dict):
        for key, value in table.items():
            refuse(value, where, f"{field}.{key}" if field else str(key))
    elif isinstance(table, list):
        for value in table:
            refuse(value, where, field)
    elif isinstance(table, str) and (what := with_secret(table)):
        raise RecipeError(
            f"{where}: {field or 'it'} has {what} in its address, {without_secret(table)}, and a recipe is shown and "
            f"kept in many places: {ELSEWHERE}"
        )


ELSEWHERE = (
    "take it out, and put it into the environment, where S3 finds AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, Google "
    "GOOGLE_APPLICATION_CREDENTIALS, the hub HF_TOKEN and any other file system FSSPEC_<PROTOCOL>_<FIELD>, such as "
    "FSSPEC_SFTP_PASSWORD"
)


def split(address: str) -> tuple[str, str | None]:
    """(the address without its password, the password); it is the same address where it has none."""
    parts = urlsplit(address)
    user, separator, rest = parts.netloc.rpartition("@")
    name, colon, password = user.partition(":")
    if not separator or not colon:
        return address, None
    return urlunsplit(parts._replace(netloc=f"{name}@{rest}")), unquote(password)


def user_of(address: str) -> str | None:
    """The user that an address names."""
    user, separator, _ = urlsplit(address).netloc.rpartition("@")
    return unquote(user.partition(":")[0]) if separator else None


def joined(address: str, password: str | None) -> str:
    """An address with the password that :func:`split` took out of it."""
    parts = urlsplit(address)
    user, separator, rest = parts.netloc.rpartition("@")
    if password is None or not separator:
        return address
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{rest}"))


def hidden(text: str, *secrets: str | None) -> str:
    """A text of a library's in which secrets, as they are or quoted or in base64, are replaced by stars."""
    for secret in filter(None, secrets):
        for form in forms(secret):
            text = text.replace(form, "***")
    return text


def forms(secret: str) -> list[str]:
    """How a secret may be written: plain, quoted as in addresses, in base64."""
    content = secret.encode()
    return list(dict.fromkeys([secret, quote(secret, safe=""), quote(secret), base64.b64encode(content).decode()]))
