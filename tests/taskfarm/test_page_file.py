"""The page as one file: a run is seen without a server or a network, however many tiles it has."""

from __future__ import annotations

import base64
import json
import struct
import time
from typing import Any

import numpy as np
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from cryotile.farm.task import Outcome
from cryotile.runs.status_page import status_page
from cryotile.taskfarm.page import one_file
from tests.support.services.watched import watch
from tests.support.small_run import fit, make_run
from tests.support.watched_runs import VARIABLES

# Pictures drawn in each frame while the map is dragged.
DRAG = """async () => {
    const canvas = document.querySelector(".map canvas")
    const frame = () => new Promise(requestAnimationFrame)
    const send = (kind, x, y) => canvas.dispatchEvent(new PointerEvent(kind, {clientX: x, clientY: y, pointerId: 1}))
    canvas.setPointerCapture = () => {}
    const draw = CanvasRenderingContext2D.prototype.drawImage
    let drawn = 0
    CanvasRenderingContext2D.prototype.drawImage = function (...words) {
        drawn += 1
        return draw.apply(this, words)
    }
    const {left, top} = canvas.getBoundingClientRect()
    send("pointerdown", left + 200, top + 200)
    for (let step = 1; step <= 10; step += 1) {
        send("pointermove", left + 200 + 8 * step, top + 200 + 6 * step)
        await frame()
    }
    send("pointerup", left + 280, top + 260)
    CanvasRenderingContext2D.prototype.drawImage = draw
    return drawn / 10
}"""

PICTURE = "document.querySelector('.map canvas').toDataURL()"


def embedded(layout: dict[str, Any], states: np.ndarray, name: str) -> dict[str, Any]:
    """Return what a file of a run holds, whose tasks have some states."""
    count = states.size
    counts = np.bincount(states, minlength=4).tolist()
    index = np.arange(count, dtype="<u4")
    cost = np.linspace(1, 9, count).astype("<f4")
    tiles = struct.pack("<IIId", 0x54435931, count, 0, 0.0) + b"".join(
        each.tobytes()
        for each in (index, 2 * cost, cost, index % 9, states.astype("u1"), np.ones(count, "u1"))
    )
    rate = (1 + index % 255).astype("u1")
    pictures = (
        struct.pack("<IIIdII", 0x54435932, count, 0, 0.0, 1, 1) + index.tobytes() + rate.tobytes()
    )
    names = ("waiting", "leased", "done", "failed")
    run = {
        "run": "0" * 32,
        "name": name,
        "key": "",
        "owner": None,
        "role": "viewer",
        "tasks": count,
        "paused": False,
        "epoch": 0,
        "map": True,
        "seen": 100.0,
        "clock": 160.0,
        "created": 0.0,
        "rate": 0.0,
        "seconds_left": None,
        **dict(zip(names, counts, strict=True)),
    }
    return {
        "run": run,
        "map": layout,
        "tiles": base64.b64encode(tiles).decode(),
        "thumbnails": {"dhdt": base64.b64encode(pictures).decode()},
        "history": {
            "clock": 160.0,
            "minutes": [],
            "samples": [],
            "streams_from": 0.0,
            "streams": [],
        },
        "workers": {"workers": []},
        "failures": {"groups": []},
    }


def layout_of(columns: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
    return {
        "crs": "EPSG:3031",
        "tile_size": 1e3,
        "origin": [0.0, 0.0],
        "outline": [],
        "thumbnail_shape": [1, 1],
        "columns": columns.tolist(),
        "rows": rows.tolist(),
        "variables": {"dhdt": VARIABLES["dhdt"]},
    }


def test_one_file_shows_a_run_without_a_server(browser, tmp_path):
    name = "</script><script>window.broken = 1</script>"
    layout = layout_of(np.array([0, 1, 2, 0]), np.array([0, 0, 0, 1]))
    file = tmp_path / "run.html"
    file.write_text(
        one_file(name, embedded(layout, np.array([0, 2, 2, 3]), name)), encoding="utf-8"
    )
    with browser.new_context(offline=True) as context:
        page = context.new_page()
        requests, complaints = watch(page)
        page.goto(file.as_uri())
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        expect(page.locator(".facts")).to_contain_text("1 waiting, 0 running, 2 done, 1 failed")
        page.get_by_label("Colour tiles by").select_option("dhdt")
        page.locator(".map canvas").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        expect(page.locator(".tile")).to_contain_text("Task 1: done")
        page.keyboard.press("Enter")
        expect(page.locator(".side")).to_contain_text("cryotile explain RUN --at 1500 500")
        assert page.locator("main").get_by_role("button", name="Pause").count() == 0
        assert page.evaluate("window.broken") is None
        assert {each.partition("#")[0] for each in requests} == {file.as_uri()}
        assert complaints == []


def test_the_file_that_the_command_writes_shows_the_run(browser, tmp_path):
    run = make_run(tmp_path)
    fit(run, 0, 2)
    list(run.record([Outcome(run.tasks[1], 5.0, 3, "a", "OSError: cannot read /data/7")]))
    run.journal.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"time": time.time(), "start": 3})
    (run.journal / "node-01-7-aa.jsonl").write_text(f"{line}\n", "utf-8")
    file = tmp_path / "status.html"
    file.write_text(status_page(run), encoding="utf-8")
    with browser.new_context(offline=True) as context:
        page = context.new_page()
        _, complaints = watch(page)
        page.goto(file.as_uri())
        count = len(run.tasks)
        expect(page.locator(".facts")).to_contain_text(
            f"{count - 4} waiting, 1 running, 2 done, 1 failed"
        )
        row = page.get_by_role("region", name="Workers").get_by_role("row", name="node-01")
        expect(row).to_contain_text("works")
        page.get_by_label("Colour tiles by").select_option("status")
        expect(page.locator(".legend")).to_contain_text("too few points")
        expect(page.locator(".tile")).to_be_empty()
        page.locator(".map canvas").focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator(".tile")).to_contain_text("Task 0: done")
        expect(page.get_by_text("1 task: OSError: cannot read …")).to_be_visible()
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            found = Axe().run(page)
            assert found.violations_count == 0, (scheme, found.generate_report())
        assert complaints == []


def test_a_frame_draws_one_picture_however_many_tiles_there_are(browser, tmp_path):
    rows, columns = np.divmod(np.arange(400_000), 640)
    states = np.random.default_rng(1).integers(0, 4, rows.size)
    file = tmp_path / "large.html"
    file.write_text(
        one_file("Large", embedded(layout_of(columns, rows), states, "Large")), encoding="utf-8"
    )
    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.goto(file.as_uri())
        expect(page.locator(".facts")).to_contain_text("400,000 tasks")
        before = page.evaluate(PICTURE)
        assert 0 < page.evaluate(DRAG) <= 1.5
        assert page.evaluate(PICTURE) != before
