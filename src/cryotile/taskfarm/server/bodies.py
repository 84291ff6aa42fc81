"""Bodies and queries of the server's calls: msgspec structs, from which they are checked and documented.

A struct states the type, range, length and pattern of every value, and its nesting bounds the depth of the JSON.
"""

from __future__ import annotations

import gc
import json
import re
import reprlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Generic, Literal, NoReturn, TypeVar

import msgspec
from flask import request
from msgspec import UNSET, Meta, Struct, UnsetType
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from cryotile.farm.task import ATTEMPTS
from cryotile.ledgers.base import LEASE

__all__ = [
    "BATCH",
    "Body",
    "BodyReader",
    "ClaimQuery",
    "ClaimRequest",
    "HostName",
    "HostOutcomes",
    "IndexQuery",
    "LeaseId",
    "LostLeases",
    "MemberRole",
    "NewLeases",
    "NewRun",
    "ProcessId",
    "Refusal",
    "Renewal",
    "RunList",
    "RunSummary",
    "SettleAnswer",
    "Settlement",
    "TaskPage",
    "TaskQuery",
    "TaskSummary",
    "WorkerIdentity",
    "WorkerList",
    "WorkerQuery",
    "WorkerSummary",
    "WorkerUuid",
    "is_worker_uuid",
    "read_query",
    "storable",
]

BATCH = 10_000
"""Longest list of leases in one call."""

# Bytes of a decompressed body.
_LONGEST = 16 * 2**20

_WEEK = 7 * 86400.0
_GREATEST = 1.7e308

# Characters that act on a terminal or on the direction of text, where others read names and errors; of a database,
# PostgreSQL cannot store NUL, and UTF-8 cannot encode a lone surrogate.
_ACTING = r"\u007f-\u009f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_UNSTORABLE = re.compile(rf"[\u0000-\u0008\u000b-\u001f{_ACTING}]")

# Python's $ also matches before a final newline; the lookahead excludes that.
_END = r"$(?!\n)"
_TEXT = rf"[^\u0000-\u001f{_ACTING}]"
_WORKER = rf"^[0-9A-Za-z_-]{{1,64}}{_END}"

Count = Annotated[int, Meta(ge=0)]
LeaseId = Annotated[str, Meta(description="Id of a lease, as a claim returned it.")]
WorkerUuid = Annotated[
    str, Meta(pattern=_WORKER, description="Uuid of the worker, chosen by the worker.")
]
HostName = Annotated[
    str, Meta(pattern=rf"^{_TEXT}{{1,255}}{_END}", description="Name of the worker's host.")
]
ProcessId = Annotated[int, Meta(ge=0, le=2**31 - 1, description="Process id of the worker.")]
ClaimToken = Annotated[
    str,
    Meta(
        pattern=rf"^[0-9a-f]{{1,15}}{_END}",
        description="Random id of this claim, 1 to 15 hexadecimal digits; a claim that may be repeated needs one.",
    ),
]
ClaimSize = Annotated[int, Meta(ge=1, le=BATCH, description="Largest number of tasks to claim.")]
TaskIndex = Annotated[int, Meta(ge=0, le=2**62, description="Index of a task.")]
ListedCost = Annotated[
    float, Meta(ge=-_GREATEST, le=_GREATEST, description="Cost; the costliest task is first.")
]


class Body(Struct, forbid_unknown_fields=True, frozen=True):
    """Base of all bodies: a member that is not declared is an error."""


class Refusal(Body, frozen=True):
    """An error; nothing was changed."""

    error: Annotated[
        str, Meta(description="The value, the rule that it breaks and the remedy, in one line.")
    ]


class NewRun(Body, frozen=True):
    """A run to create, or more tasks of an existing one."""

    key: Annotated[
        str,
        Meta(
            pattern=rf"^{_TEXT}{{1,200}}{_END}",
            description="Name of the task list, not a uuid: equal keys mean the same run.",
        ),
    ] = ""
    name: Annotated[
        str, Meta(pattern=rf"^{_TEXT}{{0,200}}{_END}", description="Name that people read.")
    ] = ""
    tasks: Annotated[
        list[tuple[TaskIndex, ListedCost]],
        Meta(max_length=100_000, description="Index and cost of each task; each index once."),
    ] = []
    count: Annotated[
        int,
        Meta(
            ge=1,
            le=2**31 - 1,
            description="In place of tasks: tasks 0 to count - 1 of equal cost, of a run that has none yet.",
        ),
    ] = 0
    lease: Annotated[float, Meta(ge=1, le=_WEEK, description="Length of a lease, seconds.")] = LEASE
    attempts: Annotated[
        int, Meta(ge=1, le=1000, description="Number of attempts that a task gets.")
    ] = ATTEMPTS
    seen: (
        Annotated[
            float,
            Meta(
                ge=0,
                le=1e11,
                description="The clock of an earlier answer: a listed task that was settled after it stays settled, "
                "one that was settled before it waits again.",
            ),
        ]
        | UnsetType
    ) = UNSET

    def __post_init__(self) -> None:
        """Check what relates several values."""
        if re.fullmatch("[0-9a-f]{32}", self.key):
            raise ValueError(f"key {self.key} is a uuid, which names a run too; add a letter to it")
        if self.tasks and self.count:
            raise ValueError("both tasks and count are given; give one")
        if len({index for index, _ in self.tasks}) < len(self.tasks):
            raise ValueError("tasks contains an index twice; list each index once")


