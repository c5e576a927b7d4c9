"""One training at a time on a device, where there is a limit for it."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from darkroom.settings import Settings
from flows.deployments import make_limit
from tasks.slot import limit_name, slot


@pytest.fixture
def settings(tmp_path: Path, prefect_url: str) -> Iterator[Settings]:
    with temporary_settings({PREFECT_API_URL: prefect_url}):
        yield Settings(home=tmp_path, device="cuda:7")


def test_without_a_limit_nobody_waits(settings: Settings) -> None:
    with slot(settings), slot(settings):
        pass


def test_with_one_the_second_begins_when_the_first_has_ended(settings: Settings) -> None:
    with get_client(sync_client=True) as client:
        make_limit(client, settings)
        make_limit(client, settings)
        assert client.read_global_concurrency_limit_by_name(limit_name(settings)).limit == 1
        told: list[str] = []
        begun = threading.Event()

        def second() -> None:
            with temporary_settings({PREFECT_API_URL: settings_url}):
                begun.set()
                with slot(settings):
                    told.append("second begins")

        settings_url = str(PREFECT_API_URL.value())
        other = threading.Thread(target=second)
        with slot(settings):
            other.start()
            begun.wait()
            other.join(1)
            told.append("first ends")
        other.join(60)
        assert told == ["first ends", "second begins"]
        assert client.read_global_concurrency_limit_by_name(limit_name(settings)).active_slots == 0
