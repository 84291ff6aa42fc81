"""The minimum of a task-farm server: Flask, Basic authentication, and a PUT that stores nothing."""

from __future__ import annotations

from flask import Flask, request
from flask_httpauth import HTTPBasicAuth

__all__ = ["create_app"]


def create_app() -> Flask:
    """Return the application."""
    app, auth = Flask("bare"), HTTPBasicAuth()

    @auth.verify_password
    def _verify(name: str, password: str) -> str | None:  # noqa: ARG001 - every password is accepted
        return name

    @app.put("/api/task")
    @auth.login_required
    def _put() -> tuple[str, int]:
        return ("", 204) if request.get_json() else ("", 400)

    return app
