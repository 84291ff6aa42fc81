"""The page of a server in Chromium: what it shows while workers work, and what each role may do."""

from __future__ import annotations

import gzip
import re
import signal
import time

from playwright.sync_api import Locator, Page, expect

from cryotile.taskfarm import page as files
from tests.support.command_line import start
from tests.support.services.watched import ADMIN, GUEST
from tests.support.small_run import make_run
from tests.support.watched_runs import WatchedRun, disc_map, disc_values, packed

expect.set_options(timeout=60_000)

# Colours on the map, as numbers.
COLOURS = """canvas => {
    const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height)
    return [...new Set(new Uint32Array(data.buffer))]
}"""

SETTLED = """async canvas => {
    const frame = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))
    let before, now = canvas.toDataURL()
    do { before = now; await frame(); now = canvas.toDataURL() } while (now !== before)
    return now
}"""

# An error, a host and a name that a careless page would run.
SCRIPT = '<img src=x onerror="window.broken = 1"><script>window.broken = 1</script>&amp;'


def map_of(page: Page):
    return page.locator(".map canvas")


def drawn(canvas: Locator) -> str:
    """Return the picture in a canvas once two frames in a row show the same."""
    return canvas.evaluate(SETTLED)


def mark(page: Page) -> None:
    """Leave a mark that a reload would wipe out."""
    page.evaluate("window.stayed = true")


def stayed(page: Page) -> bool:
    return page.evaluate("window.stayed === true")


def test_the_page_is_small():
    compressed = {name: len(gzip.compress(files.content(name))) for name in files.FILES}
    assert sum(compressed.values()) < 100_000, compressed


def test_a_planned_run_fills_its_map_while_workers_come_die_and_are_replaced(watched, visit):
    run = make_run(watched.runs)
    tiles = len(run.tasks)
    words = ("run", run.path, "--backend", watched.url, "--lease", "4")
    with visit() as page:
        mark(page)
        first = start(*words, environment=watched.environment)
        kill_with_tasks(watched, first)
        row = page.get_by_role("row", name=re.compile(re.escape(run.path.name)))
        expect(row).to_be_visible()
        row.get_by_role("link").click()
        facts = page.locator(".facts")
        expect(facts).to_contain_text(re.compile(r"[1-9]\d* running"))
        workers = page.get_by_role("region", name="Workers")
        expect(workers).to_contain_text("stuck")
        before = set(map_of(page).evaluate(COLOURS))
        second = start(*words, environment=watched.environment)
        expect(facts).to_contain_text(f"{tiles} done")
        expect(map_of(page)).to_have_attribute(
            "aria-label", re.compile(f"0 waiting, 0 running, {tiles} done, 0 failed")
        )
        expect(workers).not_to_contain_text("stuck")
        second.communicate(timeout=60)
        assert second.returncode == 0
        assert set(map_of(page).evaluate(COLOURS)) != before
        page.get_by_label("Colour tiles by").select_option("dhdt")
        expect(page.locator(".legend")).to_contain_text("rate of elevation change")
        page.wait_for_function(f"({COLOURS})(document.querySelector('.map canvas')).length > 40")
        # The server sees the directory of the run, so that a click explains a post.
        map_of(page).click()
        expect(page.get_by_label("Explanation of the post")).to_contain_text("points")
        assert stayed(page)


def kill_with_tasks(farm, process) -> None:
    """Kill a worker at a moment at which it holds tasks: it is stopped first, so that it cannot settle them."""
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if leased(farm):
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.1)
            if leased(farm):
                process.kill()
                process.communicate()
                return
            process.send_signal(signal.SIGCONT)
        time.sleep(0.01)
    raise AssertionError("the worker never held a task")


def leased(farm) -> int:
    runs = farm.site().ask("GET", "runs")["runs"]
    return runs[-1]["leased"] if runs else 0


