"""Generated requests: no answer is a 500, none is for an unknown user, and all are as the document describes."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.farm_server import PASSWORD, Farm, basic

LEGACY_PATHS = {
    "/api/token": ("get", "delete"),
    "/api/run": ("post",),
    "/api/runs": ("get",),
    "/api/runs/{run}": ("get", "delete"),
    "/api/runs/{run}/restart": ("post",),
    "/api/runs/{run}/task": ("post",),
    "/api/runs/{run}/tasks/{task}": ("get", "put"),
    "/api/worker": ("post",),
}

NUMBER = {"type": ["number", "null", "string", "array"]}
BODY = {
    "anyOf": [
        {},
        {
            "type": "object",
            "properties": {
                "numTasks": NUMBER,
                "worker_uuid": {"type": ["string", "number"]},
                "status": {"enum": ["waiting", "computing", "done", "", None, 3]},
                "percentCompleted": NUMBER,
                "uuid": {"type": ["string", "null"]},
                "hostname": {"type": ["string", "null"]},
                "pid": NUMBER,
            },
        },
    ]
}

FEW = settings(max_examples=12, suppress_health_check=list(HealthCheck))


def _legacy_document():
    """Describe the legacy paths loosely, so that many generated requests are invalid."""

    def operation(path, method):
        names = [name for name in ("run", "task") if f"{{{name}}}" in path]
        parameters = [
            {
                "name": name,
                "in": "path",
                "required": True,
                "schema": {"type": "string", "minLength": 1},
            }
            for name in names
        ] + [
            {"name": name, "in": "query", "schema": {"type": "string"}} for name in ("info", "all")
        ]
        found = {"parameters": parameters, "responses": {"default": {"description": "Any."}}}
        if method in ("post", "put"):
            found["requestBody"] = {"content": {"application/json": {"schema": BODY}}}
        return found

    paths = {
        path: {method: operation(path, method) for method in methods}
        for path, methods in LEGACY_PATHS.items()
    }
    return {"openapi": "3.1.0", "info": {"title": "legacy", "version": "0"}, "paths": paths}


@pytest.fixture(scope="module")
def farm(tmp_path_factory):
    made = Farm(f"sqlite:///{tmp_path_factory.mktemp('farm')}/farm.db")
    made.worker()
    yield made
    made.database.engine.dispose()


def _admin(farm):
    """Authenticate by password: a generated request may revoke the token."""
    farm.token("root", "admin")
    return basic(farm.name("root"), PASSWORD)


def _native(farm):
    headers = _admin(farm)
    return schemathesis.openapi.from_wsgi("/api/v1/openapi.json", farm.app, headers=headers)


def _legacy(farm):
    schema = schemathesis.openapi.from_dict(_legacy_document())
    schema.app = farm.app
    return schema


def _aim(farm, case):
    """Aim most requests at an existing run."""
    if "run" in case.path_parameters and len(case.path_parameters["run"]) % 4 != 1:
        case.path_parameters["run"] = farm.run(5)
    if "task" in case.path_parameters and len(case.path_parameters["task"]) % 2:
        case.path_parameters["task"] = str(len(case.path_parameters["task"]) % 7)


def _each_call(schema, check):
    """Check generated requests of every call of a document."""
    for operation in schema.get_all_operations():
        FEW(given(operation.ok().as_strategy())(lambda case: check(case)))()


def test_the_native_api_answers_as_documented(farm):
    checks = [
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_schema_conformance,
    ]

    def check(case):
        _aim(farm, case)
        # The client of an application in this process would ask for compressed answers, and does not expand them.
        plain = {"Accept-Encoding": "identity"}
        case.call_and_validate(headers=_admin(farm) | plain, checks=checks)

    _each_call(_native(farm), check)


def test_the_legacy_paths_never_answer_500(farm):
    def check(case):
        _aim(farm, case)
        assert case.call(headers=_admin(farm)).status_code != 500

    _each_call(_legacy(farm), check)


def test_unknown_users_get_no_answer(farm):
    def check(case):
        if case.path != "/healthz":
            _aim(farm, case)
            assert case.call(headers={"Authorization": ""}).status_code == 401

    _each_call(_legacy(farm), check)
    _each_call(_native(farm), check)
