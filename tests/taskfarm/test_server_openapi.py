"""The OpenAPI document describes what the server serves."""

from __future__ import annotations

import re

from tests.support.farm_server import basic, sqlite_farm

__all__ = ["sqlite_farm"]


def _routes(farm):
    """Yield path and method of each route of the native API, as the document writes them."""
    for rule in farm.app.url_map.iter_rules():
        path = re.sub("<[^>]*?([a-z]+)>", r"{\1}", rule.rule).replace("{uuid}", "{run}")
        if rule.rule.startswith("/api/v1") or rule.rule in ("/healthz", "/metrics"):
            for method in rule.methods - {"HEAD", "OPTIONS"}:
                yield path, method.lower()


def test_the_document_describes_every_call_and_no_other(sqlite_farm):
    document = sqlite_farm.ask("GET", "/api/v1/openapi.json").json
    told = {
        (path, method)
        for path, item in document["paths"].items()
        for method in item
        if method != "parameters"
    }
    assert told == set(_routes(sqlite_farm))


def test_the_document_needs_authentication(sqlite_farm):
    assert sqlite_farm.client.get("/api/v1/openapi.json").status_code == 401
    answer = sqlite_farm.client.get("/api/v1/openapi.json", headers=basic(sqlite_farm.token()))
    assert answer.json["openapi"].startswith("3.")
