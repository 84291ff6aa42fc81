"""The page that shows runs while farms work on them: its files, served by the server or put into one file.

No file needs a build step: browsers load the modules as they are.  Names of modules are resolved by an import map, so
that the same files work from a server and from one file.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from cryotile.errors import InvalidValue

__all__ = ["FILES", "content", "import_map", "one_file"]

FILES: Mapping[str, str] = {
    "page.css": "text/css",
    "uplot/uPlot.min.css": "text/css",
    "uplot/uPlot.iife.min.js": "text/javascript",
    "uplot/LICENSE": "text/plain",
    **{
        f"{name}.js": "text/javascript"
        for name in (
            *("account", "actions", "api", "charts", "colours", "dom", "failures", "map", "page"),
            *("run", "runs", "tiles", "workers"),
        )
    },
}
"""Name → media type of each file."""


@cache
def content(name: str) -> bytes:
    """Return the content of a file of the page.

    Parameters
    ----------
    name : str
        One of :data:`FILES`.

    Raises
    ------
    InvalidValue
        There is no such file.
    """
    if name not in FILES:
        raise InvalidValue(f"{name[:80]!r} is no file of the page; it has {', '.join(FILES)}")
    return files(__package__).joinpath(name).read_bytes()


def import_map() -> str:
    """Return the import map: where a browser finds each module of the page on a server."""
    return json.dumps({"imports": {f"page/{name[:-3]}": f"/page/{name}" for name in _modules()}})


def one_file(title: str, embedded: Mapping[str, Any]) -> str:
    """Return the page of one run as one HTML file, which needs neither a server nor a network.

    Parameters
    ----------
    title : str
        Title of the file.
    embedded : mapping
        Values that JSON can hold, in place of the answers of a server: ``run``, ``map``, ``history``, ``workers``,
        ``failures``; ``tiles`` and, by variable, ``thumbnails``, in base64.
    """
    modules = {
        f"page/{name[:-3]}": f"data:text/javascript;base64,{base64.b64encode(content(name)).decode()}"
        for name in _modules()
    }
    style = (content("uplot/uPlot.min.css") + content("page.css")).decode()
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(title)}</title>",
            '<link rel="icon" href="data:,">',
            f"<style>{style}</style>",
            f'<script type="application/json" id="embedded">{_safe(json.dumps(embedded))}</script>',
            f'<script type="importmap">{json.dumps({"imports": modules})}</script>',
            f"<script>{content('uplot/uPlot.iife.min.js').decode()}</script>",
            '<script type="module">import "page/page";</script>',
            '</head>\n<body>\n<main id="main"></main>\n</body>\n</html>\n',
        ]
    )


def _modules() -> list[str]:
    return [name for name in FILES if name.endswith(".js") and "/" not in name]


def _text(words: str) -> str:
    return words.replace("&", "&amp;").replace("<", "&lt;")


def _safe(text: str) -> str:
    """Return JSON that cannot end the element around it."""
    return re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", text)
