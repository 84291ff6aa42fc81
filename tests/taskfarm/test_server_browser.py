"""The page of a server in a real browser, on bare HTTP and behind nginx with TLS."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from cryotile.farm.http import Site
from tests.support.services.browser import REMOTE
from tests.support.services.farm import PASSWORD, USER, FarmServer, add_user
from tests.support.services.nginx import Nginx

expect.set_options(timeout=60_000)

# A page on any site, here without one: its origin is opaque, as that of a sandboxed frame.
FORM = '<form method="post" enctype="text/plain" action="{}"><input name=\'{}\' value=\'{}\'><button>Go</button></form>'


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Iterator[tuple[FarmServer, str]]:
    """Start a server on bare HTTP; return it and an address that browsers do not take for this machine's."""
    with FarmServer(tmp_path_factory.mktemp("farm")) as server:
        yield server, f"http://{REMOTE}:{server.port}"


@pytest.fixture(scope="module")
def secure(tmp_path_factory) -> Iterator[tuple[FarmServer, str]]:
    """Start a server behind nginx; return it and the address of nginx."""
    with (
        FarmServer(tmp_path_factory.mktemp("farm"), CRYOTILE_PROXIES="1") as server,
        Nginx(tmp_path_factory.mktemp("nginx"), server.port) as nginx,
    ):
        yield server, nginx.address


@pytest.fixture(params=["plain", "secure"])
def farm(request) -> tuple[FarmServer, str]:
    return request.getfixturevalue(request.param)


def create_run(server: FarmServer, name: str, count: int, done: int = 0) -> None:
    site = Site(f"{server.address}/api/v1", auth=(USER, PASSWORD))
    run = site.ask("POST", "runs", body={"key": name, "name": name, "count": count})["run"]
    worker = {"uuid": "w", "host": "here", "pid": 7}
    if done:
        leases = site.ask("POST", f"runs/{run}/leases", body={"worker": worker, "n": done})[
            "leases"
        ]
        outcomes = [{"lease": lease["lease"], "seconds": 1} for lease in leases]
        site.ask("POST", f"runs/{run}/outcomes", body=outcomes, query={"worker": "w"})


def log_in(page: Page, address: str, password: str = PASSWORD) -> None:
    page.goto(address)
    page.get_by_label("Name").fill(USER)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def listed_runs(page: Page, address: str) -> list[str]:
    page.goto(f"{address}/api/v1/runs")
    return [run["run"] for run in json.loads(page.text_content("body"))["runs"]]


def test_a_user_logs_in_sees_their_runs_and_logs_out(farm, page):
    server, address = farm
    create_run(server, "Greenland", 4, done=1)
    failures = []
    page.on("console", lambda message: failures.append(message.text))
    log_in(page, address)
    row = page.get_by_role("row", name="Greenland")
    expect(row).to_contain_text("1 of 4")
    expect(row).to_contain_text("25 %")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Password")).to_be_visible()
    page.goto(address)
    expect(page.get_by_label("Password")).to_be_visible()
    assert failures == []


def test_a_wrong_password_shows_the_login_with_the_reason(farm, page):
    log_in(page, farm[1], "wrong")
    expect(page.get_by_role("alert")).to_have_text(re.compile("name or password is wrong"))
    page.get_by_label("Name").fill(USER)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Runs")).to_be_visible()


def test_a_session_that_has_ended_leads_to_the_login(farm, page):
    server, address = farm
    log_in(page, address)
    expect(page.get_by_role("heading", name="Runs")).to_be_visible()
    with page.context.new_page() as second:
        second.goto(address)
        expect(second.get_by_role("heading", name="Runs")).to_be_visible()
        # A new password revokes the token of the session, as its expiry does.
        add_user(server.database_url, USER)
        # The server ends what it tells the page, which then is the login.
        expect(second.get_by_label("Password")).to_be_visible()
    # A button of an old page leads there, too.
    page.evaluate(
        "document.body.innerHTML = '<form method=post action=/logout><button>Old</button></form>'"
    )
    page.get_by_role("button", name="Old").click()
    expect(page.get_by_label("Password")).to_be_visible()
    log_in(page, address)
    expect(page.get_by_role("heading", name="Runs")).to_be_visible()


def test_a_form_of_another_site_changes_nothing(farm, browser):
    """The browser knows the password of the user, who has looked at the API."""
    address = farm[1]
    who = {"username": USER, "password": PASSWORD}
    with browser.new_context(ignore_https_errors=True, http_credentials=who) as context:
        page = context.new_page()
        before = listed_runs(page, address)
        for path, name, value in (
            ("/api/v1/runs", '{"count": 3, "key": "', '"}'),
            ("/api/run", '{"numTasks": 3, "x": "', '"}'),
        ):
            page.goto("about:blank")
            page.set_content(FORM.format(address + path, name, value))
            with page.expect_navigation():
                page.get_by_role("button", name="Go").click()
            expect(page.get_by_role("alert")).to_have_text(re.compile("from another site"))
        assert listed_runs(page, address) == before


def test_many_large_runs_are_readable_on_a_telephone(plain, browser):
    server, address = plain
    for number in range(20):
        create_run(server, f"Antarctica {number}", 400_000, done=1000 if number == 19 else 0)
    for width, height in ((360, 740), (1280, 800)):
        with browser.new_context(viewport={"width": width, "height": height}) as context:
            page = context.new_page()
            log_in(page, address)
            newest = page.locator("tbody tr").first
            expect(newest).to_contain_text("Antarctica 19")
            expect(newest).to_contain_text("1,000 of 400,000")
            expect(newest).to_contain_text("399,000")
            expect(newest).to_contain_text(re.compile(r"\d+ s ago"))
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("document.querySelector('.scroll').scrollWidth") <= width
