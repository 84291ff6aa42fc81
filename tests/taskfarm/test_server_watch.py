"""What a page about a run asks: its map, tiles, thumbnails, history and failures; pause, retry, and the audit log."""

from __future__ import annotations

import base64
import gzip
import json
import struct
import time
import zlib
from copy import copy

import numpy as np
import pytest

from cryotile.taskfarm.server import api, auth, state
from tests.support.farm_server import Farm, farm, sqlite_farm
from tests.support.small_run import fit, make_run

__all__ = ["farm", "sqlite_farm"]

WORKER = {"uuid": "w", "host": "here", "pid": 7}
MAP = {
    "crs": "EPSG:3031",
    "tile_size": 1000.0,
    "origin": [-2000.0, 5000.0],
    "columns": [0, 1, 2, 0, 1, 2],
    "rows": [0, 0, 0, 1, 1, 1],
    "outline": [[[0.0, 0.0], [9.5, 0.0], [0.0, 9.5]]],
    "thumbnail_shape": [2, 2],
    "variables": {
        "dhdt": {"units": "m yr-1", "range": [-2.0, 2.0], "flags": None},
        "status": {"units": "", "range": None, "flags": {"fitted": 0, "few_points": 1}},
    },
}
STATES = ("waiting", "leased", "done", "failed")
COSTS = [[index, 60.0 - index] for index in range(6)]


class Watched:
    """A run of six tasks with a map, and a page that knows what it was told."""

    def __init__(self, farm: Farm, key: str, costs: list[list[float]] = COSTS) -> None:
        self.farm = farm
        run = self.ask("POST", path="/api/v1/runs", body={"key": key, "tasks": costs}).json
        self.uuid = run["run"]
        self.path = f"/api/v1/runs/{self.uuid}"
        self.next, self.epoch = None, 0
        self.tiles: dict[int, tuple] = {}

    def ask(self, method, part="", body=None, *, path=None, **more):
        return self.farm.ask(method, (path or self.path) + part, body, **more)

    def claim(self, n=1, worker="w"):
        body = {"worker": WORKER | {"uuid": worker}, "n": n}
        return self.ask("POST", "/leases", body).json["leases"]

    def settle(self, *leases, error=None, picture=None, seconds=2.0):
        thumbnail = None if picture is None else packed(picture)
        body = [
            {"lease": e["lease"], "seconds": seconds, "error": error, "thumbnail": thumbnail}
            for e in leases
        ]
        answer = self.ask("POST", "/outcomes?worker=w", body)
        assert answer.status_code == 200, answer.json
        assert answer.json["lost"] == []

    def fail_all(self, *errors):
        """Let each task fail for good, with one of the errors."""
        while leases := self.claim(6):
            for lease in leases:
                self.settle(lease, error=errors[lease["task"] % len(errors)].format(lease["task"]))

    def look(self):
        """Ask for tiles as the page does, and return the state of each task that is not plainly waiting."""
        since = "" if self.next is None else f"?since={self.next!r}"
        data = self.ask("GET", f"/tiles{since}").data
        magic, count, epoch, self.next = struct.unpack_from("<IIId", data)
        assert (magic, len(data)) == (0x54435931, 20 + 18 * count)
        if epoch != self.epoch:
            self.epoch, self.next, self.tiles = epoch, None, {}
            return self.look()
        kinds = ("<u4", "<f4", "<f4", "<u4", "u1", "u1")
        columns, place = [], 20
        for kind in kinds:
            columns.append(np.frombuffer(data, kind, count, place))
            place += columns[-1].nbytes
        told = {int(row[0]): row for row in zip(*columns, strict=True)}
        for index, row in list(self.tiles.items()):
            if row[4] == 1 and index not in told:
                del self.tiles[index]
        self.tiles |= told
        return {index: STATES[row[4]] for index, row in self.tiles.items()}


def packed(picture: list[int]) -> str:
    return base64.b64encode(zlib.compress(bytes(picture))).decode()


@pytest.fixture
def run(farm, request):
    return Watched(farm, f"{request.node.name}/1")


