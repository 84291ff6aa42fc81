"""The pages of a server: the login, the page of runs and its files, and errors."""

from __future__ import annotations

import hashlib

from cryotile.taskfarm import page
from tests.support.farm_server import PASSWORD, basic, farm, sqlite_farm

__all__ = ["farm", "sqlite_farm"]


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


def test_the_page_holds_nothing_of_any_run(sqlite_farm):
    """Its scripts ask for that, and show it as text."""
    sqlite_farm.ask(
        "POST", "/api/v1/runs", {"key": "<b>k", "name": "<script>alert(1)</script>", "count": 1}
    )
    answer = _log_in(sqlite_farm)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    page = sqlite_farm.client.get("/").text
    assert sqlite_farm.name("ann") in page
    assert "alert(1)" not in page


def test_the_page_runs_its_own_scripts_alone(sqlite_farm):
    sqlite_farm.token()
    _log_in(sqlite_farm)
    answer = sqlite_farm.client.get("/")
    assert "//" not in answer.text
    policy = answer.headers["Content-Security-Policy"]
    nonce = answer.text.partition('nonce="')[2].partition('"')[0]
    assert f"script-src 'self' 'nonce-{nonce}';" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert nonce not in sqlite_farm.client.get("/").text


def test_the_files_of_the_page_are_read_without_a_session_and_kept_by_their_tag(sqlite_farm):
    for name, kind in page.FILES.items():
        answer = sqlite_farm.client.get(f"/page/{name}")
        assert (answer.status_code, answer.mimetype) == (200, kind)
        assert answer.data == page.content(name)
        tag = {"If-None-Match": answer.headers["ETag"]}
        assert sqlite_farm.client.get(f"/page/{name}", headers=tag).status_code == 304
    for name in ("nosuch.js", "__init__.py", "../server/app.py", "..%2f..%2fserver/app.py", "%00"):
        assert sqlite_farm.client.get(f"/page/{name}").status_code in (401, 404)


def test_the_page_travels_in_less_than_100_kb(sqlite_farm):
    sqlite_farm.token()
    _log_in(sqlite_farm)
    zipped = {"Accept-Encoding": "gzip"}
    answers = [sqlite_farm.client.get(f"/page/{name}", headers=zipped) for name in page.FILES]
    assert {answer.headers["Content-Encoding"] for answer in answers} == {"gzip"}
    sent = [len(answer.data) for answer in (*answers, sqlite_farm.client.get("/", headers=zipped))]
    assert 20_000 < sum(sent) < 100_000, sent


def test_the_library_of_charts_is_what_npm_publishes_with_its_licence():
    """As the package uplot 1.6.32 has them in dist/."""
    published = {
        "uplot/uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
        "uplot/uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
        "uplot/LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
    }
    ours = {name: hashlib.sha256(page.content(name)).hexdigest() for name in published}
    assert ours == published


def test_a_wrong_password_shows_the_login_again(farm):
    farm.token()
    answer = _log_in(farm, "wrong")
    assert answer.status_code == 401
    assert "name or password is wrong" in answer.text
    codes = [_log_in(farm, "wrong").status_code for _ in range(12)]
    assert codes[-1] == 429


def test_the_login_form_of_another_site_is_refused_with_a_page(farm):
    farm.token()
    for headers in (
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://localhost", "Sec-Fetch-Site": "same-site"},
    ):
        forged = _log_in(farm, **headers)
        assert (forged.status_code, forged.mimetype) == (403, "text/html")
        assert "from another site" in forged.text
    assert _log_in(farm, Origin="http://localhost").status_code == 303
    assert _log_in(farm, Origin="null", **{"Sec-Fetch-Site": "same-origin"}).status_code == 303


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
    for script in ({"X-Requested-With": "fetch"}, {"Accept": "text/event-stream"}):
        answer = sqlite_farm.client.get("/api/v1/runs", headers=script)
        assert (answer.status_code, answer.mimetype) == (401, "application/json")
        assert "WWW-Authenticate" not in answer.headers
    known = basic(sqlite_farm.token())
    answer = sqlite_farm.client.get("/nosuch", headers=BROWSER | known)
    assert (answer.status_code, answer.mimetype) == (404, "text/html")
    answer = sqlite_farm.client.post("/logout", headers=BROWSER)
    assert answer.status_code == 401
    assert "session has ended" in answer.text


def test_a_logout_invalidates_the_cookie(farm):
    farm.token()
    _log_in(farm)
    cookie = farm.client.get_cookie("session").value
    assert farm.client.post("/logout").status_code == 303
    assert 'type="password"' in farm.client.get("/").text
    farm.client.set_cookie("session", cookie)
    assert 'type="password"' in farm.client.get("/").text


def test_the_page_reloads_until_the_database_answers_again(sqlite_farm):
    sqlite_farm.token()
    _log_in(sqlite_farm)
    with sqlite_farm.without_database():
        answer = sqlite_farm.client.get("/", headers=BROWSER)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert 'http-equiv="refresh"' in answer.text
    assert sqlite_farm.client.get("/", headers=BROWSER).status_code == 200