def test_numbers_and_map_follow_the_workers_without_a_reload(watched, visit):
    layout = disc_map(6)
    values = disc_values(layout, 6)
    run = WatchedRun(watched.site(), "Follow", len(values), layout)
    with visit(f"#/runs/{run.uuid}") as page:
        mark(page)
        canvas, facts = map_of(page), page.locator(".facts")
        expect(facts).to_contain_text(f"{len(values)} waiting, 0 running, 0 done, 0 failed")
        leases = run.claim(3)
        expect(facts).to_contain_text("3 running")
        expect(canvas).to_have_attribute("aria-label", re.compile("3 running"))
        for lease in leases:
            run.settle([lease], thumbnail=packed(values[lease["task"]]))
        expect(canvas).to_have_attribute("aria-label", re.compile("0 running, 3 done"))
        for variable in ("dhdt", "dhdt_sigma", "status", "seconds", "cost", "worker", "attempts"):
            page.get_by_label("Colour tiles by").select_option(variable)
            expect(page.locator(".legend")).not_to_be_empty()
        page.get_by_label("Colour tiles by").select_option("dhdt")
        page.wait_for_function(f"({COLOURS})(document.querySelector('.map canvas')).length > 40")
        assert stayed(page)


def test_without_events_the_page_asks_again_and_again(watched, visit):
    run = WatchedRun(watched.site(), "Poll", 4)
    with visit("favicon.ico") as page:
        page.route("**/api/v1/events", lambda route: route.fulfill(status=503))
        page.goto(watched.address)
        row = page.get_by_role("row", name="Poll")
        expect(row).to_contain_text("0 of 4")
        run.settle(run.claim(2))
        expect(row).to_contain_text("2 of 4")


def test_a_lost_connection_shows_and_recovers(watched, visit):
    run = WatchedRun(watched.site(), "Lost", 4)
    with visit(f"#/runs/{run.uuid}") as page:
        mark(page)
        expect(page.locator(".facts")).to_contain_text("0 done")
        watched.kill()
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("connection to the server is lost")
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_role("status").first).to_contain_text("does not answer")
        watched.start()
        run.settle(run.claim(2))
        expect(alert).to_be_hidden()
        expect(page.locator(".facts")).to_contain_text("2 done")
        assert stayed(page)


def test_what_workers_and_users_write_is_shown_as_text(watched, visit):
    run = WatchedRun(watched.site(), SCRIPT, 2, attempts=1)
    run.fail(1, f"ValueError: {SCRIPT}", worker="script", host=SCRIPT.replace(" ", "")[:60])
    with visit() as page:
        page.get_by_role("link", name=SCRIPT).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(SCRIPT)
        failures = page.locator("section", has=page.get_by_role("heading", name="Failures"))
        failures.locator("summary").click()
        expect(failures.locator("pre")).to_contain_text(SCRIPT)
        expect(page.get_by_role("region", name="Workers")).to_contain_text("<imgsrc=x")
        page.get_by_role("button", name="Delete").click()
        expect(page.get_by_role("dialog")).to_contain_text(SCRIPT)
        page.get_by_role("button", name="Cancel").click()
        page.goto(f"{watched.address}/#/audit")
        expect(page.get_by_role("region")).to_contain_text("create run")
        assert page.locator("img").count() == 0
        assert page.evaluate("window.broken") is None


def test_failed_tasks_are_tried_again_one_a_kind_or_all(watched, visit):
    run = WatchedRun(watched.site(), "Retry", 9, attempts=1)
    run.fail(4, "OSError: disk full on /scratch/{}")
    run.fail(3, "ValueError: tile {} is empty")
    run.fail(2, "MemoryError")
    with visit(f"#/runs/{run.uuid}") as page:
        expect(page.locator(".facts")).to_contain_text("9 failed")
        disk = page.locator("details", has_text="disk full")
        disk.locator("summary").click()
        disk.get_by_role("button", name=re.compile(r"Try task \d+ again")).first.click()
        expect(page.locator(".facts")).to_contain_text("1 waiting, 0 running, 0 done, 8 failed")
        empty = page.locator("details", has_text="is empty")
        empty.locator("summary").click()
        empty.get_by_role("button", name="Try these again").click()
        expect(page.locator(".facts")).to_contain_text("4 waiting, 0 running, 0 done, 5 failed")
        # What the reader has opened stays open.
        expect(disk).to_contain_text("3 tasks")
        expect(disk.locator("pre")).to_be_visible()
        page.get_by_role("button", name="Try failed tasks again").click()
        expect(page.locator(".facts")).to_contain_text("9 waiting, 0 running, 0 done, 0 failed")


