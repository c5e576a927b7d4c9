"""A real Chromium before real servers: `darkroom up` in a home folder of its own, and pages that are waited for."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

PATIENCE = 120.0  # seconds; a page's first view on a busy machine takes 20


class Page:
    """A browser window that waits for what it is asked for."""

    def __init__(self, driver: webdriver.Chrome, pictures: Path | None) -> None:
        self.driver, self._pictures = driver, pictures

    def open(self, url: str) -> "Page":
        """Go to an address, and load it anew where it is shown already."""
        self.driver.get("about:blank")  # what differs behind the # alone would not be loaded
        self.driver.get(url)
        return self

    @property
    def text(self) -> str:
        """All that is visible."""
        return self.driver.find_element(By.TAG_NAME, "body").text

    def until(self, look: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
        """What ``look`` answers once that is true; fails with the page's text when it never is."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            try:
                if found := look():
                    return found
            except (StaleElementReferenceException, IndexError):
                pass
            time.sleep(0.2)
        self.shoot("failed")
        raise AssertionError(f"{what} did not show within {patience:.0f} s at {self.driver.current_url}:\n{self.text}")

    def reads(self, *words: str, patience: float = PATIENCE) -> str:
        """The page's text, once it has all these words."""
        return str(self.until(lambda: all(word in self.text for word in words) and self.text, str(words), patience))

    def says(self, line: str, patience: float = PATIENCE) -> None:
        """Wait for a line of just these words, such as a state's badge."""
        self.until(lambda: line in self.text.splitlines(), line, patience)

    def find(self, xpath: str, patience: float = PATIENCE) -> WebElement:
        """The first visible element at an XPath, once there is one."""
        shown: WebElement = self.until(lambda: self.all(xpath)[0], xpath, patience)
        return shown

    def all(self, xpath: str) -> list[WebElement]:
        """The visible elements at an XPath."""
        return [found for found in self.driver.find_elements(By.XPATH, xpath) if found.is_displayed()]

    def click(self, xpath: str) -> None:
        """Click what is there, as soon as nothing covers it."""

        def clicked() -> bool:
            try:
                self.all(xpath)[0].click()
            except StaleElementReferenceException:
                return False
            except WebDriverException as error:
                if "not clickable" in str(error) or "intercepted" in str(error):
                    return False
                raise
            return True

        self.until(clicked, f"clicking {xpath}")

    def button(self, label: str) -> None:
        """Click the button, tab, link or menu item of this label."""
        roles = "self::button or self::a or @role='tab' or @role='menuitem' or @role='button' or @role='option'"
        self.click(f"//*[{roles}][normalize-space(.)='{label}' or @aria-label='{label}']")

    def fill(self, xpath: str, words: str) -> None:
        """Write into a field, in place of what it holds."""
        field = self.find(xpath)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(words)

    def shoot(self, name: str) -> None:
        """Keep a picture of the window, where pictures are asked for."""
        if self._pictures is not None:
            self._pictures.mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(self._pictures / f"{name}.png"))


@pytest.fixture(scope="session")
def driver() -> Iterator[webdriver.Chrome]:
    """Debian's Chromium without a screen."""
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if None in found:
        pytest.skip("needs Debian's chromium and chromium-driver: sh infra/test_services.sh installs them")
    options = webdriver.ChromeOptions()
    options.binary_location = str(found[0])
    # Root cannot use Chromium's sandbox; small machines have little shared memory.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1000"):
        options.add_argument(argument)
    made = webdriver.Chrome(options=options, service=Service(str(found[1])))
    made.set_page_load_timeout(PATIENCE)
    yield made
    made.quit()


@pytest.fixture
def page(driver: webdriver.Chrome) -> Page:
    """The browser's window. ``DARKROOM_SCREENSHOTS`` names the folder in which pictures of it are kept."""
    folder = os.environ.get("DARKROOM_SCREENSHOTS")
    return Page(driver, Path(folder) if folder else None)
