"""What `darkroom schedule` takes for a time, and how it says it again."""

from datetime import timedelta

import pytest
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

from darkroom.errors import RecipeError
from flows import schedule
from flows.cli import main, parser


def made(*words: str):
    return schedule._made(parser().parse_args(["schedule", "digits", *words]))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cron", "0 2 * * *"), "0 2 * * *"),
        (("--every", "90m"), "every 90m"),
        (("--every", "60m"), "every 1h"),
        (("--every", "7d"), "every 7d"),
    ],
)
def test_a_schedule_is_said_as_it_was_given(words: tuple[str, ...], said: str) -> None:
    assert schedule.words(made(*words)) == said


def test_a_time_is_that_of_the_zone() -> None:
    night = made("--cron", "0 2 * * *", "--timezone", "Europe/Berlin")
    assert isinstance(night, CronSchedule)
    assert night.timezone == "Europe/Berlin"
    often = made("--every", "6h", "--timezone", "Asia/Taipei")
    assert isinstance(often, IntervalSchedule)
    assert (often.interval, often.timezone) == (timedelta(hours=6), "Asia/Taipei")


@pytest.mark.parametrize("words", [("--cron", "61 * * * *"), ("--cron", "0 2 * * *", "--timezone", "Mars/Olympus")])
def test_what_is_no_time_is_one_sentence(words: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError, match="this is no schedule") as error:
        made(*words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("words", [("--every", "0m"), ("--every", "soon"), ("--every", "1h", "--off")])
def test_what_cannot_be_is_refused_at_once(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["schedule", "digits", *words])
    assert stopped.value.code == 2


def test_the_machines_zone_is_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", ":Europe/Berlin")
    assert schedule.local_zone() == "Europe/Berlin"
    monkeypatch.delenv("TZ")
    assert schedule.local_zone()
