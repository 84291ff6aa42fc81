"""Debian's Chromium, driven by Playwright."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from tests.support.services.provide import provide

REMOTE = "farm.example"
"""Name of this machine that the browser takes for another host: it trusts HTTP to localhost as it trusts HTTPS."""

_OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-sync", "--no-first-run", f"--host-resolver-rules=MAP {REMOTE} 127.0.0.1"),
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start a Chromium that all tests share."""
    with sync_playwright() as playwright:
        chromium = launch(playwright)
        yield chromium
        chromium.close()


def launch(playwright: Playwright) -> Browser:
    """Start a Chromium."""
    program = provide(["chromium"], ["chromium"])["chromium"]
    return playwright.chromium.launch(executable_path=program, args=_OPTIONS)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Open a page without cookies, which trusts self-signed certificates."""
    context = browser.new_context(ignore_https_errors=True)
    context.set_default_timeout(120_000)
    yield context.new_page()
    context.close()