def test_an_owner_creates_pauses_resets_shares_and_deletes_a_run(watched, visit):
    with visit() as page:
        page.get_by_text("New run").click()
        page.get_by_label("Name", exact=True).fill("Made here")
        page.get_by_label("Number of tasks").fill("12")
        page.get_by_role("button", name="Create").click()
        page.get_by_role("link", name="Made here").click()
        run = page.evaluate("location.hash").split("/")[-1]
        site = watched.site()

        page.get_by_role("button", name="Pause").click()
        expect(page.locator(".facts")).to_contain_text("paused")
        who = {"uuid": "w", "host": "here", "pid": 7}
        assert site.ask("POST", f"runs/{run}/leases", body={"worker": who})["leases"] == []
        page.get_by_role("button", name="Resume").click()
        expect(page.get_by_role("button", name="Pause")).to_be_visible()
        (lease,) = site.ask("POST", f"runs/{run}/leases", body={"worker": who})["leases"]
        outcome = [{"lease": lease["lease"], "seconds": 1.0}]
        site.ask("POST", f"runs/{run}/outcomes", body=outcome, query={"worker": "w"})
        expect(page.locator(".facts")).to_contain_text("1 done")

        page.get_by_role("button", name="Reset").click()
        page.get_by_role("dialog").get_by_role("button", name="Reset").click()
        expect(page.locator(".facts")).to_contain_text("12 waiting, 0 running, 0 done")

        page.get_by_text("Members").click()
        page.get_by_label("User").fill(GUEST)
        page.get_by_role("button", name="Set role").click()
        expect(page.get_by_text(f"{GUEST}: viewer")).to_be_visible()

        page.get_by_role("button", name="Delete").click()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_role("heading", name="Runs")).to_be_visible()
        expect(page.get_by_role("link", name="Made here")).to_have_count(0)
        page.get_by_role("link", name="Audit log").click()
        for action in ("create run", "pause", "resume", "restart all", "set member", "delete run"):
            expect(page.get_by_role("cell", name=action, exact=True).first).to_be_visible()


def test_a_viewer_sees_the_run_and_may_not_change_it(watched, visit):
    run = WatchedRun(watched.site(), "Shared", 3, attempts=1)
    run.fail(1, "ValueError: no")
    hidden = WatchedRun(watched.site(), "Not shared", 3)
    run.ask("PUT", f"/members/{GUEST}", {"role": "viewer"})
    with visit(user=GUEST) as page:
        expect(page.get_by_role("link", name="Not shared")).to_have_count(0)
        page.get_by_role("link", name="Shared").click()
        expect(page.locator(".facts")).to_contain_text("2 waiting, 0 running, 0 done, 1 failed")
        expect(page.get_by_text("1 task: ValueError: no")).to_be_visible()
        for name in ("Pause", "Try", "Reset", "Delete"):
            expect(page.locator("main").get_by_role("button", name=name)).to_have_count(0)
        expect(page.get_by_text("Members")).to_have_count(0)
        expect(page.get_by_role("link", name="Users")).to_be_hidden()
        refused = """async ([path, body]) => (await fetch("/api/v1/" + path, {
            method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body),
        })).status"""
        assert page.evaluate(refused, [f"{run.path}/retry", {"all": True}]) == 403
        assert page.evaluate(refused, [f"{run.path}/restart", {"all": True}]) == 403
        assert page.evaluate(refused, [f"{hidden.path}/retry", {"all": True}]) == 404
        page.goto(f"{watched.address}/#/runs/{hidden.uuid}")
        expect(page.get_by_role("heading", name="No such run")).to_be_visible()


