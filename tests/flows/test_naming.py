"""What runs are called."""

import pytest

from flows.naming import short


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        ("digits", "digits"),
        ("v1.2", "v1.2"),
        ("recipes/digits.toml", "digits"),
        ("/home/me/my recipes/tiny.toml", "tiny"),
        ("https://me:secret@host/recipes/tiny.toml?token=secret", "tiny"),
        ("https://host/recipes/tiny", "tiny"),
    ],
)
def test_a_recipe_is_spoken_of_without_the_way_to_it(recipe: str, name: str) -> None:
    assert short(recipe) == name
