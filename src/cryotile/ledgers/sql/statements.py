"""All SQL statements of the database ledger, by name, for SQLite and PostgreSQL.

PostgreSQL has no statistics yet on a run that was listed a moment ago; a planner that takes it for empty reads all of
it for each lease.  So the tasks that a statement picks or is given carry their ``run_id``, and can be found by their
whole key only.  ``state + 0`` prevents the use of an index by state.  ``picked.run_id + 0 = :run`` is always true; the
planner takes it for rare and looks each task up, in a plan that it may keep until the run is large.
"""

from __future__ import annotations

from cryotile.ledgers.sql.dialect import ADD_TALLY_SQL, COUNTS, WITH_TALLY, Statement, TaskUpdate
from cryotile.ledgers.sql.schema import GREATEST_COST

_COUNTED = f"abs(tasks.cost) < {GREATEST_COST}"
COUNTED_COST = f"CASE WHEN {_COUNTED} THEN tasks.cost ELSE 0 END"
_TIMED = f"CASE WHEN state = 2 AND {_COUNTED} THEN {{}} ELSE 0 END"

NOW = Statement("""
-- now: the database's clock.
SELECT [now]
""")

ADD_TALLY = Statement(f"""
-- add_tally: for changes whose effect on the counts is computed elsewhere.
{ADD_TALLY_SQL}
""")

FIND_RUN = Statement("""
-- find_run: a run by its key or its uuid.
SELECT id, uuid, key, name, owner, lease, attempts, created
FROM runs WHERE key = :name OR uuid = :name
""")

CREATE_RUN = Statement("""
-- create_run: the first caller creates it, for all others it exists.
INSERT INTO runs (uuid, key, name, owner, lease, attempts, created)
VALUES (:uuid, :key, :name, :owner, :lease, :attempts, [now])
ON CONFLICT (key) DO NOTHING
""")

LOCK_RUN = Statement("""
-- lock_run: one worker at a time lists tasks, materializes them or restarts the run; claims do not need it.
SELECT tasks, paused FROM runs WHERE id = :run [lock]
""")

REGISTER = Statement("""
-- register: a worker may register more than once.
INSERT INTO workers (uuid, host, pid, created) VALUES (:uuid, :host, :pid, [now])
ON CONFLICT (uuid) DO UPDATE SET host = excluded.host, pid = excluded.pid
RETURNING id
""")

COUNT = Statement("""
-- count: the sum of the workers' tallies; no task is read.
SELECT runs.tasks,
       coalesce(sum(leased), 0) AS leased, coalesce(sum(done), 0) AS done,
       coalesce(sum(failed), 0) AS failed, coalesce(sum(returned), 0) AS returned, runs.paused
FROM runs LEFT JOIN tallies ON tallies.run_id = runs.id
WHERE runs.id = :run GROUP BY runs.id, runs.tasks, runs.paused
""")

CLAIM = TaskUpdate(
    """
-- claim: the costliest waiting tasks, from their index; none if a task of the backlog costs more, to materialize first,
-- or if the run is paused.
WITH picked AS (
    SELECT run_id, idx FROM tasks
    WHERE run_id = :run AND state = 0 AND cost >= coalesce(
        (SELECT max(top) FROM backlog WHERE run_id = :run AND taken < size), -1.7e308)
        AND NOT (SELECT paused FROM runs WHERE id = :run)
    ORDER BY cost DESC, idx LIMIT :n [locked]
)
UPDATE tasks SET
    state = 1, started = false, percent = 0, begun = false, lease_count = lease_count + 1,
    lease = :lease, worker_id = :worker, expires = [now] + :seconds
FROM picked
WHERE tasks.run_id = picked.run_id AND tasks.idx = picked.idx AND picked.run_id + 0 = :run
""",
    returning="tasks.idx, cost, attempts, lease_count",
    counts={"leased": "1", "returned": "CASE WHEN lease_count > 1 THEN -1 ELSE 0 END"},
)

