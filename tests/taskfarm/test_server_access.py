"""Authentication and rights: passwords, tokens, roles, limits, and the audit log."""

from __future__ import annotations

import base64
import gzip
import json
import stat

import pytest

from cryotile.errors import CryotileError, InvalidValue
from cryotile.taskfarm.server import ServerSettings, accounts, auth
from tests.support.farm_server import PASSWORD, SECRET, basic, farm, sqlite_farm

__all__ = ["farm", "sqlite_farm"]

# The files of the page, with any name, hold nothing of any user.
OPEN = {("/", "GET"), ("/", "POST"), ("/healthz", "GET"), ("/page/path:name", "GET")}


def test_only_healthz_the_login_and_the_page_are_answered_without_a_login(sqlite_farm):
    for rule in sqlite_farm.app.url_map.iter_rules():
        path = rule.rule.replace("<", "").replace(">", "")
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            if (path, method) not in OPEN:
                answer = sqlite_farm.client.open(path, method=method)
                assert answer.status_code == 401, (method, path)
    for method, path in (("GET", "/nosuch"), ("PUT", "/api/runs"), ("HEAD", "/api/runs")):
        assert sqlite_farm.client.open(path, method=method).status_code == 401
    assert sqlite_farm.client.options("/api/runs").status_code == 405
    assert sqlite_farm.client.get("/healthz").json == {"status": "ok"}


def test_a_password_is_exchanged_for_a_token(farm):
    farm.token()
    with_password = basic(farm.name("ann"), PASSWORD)
    token = farm.client.get("/api/token", headers=with_password).json["token"]
    for headers in (
        basic(token),
        basic(token, "x"),
        {"Authorization": f"Bearer {token}"},
        with_password,
    ):
        assert farm.client.get("/api/runs", headers=headers).status_code == 200


def test_forged_tokens_are_refused(farm):
    token = farm.token()
    header, payload = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in ({"alg": "none"}, {"id": 1})
    )
    forged = [
        f"{header}.{payload}.",
        token[:-1],
        token[:-1] + "é",
        f"ct_{'A' * 43}",
        "",
        "ct_",
        "a\0b",
    ]
    for name in forged:
        for password in ("", "x"):
            answer = farm.client.get("/api/runs", headers=basic(name, password))
            assert answer.status_code in (401, 429)
    for header in (
        "Basic",
        "Basic !",
        "Basic " + "A" * 5,
        "Bearer",
        "Digest a=b",
        "Basic /w==",
        "Bearer a b",
    ):
        answer = farm.client.get("/api/runs", headers={"Authorization": header})
        assert answer.status_code == 401


def test_a_token_expires(farm):
    token = farm.token()
    farm.sql("UPDATE tokens SET expires = 1")
    farm.app.extensions["cryotile"].access._tokens.clear()
    assert farm.client.get("/api/runs", headers=basic(token)).status_code == 401


def test_tokens_are_revoked(farm):
    first = farm.token()
    second = farm.ask("GET", "/api/token").json["token"]
    assert farm.ask("DELETE", "/api/token").status_code == 204
    assert farm.client.get("/api/runs", headers=basic(first)).status_code == 401
    assert farm.client.get("/api/runs", headers=basic(second)).status_code == 200
    third = farm.client.get("/api/token", headers=basic(second)).json["token"]
    assert farm.client.delete("/api/token?all=True", headers=basic(second)).status_code == 204
    for token in (second, third):
        assert farm.client.get("/api/runs", headers=basic(token)).status_code == 401


def test_a_user_has_a_limited_number_of_tokens_and_the_oldest_end(farm, monkeypatch):
    monkeypatch.setattr(accounts, "MOST_TOKENS", 3)
    first = farm.token()
    others = [farm.client.get("/api/token", headers=basic(first)).json["token"] for _ in range(2)]
    bob = farm.token("bob")
    assert farm.ask("GET", "/api/runs").status_code == 200
    newest = farm.client.get("/api/token", headers=basic(others[0])).json["token"]
    farm.app.extensions["cryotile"].access.forget()
    assert farm.ask("GET", "/api/runs").status_code == 401
    for token in (*others, newest, bob):
        assert farm.client.get("/api/runs", headers=basic(token)).status_code == 200


