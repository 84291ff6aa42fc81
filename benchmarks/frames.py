"""Time the page's map of 400 000 tiles in a browser: when all change, and dragged as a whole, near and nearest.

Run from the project's root, with Chromium installed::

    PYTHONPATH=. python benchmarks/frames.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from playwright.sync_api import expect, sync_playwright
from tests.support.services.browser import launch
from tests.taskfarm.test_page_file import embedded, layout_of

from cryotile.taskfarm.page import one_file

TILES, ACROSS = 400_000, 640

# Milliseconds between two frames while the map is dragged: the median of several stretches.
DRAG = """async stretches => {
    const canvas = document.querySelector(".map canvas")
    const frame = () => new Promise(requestAnimationFrame)
    const send = (kind, x, y) => canvas.dispatchEvent(new PointerEvent(kind, {clientX: x, clientY: y, pointerId: 1}))
    canvas.setPointerCapture = () => {}
    const {left, top} = canvas.getBoundingClientRect()
    const took = []
    for (let stretch = 0; stretch < stretches; stretch += 1) {
        send("pointerdown", left + 200, top + 200)
        await frame()
        const begin = performance.now()
        for (let step = 1; step <= 15; step += 1) {
            send("pointermove", left + 200 + 4 * step, top + 200 + 3 * step)
            await frame()
        }
        took.push((performance.now() - begin) / 15)
        send("pointerup", left + 260, top + 245)
        await frame()
    }
    return took.sort((one, two) => one - two)[Math.floor(took.length / 2)]
}"""


# Milliseconds to colour all tiles anew, as after each change of the run: the median of several times.
REPAINT = """async times => {
    const select = document.querySelector("select")
    // Thumbnails would be read from the file again, where a server sends those that are new.
    select.value = "seconds"
    const frame = () => new Promise(requestAnimationFrame)
    const took = []
    for (let time = 0; time < times; time += 1) {
        const begin = performance.now()
        select.dispatchEvent(new Event("change"))
        await frame()
        await frame()
        took.push(performance.now() - begin)
    }
    return took.sort((one, two) => one - two)[Math.floor(times / 2)]
}"""


def main() -> None:
    """Print the time of a frame for each view, and of colouring all tiles anew."""
    rows, columns = np.divmod(np.arange(TILES), ACROSS)
    states = np.random.default_rng(1).integers(0, 4, TILES)
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        file = Path(directory) / "large.html"
        content = one_file("Large", embedded(layout_of(columns, rows), states, "Large"))
        file.write_text(content, encoding="utf-8")
        page = launch(playwright).new_page(viewport={"width": 1280, "height": 800})
        page.goto(file.as_uri(), timeout=120_000)
        expect(page.locator(".facts")).to_contain_text("tasks", timeout=120_000)
        print(f"all tiles coloured anew, with two frames: {page.evaluate(REPAINT, 15):.1f} ms")
        page.get_by_label("Colour tiles by").select_option("dhdt", timeout=120_000)
        for view, zooms in (("whole", 0), ("near", 4), ("nearest", 3)):
            for _ in range(zooms):
                page.get_by_role("button", name="Zoom in").click()
            print(f"{view}: {page.evaluate(DRAG, 9):.1f} ms a frame")


if __name__ == "__main__":
    main()
