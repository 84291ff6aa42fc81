"""The page of a server in Chromium: what it shows while workers work, and what each role may do."""

from __future__ import annotations

import os
import re
import signal

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.support.command_line import run as run_command
from tests.support.command_line import start
from tests.support.members import make_hold
from tests.support.services.farm import USER
from tests.support.services.watched import ADMIN, GUEST
from tests.support.small_run import make_run
from tests.support.waiting import wait_until
from tests.support.watched_runs import CELLS, WatchedRun, disc_map, disc_values, packed

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

LIMITS_BY_THE_CLOCK = """AbortSignal.timeout = limit => {
    const stop = new AbortController()
    setTimeout(() => stop.abort(), limit)
    return stop.signal
}"""

# An error, a host and a name that a careless page would run.
SCRIPT = '<img src=x onerror="window.broken = 1"><script>window.broken = 1</script>&amp;'


def map_of(page: Page):
    return page.locator(".map canvas")


def drawn(canvas: Locator) -> str:
    """Return the picture in a canvas once two frames in a row show the same."""
    return canvas.evaluate(SETTLED)


def await_colours(canvas: Locator, least: int) -> None:
    """Wait until a canvas has more colours; a function that waits in the page breaks its policy."""
    wait_until(lambda: len(canvas.evaluate(COLOURS)) > least, lambda: "no more colours on the map")


def mark(page: Page) -> None:
    """Leave a mark that a reload would wipe out."""
    page.evaluate("window.stayed = true")


def stayed(page: Page) -> bool:
    return page.evaluate("window.stayed === true")


def test_a_planned_run_fills_its_map_while_workers_come_die_and_are_replaced(
    watched, visit, tmp_path
):
    run, hold = make_run(watched.runs), make_hold(tmp_path)
    tiles = len(run.tasks)
    words = ("run", run.path, "--backend", watched.url, "--lease", "4")
    with visit() as page:
        mark(page)
        first = start(*words, **hold.variables)
        hold.held(first)
        first.kill()
        first.communicate()
        row = page.get_by_role("row", name=re.compile(re.escape(run.path.name)))
        expect(row).to_be_visible()
        row.get_by_role("link").click()
        facts = page.locator(".facts")
        expect(facts).to_contain_text(re.compile(r"[1-9]\d* running"))
        workers = page.get_by_role("region", name="Workers")
        expect(workers).to_contain_text("stuck")
        before = set(map_of(page).evaluate(COLOURS))
        assert run_command(*words).returncode == 0
        expect(facts).to_contain_text(f"{tiles} done")
        expect(map_of(page)).to_have_attribute(
            "aria-label", re.compile(f"0 waiting, 0 running, {tiles} done, 0 failed")
        )
        expect(workers).not_to_contain_text("stuck")
        assert set(map_of(page).evaluate(COLOURS)) != before
        page.get_by_label("Colour tiles by").select_option("dhdt")
        expect(page.locator(".legend")).to_contain_text("rate of elevation change")
        await_colours(map_of(page), 40)
        # The server sees the directory of the run, so that a click explains a post.
        map_of(page).click()
        expect(page.get_by_label("Explanation of the post")).to_contain_text("points")
        assert stayed(page)


def test_numbers_and_ice_follow_the_workers_without_a_reload(watched, visit):
    layout = disc_map(6)
    values = disc_values(layout, 6)
    run = WatchedRun(watched.site(), "Follow", len(values), layout)
    with visit(f"#/runs/{run.uuid}") as page:
        mark(page)
        canvas, facts = map_of(page), page.locator(".facts")
        expect(facts).to_contain_text(f"{len(values)} waiting, 0 running, 0 done, 0 failed")
        page.get_by_label("Colour tiles by").select_option("dhdt")
        leases = run.claim(6)
        expect(facts).to_contain_text("6 running")
        expect(canvas).to_have_attribute("aria-label", re.compile("6 running"))
        run.settle(leases[:3])
        expect(canvas).to_have_attribute("aria-label", re.compile("3 running, 3 done"))
        before = len(canvas.evaluate(COLOURS))
        for lease in leases[3:]:
            run.settle([lease], thumbnail=packed(values[lease["task"]]))
        expect(canvas).to_have_attribute("aria-label", re.compile("0 running, 6 done"))
        await_colours(canvas, before + 40)
        assert stayed(page)


