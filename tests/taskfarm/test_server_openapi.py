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


def _nodes(part):
    """Yield every object of a document."""
    if isinstance(part, dict):
        yield part
    for each in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _nodes(each)


def test_every_reference_of_the_document_resolves(sqlite_farm):
    document = sqlite_farm.ask("GET", "/api/v1/openapi.json").json
    references = {node["$ref"] for node in _nodes(document) if "$ref" in node}
    for reference in references:
        part = document
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]
    used = {reference.rpartition("/")[2] for reference in references}
    assert used == set(document["components"]["schemas"]) | set(document["components"]["responses"])


def test_the_document_states_the_limits_that_the_server_enforces(sqlite_farm):
    schemas = sqlite_farm.ask("GET", "/api/v1/openapi.json").json["components"]["schemas"]
    most = schemas["ClaimRequest"]["properties"]["n"]["maximum"]
    pieces = schemas["NewRun"]["properties"]["tasks"]["maxItems"]
    run = sqlite_farm.run(1)
    worker = {"uuid": "w", "host": "here", "pid": 7}
    for n, status in ((most, 200), (most + 1, 400)):
        claim = {"worker": worker, "n": n}
        assert sqlite_farm.ask("POST", f"/api/v1/runs/{run}/leases", claim).status_code == status
    for size, status in ((pieces, 201), (pieces + 1, 400)):
        body = {"tasks": [[index, 1] for index in range(size)]}
        assert sqlite_farm.ask("POST", "/api/v1/runs", body).status_code == status


def test_every_operation_has_a_summary_answers_and_refusals(sqlite_farm):
    document = sqlite_farm.ask("GET", "/api/v1/openapi.json").json
    for path, item in document["paths"].items():
        for method in set(item) - {"parameters"}:
            operation = item[method]
            assert operation["summary"].endswith("."), path
            assert any(status.startswith("2") for status in operation["responses"])
            assert ("401" in operation["responses"]) == (path != "/healthz")
            assert operation.get("security") == ([] if path == "/healthz" else None)
    assert document["security"] == [{"bearer": []}, {"basic": []}]
    described = document["components"]["schemas"]
    assert all(schema["description"] for schema in described.values())