class RunSummary(Body, frozen=True):
    """Settings and counts of a run."""

    run: Annotated[str, Meta(description="Uuid of the run: 32 hexadecimal digits.")]
    key: str
    name: str
    owner: Annotated[str | None, Meta(description="User who created the run.")]
    role: Annotated[Literal["owner", "worker", "viewer"], Meta(description="Role of the caller.")]
    created: Annotated[float, Meta(description="Seconds since 1970.")]
    clock: Annotated[float, Meta(description="Clock of the database, seconds since 1970.")]
    lease: Annotated[float, Meta(description="Length of a lease, seconds.")]
    attempts: Annotated[int, Meta(description="Number of attempts that a task gets.")]
    tasks: Annotated[Count, Meta(description="Number of tasks.")]
    waiting: Annotated[Count, Meta(description="Number of tasks that wait.")]
    leased: Annotated[Count, Meta(description="Number of tasks that workers hold.")]
    done: Annotated[Count, Meta(description="Number of tasks that are done.")]
    failed: Annotated[Count, Meta(description="Number of tasks whose last attempt failed.")]
    paused: Annotated[bool, Meta(description="Whether claims get nothing.")]
    epoch: Annotated[
        Count, Meta(description="Number of times that settled tasks were opened again.")
    ]
    map: Annotated[bool, Meta(description="Whether the run has a map.")]
    seen: Annotated[
        float | None, Meta(description="Last sign of life of a worker, seconds since 1970.")
    ]
    workers: Annotated[Count, Meta(description="Number of workers that are at work.")]
    rate: Annotated[float, Meta(description="Tasks done per second, of the last minutes.")]
    # Not a tuple: readers of OpenAPI documents do not agree on arrays with an item for each place.
    seconds_left: Annotated[
        Annotated[list[float], Meta(min_length=2, max_length=2)] | None,
        Meta(
            description="Least and most time that is left, seconds; null if nobody works or nothing is left."
        ),
    ]


class RunList(Body, frozen=True):
    """Runs that the caller is a member of."""

    runs: list[RunSummary]


class WorkerIdentity(Body, frozen=True):
    """A worker that claims."""

    uuid: WorkerUuid
    host: HostName
    pid: ProcessId


class ClaimRequest(Body, frozen=True):
    """A claim of waiting tasks."""

    worker: Annotated[
        WorkerIdentity | WorkerUuid,
        Meta(
            description="The worker, or its uuid alone: a worker that is unknown yet is then named by the address of "
            "the request.",
        ),
    ]
    n: ClaimSize = 1
    token: ClaimToken | None = None
    again: Annotated[
        bool,
        Meta(
            description="Whether this claim was sent before and its answer lost: the same leases are returned again."
        ),
    ] = False


class ClaimQuery(Struct, frozen=True):
    """Query of a call that settles, and may claim in the same transaction."""

    worker: Annotated[
        WorkerUuid | None,
        Meta(
            description="Uuid of the worker, as in an earlier claim; by default the holder of the first known lease."
        ),
    ] = None
    claim: Annotated[ClaimSize | None, Meta(description="Number of new leases to claim.")] = None
    token: ClaimToken | None = None
    again: Annotated[
        Literal["1"] | None, Meta(description="Given if this call was sent before.")
    ] = None


class WorkerQuery(Struct, frozen=True):
    """Query of a call about leases."""

    worker: Annotated[
        WorkerUuid | None, Meta(description="Uuid of the worker, as in an earlier claim.")
    ] = None
    memory: (
        Annotated[
            int,
            Meta(ge=0, le=2**62, description="Memory of the worker's processes, bytes."),
        ]
        | None
    ) = None


class TaskQuery(Struct, frozen=True):
    """Query of a list of tasks."""

    # Waiting tasks may be a million, and those in the backlog have no rows.
    state: Annotated[Literal["leased", "done", "failed"], Meta(description="State of the tasks.")]
    after: Annotated[
        int, Meta(ge=-1, le=2**63 - 1, description="Only tasks of a higher index.")
    ] = -1
    limit: Annotated[int, Meta(ge=1, le=BATCH, description="Largest number of tasks.")] = 1000