def test_each_way_to_colour_the_tiles_is_another_picture_with_its_own_legend(watched, visit):
    layout = disc_map(6)
    values = disc_values(layout, 6)
    tasks = [[index, 1.0 + index] for index in range(len(values))]
    run = WatchedRun(watched.site(), "Colours", tasks, layout)
    for number, lease in enumerate(run.claim(12)):
        run.settle([lease], seconds=number + 1.0, thumbnail=packed(values[lease["task"]]))
    run.fail(1, "no", worker="another", host="there")
    legends = {
        "state": "done: 12",
        "seconds": "seconds",
        "cost": "expected cost",
        "worker": "there 4007",
        "attempts": "attempts",
        "dhdt": "rate of elevation change, m yr⁻¹",
        "dhdt_sigma": "uncertainty of the rate, m yr⁻¹",
        "status": "too few points",
    }
    with visit(f"#/runs/{run.uuid}") as page:
        pictures = set()
        for name, words in legends.items():
            page.get_by_label("Colour tiles by").select_option(name)
            expect(page.locator(".legend")).to_contain_text(words)
            pictures.add(drawn(map_of(page)))
        assert len(pictures) == len(legends)


def test_near_tiles_of_a_large_run_show_their_posts(watched, visit):
    # Without an outline, whose edges have many colours.
    layout = disc_map(60) | {"outline": []}
    count = len(layout["rows"])
    assert count > 2000
    run = WatchedRun(watched.site(), "Near", count, layout)
    (lease,) = run.claim()
    run.settle([lease], thumbnail=packed(np.arange(3 * CELLS**2) % 250 + 1))
    with visit(f"#/runs/{run.uuid}") as page:
        page.get_by_label("Colour tiles by").select_option("dhdt")
        canvas, tile = map_of(page), page.locator(".tile")
        expect(canvas).to_have_attribute("aria-label", re.compile("1 done"))
        canvas.focus()
        page.keyboard.press("ArrowRight")
        expect(tile).to_contain_text("Task 0: done")
        expect(tile).to_contain_text("m yr⁻¹")
        before = len(canvas.evaluate(COLOURS))
        with page.expect_request(re.compile(r"/thumbnails\?variable=dhdt&tasks=0$")):
            for key in "++++++++":
                page.keyboard.press(key)
            # The next tile is brought into view, and its neighbour with it.
            page.keyboard.press("ArrowRight")
        await_colours(canvas, before + 100)


def test_facts_charts_workers_and_failures_say_what_the_workers_did(watched, visit):
    tasks = [[index, 10.0] for index in range(12)]
    run = WatchedRun(watched.site(), "Facts", tasks, attempts=1)
    run.settle(run.claim(4), seconds=20.0)
    run.fail(1, "ValueError: tile {} is thin")
    held = run.claim(1, worker="long", host="node07")
    run.ask("PATCH", "/leases?worker=long&memory=12300000", [{"lease": held[0]["lease"]}])
    with visit(f"#/runs/{run.uuid}") as page:
        facts = page.locator(".facts")
        expect(facts).to_contain_text(re.compile(r"Rate: \d+ (a second|a minute|an hour)"))
        expect(facts).to_contain_text(re.compile(r"Time left: \d+ to \d+ (s|min)\."))
        expect(facts).to_contain_text(
            re.compile(rf"Last sign of life: \d+ s ago\. Owner: {USER}\.")
        )
        minutes, costs, streams = (
            page.locator("section", has=page.get_by_role("heading", name=name))
            for name in ("Tasks by minute", "Expected and real cost", "Workers in the last hour")
        )
        expect(minutes).to_contain_text(re.compile(r"4 tasks done and 1 failed in \d+ minutes?;"))
        expect(costs).to_contain_text("4 tasks: 2 s for a unit of cost, 90 % within 2 to 2 s.")
        expect(streams).to_contain_text(
            re.compile(r"2 workers, busy for [1-9]\d? % of the last \d+ min")
        )
        for chart in (minutes, costs, streams):
            assert len(chart.locator("canvas").first.evaluate(COLOURS)) > 1
        row = page.get_by_role("region", name="Workers").get_by_role("row", name="node07")
        expect(row).to_contain_text(re.compile(r"4004works1 ?0 ?0 ?12\.3 MB ?\d+ s ago"))
        failures = page.locator("section", has=page.get_by_role("heading", name="Failures"))
        failures.locator("summary").click()
        expect(failures).to_contain_text("1 attempt on here; 1 task failed for good.")
        page.goto(f"{watched.address}/#/")
        expect(page.get_by_role("row", name="Facts")).to_contain_text(USER)
        expect(page.get_by_role("row", name="Facts")).to_contain_text(
            re.compile(r"\d+ to \d+ (s|min)")
        )


