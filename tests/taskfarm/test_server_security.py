"""Attacks on a server: sessions, requests of other sites, guesses, injected text, and other users' runs.

Calls are taken from the routes of the application and its OpenAPI document, so that new ones are tested, too.
"""

from __future__ import annotations

import gc
import gzip
import logging
import re
import threading
from importlib.metadata import PackageNotFoundError, requires, version

import pytest
from packaging.requirements import Requirement

from cryotile.errors import InvalidValue
from cryotile.taskfarm.server import ServerSettings, accounts, auth, create_app
from tests.support.farm_server import PASSWORD, SECRET, basic, farm

__all__ = ["farm"]

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
WRITES = {"POST", "PUT", "PATCH", "DELETE"}

# Text that acts in HTML, SQL, a log, a terminal, or in a format string.
EVIL = "<script>alert(1)</script>'; DROP TABLE runs; --\" {0} %s {{7007*7007}}"


def log_in(farm, client=None, user="ann", password=PASSWORD, **more):
    form = {"name": farm.name(user), "password": password}
    headers = BROWSER | more.pop("headers", {})
    return (client or farm.client).post("/", data=form, headers=headers, **more)


def routes(farm, run):
    """Yield endpoint, method and an address of each route, with a run where the route has one."""
    for rule in farm.app.url_map.iter_rules():
        path = re.sub("<(?:path:)?(run|uuid)>", run, rule.rule)
        path = re.sub("<(?:path:)?[a-z]+>", "0", path)
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            yield rule, method, path


def operations(farm):
    """Yield path, method and description of each call of the document."""
    document = farm.ask("GET", "/api/v1/openapi.json").json
    for path, item in document["paths"].items():
        for method, described in item.items():
            if method != "parameters":
                yield path, method.upper(), described


def as_cookie(farm, client):
    """Return a client that has a session and nothing else."""
    assert log_in(farm, client).status_code == 303
    return client


# Sessions.


def test_a_login_gives_a_new_session_and_ends_the_planted_one(farm):
    farm.token()
    planted = as_cookie(farm, farm.app.test_client()).get_cookie("session").value
    victim = farm.app.test_client()
    victim.set_cookie("session", planted)
    log_in(farm, victim)
    assert victim.get_cookie("session").value != planted
    # A session that the server has not signed is none.
    for forged in ("x", planted[:-3] + "abc", planted.rpartition(".")[0]):
        victim.set_cookie("session", forged)
        assert victim.get("/api/v1/runs").status_code == 401


def test_a_session_ends_with_its_time_a_new_password_and_the_user(farm):
    farm.token()
    access = farm.app.extensions["cryotile"].access

    def change_password():
        with farm.app.app_context():
            accounts.add_user(farm.name("ann"), PASSWORD)

    def remove_user():
        with farm.app.app_context():
            accounts.remove_user(farm.name("ann"))

    def expire():
        farm.sql("UPDATE tokens SET expires = 1")

    def log_out_everywhere():
        assert farm.ask("DELETE", "/api/token?all=True", headers=known).status_code == 204

    for end in (expire, log_out_everywhere, change_password, remove_user):
        client = as_cookie(farm, farm.app.test_client())
        assert client.get("/api/v1/runs").status_code == 200
        known = basic(farm.name("ann"), PASSWORD)
        end()
        access.forget()
        access._tokens.clear()
        assert client.get("/api/v1/runs").status_code == 401, end
        assert 'type="password"' in client.get("/", headers=BROWSER).text


def test_the_cookie_is_for_tls_scripts_and_other_sites_never(farm):
    farm.token()
    for proxies, secure in ((0, False), (1, True)):
        settings = ServerSettings(database_url=farm.url, secret_key=SECRET, proxies=proxies)
        app = create_app(settings)
        headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "farm.example"}
        form = {"name": farm.name("ann"), "password": PASSWORD}
        answer = app.test_client().post("/", data=form, headers=headers)
        parts = {part.strip() for part in answer.headers["Set-Cookie"].split(";")}
        assert {"HttpOnly", "SameSite=Strict"} <= parts
        assert ("Secure" in parts) == secure
        assert ("Strict-Transport-Security" in answer.headers) == secure
        app.extensions["cryotile"].database.engine.dispose()


