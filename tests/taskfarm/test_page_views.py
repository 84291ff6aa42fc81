"""Every view of the page, light and dark, wide and narrow: everybody can read it; pictures of them for the docs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.support.services.farm import PASSWORD
from tests.support.services.watched import ADMIN, GUEST, USER, screenshot
from tests.support.waiting import wait_until
from tests.support.watched_runs import WatchedRun, let_tasks_last, show_case

expect.set_options(timeout=60_000)

# A directory for pictures; without it none are made.
PICTURES = os.environ.get("CRYOTILE_SCREENSHOTS")

WIDTHS = {"wide": (1100, 620), "narrow": (360, 740)}


@pytest.fixture(scope="module")
def sample(watched) -> WatchedRun:
    """Runs in the middle of their work."""
    site = watched.site()
    WatchedRun(site, "Antarctica, 1 km, 2003 to 2009", 400_000)
    ended = WatchedRun(site, "Svalbard, test of the season", 40)
    ended.settle(ended.claim(40))
    run = show_case(site, "Greenland, 1 km, 2010 to 2026")
    paused = WatchedRun(site, "Devon Ice Cap", 900)
    paused.settle(paused.claim(300))
    paused.ask("POST", "/pause")
    let_tasks_last(Path(watched.database_url.removeprefix("sqlite:///")))
    return run


def open_runs(page: Page, address: str, run: WatchedRun) -> None:
    page.goto(f"{address}/#/")
    expect(page.get_by_role("link", name="Greenland")).to_be_visible()


def open_forms(page: Page, address: str, run: WatchedRun) -> None:
    """Open what is folded, beside the line of a lost connection."""
    page.goto(f"{address}/#/")
    page.get_by_text("New run").click()
    expect(page.get_by_label("Number of tasks")).to_be_visible()
    page.route("**/api/v1/**", lambda route: route.abort())
    page.get_by_label("Name", exact=True).fill("Never made")
    page.get_by_label("Number of tasks").fill("12")
    page.get_by_role("button", name="Create").click()
    expect(page.locator("#status")).to_contain_text("does not answer")


def open_members(page: Page, address: str, run: WatchedRun) -> None:
    page.goto(f"{address}/#/runs/{run.uuid}")
    page.locator("summary", has_text="Members").click()
    page.get_by_label("User").fill(GUEST)
    page.get_by_role("button", name="Set role").click()
    expect(page.get_by_role("button", name=f"Remove {GUEST}")).to_be_visible()


def open_run(page: Page, address: str, run: WatchedRun) -> None:
    page.goto(f"{address}/#/runs/{run.uuid}")
    page.get_by_label("Colour tiles by").select_option("dhdt")
    expect(page.locator(".legend")).to_contain_text("rate of elevation change")
    page.locator(".map canvas").click()
    expect(page.locator(".side")).to_contain_text("cryotile explain")
    page.locator("summary", has_text="No space left").click()


def open_users(page: Page, address: str, run: WatchedRun) -> None:
    page.goto(f"{address}/#/users")
    expect(page.get_by_role("button", name=f"Remove {USER}")).to_be_visible()


def open_tokens(page: Page, address: str, run: WatchedRun) -> None:
    page.goto(f"{address}/#/tokens")
    expect(page.get_by_role("row", name="this session")).to_be_visible()


def open_audit(page: Page, address: str, run: WatchedRun) -> None:
    page.goto(f"{address}/#/audit")
    expect(page.get_by_role("cell", name="pause").first).to_be_visible()


def open_question(page: Page, address: str, run: WatchedRun) -> None:
    page.goto(f"{address}/#/runs/{run.uuid}")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_be_visible()


def open_error(page: Page, address: str, run: WatchedRun) -> None:
    page.goto(f"{address}/nosuch")
    expect(page.get_by_role("alert")).to_be_visible()


VIEWS = {
    "runs": open_runs,
    "forms": open_forms,
    "run": open_run,
    "members": open_members,
    "users": open_users,
    "tokens": open_tokens,
    "audit": open_audit,
    "question": open_question,
    "error": open_error,
}


def look(page: Page, view: str, scheme: str) -> None:
    """Check the view in a colour scheme at each width, and take its picture if asked."""
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    for width, (across, down) in WIDTHS.items():
        page.set_viewport_size({"width": across, "height": down})
        wait_until(
            lambda most=across: page.evaluate("document.documentElement.scrollWidth") <= most,
            lambda: f"the view {view} is wider than the screen",
        )
        if PICTURES and view not in ("forms", "members", "question", "error", "login-wrong"):
            page.wait_for_timeout(400)
            screenshot(page, Path(PICTURES) / f"page-{view}-{scheme}-{width}.png")
        found = Axe().run(page)
        assert found.violations_count == 0, (view, scheme, width, found.generate_report())


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_can_be_read_by_everybody_in_both_schemes_and_on_a_telephone(
    watched, visit, sample, view
):
    with visit(user=ADMIN) as page:
        VIEWS[view](page, watched.address, sample)
        for scheme in ("light", "dark"):
            look(page, view, scheme)


def test_the_login_can_be_read_by_everybody(watched, browser):
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(watched.address)
        for scheme in ("light", "dark"):
            look(page, "login", scheme)
        page.get_by_label("Name").fill(USER)
        page.get_by_label("Password").fill(f"not {PASSWORD}")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_be_visible()
        look(page, "login-wrong", "light")