def test_a_new_password_set_by_another_process_revokes_tokens(farm):
    token = farm.token()
    headers = basic(farm.name("ann"), PASSWORD)
    assert farm.client.get("/api/runs", headers=headers).status_code == 200
    with farm.app.app_context():
        assert not accounts.add_user(farm.name("ann"), "something else")
    # A change by another process is seen within a second; let that second be over.
    farm.app.extensions["cryotile"].access._checked -= 1
    assert farm.client.get("/api/runs", headers=basic(token)).status_code == 401
    assert farm.client.get("/api/runs", headers=headers).status_code == 401


def test_a_removed_user_has_no_rights_and_a_new_one_of_the_name_owns_nothing(farm):
    token, run, name = farm.token(), farm.run(1), farm.name("ann")
    with farm.app.app_context():
        assert accounts.remove_user(name)
        assert not accounts.remove_user(name)
        accounts.add_user(name, PASSWORD)
    farm.app.extensions["cryotile"].access.forget()
    assert farm.client.get("/api/runs", headers=basic(token)).status_code == 401
    answer = farm.client.get(f"/api/runs/{run}", headers=basic(name, PASSWORD))
    assert answer.status_code == 404


def test_a_password_is_hashed_once(farm, monkeypatch):
    farm.token()
    checked = []
    real = auth.check_password_hash
    monkeypatch.setattr(auth, "check_password_hash", lambda *a: checked.append(a) or real(*a))
    for _ in range(5):
        headers = basic(farm.name("ann"), PASSWORD)
        assert farm.client.get("/api/runs", headers=headers).status_code == 200
    assert len(checked) == 1


def test_only_wrong_passwords_are_rate_limited(farm, monkeypatch):
    run, _ = farm.run(2), farm.worker()
    hashed = []
    monkeypatch.setattr(auth, "check_password_hash", lambda *a: hashed.append(a) or False)
    wrong = basic(farm.name("ann"), "wrong")
    codes = [farm.client.get("/api/token", headers=wrong).status_code for _ in range(30)]
    assert codes == [401] * 10 + [429] * 20
    # The same wrong password costs one hash.
    assert len(hashed) == 1
    assert int(farm.client.get("/api/token", headers=wrong).headers["Retry-After"]) > 0
    assert farm.claim(run) == 0
    # Another address is not limited.
    answer = farm.client.get("/api/token", headers=wrong, environ_base={"REMOTE_ADDR": "10.0.0.9"})
    assert answer.status_code == 401


def test_an_unknown_user_name_costs_a_hash_too(farm, monkeypatch):
    hashed = []
    monkeypatch.setattr(auth, "check_password_hash", lambda *a: hashed.append(a) or False)
    assert farm.client.get("/api/runs", headers=basic("nobody", "x")).status_code == 401
    assert len(hashed) == 1


def test_addresses_of_one_network_share_a_limit():
    attempts = auth.LoginThrottle(limit=2, period=1e6)
    attempts.fail("2001:db8::1")
    assert attempts.wait("2001:db8::2") == 0
    attempts.fail("2001:db8::2")
    assert attempts.wait("2001:db8::3") > 0
    assert attempts.wait("2001:db8:0:1::3") == 0
    assert attempts.wait("10.0.0.1") == 0


