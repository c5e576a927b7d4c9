"""Settings that are none: one sentence, and nothing of the value."""

import pytest

from darkroom.errors import RecipeError
from darkroom.settings import Settings


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DARKROOM_PREFECT_PORT", "0", "DARKROOM_PREFECT_PORT: input should be greater than or equal to 1"),
        ("DARKROOM_RESERVE_BYTES", "much", "DARKROOM_RESERVE_BYTES: input should be a valid integer"),
        ("DARKROOM_PASSWORD", "hunter2", "DARKROOM_PASSWORD: "),
        ("DARKROOM_USER", "ada", "set both, DARKROOM_USER and DARKROOM_PASSWORD, or neither"),
        ("DARKROOM_MACHINE", "3", "DARKROOM_MACHINE = 3: of 1 machines the last is 0"),
    ],
)
def test_a_wrong_setting_is_named_by_its_variable(monkeypatch, name: str, value: str, words: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(RecipeError) as caught:
        Settings()
    said = str(caught.value)
    assert said.startswith(words)
    assert "hunter2" not in said
    assert "\n" not in said
    assert caught.value.__cause__ is None