FIND_CLAIMED = Statement("""
-- find_claimed: the leases of a claim whose answer was lost.
SELECT idx, cost, attempts, lease_count FROM tasks WHERE run_id = :run AND state = 1 AND lease = :lease
""")

REAP = TaskUpdate(
    """
-- reap: a task whose lease has expired waits again, with a charge if it was started.  Run when nothing waits.
WITH picked AS (
    SELECT run_id, idx FROM tasks WHERE run_id = :run AND state = 1 AND expires < [now] [locked]
)
UPDATE tasks SET
    state = 0, attempts = attempts + CASE WHEN started THEN 1 ELSE 0 END,
    started = false, lease = NULL, expires = NULL
FROM picked
WHERE tasks.run_id = picked.run_id AND tasks.idx = picked.idx AND picked.run_id + 0 = :run
""",
    returning="tasks.idx",
    counts={"leased": "-1", "returned": "1"},
)

RENEW = TaskUpdate(
    """
-- renew: a lease that is valid for nearly its whole length is not changed, so that progress touches no index.
WITH given AS MATERIALIZED (
    SELECT CAST(:run AS bigint) AS run_id, CAST(value->>0 AS bigint) AS idx, CAST(value->>1 AS bigint) AS lease,
           CAST(value->>2 AS float8) AS percent
    FROM [given]
)
UPDATE tasks SET
    started = started OR given.percent IS NOT NULL,
    percent = coalesce(given.percent, tasks.percent), begun = coalesce(given.percent, tasks.percent) > 0,
    expires = CASE WHEN expires < [now] + 0.9 * :seconds THEN [now] + :seconds ELSE expires END
FROM given
WHERE tasks.run_id = given.run_id AND tasks.idx = given.idx AND tasks.lease = given.lease AND state + 0 = 1
""",
    returning="tasks.idx",
    counts={},
)

SETTLE = TaskUpdate(
    """
-- settle: end tasks still leased under the given lease; a failed task waits again, unless out of attempts.
WITH given AS MATERIALIZED (
    SELECT CAST(:run AS bigint) AS run_id, CAST(value->>0 AS bigint) AS idx, CAST(value->>1 AS bigint) AS lease,
           CAST(value->>2 AS float8) AS seconds, CAST(value->>3 AS integer) AS failed
    FROM [given]
)
UPDATE tasks SET
    state = CASE WHEN given.failed = 0 THEN 2 WHEN attempts + 1 < :attempts THEN 0 ELSE 3 END,
    attempts = CASE WHEN attempts < :attempts THEN attempts + 1 ELSE attempts END,
    percent = CASE WHEN given.failed = 0 THEN 100 ELSE percent END,
    begun = begun AND given.failed = 1 AND attempts + 1 < :attempts,
    seconds = given.seconds, settled = [now], started = false, expires = NULL
FROM given
WHERE tasks.run_id = given.run_id AND tasks.idx = given.idx AND tasks.lease = given.lease AND state + 0 = 1
""",
    returning="tasks.idx, attempts",
    counts={
        "leased": "-1",
        "done": "CASE state WHEN 2 THEN 1 ELSE 0 END",
        "failed": "CASE state WHEN 3 THEN 1 ELSE 0 END",
        "returned": "CASE state WHEN 0 THEN 1 ELSE 0 END",
        "attempts": "1",
        "cost": f"CASE WHEN state > 1 AND {_COUNTED} THEN tasks.cost ELSE 0 END",
        "timed": _TIMED.format("1"),
        "timed_cost": _TIMED.format("tasks.cost"),
        "timed_seconds": _TIMED.format("tasks.seconds"),
        "timed_cost2": _TIMED.format("tasks.cost * tasks.cost"),
        "timed_seconds2": _TIMED.format("tasks.seconds * tasks.seconds"),
        "timed_product": _TIMED.format("tasks.cost * tasks.seconds"),
    },
)

