"""Pages that the build writes from the source: all messages of errors, and the HTTP API."""

from __future__ import annotations

import ast
import importlib.resources
import inspect
import itertools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sphinx.application import Sphinx

from cryotile import errors

KINDS = {
    name
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, errors.CryotileError)
}

AREAS = {
    "readers": "Reading granules and tables",
    "pointdb": "The point DB",
    "points": "The point DB",
    "selection": "Selections",
    "geo": "CRS, masks, regions and elevation models",
    "fit": "Settings of the fit",
    "runs": "Plans and runs",
    "maps": "Products",
    "totalling": "Totals and series",
    "exchange": "Comparison and export",
    "plotting": "Pictures",
    "simulate": "Simulated missions",
    "backends": "Backends",
    "farm": "Backends",
    "processes": "Backends",
    "ledgers": "Databases of tasks",
    "taskfarm": "The task-farm server and its clients",
    "files": "Files and directories",
    "times": "Times",
    "errors": "Arguments of calls from Python",
    "api": "Arguments of calls from Python",
    "cli": "The command line",
    "testing": "Tests of plug-ins",
}
"""Heading for the errors of a package."""


class Message(NamedTuple):
    """Message of an error, with ``…`` for each value in it."""

    kind: str
    text: str
    package: str


def messages() -> Iterator[Message]:
    """Yield the messages of all errors that the source makes, except those of values alone."""
    root = Path(str(importlib.resources.files("cryotile")))
    trees = {
        file: ast.parse(file.read_text(encoding="utf-8")) for file in sorted(root.rglob("*.py"))
    }
    public = {name: each for tree in trees.values() for name, each in _parts(tree).items()}
    for file, tree in trees.items():
        package = file.relative_to(root).parts[0].removesuffix(".py")
        parts = {name: each for name, each in public.items() if name[0] != "_"} | _parts(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args and _name(node.func) in KINDS:
                for text in _texts(node.args[0], parts):
                    if len(text.replace("…", "").strip(" ;:,()")) > 12:
                        yield Message(_name(node.func), text, package)


def _parts(tree: ast.Module) -> dict[str, list[ast.expr]]:
    """Return what messages are put together from: what functions of a module return, and its constants."""
    parts: dict[str, list[ast.expr]] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and _is_str(node.returns):
            inner = [each for each in ast.walk(node) if isinstance(each, ast.Return)]
            parts[node.name] = [each.value for each in inner if each.value is not None]
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.JoinedStr):
            parts[_name(node.targets[0])] = [node.value]
    return parts


def _is_str(node: ast.expr | None) -> bool:
    return node is not None and ast.unparse(node) in ("str", "str | None")


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def _texts(node: ast.expr, parts: dict[str, list[ast.expr]]) -> list[str]:
    """Return the texts that an expression may have."""
    if isinstance(node, ast.IfExp):
        return [*_texts(node.body, parts), *_texts(node.orelse, parts)]
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    if isinstance(node, ast.FormattedValue):
        return _texts(node.value, parts) if _known(node.value, parts) else ["…"]
    if isinstance(node, ast.JoinedStr):
        inner = [_texts(each, parts) for each in node.values]
        return ["".join(each) for each in itertools.product(*inner)]
    if isinstance(node, ast.BinOp):
        pairs = itertools.product(_texts(node.left, parts), _texts(node.right, parts))
        return [left + right for left, right in pairs]
    found = _known(node, parts)
    return [text for each in found for text in _texts(each, parts)] or ["…"]


def _known(node: ast.expr, parts: dict[str, list[ast.expr]]) -> list[ast.expr]:
    return parts.get(_name(node.func if isinstance(node, ast.Call) else node), [])


def error_page() -> str:
    """Return the messages by area, each with its remedy, as Markdown."""
    areas: dict[str, dict[str, str]] = defaultdict(dict)
    for each in messages():
        areas[AREAS[each.package]].setdefault(each.text, each.kind)
    lines = []
    for area in dict.fromkeys(AREAS.values()):
        if areas[area]:
            lines += [f"\n## {area}\n"]
        for text, kind in sorted(
            areas[area].items(), key=lambda item: item[0].lstrip("… ").lower()
        ):
            message, _, remedy = text.rpartition("; ")
            lines += [f"{_code(message or text)}", f": {kind}. {_sentence(remedy)}\n"]
    return "\n".join(lines)


def _code(text: str) -> str:
    fence = "``" if "`" in text else "`"
    return f"{fence}{' '.join(text.split())}{fence}"


def _sentence(remedy: str) -> str:
    told = any(letter.isalpha() for letter in remedy)
    return f"Remedy: {_code(remedy)}" if told else "The message says what to do."


def http_page() -> str:
    """Return the operations of the server by path, as Markdown."""
    from cryotile.taskfarm.server.api import operations

    document = operations.document
    lines: list[str] = []
    for path, item in document["paths"].items():
        for method in ("get", "put", "post", "patch", "delete"):
            if method in item:
                lines += _operation(method.upper(), path, item[method])
    lines.append("\n## Bodies\n")
    for name, schema in sorted(document["components"]["schemas"].items()):
        lines += _schema(name, schema)
    return "\n".join(lines)


def _operation(method: str, path: str, operation: dict[str, Any]) -> list[str]:
    title = f"{method} {path.removeprefix('/api/v1')}"
    lines = [f"\n## {title}\n", f"`{method} {path}`", "", operation["summary"], ""]
    for each in operation.get("parameters", ()):
        told = each.get("description") or _kind(each["schema"])
        lines.append(f"- `{each['name']}` (query): {told}")
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body:
        lines.append(f"- body: {_kind(body['schema'])}")
    refused = []
    for status, answer in operation["responses"].items():
        content = answer.get("content", {}).get("application/json", {}).get("schema")
        if "description" in answer:
            lines.append(
                f"- {status}: {answer['description']}{f' {_kind(content)}' if content else ''}"
            )
        else:
            refused.append(status)
    return [*lines, f"- refused: {', '.join(refused)}"] if refused else lines


def _schema(name: str, schema: dict[str, Any]) -> list[str]:
    lines = [f"\n### {name}\n", " ".join(schema.get("description", "").split()), ""]
    required = schema.get("required", ())
    for field, kind in schema.get("properties", {}).items():
        told = " ".join(kind.get("description", "").split())
        optional = "" if field in required else ", optional"
        lines.append(f"- `{field}` ({_kind(kind)}{optional}){f': {told}' if told else ''}")
    return lines


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items') or {})}"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    return str(schema.get("type", "any"))


WRITTEN = {"errors": error_page, "http-api": http_page}
"""What is appended to a page, by its name."""


def append(_: Sphinx, name: str, source: list[str]) -> None:
    """Append what is written from the source to the page."""
    if name in WRITTEN:
        source[0] += WRITTEN[name]()


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect with the reading of pages."""
    app.connect("source-read", append)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
