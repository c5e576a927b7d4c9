"""Secrets in addresses are seen, refused in recipes and never shown."""

import pytest

from darkroom import secrets
from darkroom.errors import RecipeError
from darkroom.recipe import Overrides, load
from darkroom.settings import Settings

SECRET = "planted5d1e0b"
ADDRESSES = [
    f"https://me:{SECRET}@host/list.csv",
    f"s3://KEY:{SECRET}@bucket/photos",
    f"s3://KEY:with/slash {SECRET}@bucket/photos",
    f"zip://a.zip::s3://KEY:{SECRET}@bucket/photos.zip",
    f"zip://::https://me:{SECRET}@host/photos.zip",
    f"https://host/list.csv?X-Amz-Signature={SECRET}&x=1",
    f"https://host/list.csv?x=1&sig={SECRET}",
    f"https://host/list.csv?access_token={SECRET}",
]
HARMLESS = [
    "https://host/a@b:c",
    "https://host:8080/a@b",
    "zip://a.zip::https://host/x@y",
    "s3://bucket/photos",
    "https://host/list.csv?page=2&size=3",
    "a sentence: token=x",
    "hf://me@x",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_with_a_secret_is_refused_in_a_recipe_and_not_shown(address: str) -> None:
    assert SECRET not in secrets.without_secret(address)
    assert secrets.with_secret(secrets.without_secret(address)) is None
    given = Overrides(fields={"collect.source": "table", "collect.path": address})
    with pytest.raises(RecipeError, match=r"collect\.path has .* AWS_SECRET_ACCESS_KEY") as caught:
        load("digits", given)
    assert SECRET not in str(caught.value)
    with pytest.raises(RecipeError) as caught:
        load(address)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_has_none_stays_as_it_is(text: str) -> None:
    assert secrets.with_secret(text) is None
    assert secrets.without_secret(text) == text


@pytest.mark.parametrize("password", ["plain", "with space/and@signs:?", "pass%20word"])
def test_a_password_is_taken_out_of_an_address_and_put_back(password: str) -> None:
    from urllib.parse import quote

    address = f"postgresql://me:{quote(password, safe='')}@db:5432/mlflow"
    assert secrets.split(address) == ("postgresql://me@db:5432/mlflow", password)
    assert secrets.joined(*secrets.split(address)) == address
    settings = Settings(mlflow_uri=address)
    assert settings.tracking_uri == address
    assert settings.mlflow_login == ("me", password)
    assert settings.mlflow_uri == "postgresql://me@db:5432/mlflow"
    served = Settings(mlflow_uri=f"https://me:{quote(password, safe='')}@mlflow.example/here")
    assert served.tracking_uri == "https://mlflow.example/here"
    assert served.mlflow_login == ("me", password)


def test_a_text_of_a_library_is_shown_without_the_password_in_any_form() -> None:
    password = "pass word/5d1e"
    said = " ".join(secrets.forms(password))
    assert secrets.hidden(f"could not open {said}", password) == "could not open *** *** *** ***"
