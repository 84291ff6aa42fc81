"""What watches the server itself: liveness, metrics, and the document of its API."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from flask import Blueprint, Response, jsonify
from sqlalchemy import text

from cryotile.taskfarm.server.auth import principal
from cryotile.taskfarm.server.listing import list_runs
from cryotile.taskfarm.server.served import server

__all__ = ["views"]

views = Blueprint("views", __name__)

_COUNTS = ("waiting", "leased", "done", "failed")


@views.get("/healthz")
def healthz() -> Any:
    """Say that the server and its database answer."""
    server().database.read(lambda connection: connection.execute(text("SELECT 1")).scalar_one())
    return jsonify(status="ok")


@views.get("/api/v1/openapi.json")
def openapi() -> Response:
    """Return the document of the API."""
    document = files("cryotile.taskfarm.server").joinpath("openapi.json").read_bytes()
    return Response(document, mimetype="application/json")


@views.get("/metrics")
def metrics() -> Response:
    """Return counts of the runs of who asks, in the text format of Prometheus."""
    lines = [
        "# HELP cryotile_tasks Tasks of a run by what they are.",
        "# TYPE cryotile_tasks gauge",
    ]
    for run in list_runs(server().database, principal()):
        counts = {name: int(getattr(run, name)) for name in _COUNTS[1:]}
        counts["waiting"] = run.tasks - sum(counts.values())
        label = run.uuid
        lines += [
            f'cryotile_tasks{{run="{label}",state="{name}"}} {counts[name]}' for name in _COUNTS
        ]
    return Response("\n".join(lines) + "\n", mimetype="text/plain; version=0.0.4")
