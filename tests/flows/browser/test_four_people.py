"""The days of four people, in a real browser before the real pages: schedule, review, promote, watch.

One `darkroom up` serves all tests, which follow each other: what one person did, the next one finds.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from darkroom import process

DIALOG = "//*[@role='dialog']"
RUN_SECONDS = 240.0  # a whole tiny run through a worker, on a busy machine


@dataclass
class House:
    """A workshop under `darkroom up`, and the addresses of its pages."""

    workshop: Any
    prefect: str
    mlflow: str
    reports: str

    def said(self, *arguments: str) -> dict[str, Any]:
        """The object that a command prints on its last line."""
        done = self.workshop.command(*arguments)
        assert done.returncode == 0, done.stderr[-4000:]
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, equip: Callable[[Path], Any]) -> Iterator[House]:
    """Everything up, with the tiny recipe deployed; promotion is asked for."""
    workshop = equip(tmp_path_factory.mktemp("house") / "workshop")
    recipe = workshop.folder / "tiny.toml"
    recipe.write_text(recipe.read_text() + '[register]\npromote = "ask"\n')
    ports = {name: process.free_port() for name in ("prefect", "mlflow", "reports")}
    workshop.environment |= {f"DARKROOM_{name.upper()}_PORT": str(port) for name, port in ports.items()}
    began = workshop.command("up", "--recipe", "tiny.toml")
    try:
        assert began.returncode == 0, began.stdout + began.stderr
        yield House(workshop, **{name: f"http://127.0.0.1:{port}" for name, port in ports.items()})
    finally:
        ended: subprocess.CompletedProcess[str] = workshop.command("down")
    assert ended.returncode == 0, ended.stderr
    assert not workshop.left_over()


def deployment(page: Any, house: House, flow: str, name: str) -> None:
    """Open a deployment's page in Prefect."""
    page.open(f"{house.prefect}/v2/deployments")
    page.click(f"//tr[contains(., '{flow}')]//a[normalize-space(.) = '{name}']")
    page.reads("Configuration")


def test_a_retraining_is_scheduled_in_prefect_and_watched_to_its_end(page: Any, house: House) -> None:
    deployment(page, house, "retrain", "tiny")
    switch = "//*[@role = 'switch'][starts-with(@aria-label, 'toggle')]"
    assert page.find(switch).get_attribute("aria-checked") == "false", "nothing trains unasked"
    page.click(switch)
    page.until(lambda: page.find(switch).get_attribute("aria-checked") == "true", "the schedule's switch")
    schedules = {one["deployment"]: one for one in house.said("schedule", "--json")["schedules"]}
    assert schedules["retrain/tiny"]["on"]
    assert not schedules["quality/tiny"]["on"]

    page.button("Run")
    page.button("Quick run")
    page.click(f"{DIALOG}//button[normalize-space(.) = 'Run']")
    page.button("View run")
    page.reads("Completed", patience=RUN_SECONDS)
    page.reads("collect", "register")
    page.shoot("prefect-run")
    assert house.said("explain", "tiny@champion", "--json")["model"]["version"] == "1"

    # The next night's run waits already.
    deployment(page, house, "retrain", "tiny")
    page.button("Upcoming")
    page.reads("auto-scheduled", "02:00:00 AM")
    page.shoot("prefect-schedule")


def test_the_quality_report_and_the_data_docs_open_from_the_run(page: Any, house: House) -> None:
    page.open(f"{house.prefect}/v2/runs")
    page.click("//a[starts-with(normalize-space(.), 'retrain ')]")
    page.button("Artifacts")
    page.click("//a[contains(., 'data-quality')]")
    page.click("(//a[contains(@href, '/artifacts/artifact/')])[1]")
    page.reads("Data accepted", "150")
    here = page.driver.current_url
    page.open(page.find("//a[normalize-space(.) = 'Review']").get_attribute("href"))
    assert page.driver.current_url.startswith(house.reports)
    assert "150" in page.reads("accepted")
    page.shoot("review")
    page.open(here)
    page.open(page.find("//a[normalize-space(.) = 'rules']").get_attribute("href"))
    page.reads("79", "Expectation")
    page.shoot("data-docs")