class IndexQuery(Struct, frozen=True):
    """Query that names tasks."""

    tasks: Annotated[
        str,
        Meta(
            pattern=rf"^[0-9]{{1,18}}(,[0-9]{{1,18}}){{0,99}}{_END}",
            description="1 to 100 indices, separated by commas.",
        ),
    ]


class LeasedTask(Body, frozen=True):
    """A task that a worker has a lease of."""

    task: Annotated[int, Meta(description="Index of the task.")]
    cost: Annotated[float, Meta(description="Cost of the task, as it was listed.")]
    lease: LeaseId
    attempt: Annotated[
        int,
        Meta(
            description="Number of the attempt, from 1; if it is above the attempts of the run, settle it as failed."
        ),
    ]
    expires: Annotated[float, Meta(description="Seconds until the lease expires.")]
    lease_count: Annotated[
        int,
        Meta(
            description="Number of leases of the task so far; if it is above attempt, an earlier lease had no outcome."
        ),
    ]


Unsettled = Annotated[
    int,
    Meta(
        description="Given if there are no leases: number of tasks that wait or are leased; 0 means the run is over."
    ),
]
Paused = Annotated[
    bool, Meta(description="Given if there are no leases: whether the run is paused; ask again.")
]
LeaseList = Annotated[list[LeasedTask], Meta(description="New leases, the costliest task first.")]
LostIds = Annotated[
    list[str], Meta(description="Leases that are lost: another worker has or had the task.")
]


class NewLeases(Body, frozen=True):
    """Leases that a claim got."""

    leases: LeaseList
    unsettled: Unsettled | UnsetType = UNSET
    paused: Paused | UnsetType = UNSET


class LostLeases(Body, frozen=True):
    """Leases that are lost; the call took effect on all others."""

    lost: LostIds


class SettleAnswer(Body, frozen=True):
    """Leases that were lost and settled nothing, and new leases if the call claimed."""

    lost: LostIds
    leases: LeaseList | UnsetType = UNSET
    unsettled: Unsettled | UnsetType = UNSET
    paused: Paused | UnsetType = UNSET


class Renewal(Body, frozen=True):
    """A lease to prolong."""

    lease: LeaseId
    fraction: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(description="Fraction of the task that is done; null if it is not started."),
    ] = None


class Settlement(Body, frozen=True):
    """The end of an attempt."""

    lease: LeaseId
    seconds: Annotated[float, Meta(ge=0, le=1e9, description="Duration of the attempt.")]
    error: Annotated[
        str | None, Meta(description="Why the attempt failed; null if its result is saved.")
    ] = None
    thumbnail: (
        Annotated[
            str,
            Meta(
                max_length=1400,
                description="A small picture of the result: one byte for each value, all variables of the map one "
                "after the other, compressed by zlib, in base64; at most 1 kB.",
            ),
        ]
        | None
    ) = None


class TaskSummary(Body, frozen=True):
    """A task with its last failure."""

    task: Annotated[int, Meta(description="Index of the task.")]
    state: Literal["leased", "done", "failed"]
    attempts: Annotated[int, Meta(description="Number of counted attempts.")]
    percent: Annotated[float, Meta(description="Progress, as last reported.")]
    host: Annotated[str | None, Meta(description="Host of its last worker.")]
    seconds: Annotated[float | None, Meta(description="Duration of the last attempt.")]
    at: Annotated[
        float | None,
        Meta(description="When the task was settled or its lease expires, seconds since 1970."),
    ]
    error: Annotated[str | None, Meta(description="Why the last failed attempt failed.")]


class TaskPage(Body, frozen=True):
    """Tasks of one state, by index."""

    tasks: list[TaskSummary]
    next: Annotated[
        int | None,
        Meta(description="Value of after for the next page; null if this is the last page."),
    ]


class WorkerSummary(Body, frozen=True):
    """A worker of a run."""

    number: Annotated[int, Meta(description="Number by which the tiles name it.")]
    uuid: str
    host: str
    pid: int
    memory: Annotated[
        int | None, Meta(description="Memory of its processes as last reported, bytes.")
    ]
    stuck: Annotated[
        bool, Meta(description="Whether a lease has expired, or will soon: it does not renew.")
    ]
    age: Annotated[float, Meta(description="Seconds since its last call.")]
    leased: Annotated[int, Meta(description="Number of tasks that it holds.")]
    done: Annotated[int, Meta(description="Number of tasks that it did.")]
    failed: Annotated[
        int, Meta(description="Number of tasks whose last attempt was its and failed.")
    ]
    attempts: Annotated[int, Meta(description="Number of attempts that it ended.")]


class WorkerList(Body, frozen=True):
    """Workers of a run, the last active one first."""

    workers: list[WorkerSummary]