FIND_SETTLED = Statement("""
-- find_settled: the tasks that the given leases have settled before; the other leases are lost.
WITH given AS MATERIALIZED (
    SELECT CAST(:run AS bigint) AS run_id, CAST(value->>0 AS bigint) AS idx, CAST(value->>1 AS bigint) AS lease
    FROM [given]
)
SELECT tasks.idx FROM given CROSS JOIN tasks
WHERE tasks.run_id = given.run_id AND tasks.idx = given.idx AND tasks.lease = given.lease AND tasks.state <> 1
""")

FIND_HOLDER = Statement("""
-- find_holder: a worker that has or had one of the given leases.
WITH given AS MATERIALIZED (
    SELECT CAST(:run AS bigint) AS run_id, CAST(value->>0 AS bigint) AS idx, CAST(value->>1 AS bigint) AS lease
    FROM [given]
)
SELECT tasks.worker_id FROM given CROSS JOIN tasks
WHERE tasks.run_id = given.run_id AND tasks.idx = given.idx AND tasks.lease = given.lease LIMIT 1
""")

NOTE_FAILURE = Statement("""
-- note_failure: the error of a failed attempt.
INSERT INTO failures (run_id, idx, attempt, worker_id, seconds, error, at, kind)
VALUES (:run, :idx, :attempt, :worker, :seconds, :error, [now], :kind)
ON CONFLICT (run_id, idx, attempt) DO UPDATE SET
    worker_id = excluded.worker_id, seconds = excluded.seconds, error = excluded.error, at = excluded.at,
    kind = excluded.kind
""")

RELEASE = TaskUpdate(
    """
-- release: handed back, without a charge.
WITH given AS MATERIALIZED (
    SELECT CAST(:run AS bigint) AS run_id, CAST(value->>0 AS bigint) AS idx, CAST(value->>1 AS bigint) AS lease
    FROM [given]
)
UPDATE tasks SET state = 0, started = false, percent = 0, begun = false, lease = NULL, expires = NULL
FROM given
WHERE tasks.run_id = given.run_id AND tasks.idx = given.idx AND tasks.lease = given.lease AND state + 0 = 1
""",
    returning="tasks.idx",
    counts={"leased": "-1", "returned": "1"},
)

OPEN_TASKS = Statement("""
-- open_tasks: indices of materialized tasks that are not settled.
SELECT idx FROM tasks [waiting] WHERE run_id = :run AND state = 0
UNION ALL SELECT idx FROM tasks [leased] WHERE run_id = :run AND state = 1
""")

SETTLED_TASKS = Statement("""
-- settled_tasks: tasks that are done or failed, and since when.
SELECT idx, settled FROM tasks WHERE run_id = :run AND state > 1
""")

BACKLOG = Statement("""
-- backlog: all tasks that are not materialized yet.
SELECT number, size, taken, indices FROM backlog WHERE run_id = :run AND taken < size
""")

ADD_BACKLOG = Statement("""
-- add_backlog: tasks that are materialized later.
INSERT INTO backlog (run_id, number, top, size, indices, costs)
VALUES (:run, :number, :top, :size, :indices, :costs)
""")

LAST_BACKLOG = Statement("""
-- last_backlog: the highest number in use.
SELECT coalesce(max(number), -1) FROM backlog WHERE run_id = :run
""")

NEXT_BACKLOG = Statement("""
-- next_backlog: the row with the costliest task that is not materialized.
SELECT number, size, taken, indices, costs FROM backlog
WHERE run_id = :run AND taken < size ORDER BY top DESC, number LIMIT 1
""")

TAKE_BACKLOG = Statement("""
-- take_backlog: the number of tasks of a row that are materialized now.
UPDATE backlog SET taken = :taken WHERE run_id = :run AND number = :number
""")

MATERIALIZE = Statement("""
-- materialize: tasks get their rows, unless they have one already.
INSERT INTO tasks (run_id, idx, cost)
SELECT CAST(:run AS bigint), CAST(value->>0 AS bigint), CAST(value->>1 AS float8) FROM [given] WHERE true
ON CONFLICT (run_id, idx) DO NOTHING
""")

