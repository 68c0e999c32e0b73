# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One Chromium for all tests, and pages that fail their test for an error, a warning, or a request."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright
from playwright.sync_api import Page as Tab

Open = Callable[..., Tab]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium as the distribution packages it; `make page-test` says where."""
    executable = os.environ.get("CHROMIUM")
    assert executable, "CHROMIUM names no program: run `make page-test`, which installs it where it can"
    with sync_playwright() as playwright:
        # The sandbox needs privileges that containers lack; the only pages opened are our own.
        started = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Open a page, given as its model or by its address: `open_page(page, fragment="", **context)`."""
    # Only now is the collection on the path.
    import fleets

    troubles: list[str] = []
    contexts = []

    def start(page: Any, fragment: str = "", **context: Any) -> Tab:
        address = page if isinstance(page, str) else fleets.write(page, tmp_path / "fleet.html")
        made = browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **context})
        contexts.append(made)
        tab = made.new_page()
        tab.on("console", lambda message: troubles.append(f"console: {message.text}"))
        tab.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        tab.on("request", lambda request: request.url.startswith(("file:", "data:")) or troubles.append(request.url))
        tab.goto(address + fragment)
        tab.wait_for_selector("#status:not(:empty)")
        return tab

    yield start
    for made in contexts:
        made.close()
    assert troubles == []