def test_a_page_that_asks_for_changes_knows_every_tile(run):
    assert run.look() == {}
    first, second, third = run.claim(3)
    assert run.look() == {0: "leased", 1: "leased", 2: "leased"}
    run.settle(first, seconds=2.5)
    run.settle(second, error="no")
    run.ask("DELETE", "/leases", [third["lease"]])
    assert run.look() == {0: "done", 1: "waiting"}
    _, seconds, cost, worker, state, attempts = run.tiles[0]
    assert (seconds, cost, state, attempts) == (2.5, 60.0, 2, 1)
    (known,) = run.ask("GET", "/workers").json["workers"]
    assert (known["number"], known["host"]) == (worker, "here")
    # What has changed long ago is told no more: of a large run a look costs what has changed.
    run.farm.sql(
        "UPDATE tasks SET settled = settled - 60 WHERE run_id = (SELECT id FROM runs WHERE uuid = :uuid)",
        uuid=run.uuid,
    )
    assert len(run.ask("GET", f"/tiles?since={run.next!r}").data) == 20
    # Another page that asks for the first time sees the same.
    other = copy(run)
    other.next, other.tiles = None, {}
    assert other.look() == run.look()


def test_after_a_retry_or_a_reset_a_page_asks_for_all_tiles_again(run):
    run.fail_all("a", "b")
    assert set(run.look().values()) == {"failed"}
    assert run.ask("POST", "/retry", {"tasks": [1, 2, 99]}).json == {"tasks": 2}
    assert run.look() == dict.fromkeys([0, 3, 4, 5], "failed")
    run.settle(*run.claim(2))
    assert run.ask("POST", "/retry", {"all": True}).json == {"tasks": 4}
    assert run.look() == {1: "done", 2: "done"}
    assert run.ask("POST", "/restart", {"all": True}).status_code == 204
    assert run.look() == {}
    assert run.ask("DELETE").status_code == 204
    assert run.ask("GET", "/tiles").status_code == 404


def test_failures_are_grouped_by_their_error_and_a_group_is_tried_again(run):
    run.fail_all(
        "Traceback\nValueError: tile {} of /data/x.nc has 12.5 points", "OSError: disk full"
    )
    groups = run.ask("GET", "/failures").json["groups"]
    assert [(g["error"], g["count"], g["attempts"]) for g in groups] == sorted(
        [
            ("ValueError: tile # of … has # points", 3, 9),
            ("OSError: disk full", 3, 9),
        ],
        key=lambda each: [g["error"] for g in groups].index(each[0]),
    )
    group = next(g for g in groups if "disk" in g["error"])
    assert (group["tasks"], group["hosts"], group["text"]) == (
        [1, 3, 5],
        ["here"],
        "OSError: disk full",
    )
    assert run.ask("POST", "/retry", {"group": group["group"]}).json == {"tasks": 3}
    (left,) = run.ask("GET", "/failures").json["groups"]
    assert left["tasks"] == [0, 2, 4]
    assert run.ask("POST", "/retry", {"group": "x", "all": True}).status_code == 400


def test_failures_of_an_earlier_version_are_grouped(run):
    run.fail_all("no {}")
    run.farm.sql("UPDATE failures SET kind = NULL")
    (group,) = run.ask("GET", "/failures").json["groups"]
    assert (group["error"], group["count"]) == ("no #", 6)


def test_a_paused_run_hands_out_nothing_and_its_leases_go_on(run):
    (lease,) = run.claim()
    assert run.ask("POST", "/pause").status_code == 204
    answer = run.ask("POST", "/leases", {"worker": WORKER, "n": 3}).json
    assert answer == {"leases": [], "unsettled": 6, "paused": True}
    # No task of the backlog gets a row, and no expired lease is taken back, while nothing may be claimed.
    run.farm.sql("UPDATE tasks SET expires = 1 WHERE lease IS NOT NULL")
    assert run.claim() == []
    seed = run.farm.run(3)
    run.farm.ask("POST", f"/api/v1/runs/{seed}/pause")
    assert run.farm.claim(seed, run.farm.worker()) is None
    run.settle(lease)
    assert run.ask("GET").json["paused"] is True
    assert run.ask("POST", "/resume").status_code == 204
    assert len(run.claim(9)) == 5
    assert run.ask("GET").json["paused"] is False