def test_members_have_the_rights_of_their_role(farm):
    run, _ = farm.run(3), farm.worker()
    farm.token("bob")
    member = f"/api/v1/runs/{run}/members/{farm.name('bob')}"

    def may() -> list[bool]:
        calls = (
            ("GET", f"/api/runs/{run}", None),
            ("PUT", f"/api/runs/{run}/tasks/0", {"percentCompleted": 1}),
            ("POST", f"/api/runs/{run}/restart", None),
        )
        return [farm.ask(*call, user="bob").status_code < 300 for call in calls]

    assert may() == [False, False, False]
    for role, rights in (
        ("viewer", [True, False, False]),
        ("worker", [True, True, False]),
        ("owner", [True, True, True]),
    ):
        assert farm.ask("PUT", member, {"role": role}).status_code == 204
        assert may() == rights
        assert farm.ask("GET", f"/api/v1/runs/{run}", user="bob").json["role"] == role
        assert [each["uuid"] for each in farm.ask("GET", "/api/runs", user="bob").json["data"]] == [
            run
        ]
    assert farm.ask("DELETE", member).status_code == 204
    assert may() == [False, False, False]


def test_members_are_known_users_and_the_creators_role_cannot_be_changed(farm):
    run = farm.run(1)
    members = f"/api/v1/runs/{run}/members"
    assert farm.ask("PUT", f"{members}/nobody", {"role": "worker"}).status_code == 404
    assert farm.ask("PUT", f"{members}/a%00", {"role": "worker"}).status_code == 404
    me = farm.name("ann")
    assert farm.ask("PUT", f"{members}/{me}", {"role": "viewer"}).status_code == 400
    assert farm.ask("DELETE", f"{members}/{me}").status_code == 400
    for role in ("admin", None, 7, ["owner"]):
        assert farm.ask("PUT", f"{members}/{me}", {"role": role}).status_code == 400


def test_an_admin_sees_and_changes_every_run(farm):
    run = farm.run(1)
    farm.token("root", "admin")
    assert run in [each["uuid"] for each in farm.ask("GET", "/api/runs", user="root").json["data"]]
    assert farm.ask("DELETE", f"/api/runs/{run}", user="root").status_code == 204


def test_bodies_are_limited_in_size_and_depth(farm):
    def post(data: bytes, **headers: str) -> int:
        return int(farm.ask("POST", "/api/run", data=data, headers=headers).status_code)

    assert post(b" " * (5 * 2**20)) == 413
    assert post(gzip.compress(b" " * (20 * 2**20)), **{"Content-Encoding": "gzip"}) == 413
    assert post(b"[" * 100_000) == 400
    assert post(b'{"a":' * 50 + b"1" + b"}" * 50) == 400
    assert post(b"\xff") == 400
    assert post(b"") == 400
    assert post(b'{"numTasks": NaN}') == 400
    assert post(b'{"numTasks": ' + b"1" * 5000 + b"}") == 400
    assert post(b"no gzip", **{"Content-Encoding": "gzip"}) == 400
    assert post(gzip.compress(b'{"numTasks": 3}')[:-5], **{"Content-Encoding": "gzip"}) == 400
    assert post(b"x", **{"Content-Encoding": "br"}) == 415
    # Brackets in strings do not count as depth.
    assert post(json.dumps({"numTasks": "[{" * 100}).encode()) == 400
    assert post(gzip.compress(b'{"numTasks": 3}'), **{"Content-Encoding": "gzip"}) == 201


def test_bodies_of_the_native_api_must_be_json(farm):
    """A form of another site can send text, and not JSON, without being asked for permission."""
    for media in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = farm.ask(
            "POST", "/api/v1/runs", data=b'{"count": 3}', headers={"Content-Type": media}
        )
        assert answer.status_code == 415
        assert "send application/json" in answer.json["error"]
    # Programs of the first task farm may give any type, or none.
    for media in ("text/plain", ""):
        answer = farm.ask(
            "POST", "/api/run", data=b'{"numTasks": 3}', headers={"Content-Type": media}
        )
        assert answer.status_code == 201


