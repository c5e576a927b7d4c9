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
from selenium.webdriver.common.keys import Keys

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
    page.says("Completed", patience=RUN_SECONDS)
    page.button("Task Runs")
    page.reads("collect", "register")
    page.shoot("prefect-run")
    assert alias(house, "challenger") == "1"

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
    page.reads("The data gate: passed", "Validation Results")
    page.shoot("data-docs")


def decide(page: Any, house: House, name: str, decision: str, reason: str) -> None:
    """Answer the form of the run that waits for a person."""
    page.open(f"{house.prefect}/v2/runs")
    page.click(f"//a[starts-with(normalize-space(.), '{name}')]")
    page.says("Suspended", patience=RUN_SECONDS)
    page.button("Open menu")
    page.click("//*[@role = 'menuitem'][normalize-space(.) = 'Resume']")
    page.reads("Resume Flow Run", "PASS", "in MLflow")
    page.until(lambda: loaded(page), "the challenger's pictures in the form")
    page.shoot("prefect-promotion")
    page.button("Select Decision")
    page.click(f"//*[@role = 'option'][normalize-space(.) = '{decision}']")
    page.fill(f"({DIALOG}//textarea)[1]", "Ada")
    page.fill(f"({DIALOG}//textarea)[2]", reason)
    page.click(f"{DIALOG}//button[normalize-space(.) = 'Resume']")


def loaded(page: Any) -> bool:
    """Whether the form's pictures are there, and not broken."""
    script = "return [...document.querySelectorAll('[role=dialog] img')].map(one => one.naturalWidth)"
    widths = page.driver.execute_script(script)
    return bool(widths) and all(width > 50 for width in widths)


def alias(house: House, name: str = "champion") -> str:
    """The version that an alias points to."""
    return str(house.said("explain", f"tiny@{name}", "--json")["model"]["version"])


def test_a_promotion_is_approved_in_prefects_form_and_seen_in_mlflow(page: Any, house: House) -> None:
    decide(page, house, "promote tiny 1", "approve", "sharp enough")
    page.says("Completed", patience=RUN_SECONDS)
    page.open(f"{house.mlflow}/#/models/tiny")
    page.find("//*[@role = 'row'][contains(., 'Version 1')]//*[@title = 'champion']")
    page.open(f"{house.mlflow}/#/models/tiny/versions/1")
    page.reads("Ada", "sharp enough")
    page.shoot("mlflow-champion")


def test_an_alias_that_is_moved_in_mlflow_is_recorded_and_rolled_back(page: Any, house: House) -> None:
    second = house.said("run", "tiny.toml", "--json", "--set", "seed=1", "--set", "train.steps=12")
    assert second["model"]["version"] == "2"
    page.open(f"{house.mlflow}/#/models/tiny")
    row = "//*[@role = 'row'][contains(., 'Version 2')]"
    page.find(row)
    page.click(f"({row}//button)[last()]")  # the pencil beside the aliases, at the end of the row
    page.reads("Add/Edit alias for model version 2")
    field = page.find(f"{DIALOG}//input[@role = 'combobox' or @type = 'search']")
    field.send_keys("champion")
    page.find("//*[contains(@class, 'select-item-option')][normalize-space(.) = 'champion']")
    field.send_keys(Keys.ENTER)
    page.find(f"{DIALOG}//*[@title = 'champion']")
    page.shoot("mlflow-alias")
    page.click(f"{DIALOG}//button[normalize-space(.) = 'Save aliases']")
    page.until(lambda: not page.all(DIALOG), "the dialog's end")
    page.open(f"{house.mlflow}/#/models/tiny")  # which does not always show by itself what it saved
    page.find(f"{row}//*[@title = 'champion']")

    assert alias(house) == "2"
    page.open(f"{house.mlflow}/#/models/tiny/versions/2")
    page.reads("MLflow", "darkroom.promotion.0002")
    done = house.workshop.command("rollback", "tiny", "--why", "moved by mistake")
    assert done.returncode == 0, done.stderr
    page.open(f"{house.mlflow}/#/models/tiny")
    page.find("//*[@role = 'row'][contains(., 'Version 1')]//*[@title = 'champion']")
    assert not page.all(f"{row}//*[@title = 'champion']")
    assert alias(house) == "1"
    page.open(f"{house.mlflow}/#/models/tiny/versions/1")
    page.reads("moved by mistake")
    page.shoot("mlflow-rollback")
