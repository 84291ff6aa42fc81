"""The document of the API says what the server does, and the server does what it says."""

from __future__ import annotations

import re

from tests.support.farm_server import basic, sqlite_farm

__all__ = ["sqlite_farm"]


def _routes(farm):
    """Path and method of each route of the native API, as the document writes them."""
    for rule in farm.app.url_map.iter_rules():
        path = re.sub("<[^>]*?([a-z]+)>", r"{\1}", rule.rule).replace("{uuid}", "{run}")
        if rule.rule.startswith("/api/v1") or rule.rule in ("/healthz", "/metrics"):
            for method in rule.methods - {"HEAD", "OPTIONS"}:
                yield path, method.lower()


def test_every_call_is_in_the_document_and_none_else(sqlite_farm):
    document = sqlite_farm.ask("GET", "/api/v1/openapi.json").json
    told = {
        (path, method)
        for path, item in document["paths"].items()
        for method in item
        if method != "parameters"
    }
    assert told == set(_routes(sqlite_farm))


def test_the_document_is_for_those_who_are_known(sqlite_farm):
    assert sqlite_farm.client.get("/api/v1/openapi.json").status_code == 401
    answer = sqlite_farm.client.get("/api/v1/openapi.json", headers=basic(sqlite_farm.token()))
    assert answer.json["openapi"].startswith("3.")