def test_the_audit_log_records_users_and_actions(farm):
    run = farm.run(2)
    farm.token("bob")
    farm.ask("POST", f"/api/runs/{run}/restart?all=True")
    farm.ask("PUT", f"/api/v1/runs/{run}/members/{farm.name('bob')}", {"role": "worker"})
    farm.client.get("/api/runs", headers=basic(farm.name("bob"), "wrong"))
    farm.ask("DELETE", f"/api/runs/{run}")
    ann, bob = farm.name("ann"), farm.name("bob")
    log = farm.sql(
        "SELECT user_name, action, subject FROM audit WHERE subject IN (:ann, :bob) OR subject LIKE :run ORDER BY id",
        ann=ann, bob=bob, run=f"{run}%",
    )  # fmt: skip
    assert [tuple(row) for row in log] == [
        ("-", "add user", ann),
        ("-", "make token", ann),
        (ann, "create run", run),
        ("-", "add user", bob),
        ("-", "make token", bob),
        (ann, "restart all", run),
        (ann, "set member", f"{run} {bob} worker"),
        ("-", "wrong password", bob),
        (ann, "delete run", run),
    ]


def test_the_audit_log_records_revoked_tokens_and_changed_users(farm):
    farm.token("chief", "admin")
    farm.token("bob")
    chief, bob = farm.name("chief"), farm.name("bob")
    for body in ({"role": "admin"}, {"role": "user", "password": "another"}):
        assert farm.ask("PUT", f"/api/v1/users/{bob}", body, user="chief").status_code == 200
    # The new password has revoked the token.
    login = basic(bob, "another")
    farm.client.post("/api/v1/tokens", json={}, headers=login)
    (token,) = farm.client.get("/api/v1/tokens", headers=login).json["tokens"]
    revoked = farm.client.delete(f"/api/v1/tokens/{token['id']}", headers=login)
    assert revoked.status_code == 204
    assert farm.ask("DELETE", f"/api/v1/users/{bob}", user="chief").status_code == 204
    log = farm.sql(
        "SELECT user_name, action, subject FROM audit WHERE subject = :bob OR subject LIKE :more ORDER BY id",
        bob=bob, more=f"{bob} %",
    )  # fmt: skip
    assert [tuple(row) for row in log] == [
        ("-", "add user", bob),
        ("-", "make token", bob),
        (chief, "set role", f"{bob} admin"),
        (chief, "change password", f"{bob} user"),
        (bob, "make token", bob),
        (bob, "revoke token", bob),
        (chief, "remove user", bob),
    ]


# What workers tell of their tasks is in the tables of the run, not in the audit log.
OF_WORKERS = {
    ("PUT", "/api/v1/runs/{run}/map"),
    *((method, "/api/v1/runs/{run}/leases") for method in ("POST", "PATCH", "DELETE")),
    ("POST", "/api/v1/runs/{run}/outcomes"),
}