def test_a_map_is_stored_once_and_read_by_its_tag(run):
    assert run.ask("GET", "/map").status_code == 404
    assert run.ask("GET").json["map"] is False
    for _ in range(2):
        assert run.ask("PUT", "/map", MAP).status_code == 204
    answer = run.ask("GET", "/map")
    assert answer.json == MAP
    again = run.ask("GET", "/map", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    zipped = run.ask("GET", "/map", headers={"Accept-Encoding": "gzip"})
    assert zipped.headers["Content-Encoding"] == "gzip"
    assert run.ask("GET").json["map"] is True
    refused = run.ask("PUT", "/map", MAP | {"rows": [1]})
    assert (refused.status_code, "6 entries" in refused.json["error"]) == (400, True)


def test_thumbnails_come_with_the_outcome_and_only_of_done_tasks(run):
    assert run.ask("GET", "/thumbnails?variable=dhdt").status_code == 404
    run.ask("PUT", "/map", MAP)
    for query in ("variable=dhdt", "variable=dhdt&detail=1", "variable=status&detail=1"):
        assert pictures(run, query) == {}
    first, second, third = run.claim(3)
    run.settle(first, picture=[0, 10, 20, 30, 1, 1, 2, 0])
    run.settle(second, picture=[5] * 8, error="no")
    run.settle(third, picture=[7, 7])
    assert pictures(run, "variable=dhdt") == {0: [0, 10, 20, 30], 2: [7, 7, 0, 0]}
    assert pictures(run, "variable=status&tasks=0,1") == {0: [1, 1, 2, 0]}
    assert pictures(run, "variable=dhdt&detail=1") == {0: [20], 2: [7]}
    assert pictures(run, "variable=status&detail=1") == {0: [1], 2: [0]}
    assert pictures(run, f"variable=dhdt&since={time.time() + 60}") == {}
    assert run.ask("GET", "/thumbnails?variable=other").status_code == 404
    run.ask("POST", "/restart", {"all": True})
    assert pictures(run, "variable=dhdt") == {}


def pictures(run, query):
    data = run.ask("GET", f"/thumbnails?{query}").data
    magic, count, _, _, ny, nx = struct.unpack_from("<IIIdII", data)
    assert magic == 0x54435932
    index = np.frombuffer(data, "<u4", count, 28)
    values = np.frombuffer(data, "u1", offset=28 + 4 * count).reshape(count, ny * nx)
    return dict(zip(index.tolist(), values.tolist(), strict=True))


@pytest.mark.parametrize(
    "thumbnail", ["!!", "AAAA", base64.b64encode(bytes(1040)).decode(), packed([])]
)
def test_a_thumbnail_that_is_none_is_refused(sqlite_farm, thumbnail):
    run = Watched(sqlite_farm, "k/1")
    (lease,) = run.claim()
    body = [{"lease": lease["lease"], "seconds": 1.0, "thumbnail": thumbnail}]
    answer = run.ask("POST", "/outcomes?worker=w", body)
    assert answer.status_code == 400
    assert "thumbnail" in answer.json["error"]


def test_the_history_counts_minutes_and_shows_when_workers_were_busy(run):
    leases = run.claim(4)
    run.settle(*leases[:2], seconds=30.0)
    run.settle(leases[2], seconds=9.0, error="no")
    seen = run.ask("GET", "/history").json
    minutes = np.array(seen["minutes"])
    assert minutes[:, 1:].sum(axis=0).tolist() == [2, 1]
    assert abs(60 * minutes[0, 0] - seen["clock"]) < 121
    assert sorted(seen["samples"]) == [[59.0, 30.0], [60.0, 30.0]]
    (stream,) = seen["streams"]
    ((start, stop),) = stream["spans"]
    # It holds the fourth task, and has worked at it since the end of the others.
    assert stop == seen["clock"]
    first = run.farm.sql(
        "SELECT min(settled) FROM tasks JOIN runs ON runs.id = run_id WHERE uuid = :uuid",
        uuid=run.uuid,
    )[0][0]
    assert start == pytest.approx(first - 30.0, abs=0.1)
    run.ask("DELETE", "/leases", [leases[3]["lease"]])
    (stream,) = run.ask("GET", "/history").json["streams"]
    ((start, stop),) = stream["spans"]
    assert stop - start == pytest.approx(30.0, abs=1.0)


def test_a_worker_at_its_first_task_is_busy_since_it_came(run):
    run.claim()
    (worker,) = run.farm.sql("SELECT id, created FROM workers WHERE uuid = 'w'")
    seen = run.ask("GET", "/history").json
    (stream,) = seen["streams"]
    assert stream["worker"] == worker.id
    assert stream["spans"] == [[max(worker.created, seen["clock"] - 3600), seen["clock"]]]
    run.farm.expire()
    assert run.ask("GET", "/history").json["streams"] == []


@pytest.mark.parametrize(
    "part", ["tiles", "thumbnails?variable=dhdt&detail=1", "workers", "history", "failures"]
)
def test_ten_watchers_of_a_large_run_cost_what_one_costs(run, part, monkeypatch):
    run.ask("PUT", "/map", MAP)
    # Any run is large, and no answer becomes too old on a slow machine.
    for name, value in (("_SHORT", 0), ("_LEAST", 1e6), ("_MOST", 1e6)):
        monkeypatch.setattr(state, name, value)
    asked = []
    reads = run.farm.database.read
    monkeypatch.setattr(run.farm.database, "read", lambda ask: asked.append(1) or reads(ask))
    run.farm.app.extensions["cryotile"].access.check()
    monkeypatch.setattr(auth, "_CHECK", 1e6)
    first = run.ask("GET", f"/{part}")
    one = len(asked)
    others = [run.ask("GET", f"/{part}").data for _ in range(9)]
    assert (one > 0, len(asked)) == (True, one)
    assert set(others) == {first.data}
    packed = run.ask("GET", f"/{part}", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == first.data


def test_an_answer_of_a_large_run_is_made_again_when_it_is_too_old(run, monkeypatch):
    for name, value in (("_SHORT", 0), ("_LEAST", 0.0), ("_MOST", 0.0)):
        monkeypatch.setattr(state, name, value)
    assert run.ask("GET", "/workers").json["workers"] == []
    run.claim()
    assert len(run.ask("GET", "/workers").json["workers"]) == 1


@pytest.mark.parametrize("part", ["tiles", "workers", "history", "failures"])
def test_no_question_of_the_page_waits_for_those_who_write(run, part, monkeypatch):
    run.fail_all("no")
    run.ask("GET", f"/{part}")
    monkeypatch.setattr(run.farm.database, "change", lambda _: pytest.fail("it writes"))
    assert run.ask("GET", f"/{part}").status_code == 200


def test_a_worker_that_does_not_renew_looks_stuck(run):
    # Another worker than in the other tests, which share the database.
    leases = run.claim(2, "renewing")
    run.ask("PATCH", "/leases?worker=renewing&memory=12345678", [{"lease": leases[0]["lease"]}])
    (worker,) = run.ask("GET", "/workers").json["workers"]
    assert (worker["stuck"], worker["memory"], worker["leased"]) == (False, 12345678, 2)
    run.farm.sql("UPDATE tasks SET expires = expires - 250 WHERE expires IS NOT NULL")
    (worker,) = run.ask("GET", "/workers").json["workers"]
    assert worker["stuck"] is True


def test_the_time_left_follows_from_the_cost_of_what_is_left(run):
    assert run.ask("GET").json["seconds_left"] is None
    leases = run.claim(3)
    for lease in leases:
        run.settle(lease, seconds=lease["cost"])
    # Three tasks of 60, 59 and 58 s in the last 100 s; tasks of 57, 56 and 55 s are left.
    run.farm.sql("UPDATE tallies SET last_at = seen - 100, mark_at = seen")
    seen = run.ask("GET").json
    least, most = seen["seconds_left"]
    assert least == pytest.approx((57 + 56 + 55) / 1.77, rel=0.05)
    assert most == pytest.approx(least + 57 * (1 - 1 / 1.77), rel=0.05)
    assert seen["rate"] == pytest.approx(0.03, rel=0.05)
    assert (seen["workers"], seen["seen"] > seen["created"]) == (1, True)
    run.ask("POST", "/pause")
    assert run.ask("GET").json["seconds_left"] is None
    run.ask("POST", "/restart", {"all": True})
    assert run.ask("GET").json["done"] == 0
    # Its durations are still known, its rate is not.
    assert run.ask("GET").json["seconds_left"] is None


def test_costs_that_no_database_can_add_up_are_left_out(farm, request):
    costs = [[0, 1.7e308], [1, 1.7e308], [2, -1.7e308], [3, 5.0]]
    watched = Watched(farm, f"{request.node.name}/1", costs)
    watched.settle(*watched.claim(3))
    least, most = watched.ask("GET").json["seconds_left"] or (0, 0)
    assert 0 <= least <= most
    assert set(watched.look().values()) == {"done"}


def test_every_action_is_in_the_audit_log_for_admins_and_owners(run):
    run.ask("POST", "/pause")
    run.ask("POST", "/resume")
    run.fail_all("no")
    run.ask("POST", "/retry", {"all": True})
    run.ask("POST", "/restart", {"all": True})
    run.farm.token("bob")
    run.ask("PUT", f"/members/{run.farm.name('bob')}", {"role": "viewer"})
    about = run.ask("GET", path=f"/api/v1/audit?run={run.uuid}").json["entries"]
    assert [each["action"] for each in about] == [
        "set member", "restart all", "retry", "resume", "pause", "create run"
    ]  # fmt: skip
    assert all(each["user"] == run.farm.name("ann") and each["at"] > 0 for each in about)
    assert run.ask("GET", path=f"/api/v1/audit?run={run.uuid}", user="bob").status_code == 403
    mine = run.ask("GET", path="/api/v1/audit?limit=1000", user="bob").json["entries"]
    assert not any(run.uuid in each["subject"] for each in mine)
    run.ask("DELETE")
    run.farm.token("chief", "admin")
    page = run.ask("GET", path="/api/v1/audit?limit=3", user="chief").json
    actions = [each["action"] for each in page["entries"]]
    assert actions == ["make token", "add user", "delete run"]
    page = run.ask("GET", path=f"/api/v1/audit?before={page['next']}&limit=1", user="chief").json
    assert page["entries"][0]["action"] == "set member"


def test_a_viewer_sees_all_of_a_run_and_an_owner_its_members(run):
    run.farm.token("eve")
    run.ask("PUT", f"/members/{run.farm.name('eve')}", {"role": "viewer"})
    for part in ("", "/tiles", "/history", "/failures", "/workers"):
        assert run.ask("GET", part, user="eve").status_code == 200
    members = run.ask("GET", "/members").json["members"]
    assert [(m["name"], m["role"]) for m in members] == [
        (run.farm.name("ann"), "owner"), (run.farm.name("eve"), "viewer")
    ]  # fmt: skip


def test_an_admin_manages_users_and_each_user_their_tokens(farm):
    farm.token("boss", "admin")
    name = farm.name("new")
    path = f"/api/v1/users/{name}"
    assert farm.ask("PUT", path, {"role": "user"}, user="boss").status_code == 400
    made = farm.ask("PUT", path, {"password": "secret"}, user="boss")
    assert (made.status_code, made.json["role"]) == (201, "user")
    assert farm.ask("PUT", path, {"role": "admin"}, user="boss").json["role"] == "admin"
    listed = farm.ask("GET", "/api/v1/users", user="boss").json["users"]
    assert {u["name"]: u["role"] for u in listed}[name] == "admin"
    assert farm.ask("GET", "/api/v1/users").status_code == 403
    assert farm.ask("DELETE", path).status_code == 403
    assert farm.ask("DELETE", path, user="boss").status_code == 204
    own = f"/api/v1/users/{farm.name('boss')}"
    assert farm.ask("DELETE", own, user="boss").status_code == 400
    assert farm.ask("PUT", own, {"role": "user"}, user="boss").status_code == 400
    assert farm.ask("GET", "/api/v1/me", user="boss").json == {
        "name": farm.name("boss"),
        "admin": True,
    }

    made = farm.ask("POST", "/api/v1/tokens", {"lifetime": 100})
    assert made.json["token"].startswith("ct_")
    tokens = farm.ask("GET", "/api/v1/tokens").json["tokens"]
    assert [t["current"] for t in tokens] == [False, True]
    assert farm.ask("DELETE", f"/api/v1/tokens/{tokens[0]['id']}").status_code == 204
    assert farm.ask("DELETE", f"/api/v1/tokens/{tokens[0]['id']}").status_code == 404
    assert farm.ask("GET", "/api/v1/me").status_code == 200


def test_a_post_is_explained_where_the_server_sees_the_run_directory(tmp_path):
    planned = make_run(tmp_path)
    fit(planned, 0)
    farm = Farm(f"sqlite:///{tmp_path}/farm.db", run_directories=(tmp_path,))
    seen, unseen = (Watched(farm, key) for key in (planned.key, "elsewhere/1"))
    x, y = planned.tile(0).x[2], planned.tile(0).y[3]
    text = seen.ask("GET", f"/explain?x={x + 10}&y={y}").json["text"]
    assert planned.tile(0).name in text
    assert str(tmp_path) not in text
    for part in ("x=1e9&y=0", "x=nan&y=0", "x=1"):
        assert seen.ask("GET", f"/explain?{part}").status_code == 400
    refused = unseen.ask("GET", "/explain?x=0&y=0")
    assert (refused.status_code, "cryotile explain RUN --at 0 0" in refused.json["error"]) == (
        404,
        True,
    )


def test_a_stream_in_which_nothing_changes_repeats_itself_as_a_sign_of_life(run, monkeypatch):
    monkeypatch.setattr(api, "_PAUSE", 0.0)
    monkeypatch.setattr(api, "_SILENCE", 0.0)
    seats = {"wsgi.multithread": True}
    answer = run.ask("GET", "/events", environ_overrides=seats, buffered=False)
    events = (piece for piece in answer.iter_encoded() if piece.startswith(b"data: "))
    first, second = (json.loads(next(events)[6:]) for _ in range(2))
    assert first["run"] == second["run"] == run.uuid
    assert first["clock"] <= second["clock"]
    answer.close()


def test_all_runs_of_a_user_come_as_events(run):
    answer = run.ask("GET", path="/api/v1/events", headers={"Accept": "text/event-stream"})
    assert run.uuid in answer.text
    assert answer.mimetype == "text/event-stream"