# Requests of other sites.


def test_no_call_that_changes_something_is_made_for_another_site_with_a_session(farm):
    run = farm.run(2)
    client = as_cookie(farm, farm.app.test_client())
    foreign = (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:8080"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
    )
    tried = 0
    for rule, method, path in routes(farm, run):
        if method not in WRITES and rule.endpoint != "legacy.get_token":
            continue
        for headers in foreign:
            answer = client.open(path, method=method, json={}, headers=headers)
            assert answer.status_code == 403, (method, path)
            tried += 1
    assert tried > 30
    assert farm.info(run)["numTasks"] == 2
    for headers in (
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://localhost"},
        {},
    ):
        assert client.post(f"/api/v1/runs/{run}/pause", headers=headers).status_code == 204
    # A link on another site may lead here.
    assert client.get("/api/v1/runs", headers=foreign[0]).status_code == 200


def test_a_form_cannot_send_what_the_native_api_takes(farm):
    run = farm.run(2)
    client = as_cookie(farm, farm.app.test_client())
    for path, method, described in operations(farm):
        if "requestBody" in described:
            path = path.replace("{run}", run).replace("{name}", farm.name("ann"))
            for media in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
                answer = client.open(path, method=method, data="{}", content_type=media)
                assert answer.status_code == 415, (method, path)


# Headers, files and addresses.


def test_every_kind_of_answer_has_the_headers_that_protect_a_browser(farm):
    run = farm.run(1)
    client = as_cookie(farm, farm.app.test_client())
    page = client.get("/", headers=BROWSER).text
    files = re.findall(r'(?:src|href)="(/[^"]+)"', page)
    answers = [client.open(path, method=method) for _, method, path in routes(farm, run)]
    answers += [client.get(path) for path in (*files, "/nosuch", "/page/nosuch", "/api/nosuch")]
    answers += [client.open("/", method=method) for method in ("OPTIONS", "TRACE", "PATCH")]
    answers += [log_in(farm, password="wrong"), log_in(farm)]
    answers.append(farm.ask("POST", "/api/v1/runs", {"count": -1}))
    long, head = b" " * (5 * 2**20), {"Content-Type": "application/json"}
    answers.append(farm.ask("POST", "/api/v1/runs", data=long, headers=head))
    assert {answer.status_code for answer in answers} >= {200, 303, 400, 401, 404, 405, 413}
    for answer in answers:
        headers, asked = answer.headers, answer.request.path
        assert headers.getlist("X-Content-Type-Options") == ["nosniff"], asked
        assert headers.getlist("X-Frame-Options") == ["DENY"], asked
        assert len(headers.getlist("Referrer-Policy")) == 1, asked
        assert len(headers.getlist("Cache-Control")) == 1, asked
        assert headers["Content-Security-Policy"].startswith("default-src 'none'"), asked
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert "Server" not in headers
        # What depends on the user is never kept by a cache that others use.
        assert "public" not in headers["Cache-Control"]


def test_no_address_leads_to_another_file(farm):
    farm.token()
    for prefix in ("/page/", "/api/runs/", "/api/v1/runs/", "/static/", "/"):
        for path in ("../app.py", "..%2f..%2fapp.py", "....//app.py", "%2e%2e/app.py", "..\\app.py",
                     "/etc/passwd", "%2fetc%2fpasswd", "app.py%00.js", "\uff0e\uff0e/app.py"):  # fmt: skip
            answer = farm.ask("GET", prefix + path)
            assert answer.status_code in (308, 400, 404, 405), prefix + path
            assert "import" not in answer.text
            assert "root:" not in answer.text


def test_names_of_runs_that_are_no_uuid_are_unknown(farm):
    farm.token()
    run = farm.run(1)
    uuids = (
        f"{run}0",
        run[:-1],
        f"{run}%00",
        f"{run}%0a",
        run[:-1] + "\uff10",
        "..",
        "1",
        "%27%20OR%201=1",
    )
    for wrong in uuids:
        for path in (f"/api/runs/{wrong}", f"/api/v1/runs/{wrong}"):
            assert farm.ask("GET", path).status_code in (404, 405, 308), wrong


# Injected text.