ADD_TASKS = Statement("""
-- add_tasks: add to the number of tasks of the run, and to its cost.
UPDATE runs SET tasks = tasks + :count, cost = cost + :cost WHERE id = :run
""")

REOPEN = TaskUpdate(
    """
-- reopen: settled tasks whose result is lost, or that are retried, wait again with no attempt made.
WITH given AS MATERIALIZED (SELECT CAST(:run AS bigint) AS run_id, CAST(value->>0 AS bigint) AS idx FROM [given])
UPDATE tasks SET
    state = 0, attempts = 0, started = false, percent = 0, begun = false, lease = NULL, seconds = NULL, settled = NULL
FROM given WHERE tasks.run_id = given.run_id AND tasks.idx = given.idx AND state + 0 = :state
""",
    returning="tasks.idx",
    counts={
        "done": "CASE :state WHEN 2 THEN -1 ELSE 0 END",
        "failed": "CASE :state WHEN 3 THEN -1 ELSE 0 END",
        "returned": "1",
        "cost": f"-{COUNTED_COST}",
    },
)

NEW_EPOCH = Statement("""
-- new_epoch: settled tasks are open again.
UPDATE runs SET epoch = epoch + 1 WHERE id = :run
""")

FORGET_THUMBNAILS = Statement("""
-- forget_thumbnails: of tasks that are open again.
WITH given AS MATERIALIZED (SELECT CAST(:run AS bigint) AS run_id, CAST(value->>0 AS bigint) AS idx FROM [given])
DELETE FROM thumbnails WHERE (run_id, idx) IN (SELECT run_id, idx FROM given)
""")

KEEP_THUMBNAIL = Statement("""
-- keep_thumbnail: of a task that is done.
INSERT INTO thumbnails (run_id, idx, at, body) VALUES (:run, :idx, [now], :body)
ON CONFLICT (run_id, idx) DO UPDATE SET at = excluded.at, body = excluded.body
""")

PAUSE = Statement("""
-- pause: claims of a paused run get nothing.
UPDATE runs SET paused = :paused WHERE id = :run
""")

FORGET_FAILURES = Statement("""
-- forget_failures: delete the errors of tasks that are open again.
WITH given AS MATERIALIZED (SELECT CAST(:run AS bigint) AS run_id, CAST(value->>0 AS bigint) AS idx FROM [given])
DELETE FROM failures WHERE (run_id, idx) IN (SELECT run_id, idx FROM given)
""")

HOSTS = Statement("""
-- hosts: hosts that have ended an attempt.
SELECT DISTINCT host FROM tallies JOIN workers ON workers.id = tallies.worker_id
WHERE run_id = :run AND attempts > 0
""")

OUTCOMES_ELSEWHERE = Statement("""
-- outcomes_elsewhere: the hosts that have done the tasks, and those that have failed.
WITH given AS MATERIALIZED (SELECT CAST(:run AS bigint) AS run_id, CAST(value->>0 AS bigint) AS idx FROM [given])
SELECT host, idx, 1 AS done
FROM given JOIN tasks USING (run_id, idx) JOIN workers ON workers.id = tasks.worker_id
WHERE state = 2
UNION ALL
SELECT host, idx, 0
FROM given JOIN failures USING (run_id, idx) JOIN workers ON workers.id = failures.worker_id
""")

REFILL_BACKLOG = Statement("""
-- refill_backlog: no task of a run is materialized any more.
UPDATE backlog SET taken = 0 WHERE run_id = :run
""")