def test_each_call_by_which_people_change_something_is_in_the_audit_log(farm):
    farm.token("chief", "admin")
    farm.token("bob")
    run, name = farm.run(2, user="chief"), farm.name("bob")
    token = farm.ask("POST", "/api/v1/tokens", {}, user="chief").json["token"]
    mine = f"/api/v1/tokens/{accounts.digest(token)[:16]}"
    actions = [
        ("POST", "/api/v1/runs", {"count": 1}, "create run"),
        ("POST", "/api/v1/tokens", {}, "make token"),
        ("DELETE", "/api/v1/tokens/{token}", None, "revoke token"),
        ("PUT", "/api/v1/runs/{run}/members/{name}", {"role": "viewer"}, "set member"),
        ("DELETE", "/api/v1/runs/{run}/members/{name}", None, "remove member"),
        ("POST", "/api/v1/runs/{run}/pause", None, "pause"),
        ("POST", "/api/v1/runs/{run}/resume", None, "resume"),
        ("POST", "/api/v1/runs/{run}/retry", {"all": True}, "retry"),
        ("POST", "/api/v1/runs/{run}/restart", {"all": True}, "restart all"),
        ("POST", "/api/v1/runs/{run}/restart", {}, "restart"),
        ("DELETE", "/api/v1/runs/{run}", None, "delete run"),
        ("PUT", "/api/v1/users/{name}", {"role": "admin"}, "set role"),
        ("PUT", "/api/v1/users/{name}", {"password": "another one"}, "change password"),
        ("DELETE", "/api/v1/users/{name}", None, "remove user"),
    ]
    document = farm.ask("GET", "/api/v1/openapi.json").json["paths"]
    changing = {(m.upper(), path) for path, item in document.items() for m in item} & {
        (method, path) for path in document for method in ("POST", "PUT", "PATCH", "DELETE")
    }
    assert {(method, path) for method, path, *_ in actions} == changing - OF_WORKERS
    for method, path, body, action in actions:
        place = path.replace("{run}", run).replace("{name}", name)
        answer = farm.ask(method, place.replace("/api/v1/tokens/{token}", mine), body, user="chief")
        assert answer.status_code < 300, (method, path, answer.text)
        last = farm.sql("SELECT user_name, action FROM audit ORDER BY id DESC LIMIT 1")[0]
        assert tuple(last) == (farm.name("chief"), action), (method, path)


def test_passwords_and_tokens_are_stored_as_hashes(farm):
    token = farm.token()
    (stored,) = farm.sql("SELECT password FROM users WHERE name = :name", name=farm.name("ann"))
    assert stored.password.startswith("scrypt:")
    assert PASSWORD not in stored.password
    assert (token,) not in [tuple(row) for row in farm.sql("SELECT digest FROM tokens")]


def test_invalid_names_and_passwords_are_refused(sqlite_farm):
    with sqlite_farm.app.app_context():
        for name in ("", "a b", "a:b", "é", ".a", "a" * 65, "ct_" + "a" * 43):
            with pytest.raises(InvalidValue, match="user name"):
                accounts.add_user(name, "secret")
        for password in ("", "x" * 1025):
            with pytest.raises(InvalidValue, match="password"):
                accounts.add_user("ann", password)
        with pytest.raises(InvalidValue, match="role"):
            accounts.add_user("ann", "secret", "root")
        assert accounts.add_user("ann", "x")


def test_the_secret_key_is_created_once_and_readable_by_its_owner_alone(tmp_path, monkeypatch):
    monkeypatch.delenv("CRYOTILE_SECRET_KEY", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    key = ServerSettings(database_url="x").key()
    path = tmp_path / "cryotile" / "secret-key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(key) >= 64
    assert ServerSettings(database_url="x").key() == key
    path.chmod(0o644)
    with pytest.raises(CryotileError, match="may be read by others"):
        ServerSettings(database_url="x").key()


def test_a_short_secret_key_is_refused(monkeypatch):
    monkeypatch.setenv("CRYOTILE_SECRET_KEY", SECRET)
    assert ServerSettings(database_url="x").key() == SECRET
    monkeypatch.setenv("CRYOTILE_SECRET_KEY", "short")
    with pytest.raises(InvalidValue, match="16 or more"):
        ServerSettings(database_url="x").key()


def test_invalid_numbers_in_the_environment_are_refused(monkeypatch):
    monkeypatch.setenv("CRYOTILE_SEED_LEASE", "60")
    assert ServerSettings(database_url="x").legacy_lease == 60
    for wrong in ("soon", "-1", "nan", "inf"):
        monkeypatch.setenv("CRYOTILE_SEED_LEASE", wrong)
        with pytest.raises(InvalidValue, match="CRYOTILE_SEED_LEASE"):
            ServerSettings(database_url="x")
    monkeypatch.delenv("CRYOTILE_SEED_LEASE")
    monkeypatch.setenv("CRYOTILE_PROXIES", "1.5")
    with pytest.raises(InvalidValue, match=r"CRYOTILE_PROXIES.* must be an integer"):
        ServerSettings(database_url="x")