def test_evil_names_hosts_and_errors_are_kept_as_text(farm):
    body = {"key": f"{EVIL} key {farm.name('x')}", "name": EVIL, "count": 2}
    run = farm.ask("POST", "/api/v1/runs", body).json["run"]
    worker = {"uuid": "w-evil", "host": EVIL, "pid": 1}
    lease = farm.ask("POST", f"/api/v1/runs/{run}/leases", {"worker": worker}).json["leases"][0]
    error = f"{EVIL}\n\x1b[31mred\x9b2J\r\nsecond \u202eline\ttab\0"
    outcome = [{"lease": lease["lease"], "seconds": 1, "error": error}]
    farm.ask("POST", f"/api/v1/runs/{run}/outcomes?worker=w-evil", outcome)
    assert farm.ask("GET", f"/api/v1/runs/{run}").json["name"] == EVIL
    assert farm.ask("GET", f"/api/v1/runs/{run}/workers").json["workers"][0]["host"] == EVIL
    texts = [
        farm.ask("GET", f"/api/v1/runs/{run}/{part}").text
        for part in ("tasks?state=failed", "failures")
    ]
    stored = farm.sql("SELECT error FROM failures WHERE error LIKE '%red%'")[-1].error
    assert stored.startswith(EVIL)
    # Lines and tabs remain; what acts on a terminal does not.
    assert "\n" in stored
    assert "\t" in stored
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", stored)
    client = as_cookie(farm, farm.app.test_client())
    texts.append(client.get("/", headers=BROWSER).text)
    for text in texts:
        assert str(7007 * 7007) not in text
    assert "alert(1)</script>" not in texts[-1]
    # Answers of the API are never taken for a page.
    assert farm.ask("GET", f"/api/v1/runs/{run}", headers=BROWSER).mimetype == "application/json"


def test_names_that_act_on_a_terminal_are_refused(farm):
    run = farm.run(1)
    for text in ("a\x1b[2Jb", "a\nb", "a\x9bb", "a\u202eb", "a\x7fb", "a\u2028b"):
        assert farm.ask("POST", "/api/v1/runs", {"name": text, "count": 1}).status_code == 400
        worker = {"uuid": "w", "host": text, "pid": 1}
        assert farm.ask("POST", f"/api/v1/runs/{run}/leases", {"worker": worker}).status_code == 400
        legacy = {"uuid": "w", "hostname": text, "pid": 1}
        assert farm.ask("POST", "/api/worker", legacy).status_code == 400


def test_a_request_writes_one_line_to_the_log(farm, caplog):
    farm.token()
    with farm.without_database(), caplog.at_level(logging.WARNING):
        farm.client.get("/api/runs/x%0aERROR forged%1b[2J", headers=basic("ct_" + "a" * 43))
    (record,) = [
        each
        for each in caplog.records
        if "OperationalError" in str(each.args) or "disk" in str(each.args)
    ]
    said = record.getMessage()
    assert "\n" not in said
    assert "\x1b" not in said


# Guessed passwords.


def guess(farm, name, password, address):
    return farm.client.get(
        "/api/token", headers=basic(name, password), environ_base={"REMOTE_ADDR": address}
    )


def test_guesses_from_many_addresses_are_slowed_and_the_owner_is_admitted(farm, monkeypatch):
    token, name = farm.token(), farm.name("ann")
    monkeypatch.setattr(auth, "check_password_hash", lambda _, given: given == PASSWORD)
    for number in range(30):
        answer = guess(farm, name, f"guess {number}", f"203.0.113.{number}")
        assert answer.status_code == 401
    # From now on an address has one guess, not ten.
    codes = [guess(farm, name, f"again {n}", "198.51.100.7").status_code for n in range(3)]
    assert codes == [401, 429, 429]
    assert guess(farm, name, "another", "203.0.113.5").status_code == 429
    # The owner has not guessed, wherever they are; a token and other users are not concerned.
    assert guess(farm, name, PASSWORD, "198.51.100.8").status_code == 200
    assert farm.client.get("/api/runs", headers=basic(token)).status_code == 200
    farm.token("bob")
    assert guess(farm, farm.name("bob"), "typo", "198.51.100.9").status_code == 401
    assert guess(farm, farm.name("bob"), PASSWORD, "198.51.100.9").status_code == 200


