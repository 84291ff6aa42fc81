"""Bodies and queries of the calls that a page about one run makes; see :mod:`cryotile.taskfarm.server.bodies`."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from cryotile.taskfarm.server.bodies import Body, Count

__all__ = [
    "AuditEntry",
    "AuditPage",
    "AuditQuery",
    "ExplainQuery",
    "Explained",
    "FailureGroup",
    "FailureGroups",
    "History",
    "Map",
    "MemberList",
    "NewToken",
    "PictureQuery",
    "Reset",
    "Retried",
    "Retry",
    "RunMember",
    "SinceQuery",
    "Stream",
    "TokenList",
    "TokenMade",
    "TokenSummary",
    "UserChange",
    "UserList",
    "UserSummary",
    "Variable",
    "Who",
]

_Time = Annotated[float, Meta(ge=-1e11, le=1e11)]
_Place = Annotated[float, Meta(ge=-1e9, le=1e9)]
_Pair = Annotated[list[float], Meta(min_length=2, max_length=2)]
_Cell = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
_Side = Annotated[int, Meta(ge=1, le=64)]
_Name = Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,39}$(?!\n)")]


class Variable(Body, frozen=True):
    """A variable that thumbnails show."""

    units: Annotated[str, Meta(max_length=40)] = ""
    range: Annotated[
        tuple[float, float] | None,
        Meta(description="The values that 1 and 255 stand for; those between are linear."),
    ] = None
    flags: (
        Annotated[
            dict[str, Annotated[int, Meta(ge=0, le=254)]],
            Meta(description="Value of each flag; a thumbnail holds the value plus 1."),
        ]
        | None
    ) = None


class Map(Body, frozen=True):
    """Where the tasks of a run lie."""

    crs: Annotated[str, Meta(max_length=10_000, description="CRS of all places.")]
    tile_size: Annotated[
        float, Meta(gt=0, le=1e9, description="Length of the side of a tile, metres.")
    ]
    origin: Annotated[
        tuple[_Place, _Place], Meta(description="x and y of the corner of column 0, row 0, metres.")
    ]
    columns: Annotated[
        list[_Cell], Meta(max_length=1_000_000, description="Column of the tile of each task.")
    ]
    rows: Annotated[
        list[_Cell], Meta(max_length=1_000_000, description="Row of the tile of each task.")
    ]
    outline: Annotated[
        list[Annotated[list[tuple[_Place, _Place]], Meta(max_length=100_000)]],
        Meta(max_length=10_000, description="Rings of x and y: the mask, or land nearby."),
    ]
    thumbnail_shape: Annotated[
        tuple[_Side, _Side], Meta(description="Rows and columns of a thumbnail; row 0 is lowest y.")
    ]
    variables: Annotated[
        dict[_Name, Variable],
        Meta(max_length=8, description="What a thumbnail holds, one after the other."),
    ]

    def __post_init__(self) -> None:
        """Check what relates several values."""
        if len(self.columns) != len(self.rows):
            raise ValueError(
                f"columns has {len(self.columns)} entries and rows has {len(self.rows)}; give one of each for each task"
            )


class SinceQuery(Struct, frozen=True):
    """Query of what has changed."""

    since: Annotated[
        _Time | None,
        Meta(description="The time next of an earlier answer; without it, everything."),
    ] = None


class PictureQuery(Struct, frozen=True):
    """Query of thumbnails."""

    variable: Annotated[_Name, Meta(description="A variable of the map.")]
    since: Annotated[_Time, Meta(description="The time next of an earlier answer.")] = 0.0
    detail: Annotated[
        Literal["1"] | None,
        Meta(description="Given for one value a tile: the mean, or of flags the most common."),
    ] = None
    tasks: (
        Annotated[
            str,
            Meta(
                pattern=r"^[0-9]{1,18}(,[0-9]{1,18}){0,999}$(?!\n)",
                description="In place of since: 1 to 1000 indices, separated by commas.",
            ),
        ]
        | None
    ) = None


class Stream(Body, frozen=True):
    """When a worker was busy."""

    worker: Annotated[int, Meta(description="Number of the worker.")]
    spans: Annotated[list[_Pair], Meta(description="From and to, seconds since 1970.")]


class History(Body, frozen=True):
    """What has happened in a run."""

    clock: Annotated[float, Meta(description="Clock of the database, seconds since 1970.")]
    minutes: Annotated[
        list[Annotated[list[int], Meta(min_length=3, max_length=3)]],
        Meta(
            description="Minutes since 1970 in which attempts ended, with the number of tasks done and failed then."
        ),
    ]
    samples: Annotated[
        list[_Pair], Meta(description="Cost and seconds of the tasks that were done last.")
    ]
    streams_from: Annotated[
        float, Meta(description="Begin of the streams: an hour ago, or later if much happened.")
    ]
    streams: list[Stream]


class FailureGroup(Body, frozen=True):
    """Failures with the same error, apart from numbers and paths."""

    group: Annotated[str, Meta(description="Id of the group.")]
    error: Annotated[
        str, Meta(description="The last line of the error, without numbers and paths.")
    ]
    text: Annotated[str, Meta(description="The whole error of one of them.")]
    count: Annotated[Count, Meta(description="Number of failed tasks, by their last failure.")]
    attempts: Annotated[Count, Meta(description="Number of failed attempts.")]
    hosts: Annotated[list[str], Meta(description="Hosts of the workers, at most 20.")]
    tasks: Annotated[list[int], Meta(description="Indices of failed tasks, at most 100.")]


class FailureGroups(Body, frozen=True):
    """Failures of a run by their error, the most frequent first; at most 50 groups."""

    groups: list[FailureGroup]


class Retry(Body, frozen=True):
    """Failed tasks to try again: those of a group, some, or all."""

    group: Annotated[str, Meta(max_length=16, description="Id of a group.")] | None = None
    tasks: Annotated[list[Annotated[int, Meta(ge=0, le=2**62)]], Meta(max_length=10_000)] | None = (
        None
    )
    all: bool = False

    def __post_init__(self) -> None:
        """Check that one choice is made."""
        if (self.group is not None) + (self.tasks is not None) + self.all != 1:
            raise ValueError("not exactly one of group, tasks and all is given; give one")


class Retried(Body, frozen=True):
    """Failed tasks that wait again."""

    tasks: Annotated[Count, Meta(description="Number of tasks.")]


class Reset(Body, frozen=True):
    """A restart of a run."""

    all: Annotated[
        bool,
        Meta(
            description="Whether all tasks wait again, done ones too; else those that failed or have no valid lease."
        ),
    ] = False


class ExplainQuery(Struct, frozen=True):
    """Query of one post."""

    x: Annotated[_Place, Meta(description="Place in the CRS of the map, metres.")]
    y: Annotated[_Place, Meta(description="Place in the CRS of the map, metres.")]


class Explained(Body, frozen=True):
    """The explanation of one post."""

    text: Annotated[str, Meta(description="What the command prints.")]


class Who(Body, frozen=True):
    """The caller."""

    name: str
    admin: bool


class TokenSummary(Body, frozen=True):
    """A token of the caller."""

    id: Annotated[str, Meta(description="The first 16 digits of its digest.")]
    created: Annotated[float, Meta(description="Seconds since 1970.")]
    expires: Annotated[float, Meta(description="Seconds since 1970.")]
    current: Annotated[bool, Meta(description="Whether this call carries it.")]


class TokenList(Body, frozen=True):
    """Tokens of the caller that have not expired."""

    tokens: list[TokenSummary]


class NewToken(Body, frozen=True):
    """A token to make."""

    lifetime: (
        Annotated[
            float,
            Meta(
                ge=1,
                le=1e10,
                description="Seconds; null or more than the server allows: what it allows.",
            ),
        ]
        | None
    ) = None


class TokenMade(Body, frozen=True):
    """A new token; it is shown only once."""

    token: str
    expires: Annotated[float, Meta(description="Seconds since 1970.")]


class UserSummary(Body, frozen=True):
    """A user."""

    name: str
    role: str
    created: Annotated[float, Meta(description="Seconds since 1970.")]


class UserList(Body, frozen=True):
    """All users."""

    users: list[UserSummary]


class UserChange(Body, frozen=True):
    """A user to add or to change."""

    password: Annotated[
        str | None,
        Meta(description="New password, needed for a new user; it revokes their tokens."),
    ] = None
    role: Literal["user", "admin"] | None = None

    def __post_init__(self) -> None:
        """Check that something is changed."""
        if self.password is None and self.role is None:
            raise ValueError("neither password nor role is given; give one")


class RunMember(Body, frozen=True):
    """A member of a run."""

    name: str
    role: Literal["owner", "worker", "viewer"]


class MemberList(Body, frozen=True):
    """Members of a run, its creator first."""

    members: list[RunMember]


class AuditQuery(Struct, frozen=True):
    """Query of the audit log."""

    before: (
        Annotated[int, Meta(ge=0, le=2**62, description="Only entries of a lower id.")] | None
    ) = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="Largest number of entries.")] = 100
    run: (
        Annotated[
            str,
            Meta(pattern=r"^[0-9a-f]{32}$(?!\n)", description="Only entries about this run."),
        ]
        | None
    ) = None


class AuditEntry(Body, frozen=True):
    """One action."""

    id: int
    at: Annotated[float, Meta(description="Seconds since 1970.")]
    user: Annotated[str, Meta(description="Who did it; - stands for the command line.")]
    address: Annotated[str, Meta(description="Network address of the request.")]
    action: str
    subject: Annotated[str, Meta(description="User or run that it concerns, and details.")]


class AuditPage(Body, frozen=True):
    """Entries of the audit log, the last one first."""

    entries: list[AuditEntry]
    next: Annotated[
        int | None, Meta(description="Value of before for the next page; null if this is the last.")
    ]
