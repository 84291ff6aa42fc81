"""Operations of the native API: each is declared once, is served from its declaration and is described by it.

The body, the query and the answer of an operation are the annotations of its function.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import NotFound, UnsupportedMediaType

from cryotile.ledgers.sql.runs import RunRecord
from cryotile.taskfarm.server.accounts import USER_NAME
from cryotile.taskfarm.server.auth import member_run
from cryotile.taskfarm.server.bodies import BodyReader, Refusal, read_query
from cryotile.taskfarm.server.state import server

__all__ = ["Operations", "find_run", "packed"]

_RUN_UUID = re.compile("[0-9a-f]{32}")

_REF = "#/components/schemas/{name}"
_ERROR = {"$ref": "#/components/responses/Refusal"}
_REFUSALS = ("400", "401", "403", "404", "405", "411", "413", "415", "429", "503")
_OPEN_REFUSALS = ("405", "411", "503")

# Schemas of answers that no struct describes, by media type.
_SCHEMAS: dict[str, Any] = {
    "application/json": {"type": "object"},
    "text/plain": {"type": "string"},
    "application/octet-stream": {"type": "string", "format": "binary"},
    "text/event-stream": {
        "type": "object",
        "properties": {
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {
                    "anyOf": [
                        {"$ref": _REF.format(name=kind)} for kind in ("RunSummary", "RunList")
                    ]
                },
            }
        },
    },
}

_PATH_PARAMETERS = {
    "run": {
        "description": "Uuid of the run.",
        "schema": {"type": "string", "pattern": f"^{_RUN_UUID.pattern}$"},
    },
    "token": {
        "description": "Id of a token, as the list of tokens gives it.",
        "schema": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
    },
    "name": {
        "description": "Name of a user.",
        "schema": {"type": "string", "pattern": f"^{USER_NAME.pattern}$"},
    },
}

_DESCRIPTION = (
    "A ledger of tasks over HTTP. Every call except /healthz needs a token (Authorization: Bearer, or as the user "
    "name of HTTP Basic) or a user name and password (HTTP Basic). A run that the caller is not a member of is "
    "answered with 404. 503 with Retry-After means that the database does not answer for a moment: repeat the call, "
    "nothing was lost."
)

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True)
class _Operation:
    """A call of the API.

    Attributes
    ----------
    path : str
        Its route.
    method : str
        Its HTTP method.
    view : callable
        Takes the path parameters by name, ``run`` as a :class:`RunRecord`, and ``body`` and ``query`` if it has them.
    role : str or None
        Role in the run of the path that the caller needs.
    answers : mapping of int to str
        Success status codes and what each means.
    media : str
        Media type of the answer.
    public : bool
        Whether it is answered without authentication.
    shared : bool
        Whether all who see the run get the same answer.
    """

    path: str
    method: str
    view: Callable[..., Any]
    role: str | None
    answers: Mapping[int, str]
    media: str
    public: bool
    shared: bool

    @cached_property
    def hints(self) -> dict[str, Any]:
        return get_type_hints(self.view, include_extras=True)

    @cached_property
    def answer_kind(self) -> Any:
        """Type of the answer's body; None if it has none, or one that no struct describes."""
        kind = self.hints["return"]
        kind = get_args(kind)[0] if get_origin(kind) is tuple else kind
        return None if kind in (type(None), Response) else kind

    def serve(self) -> Callable[..., Any]:
        """Return the function that answers a request."""
        reader = BodyReader(self.hints["body"]) if "body" in self.hints else None
        query_kind = self.hints.get("query")

        def answer(**given: Any) -> Any:
            if self.role is not None:
                given["run"] = find_run(given["run"], self.role)
            if reader is not None:
                _check_media_type()
                given["body"] = reader.read()
            if query_kind is not None:
                given["query"] = read_query(query_kind)
            if self.shared:
                return self._answer_all(given["run"])
            found = self.view(**given)
            if found is None:
                return "", 204
            if isinstance(found, tuple):
                return jsonify(found[0]), found[1]
            return found if isinstance(found, Response) else jsonify(found)

        return answer

    def _answer_all(self, run: RunRecord) -> Response:
        """Return the answer that all who see a run share, encoded and compressed once."""

        def make() -> bytes:
            return gzip.compress(msgspec.json.encode(self.view(run)), 1, mtime=0)

        return packed(server().answers.get((run.id, self.path), make), self.media)

    def describe(self, schemas: Mapping[Any, Any]) -> dict[str, Any]:
        """Return the OpenAPI description of the operation."""
        summary = " ".join((self.view.__doc__ or "").split())
        found: dict[str, Any] = {"operationId": self.view.__name__, "summary": summary}
        if self.public:
            found["security"] = []
        if "query" in self.hints:
            found["parameters"] = _query_parameters(self.hints["query"])
        if "body" in self.hints:
            content = {"application/json": {"schema": schemas[self.hints["body"]]}}
            found["requestBody"] = {"required": True, "content": content}
        refusals = dict.fromkeys(_OPEN_REFUSALS if self.public else _REFUSALS, _ERROR)
        found["responses"] = {**self._describe_answers(schemas), **refusals}
        return found

    def _describe_answers(self, schemas: Mapping[Any, Any]) -> dict[str, Any]:
        answers: dict[str, Any] = {}
        for status, meaning in self.answers.items():
            answers[str(status)] = {"description": meaning}
            if status != 204:
                schema = schemas.get(self.answer_kind, _SCHEMAS[self.media])
                answers[str(status)]["content"] = {self.media: {"schema": schema}}
        return answers