@pytest.mark.parametrize("answer", [{"status": 503}, None], ids=["refused", "held back"])
def test_without_events_the_page_asks_again_and_again(watched, visit, answer):
    run = WatchedRun(watched.site(), f"Poll {answer}", 4)
    with visit("favicon.ico") as page:
        page.route("**/api/v1/events", lambda route: answer and route.fulfill(**answer))
        page.goto(watched.address)
        row = page.get_by_role("row", name=f"Poll {answer}")
        expect(row).to_contain_text("0 of 4")
        run.settle(run.claim(2))
        expect(row).to_contain_text("2 of 4")


def test_a_connection_that_falls_silent_shows_and_recovers(watched, visit):
    """As in a tunnel: nothing says that the connection is gone."""
    run = WatchedRun(watched.site(), "Silent", 4)
    with visit("favicon.ico") as page:
        # The clock of the page is put forward, and with it the limit of an answer.
        page.add_init_script(LIMITS_BY_THE_CLOCK)
        page.clock.install()
        page.goto(f"{watched.address}/#/runs/{run.uuid}")
        expect(page.locator(".facts")).to_contain_text("0 done")
        alert = page.get_by_role("alert")
        os.killpg(watched.server.pid, signal.SIGSTOP)
        try:
            page.clock.fast_forward(30_000)
            page.clock.fast_forward(15_000)
            expect(alert).to_contain_text("connection to the server is lost")
        finally:
            os.killpg(watched.server.pid, signal.SIGCONT)
        expect(alert).to_be_hidden()
        run.settle(run.claim(2))
        expect(page.locator(".facts")).to_contain_text("2 done")


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
    layout = disc_map(2) | {
        "variables": {
            "dhdt": {"units": SCRIPT[:40], "range": [-2.0, 2.0]},
            "status": {"flags": {SCRIPT: 0}},
        }
    }
    run = WatchedRun(watched.site(), SCRIPT, len(layout["rows"]), layout, attempts=1)
    run.fail(1, f"ValueError: {SCRIPT}", worker="script", host=SCRIPT.replace(" ", "")[:60])
    with visit() as page:
        page.get_by_role("link", name=SCRIPT).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(SCRIPT)
        failures = page.locator("section", has=page.get_by_role("heading", name="Failures"))
        failures.locator("summary").click()
        expect(failures.locator("pre")).to_contain_text(SCRIPT)
        expect(page.get_by_role("region", name="Workers")).to_contain_text("<imgsrc=x")
        for variable, words in (("dhdt", SCRIPT[:40]), ("status", SCRIPT)):
            page.get_by_label("Colour tiles by").select_option(variable)
            expect(page.locator(".legend")).to_contain_text(words)
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
        expect(page.get_by_role("button", name=f"Remove {USER}")).to_have_count(0)
        page.get_by_role("button", name=f"Remove {GUEST}").click()
        expect(page.get_by_text(f"{GUEST}: viewer")).to_have_count(0)

        page.get_by_role("button", name="Delete").click()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_role("heading", name="Runs")).to_be_visible()
        expect(page.get_by_role("link", name="Made here")).to_have_count(0)
        page.get_by_role("link", name="Audit log").click()
        for action in (
            *("create run", "pause", "resume", "restart all", "set member", "remove member"),
            "delete run",
        ):
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
        # On the page a worker may do no more.
        run.ask("PUT", f"/members/{GUEST}", {"role": "worker"})
        page.reload()
        expect(page.get_by_text("1 task: ValueError: no")).to_be_visible()
        expect(page.locator("main").get_by_role("button", name="Pause")).to_have_count(0)
        page.goto(f"{watched.address}/#/runs/{hidden.uuid}")
        expect(page.get_by_role("heading", name="No such run")).to_be_visible()


