from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqd.settings import RedisUrl, parse_url, safe_url


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("redis://localhost:6379/0", RedisUrl("redis", (("localhost", 6379),))),
        ("REDIS://h", RedisUrl("redis", (("h", 6379),))),
        ("redis://u:p%40%2F@h:1/2", RedisUrl("redis", (("h", 1),), 2, username="u", password="p@/")),
        ("redis://:p@h?db=3", RedisUrl("redis", (("h", 6379),), 3, password="p")),
        ("rediss://[::1]:6380/1", RedisUrl("rediss", (("::1", 6380),), 1)),
        ("unix:///run/redis.sock?db=1", RedisUrl("unix", database=1, path="/run/redis.sock")),
        ("unix://u:p@/run/redis.sock", RedisUrl("unix", path="/run/redis.sock", username="u", password="p")),
        ("unix:///a?password=p&x=y", RedisUrl("unix", path="/a", password="p", options=(("x", "y"),))),
        (
            "redis+sentinel://:p@h1,h2:2/main/4",
            RedisUrl("redis+sentinel", (("h1", 26379), ("h2", 2)), 4, "main", password="p"),
        ),
        ("redis+cluster://h1,h2:7000", RedisUrl("redis+cluster", (("h1", 6379), ("h2", 7000)))),
        ("embedded:///var/redis", RedisUrl("embedded", path="/var/redis")),
        ("embedded://./var/redis", RedisUrl("embedded", path="var/redis")),
        ("embedded:var/redis", RedisUrl("embedded", path="var/redis")),
    ],
)
def test_every_form_is_read(url, parts):
    assert parse_url(url) == parts


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:6379", "begin with one of redis://"),
        ("http://h", "begin with one of"),
        ("", "begin with one of"),
        ("redis:h", "write it as redis://"),
        ("redis://", "no host"),
        ("redis://h:70000", "port 70000"),
        ("redis://h:port", "no host and port"),
        ("redis://h/zero", "must be a number"),
        ("redis://h1,h2", "takes one host"),
        ("redis+sentinel://h1", "names no master"),
        ("redis+cluster://h/1", "only database 0"),
        ("unix://run/redis.sock", "absolute path"),
        ("embedded:///", "needs a directory"),
        ("redis://u:a/b@h", "percent-encoded"),
        ("redis://u:a#b@h", "percent-encoded"),
        ("redis://h?db", "NAME=VALUE"),
        ("redis://h /0", "a space"),
    ],
)
def test_what_is_wrong_with_a_url_is_said(url, message):
    with pytest.raises(ValueError, match=message):
        parse_url(url)


@pytest.mark.parametrize(
    "url",
    ["redis://:S3cr@h/0", "redis://u:S3cr@h", "redis://S3cr@h", "redis://u:x/S3cr@h", "redis://u:x?S3cr@h",
     "redis://u:x#S3cr@h", "redis://u:a@S3cr@h", "redis://u:1/S3cr@h", "u:S3cr@h", "redis:/u:S3cr@h", "redis:S3cr@h",
     "unix:///run/r.sock?password=S3cr&db=1", "unix://u:S3cr@/run/r.sock", "redis://h?PassWord=S3cr",
     "redis+sentinel://u:S3cr@h1:1,h2:2/main/0?sentinel_password=S3cr", "http://u:S3cr@h"],
)  # fmt: skip
def test_a_password_is_masked_however_malformed_the_url_is(url):
    assert "S3cr" not in safe_url(url)
    assert "***" in safe_url(url)


@pytest.mark.parametrize("url", ["redis://localhost:6379/0", "unix:///run/a@b.sock?db=1", "embedded://./var", "", "x"])
def test_a_url_without_a_password_is_shown_as_it_is(url):
    assert safe_url(url) == url


@given(
    st.text(st.characters(codec="utf-8", min_codepoint=33), min_size=4), st.sampled_from(["redis", "redis+sentinel"])
)
def test_a_quoted_password_comes_out_as_it_went_in(password, scheme):
    url = f"{scheme}://u:{quote(password, safe='')}@h:1/{'name/' if 'sentinel' in scheme else ''}2"
    parts = parse_url(url)
    assert (parts.username, parts.password, parts.database) == ("u", password, 2)
    assert password not in safe_url(url).replace("***", "") or password in "redis+sentinel://u:@h:1/name/2"
    assert parse_url(str(parts)).hosts == parts.hosts


def test_a_url_as_text_has_no_credentials_and_reads_back():
    parts = parse_url("unix://u:S3cr@/run/re%20dis.sock?db=2&client_name=a%26b")
    assert str(parts) == "unix:///run/re%20dis.sock?db=2&client_name=a%26b"
    assert parse_url(str(parts)) == RedisUrl("unix", path="/run/re dis.sock", database=2, options=parts.options)
    assert "S3cr" not in repr(parts)


def test_the_directory_of_an_embedded_server_counts_from_a_directory():
    assert str(parse_url("embedded://./var/../data").under(Path("/srv/app"))) == "embedded:///srv/app/data"
    assert str(parse_url("embedded:///data").under(Path("/srv/app"))) == "embedded:///data"
