"""The page of a server: the login and the table of runs."""

from __future__ import annotations

from tests.support.farm_server import PASSWORD, sqlite_farm

__all__ = ["sqlite_farm"]


def _log_in(farm, password=PASSWORD, **more):
    return farm.client.post("/", data={"name": farm.name("ann"), "password": password}, **more)


def test_without_a_session_the_page_is_the_login(sqlite_farm):
    run = sqlite_farm.run(3)
    page = sqlite_farm.client.get("/").text
    assert 'type="password"' in page
    assert run not in page
    assert sqlite_farm.client.post("/logout").status_code == 401


def test_a_user_sees_the_progress_of_their_runs(sqlite_farm):
    run, _ = sqlite_farm.run(4), sqlite_farm.worker()
    sqlite_farm.claim(run)
    sqlite_farm.put(run, 0, status="done")
    others = sqlite_farm.run(2, user="bob")
    answer = _log_in(sqlite_farm)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    page = sqlite_farm.client.get("/").text
    assert run in page
    assert "1 of 4" in page
    assert "25 %" in page
    assert others not in page


def test_the_page_loads_nothing_from_other_hosts(sqlite_farm):
    sqlite_farm.run(1)
    _log_in(sqlite_farm)
    answer = sqlite_farm.client.get("/")
    assert "//" not in answer.text
    nonce = answer.text.partition('nonce="')[2].partition('"')[0]
    assert f"style-src 'nonce-{nonce}'" in answer.headers["Content-Security-Policy"]


def test_names_are_escaped(sqlite_farm):
    sqlite_farm.ask(
        "POST", "/api/v1/runs", {"key": "<b>k", "name": "<script>alert(1)</script>", "count": 1}
    )
    _log_in(sqlite_farm)
    page = sqlite_farm.client.get("/").text
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_a_wrong_password_shows_the_login_again(sqlite_farm):
    sqlite_farm.token()
    answer = _log_in(sqlite_farm, "wrong")
    assert answer.status_code == 401
    assert "name or password is wrong" in answer.text
    codes = [_log_in(sqlite_farm, "wrong").status_code for _ in range(12)]
    assert codes[-1] == 429


def test_the_session_cookie_is_sent_by_this_site_alone(sqlite_farm):
    sqlite_farm.token()
    cookie = _log_in(sqlite_farm).headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    forged = _log_in(sqlite_farm, headers={"Origin": "https://elsewhere.example"})
    assert forged.status_code == 403


def test_a_logout_invalidates_the_cookie(sqlite_farm):
    sqlite_farm.token()
    _log_in(sqlite_farm)
    cookie = sqlite_farm.client.get_cookie("session").value
    assert sqlite_farm.client.post("/logout").status_code == 303
    assert 'type="password"' in sqlite_farm.client.get("/").text
    sqlite_farm.client.set_cookie("session", cookie)
    assert 'type="password"' in sqlite_farm.client.get("/").text
