"""A headless Chromium, that of Debian; a test that asks for it is skipped where it is absent."""

import shutil
import time
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def browser():
    driver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and chromedriver):
        pytest.skip("chromium and chromium-driver, of Debian, are not installed")
    options = driver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1900,1150"):
        options.add_argument(argument)
    with driver.Chrome(options=options, service=driver.ChromeService(chromedriver)) as opened:
        yield opened


def until(look: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Return what a look finds, as soon as it finds anything."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "nothing found"
        time.sleep(0.1)
    return found
