"""The page of a server: the login and the table of runs."""

from __future__ import annotations

from unittest.mock import Mock

from cryotile.taskfarm.server.pages import _age
from tests.support.farm_server import PASSWORD, basic, sqlite_farm

__all__ = ["sqlite_farm"]


# The header of a browser that loads a page.
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def _log_in(farm, password=PASSWORD, **headers):
    form = {"name": farm.name("ann"), "password": password}
    return farm.client.post("/", data=form, headers=BROWSER | headers)


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


def test_large_numbers_have_separators_and_ages_a_unit(sqlite_farm):
    sqlite_farm.run(400_000), sqlite_farm.worker()
    _log_in(sqlite_farm)
    page = sqlite_farm.client.get("/").text
    assert "0 of 400,000" in page
    assert "never" in page
    sqlite_farm.claim(sqlite_farm.run(1))
    for seconds, age in (
        (0, "0 s ago"),
        (119, "119 s ago"),
        (1200, "20 min ago"),
        (90000, "25 h ago"),
        (1e6, "11 days ago"),
    ):
        assert _age(seconds) == age
    assert "s ago" in sqlite_farm.client.get("/").text


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


def test_the_login_form_of_another_site_is_refused_with_a_page(sqlite_farm):
    sqlite_farm.token()
    for headers in (
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://localhost", "Sec-Fetch-Site": "same-site"},
    ):
        forged = _log_in(sqlite_farm, **headers)
        assert (forged.status_code, forged.mimetype) == (403, "text/html")
        assert "from another site" in forged.text
    assert _log_in(sqlite_farm, Origin="http://localhost").status_code == 303
    assert (
        _log_in(sqlite_farm, Origin="null", **{"Sec-Fetch-Site": "same-origin"}).status_code == 303
    )


def test_errors_are_pages_for_people_and_json_for_programs(sqlite_farm):
    sqlite_farm.token()
    for path, status in (("/nosuch", 401), ("/metrics", 401)):
        answer = sqlite_farm.client.get(path, headers=BROWSER)
        assert (answer.status_code, answer.mimetype) == (status, "text/html")
        assert 'type="password"' in answer.text
        # A browser must not open its own dialog above the page.
        assert "WWW-Authenticate" not in answer.headers
        answer = sqlite_farm.client.get(path)
        assert (answer.status_code, answer.mimetype) == (status, "application/json")
        assert "WWW-Authenticate" in answer.headers
    known = basic(sqlite_farm.token())
    answer = sqlite_farm.client.get("/nosuch", headers=BROWSER | known)
    assert (answer.status_code, answer.mimetype) == (404, "text/html")
    answer = sqlite_farm.client.post("/logout", headers=BROWSER)
    assert answer.status_code == 401
    assert "session has ended" in answer.text


def test_a_logout_invalidates_the_cookie(sqlite_farm):
    sqlite_farm.token()
    _log_in(sqlite_farm)
    cookie = sqlite_farm.client.get_cookie("session").value
    assert sqlite_farm.client.post("/logout").status_code == 303
    assert 'type="password"' in sqlite_farm.client.get("/").text
    sqlite_farm.client.set_cookie("session", cookie)
    assert 'type="password"' in sqlite_farm.client.get("/").text


def test_the_page_reloads_until_the_database_answers_again(sqlite_farm, monkeypatch):
    sqlite_farm.token()
    _log_in(sqlite_farm)
    database = sqlite_farm.database
    monkeypatch.setattr(database, "_patience", 0.0)
    failure = database.engine.dialect.loaded_dbapi.OperationalError("disk I/O error")
    with monkeypatch.context() as broken:
        broken.setattr(database, "_use", Mock(side_effect=failure))
        answer = sqlite_farm.client.get("/", headers=BROWSER)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert 'http-equiv="refresh"' in answer.text
    assert sqlite_farm.client.get("/", headers=BROWSER).status_code == 200