def test_an_admin_adds_and_removes_a_user_and_everybody_manages_their_tokens(watched, visit):
    with visit("#/users", user=ADMIN) as page:
        page.get_by_label("Name").fill("new")
        page.get_by_label("Password").fill("a secret of some length")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("row", name="new")).to_contain_text("user")
        page.get_by_label("Name").fill("new")
        page.get_by_label("Role").select_option("admin")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("row", name="new")).to_contain_text("admin")
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
        last = WatchedRun(watched.site(), name, count)
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
        # On a telephone, too.
        page.set_viewport_size({"width": 360, "height": 740})
        page.get_by_role("button", name="Run", exact=True).click()
        expect(names).to_have_text(["Sorted A", "Sorted B", "Sorted C", "Sorted D"])
        page.get_by_label("Show runs whose name").fill(last.uuid)
        expect(names).to_have_text(["Sorted C"])
        page.get_by_label("Show runs whose name").fill(USER.upper())
        expect(page.get_by_role("link", name="Sorted D")).to_be_visible()
        page.get_by_label("Show runs whose name").fill("owned by nobody")
        expect(names).to_have_count(0)


def test_the_map_is_read_with_the_mouse_and_with_the_keyboard(watched, visit):
    layout = disc_map(5)
    run = WatchedRun(watched.site(), "Keys", len(layout["rows"]), layout)
    with visit(f"#/runs/{run.uuid}") as page:
        canvas, tile = map_of(page), page.locator(".tile")
        # The map must be there before the mouse moves over it, once.
        expect(canvas).to_have_attribute("aria-label", re.compile("waiting"))
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


def tab_to(page: Page, words: str) -> None:
    """Press Tab until the control with these words has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == words:
            return
    raise AssertionError(f"Tab does not lead to {words!r}")


def test_runs_are_sorted_opened_paused_and_kept_by_the_keyboard_alone(watched, visit):
    run = WatchedRun(watched.site(), "Keyboard", 7)
    with visit() as page:
        names = page.locator("tbody a")
        expect(names.first).to_have_text("Keyboard")
        tab_to(page, "Waiting")
        page.keyboard.press("Enter")
        expect(page.get_by_role("columnheader", name="Waiting")).to_have_attribute(
            "aria-sort", "ascending"
        )
        tab_to(page, "Keyboard")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_be_focused()
        tab_to(page, "Pause")
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Resume")).to_be_focused()
        tab_to(page, "Reset…")
        page.keyboard.press("Enter")
        # What cannot be undone is not what Enter does next.
        expect(page.get_by_role("button", name="Cancel")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_hidden()
        expect(page.get_by_role("button", name="Reset…")).to_be_focused()
        assert (run.ask("GET")["paused"], run.ask("GET")["epoch"]) == (True, 0)


def test_mouse_wheel_and_fingers_move_and_zoom_the_map(watched, visit):
    layout = disc_map(5)
    run = WatchedRun(watched.site(), "Fingers", len(layout["rows"]), layout)
    with visit(f"#/runs/{run.uuid}", has_touch=True) as page:
        canvas = map_of(page)
        whole = drawn(canvas)

        def changed(act) -> bool:
            """Show all tiles, do something, and tell whether the picture is another one."""
            page.get_by_role("button", name="Show all tiles").click()
            assert drawn(canvas) == whole
            act()
            return drawn(canvas) != whole

        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

        def drag():
            page.mouse.move(x, y)
            page.mouse.down()
            page.mouse.move(x + 30, y + 40, steps=4)
            page.mouse.up()

        def turn():
            page.mouse.move(x, y)
            page.mouse.wheel(0, -200)

        devices = page.context.new_cdp_session(page)

        def touch(*steps):
            """Put fingers on the screen, move them, and take them away; each step is the places of the fingers."""
            for number, places in enumerate((*steps, ())):
                kind = "touchStart" if number == 0 else "touchMove" if places else "touchEnd"
                points = [{"x": x + dx, "y": y, "id": n} for n, dx in enumerate(places)]
                devices.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        assert changed(page.get_by_role("button", name="Zoom in").click)
        assert changed(page.get_by_role("button", name="Zoom out").click)
        assert changed(drag)
        # The page scrolls instead, as long as the map has not the focus.
        assert not changed(turn)
        canvas.focus()
        page.mouse.move(x, y)
        page.mouse.wheel(0, -200)
        assert drawn(canvas) != whole
        assert changed(lambda: touch([0], [20], [40], [60]))
        assert changed(lambda: touch([-20, 20], [-30, 30], [-60, 60]))
        # None of this has chosen a tile.
        expect(page.locator(".side")).not_to_contain_text("cryotile explain")


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