class HostOutcomes(Body, frozen=True):
    """Outcomes of some tasks by host and task."""

    hosts: Annotated[
        dict[str, dict[int, bool]],
        Meta(
            description="For every host that worked on the run: tasks that it did (true) or failed at (false)."
        ),
    ]


class MemberRole(Body, frozen=True):
    """The role of a member of a run."""

    role: Literal["owner", "worker", "viewer"]


T = TypeVar("T")


@contextmanager
def _without_collection() -> Iterator[None]:
    """Collect no garbage: a body may be millions of objects, none is garbage, and the search takes most of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class BodyReader(Generic[T]):
    """Reads the bodies of one call.

    Parameters
    ----------
    kind : type
        A struct, or a list of structs.
    """

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._decoder = msgspec.json.Decoder(kind)

    def read(self) -> T:
        """Return the checked body of the current request, which may be compressed by gzip.

        Raises
        ------
        BadRequest
            The body is not JSON, or a value in it is invalid.
        RequestEntityTooLarge
            The decompressed body is too long.
        UnsupportedMediaType
            The encoding is unknown.
        """
        raw = _content()
        with _without_collection():
            try:
                return self._decoder.decode(raw)
            except ValueError:
                return self._read_slowly(raw)

    def _read_slowly(self, raw: bytes) -> T:
        """Accept what Python's and JavaScript's encoders may write, lone surrogates and 3.0 for 3; explain errors."""
        try:
            given = json.loads(raw, parse_float=_parse_float, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"the body is not JSON ({error}); send JSON") from error
        return _convert(given, self._kind, strict=True)


def read_query(kind: type[T]) -> T:
    """Return the checked query of the current request.

    Raises
    ------
    BadRequest
        A value in it is invalid.
    """
    return _convert(request.args.to_dict(), kind, strict=False)


def is_worker_uuid(uuid: str) -> bool:
    """Tell whether a string can be the uuid of a worker."""
    return re.search(_WORKER, uuid) is not None


def storable(value: str) -> str:
    """Replace characters that a database cannot store, and those that act on a terminal; lines and tabs stay."""
    return _UNSTORABLE.sub("\ufffd", value)


def _content() -> bytes:
    raw = request.get_data(cache=False)
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding == "gzip":
        return _decompress(raw)
    if encoding != "identity":
        raise UnsupportedMediaType(f"Content-Encoding {encoding!r} is unknown; use gzip or none")
    return raw


def _decompress(raw: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=31)
    try:
        content = inflater.decompress(raw, _LONGEST)
    except zlib.error as error:
        raise BadRequest(f"the body is not valid gzip ({error}); compress it again") from error
    if inflater.unconsumed_tail:
        raise RequestEntityTooLarge(
            f"the body is longer than {_LONGEST} bytes decompressed; send it in pieces"
        )
    if not inflater.eof:
        raise BadRequest("the body ends before its gzip stream does; send all of it")
    if inflater.unused_data:
        raise BadRequest("the body goes on after its gzip stream; send one stream")
    return content


def _parse_float(text: str) -> float:
    """Return integral values as int: to JSON, 3.0 is an integer."""
    value = float(text)
    return int(value) if abs(value) < 2**53 and value.is_integer() else value


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number of JSON")


def _convert(given: object, kind: type[T], *, strict: bool) -> T:
    try:
        return msgspec.convert(given, kind, strict=strict)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, ValueError):
            raise BadRequest(str(error.__cause__)) from error
        place = "the body" if strict else "the query"
        raise BadRequest(_explain(str(error), given, kind, place)) from error


def _explain(message: str, given: object, kind: Any, place: str) -> str:
    """Return which value is invalid, the rule that it breaks, and a remedy.

    The message is that of msgspec about ``given``, which must be of ``kind``; ``place`` names the whole of it.
    """
    rule, _, path = message.partition(" - at `$")
    for step in re.findall(r"\w+", path):
        given = given[int(step)] if isinstance(given, list) else given[step]  # type: ignore[index]
    if rule.startswith("Invalid enum value"):
        rule = f"choose {' or '.join(_choices(kind, path.strip('.`')))}"
    rule = rule[:1].lower() + rule[1:200].replace(repr(_END)[1:-1], "$")
    place = path.strip(".`") or place
    remedy = "see /api/v1/openapi.json" if request.path.startswith("/api/v1/") else "correct it"
    return f"{place} = {reprlib.repr(given)} is invalid: {rule}; {remedy}"


def _choices(kind: Any, name: str) -> list[str]:
    """Return the values that a field allows."""
    (field,) = (each for each in msgspec.structs.fields(kind) if each.name == name)
    info: Any = msgspec.inspect.type_info(field.type)
    # A description wraps the type.
    info = getattr(info, "type", info)
    literals = [each for each in getattr(info, "types", (info,)) if hasattr(each, "values")]
    return [str(value) for each in literals for value in each.values]