def test_many_passwords_at_once_do_not_take_the_threads(farm, monkeypatch):
    name = farm.name("ann")
    farm.token()
    release, answered, codes = threading.Event(), threading.Semaphore(0), []
    monkeypatch.setattr(auth, "check_password_hash", lambda *_: release.wait(240) and False)

    def ask(password):
        codes.append(guess(farm, name, password, f"203.0.113.{password}").status_code)
        answered.release()

    threads = [threading.Thread(target=ask, args=(str(number),)) for number in range(12)]
    for thread in threads:
        thread.start()
    # All but the few that may wait are answered while the first is being checked.
    for _ in range(9):
        assert answered.acquire(timeout=240)
    refused = codes[:9]
    release.set()
    for thread in threads:
        thread.join()
    assert refused == [429] * 9
    assert sorted(codes) == [401] * 3 + [429] * 9


def test_only_the_proxy_names_the_client(farm):
    settings = ServerSettings(
        database_url=farm.url, secret_key=SECRET, proxies=1,
        proxy_networks="10.1.0.0/16, ::1",
    )  # fmt: skip
    farm.token()
    app, name = create_app(settings), farm.name("ann")

    def address(peer, claimed):
        app.test_client().get(
            "/api/token", headers={**basic(name, f"wrong {peer}"), "X-Forwarded-For": claimed},
            environ_base={"REMOTE_ADDR": peer},
        )  # fmt: skip
        read = app.extensions["cryotile"].database.read
        from sqlalchemy import text

        return read(
            lambda c: c.execute(text("SELECT address FROM audit ORDER BY id DESC")).scalar()
        )

    assert address("10.1.2.3", "198.51.100.1") == "198.51.100.1"
    assert address("::ffff:10.1.2.3", "198.51.100.2") == "198.51.100.2"
    # The proxy appends the address that it sees: what the client claimed before counts for nothing.
    assert address("10.1.2.3", "192.0.2.99, 198.51.100.3") == "198.51.100.3"
    assert address("10.2.0.1", "198.51.100.4") == "10.2.0.1"
    assert address("203.0.113.1", "198.51.100.5") == "203.0.113.1"
    app.extensions["cryotile"].database.engine.dispose()
    with pytest.raises(InvalidValue, match="CRYOTILE_PROXY_NETWORKS"):
        ServerSettings(database_url="x", proxy_networks="10.0.0.1/8").is_proxy("10.0.0.1")


# Bodies.


def test_compressed_bombs_and_what_follows_a_stream_are_refused(farm):
    def post(data):
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        return farm.ask("POST", "/api/v1/runs", data=data, headers=headers).status_code

    whole = gzip.compress(b'{"count": 2}')
    assert post(whole) == 201
    assert post(gzip.compress(b" " * (17 * 2**20))) == 413
    assert post(gzip.compress(gzip.compress(b" " * (17 * 2**20)))) == 400
    assert post(whole + whole) == 400
    assert post(whole + b"x") == 400
    assert post(gzip.compress(b'{"count": ' + b"[" * 200_000)) == 400
    assert post(gzip.compress(b'{"tasks": [' + b"[0, 1]," * 200_000 + b"[0, 1]]}")) == 400


def test_no_garbage_is_searched_for_among_the_objects_of_a_body(farm):
    before = gc.get_stats()[0]["collections"]
    answer = farm.ask("POST", "/api/v1/runs", {"nosuch": [[]] * 100_000})
    assert answer.status_code == 400
    # Otherwise there are a hundred, which take twice as long as reading.
    assert gc.get_stats()[0]["collections"] - before < 50
    assert gc.isenabled()


# One user's run, and another user.


def call(farm, path, method, described, run, user):
    """Make a call with an empty body, which is wrong for most calls: rights are checked first."""
    path = path.replace("{run}", run)
    path = re.sub(r"\{[a-z]+\}", farm.name("ann"), path)
    body = {} if "requestBody" in described else None
    return farm.ask(method, path, body, user=user)