class Operations:
    """The operations of an API; a function becomes one by a decorator.

    Parameters
    ----------
    blueprint : Blueprint
        Serves them.
    """

    def __init__(self, blueprint: Blueprint) -> None:
        self._blueprint = blueprint
        self._known: list[_Operation] = []

    def add(
        self,
        method: str,
        path: str,
        answers: Mapping[int, str],
        *,
        role: str | None = None,
        media: str = "application/json",
        public: bool = False,
        shared: bool = False,
    ) -> Callable[[View], View]:
        """Return a decorator that makes a function an operation.

        Parameters
        ----------
        method : str
            HTTP method.
        path : str
            Route, with ``<run>`` for the uuid of a run.
        answers : mapping of int to str
            Success status codes and what each means.
        role : str, optional
            Role in the run that the caller needs.
        media : str
            Media type of the answer.
        public : bool
            Whether it is answered without authentication.
        shared : bool
            Whether all who see the run get the same answer, which may be a few seconds old.
        """

        def register(view: View) -> View:
            operation = _Operation(path, method, view, role, answers, media, public, shared)
            self._known.append(operation)
            self._blueprint.add_url_rule(path, view.__name__, operation.serve(), methods=[method])
            return view

        return register

    @cached_property
    def document(self) -> dict[str, Any]:
        """The OpenAPI document of all operations."""
        kinds = [each.hints["body"] for each in self._known if "body" in each.hints]
        kinds += [each.answer_kind for each in self._known if each.answer_kind is not None]
        kinds = list(dict.fromkeys([*kinds, Refusal]))
        described, components = msgspec.json.schema_components(kinds, ref_template=_REF)
        schemas = dict(zip(kinds, described, strict=True))
        paths: dict[str, dict[str, Any]] = {}
        for each in self._known:
            item = paths.setdefault(re.sub("<(.*?)>", r"{\1}", each.path), {})
            if names := re.findall("<(.*?)>", each.path):
                item["parameters"] = [
                    {"name": name, "in": "path", "required": True, **_PATH_PARAMETERS[name]}
                    for name in names
                ]
            item[each.method.lower()] = each.describe(schemas)
        refusal = {
            "description": "Nothing was changed.",
            "content": {"application/json": {"schema": schemas[Refusal]}},
        }
        return {
            "openapi": "3.1.0",
            "info": {"title": "cryotile task farm", "version": "1", "description": _DESCRIPTION},
            "security": [{"bearer": []}, {"basic": []}],
            "paths": paths,
            "components": {
                "securitySchemes": {
                    scheme: {"type": "http", "scheme": scheme} for scheme in ("bearer", "basic")
                },
                "schemas": components,
                "responses": {"Refusal": refusal},
            },
        }


def packed(body: bytes, mimetype: str) -> Response:
    """Answer with compressed bytes; decompress them for a caller that does not take them so."""
    if not request.accept_encodings["gzip"]:
        return Response(gzip.decompress(body), mimetype=mimetype)
    response = Response(body, mimetype=mimetype)
    response.headers["Content-Encoding"] = "gzip"
    response.headers["Vary"] = "Accept-Encoding"
    return response


def find_run(uuid: str, role: str) -> RunRecord:
    """Return the run of a uuid, if the caller has a role in it; see :func:`member_run`."""
    if _RUN_UUID.fullmatch(uuid) is None:
        raise NotFound(f"run {uuid[:40]!r} is unknown; give a uuid of 32 hexadecimal digits")
    return member_run(uuid, role)


def _check_media_type() -> None:
    """Refuse a body of another type: a form on a page of another site cannot send JSON."""
    if request.mimetype != "application/json":
        raise UnsupportedMediaType(
            f"Content-Type {request.mimetype!r} is not supported; send application/json"
        )


def _query_parameters(kind: Any) -> list[dict[str, Any]]:
    """Describe the fields of a struct as parameters of a query."""
    _, components = msgspec.json.schema_components([kind])
    schema = components[kind.__name__]
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema["required"],
            "description": field.pop("description", ""),
            "schema": _without_null(field),
        }
        for name, field in schema["properties"].items()
    ]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Drop the null of an optional value: in a query it is left out."""
    if "anyOf" not in schema:
        return schema
    (present,) = (each for each in schema["anyOf"] if each != {"type": "null"})
    return dict(present)