def test_an_admin_adds_and_removes_a_user_and_everybody_manages_their_tokens(watched, visit):
    with visit("#/users", user=ADMIN) as page:
        page.get_by_label("Name").fill("new")
        page.get_by_label("Password").fill("a secret of some length")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("row", name="new")).to_contain_text("user")
        page.get_by_role("button", name="Remove new").click()
        page.get_by_role("dialog").get_by_role("button", name="Remove").click()
        expect(page.get_by_role("button", name="Remove new")).to_have_count(0)
        page.get_by_role("link", name="Tokens").click()
        page.get_by_role("button", name="Make a token").click()
        expect(page.get_by_text("Copy it now")).to_contain_text("ct_")
        others = page.get_by_role("row").filter(has_not_text="this session")
        others.get_by_role("button", name="Revoke").first.click()
        expect(page.get_by_role("status").first).to_contain_text("is revoked")


def test_runs_are_sorted_and_filtered(watched, visit):
    for name, count in (("Sorted B", 5), ("Sorted A", 700), ("Sorted C", 40)):
        WatchedRun(watched.site(), name, count)
    with visit() as page:
        page.get_by_label("Show runs whose name").fill("sorted")
        names = page.locator("tbody a")
        expect(names).to_have_text(["Sorted C", "Sorted A", "Sorted B"])
        page.get_by_role("button", name="Run", exact=True).click()
        expect(names).to_have_text(["Sorted A", "Sorted B", "Sorted C"])
        page.get_by_role("button", name="Waiting").click()
        page.get_by_role("button", name="Waiting").click()
        expect(names).to_have_text(["Sorted A", "Sorted C", "Sorted B"])
        expect(page.get_by_role("columnheader", name="Waiting")).to_have_attribute(
            "aria-sort", "descending"
        )
        WatchedRun(watched.site(), "Sorted D", 300)
        expect(names).to_have_text(["Sorted A", "Sorted D", "Sorted C", "Sorted B"])


def test_the_map_is_read_with_the_mouse_and_with_the_keyboard(watched, visit):
    layout = disc_map(5)
    run = WatchedRun(watched.site(), "Keys", len(layout["rows"]), layout)
    with visit(f"#/runs/{run.uuid}") as page:
        canvas, tile = map_of(page), page.locator(".tile")
        canvas.hover()
        expect(tile).to_contain_text(
            re.compile(r"Task \d+: waiting; x -162,\d{3} m, y -2,262,\d{3} m")
        )
        page.mouse.move(1, 1)
        expect(tile).to_be_empty()
        canvas.focus()
        page.keyboard.press("ArrowRight")
        expect(tile).to_contain_text("Task 0: waiting")
        page.keyboard.press("ArrowRight")
        expect(tile).to_contain_text("Task 1: waiting")
        page.keyboard.press("ArrowUp")
        expect(tile).not_to_contain_text("Task 1:")
        expect(page.locator(".side")).not_to_contain_text("cryotile explain")
        page.keyboard.press("Enter")
        expect(page.locator(".side")).to_contain_text("cryotile explain")
        whole = drawn(canvas)
        for key in "+++":
            page.keyboard.press(key)
        assert drawn(canvas) != whole
        page.keyboard.press("0")
        assert drawn(canvas) == whole


def test_another_site_cannot_act_with_the_session_of_a_visitor(watched, visit, browser):
    run = WatchedRun(watched.site(), "Other site", 3)
    attack = """async address => {
        try {
            const answer = await fetch(address, {method: "POST", credentials: "include", mode: "no-cors"})
            return answer.type
        } catch (error) { return "refused" }
    }"""
    with visit() as page:
        cookie = next(each for each in page.context.cookies() if each["name"] == "session")
        assert cookie["httpOnly"]
        assert cookie["sameSite"] in ("Lax", "Strict")
        with page.context.new_page() as other:
            other.set_content("<p>Another site</p>")
            other.evaluate(attack, f"{watched.address}/api/v1/{run.path}/pause")
        assert run.ask("GET")["paused"] is False
