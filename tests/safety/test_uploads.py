"""Whose an upload is, how much may be brought, and when it goes."""

import dataclasses
import os
import shutil
import threading
import time

import pytest

from onellm.errors import FileError
from onellm.utils.limits import LIMITS
from onellm.web.security import quotas, uploads, visitors

ANNA, BERT, PROGRAM = "cookie:" + "a" * 43, "cookie:" + "b" * 43, "session:x"


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(uploads, "QUOTAS", quotas.Quotas())
    return tmp_path


@pytest.fixture
def upload(folder):
    place = folder / ("0" * 64)
    place.mkdir()
    (place / "x.txt").write_text("x")
    return str(place / "x.txt")


def may_use(path, visitor):
    with visitors.serving(visitor):
        try:
            return uploads.check(path) == path
        except FileError as error:
            return str(error)


def test_an_upload_is_its_visitors(upload):
    uploads.give([upload], ANNA)
    refused = may_use(upload, BERT)
    assert may_use(upload, ANNA) is True and uploads.may_fetch(upload, ANNA)
    assert not uploads.may_fetch(upload, BERT) and not uploads.may_fetch(upload, visitors.NOBODY)
    assert refused == may_use(upload.replace("0", "1"), BERT) == may_use("/etc/x.txt", BERT)  # tells nothing
    uploads.give([upload], BERT)  # the same content once more
    assert may_use(upload, BERT) is True


def test_what_came_without_a_cookie_belongs_to_the_first_session(upload):
    uploads.give([upload], visitors.NOBODY)
    assert may_use(upload, visitors.NOBODY) is True  # a call without a session
    assert may_use(upload, PROGRAM) is True and may_use(upload, PROGRAM) is True
    for other in ("session:y", ANNA, visitors.NOBODY):
        assert may_use(upload, other) is not True
    assert uploads.may_fetch(upload, visitors.NOBODY) and not uploads.may_fetch(upload, BERT)


def test_nobody_brought_what_lay_there_before(upload):
    assert may_use(upload, ANNA) is not True and not uploads.may_fetch(upload, visitors.NOBODY)
    assert uploads.check(upload) == upload  # outside of requests


def test_two_visitors_at_once_stay_apart(folder):
    """Handlers run in threads; each knows its own visitor."""
    crossed = []

    def work(visitor):
        for _ in range(200):
            with visitors.serving(visitor):
                path = uploads.fresh("x")
                path.touch()
                crossed.extend([path] * (visitors.current() != visitor))
                uploads.check(str(path))
            other = BERT if visitor == ANNA else ANNA
            crossed.extend([path] * uploads.may_fetch(str(path), other))

    threads = [threading.Thread(target=work, args=(visitor,)) for visitor in (ANNA, BERT)]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    assert not crossed


def test_what_is_not_used_for_an_hour_goes(folder, upload, figure):
    uploads.give([upload], ANNA)
    left = folder / "tmpabcd1234"  # an upload that was being received when the app was killed
    left.touch()
    others = folder / "somebodys.txt"
    others.touch()
    made = uploads.fresh("x.webp")
    made.touch()
    past_s = time.time() - LIMITS.upload_lifetime_s - 1
    places = (left, others, made.parent, made.parents[2] / ("0" * 64))
    for place in places:
        os.utime(place, (past_s, past_s))
    assert may_use(upload, ANNA) is True  # in use within the hour
    uploads.sweep()
    assert [place.exists() for place in places] == [False, True, False, True]
    os.utime(places[-1], (past_s, past_s))
    uploads.sweep()
    assert not os.path.exists(upload) and upload not in uploads._owners
    figure("uploads after an hour", "gone, also those of a killed process", "gone")


@pytest.mark.parametrize(("limit", "status"), [("visitor_bytes", 413), ("uploads_bytes", 507)])
def test_who_brings_too_much_is_told(monkeypatch, limit, status):
    monkeypatch.setattr(quotas, "LIMITS", dataclasses.replace(LIMITS, **{limit: 100_000}))
    with visitors.serving(ANNA):
        uploads.fresh("x", 50_000)
        with pytest.raises(quotas.QuotaError, match="brought 66 kB .*(wait|try again)") as refused:
            uploads.fresh("x", 50_000)
    assert refused.value.status == status
    monkeypatch.setattr(quotas.time, "monotonic", lambda: time.perf_counter() + 1e9)  # an hour later
    with visitors.serving(ANNA):
        uploads.fresh("x", 50_000)


def test_a_full_disk_is_told(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2e12, 1.5e12, 1_000_500_000))
    uploads.fresh("x", 400_000)
    with pytest.raises(quotas.QuotaError, match="nearly full"):
        uploads.fresh("x", 600_000)


@pytest.mark.parametrize("forwarded", ["", "https"])
def test_a_cookie_fits_where_the_page_is(forwarded):
    headers = [(b"x-forwarded-proto", forwarded.encode())] if forwarded else []
    cookie = visitors.new_cookie({"type": "http", "scheme": "http", "headers": headers}, "/onellm")
    token = cookie.partition(";")[0]
    assert "; Path=/onellm; HttpOnly; " in cookie
    assert cookie.endswith("SameSite=None; Secure; Partitioned" if forwarded else "SameSite=Lax")
    assert visitors.from_cookie({"type": "http", "headers": [(b"cookie", token.encode())]}).startswith("cookie:")
    forged = [(b"cookie", b"onellm-visitor=cookie:x")]
    assert visitors.from_cookie({"type": "http", "headers": forged}) == visitors.NOBODY
