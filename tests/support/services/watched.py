"""A server with users of each role, and visits of its page whose every request and complaint is noted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page

from cryotile.farm.http import Site
from tests.support.services.farm import PASSWORD, USER, FarmServer, add_user

ADMIN, GUEST = "admin", "guest"


class WatchedFarm(FarmServer):
    """A running server with a user, an admin and a guest, who is in no run unless a test makes them a member.

    It sees the run directories in ``runs``.
    """

    def __init__(self, directory: Path) -> None:
        self.runs = directory / "runs"
        self.runs.mkdir()
        super().__init__(directory, CRYOTILE_RUN_DIRECTORIES=str(self.runs))

    def __enter__(self) -> WatchedFarm:
        super().__enter__()
        add_user(self.database_url, ADMIN, "admin")
        self.site(ADMIN).ask("PUT", f"users/{GUEST}", body={"password": PASSWORD})
        self.cookies: dict[str, Any] = {}
        return self

    def site(self, user: str = USER) -> Site:
        """Return the API, called as a user."""
        return Site(f"{self.address}/api/v1", auth=(user, PASSWORD))

    @contextmanager
    def visit(
        self, browser: Browser, path: str = "", user: str = USER, **context: Any
    ) -> Iterator[Page]:
        """Open the page as a user who has logged in; check that no request leaves the server, and no script fails."""
        with browser.new_context(storage_state=self.cookies.get(user), **context) as visitor:
            page = visitor.new_page()
            page.set_default_timeout(60_000)
            requests, complaints = watch(page)
            if user not in self.cookies:
                log_in(page, self.address, user)
                self.cookies[user] = visitor.storage_state()
            page.goto(f"{self.address}/{path}")
            yield page
            assert {urlsplit(each).netloc for each in requests} == {urlsplit(self.address).netloc}
            assert complaints == []


def watch(page: Page) -> tuple[list[str], list[str]]:
    """Return lists that fill with the addresses that a page asks for, and with what the browser holds against it."""
    requests: list[str] = []
    complaints: list[str] = []

    def note(message: Any) -> None:
        # An answer that is an error is for the page to show.
        if message.type == "error" and "Failed to load resource" not in message.text:
            complaints.append(message.text)

    page.on(
        "request", lambda request: request.url.startswith("data:") or requests.append(request.url)
    )
    page.on("console", note)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return requests, complaints


def log_in(page: Page, address: str, user: str) -> None:
    """Log in, and wait for the page of runs."""
    page.goto(address)
    page.get_by_label("Name").fill(user)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Runs").wait_for()


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedFarm]:
    """Start a server that the tests of the page share."""
    with WatchedFarm(tmp_path_factory.mktemp("watched")) as farm:
        yield farm


Visit = Callable[..., Any]


@pytest.fixture
def visit(watched: WatchedFarm, browser: Browser) -> Visit:
    """Return what opens the page: ``with visit("#/runs/…", user=GUEST) as page``."""

    def opened(path: str = "", user: str = USER, **context: Any) -> Any:
        return watched.visit(browser, path, user, **context)

    return opened


def screenshot(page: Page, file: Path) -> None:
    """Write a picture of the page, at most twice as high as wide or 1500 points, with 256 colours: a small file."""
    from io import BytesIO

    from PIL import Image

    picture = Image.open(BytesIO(page.screenshot(full_page=True))).convert("RGB")
    picture = picture.crop((0, 0, picture.width, min(picture.height, max(1500, 2 * picture.width))))
    picture.quantize(256, Image.Quantize.MAXCOVERAGE).save(file, optimize=True)