RESTART_STRANDED = TaskUpdate(
    """
-- restart_stranded: tasks that were set computing without a lease, or whose lease has expired, wait again.
WITH picked AS (
    SELECT run_id, idx FROM tasks [leased]
    WHERE run_id = :run AND state = 1 AND (expires IS NULL OR expires < [now]) [locked]
)
UPDATE tasks SET
    state = 0, attempts = attempts + CASE WHEN started THEN 1 ELSE 0 END,
    started = false, lease = NULL, expires = NULL
FROM picked
WHERE tasks.run_id = picked.run_id AND tasks.idx = picked.idx AND picked.run_id + 0 = :run
""",
    returning="tasks.idx",
    counts={"leased": "-1", "returned": "1"},
)

CLEAR = Statement(f"""
-- clear: delete the rows of all tasks of a run, and subtract them from its counts.
WITH change AS (
    DELETE FROM tasks WHERE run_id = :run
    RETURNING
        CASE state WHEN 1 THEN -1 ELSE 0 END AS "+leased",
        CASE state WHEN 2 THEN -1 ELSE 0 END AS "+done",
        CASE state WHEN 3 THEN -1 ELSE 0 END AS "+failed",
        CASE WHEN state = 0 AND lease_count > 0 THEN -1 ELSE 0 END AS "+returned",
        CASE WHEN state > 1 AND {_COUNTED} THEN -tasks.cost ELSE 0 END AS "+cost",
        {", ".join(f'0 AS "+{name}"' for name in COUNTS if name == "attempts" or name.startswith("timed"))}
)
{WITH_TALLY}
SELECT count(*) FROM change
""")

DELETE_TASKS = Statement("""
-- delete_tasks: for SQLite, where the counts cannot change meanwhile.
DELETE FROM tasks WHERE run_id = :run
""")

ZERO_TALLIES = Statement("""
-- zero_tallies: the counts of a run without rows of tasks.
UPDATE tallies SET leased = 0, done = 0, failed = 0, returned = 0, cost = 0, mark_done = 0, last_done = 0
WHERE run_id = :run
""")

DELETE_FAILURES = Statement("""
-- delete_failures: of a whole run.
DELETE FROM failures WHERE run_id = :run
""")

DELETE_BACKLOG = Statement("""
-- delete_backlog: of a whole run.
DELETE FROM backlog WHERE run_id = :run
""")

DELETE_TALLIES = Statement("""
-- delete_tallies: of a whole run.
DELETE FROM tallies WHERE run_id = :run
""")

DELETE_THUMBNAILS = Statement("""
-- delete_thumbnails: of a whole run.
DELETE FROM thumbnails WHERE run_id = :run
""")

DELETE_MAP = Statement("""
-- delete_map: of a whole run.
DELETE FROM maps WHERE run_id = :run
""")

DELETE_RUN = Statement("""
-- delete_run: the run itself, when nothing of it is left.
DELETE FROM runs WHERE id = :run
""")

SCARCE = Statement("""
-- scarce: whether there is a backlog, and few tasks that wait have rows.
SELECT 1 FROM runs WHERE id = :run AND EXISTS (SELECT 1 FROM backlog WHERE run_id = :run AND taken < size)
     AND (SELECT count(*) FROM (SELECT 1 FROM tasks [waiting] WHERE run_id = :run AND state = 0 LIMIT :few) AS found)
         < :few
""")

BACKLOG_LEFT = Statement("""
-- backlog_left: whether a task is not materialized yet; no question of a run that is paused.
SELECT 1 FROM backlog WHERE run_id = :run AND taken < size AND NOT (SELECT paused FROM runs WHERE id = :run) LIMIT 1
""")

BACKLOG_OR_EXPIRED_LEFT = Statement("""
-- backlog_or_expired_left: whether there is anything to claim; another worker may just have materialized tasks.
SELECT 1 FROM runs WHERE id = :run AND NOT paused
     AND (EXISTS (SELECT 1 FROM backlog WHERE run_id = :run AND taken < size)
       OR EXISTS (SELECT 1 FROM tasks [waiting] WHERE run_id = :run AND state = 0)
       OR EXISTS (SELECT 1 FROM tasks [leased] WHERE run_id = :run AND state = 1 AND expires < [now]))
""")