def test_a_stranger_learns_nothing_of_a_run_from_any_call(farm):
    run = farm.run(2)
    farm.token("bob")
    tried = 0
    for path, method, described in operations(farm):
        if "{run}" in path:
            answer = call(farm, path, method, described, run, "bob")
            unknown = call(farm, path, method, described, "0" * 32, "bob")
            assert answer.status_code == unknown.status_code == 404, (method, path)
            # The answer is that of a run that does not exist.
            assert answer.text.replace(run, "0" * 32) == unknown.text
            tried += 1
    for rule, method, path in routes(farm, run):
        if {"run", "uuid"} & rule.arguments:
            assert farm.ask(method, path, user="bob").status_code == 404, (method, path)
            tried += 1
    assert tried > 40
    for path, method, _ in operations(farm):
        if "{" not in path and method == "GET" and path != "/healthz":
            # Of a stream the first event.
            client = farm.app.test_client()
            answer = client.get(path, headers=basic(farm.token("bob")), buffered=False)
            assert run.encode() not in next(answer.iter_encoded(), b""), path
    assert farm.ask("GET", "/api/runs", user="bob").json["data"] == []
    assert farm.info(run)["numTasks"] == 2


def test_a_viewer_reads_and_changes_nothing_by_any_call(farm):
    run = farm.run(2)
    farm.token("bob")
    member = f"/api/v1/runs/{run}/members/{farm.name('bob')}"
    assert farm.ask("PUT", member, {"role": "viewer"}).status_code == 204
    tried = 0
    for path, method, described in operations(farm):
        if "{run}" in path and method in WRITES:
            assert call(farm, path, method, described, run, "bob").status_code == 403, (
                method,
                path,
            )
            tried += 1
    for rule, method, path in routes(farm, run):
        if {"run", "uuid"} & rule.arguments and method in WRITES:
            assert farm.ask(method, path, user="bob").status_code == 403, (method, path)
            tried += 1
    assert tried > 20
    assert farm.ask("GET", f"/api/v1/runs/{run}", user="bob").json["role"] == "viewer"


def test_a_worker_of_a_run_does_not_own_it(farm):
    run = farm.run(2)
    farm.token("bob")
    member = f"/api/v1/runs/{run}/members/{farm.name('bob')}"
    assert farm.ask("PUT", member, {"role": "worker"}).status_code == 204
    for part in ("retry", "pause", "resume", "restart"):
        assert farm.ask("POST", f"/api/v1/runs/{run}/{part}", {}, user="bob").status_code == 403
    assert farm.ask("PUT", member, {"role": "owner"}, user="bob").status_code == 403
    assert farm.ask("DELETE", f"/api/v1/runs/{run}", user="bob").status_code == 403
    assert farm.ask("GET", f"/api/v1/runs/{run}/members", user="bob").status_code == 403


def test_what_admins_do_is_refused_to_users(farm):
    farm.token()
    refused = [
        (method, path)
        for path, method, described in operations(farm)
        if path.startswith("/api/v1/users")
        and call(farm, path, method, described, "", "bob").status_code in (400, 403)
    ]
    assert len(refused) >= 3
    for method, body in (
        ("PUT", {"password": "a new password", "role": "admin"}),
        ("DELETE", None),
    ):
        answer = farm.ask(method, f"/api/v1/users/{farm.name('bob')}", body, user="bob")
        assert answer.status_code == 403


# Dependencies; known flaws are in a database on the network alone, so versions are checked here.


def test_each_requirement_names_a_lowest_version() -> None:
    needed = [Requirement(each) for each in requires("cryotile") or []]
    assert len(needed) >= 50
    for each in needed:
        lowest = [rule for rule in each.specifier if rule.operator in (">=", "==", "~=")]
        assert lowest or each.name == "cryotile", each


def test_what_is_installed_has_the_versions_that_its_dependents_name() -> None:
    seen, waiting = set(), [Requirement("cryotile[all]")]
    while waiting:
        dependent = waiting.pop()
        for needed in map(Requirement, requires(dependent.name) or []):
            extras = [{"extra": extra} for extra in (*dependent.extras, "")]
            asked = needed.marker is None or any(map(needed.marker.evaluate, extras))
            if not asked:
                continue
            try:
                have = version(needed.name)
            except PackageNotFoundError:
                # The library of a backend, as for MPI.
                continue
            assert needed.specifier.contains(have, prereleases=True), (dependent, needed, have)
            if (known := (needed.name, *sorted(needed.extras))) not in seen:
                seen.add(known)
                waiting.append(needed)
    assert len(seen) >= 40
