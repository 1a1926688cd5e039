"""A site's settings: strict, all problems at once, and the environment's three ways to speak."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gridsched.config import client, load
from gridsched.core.errors import ConfigError, InvalidInput
from gridsched.core.settings import Settings, size_bytes

ZONE = '[[zone]]\nname = "de-lu"\npolicy = "surplus-first.toml"\n'


def site(folder: Path, text: str = "", *, zone: str = ZONE, **environ: str) -> Settings:
    (folder / "gridsched.toml").write_text(text + "\n" + zone, encoding="utf-8")
    return load(folder, environ=environ)


def problems(folder: Path, text: str = "", *, zone: str = ZONE, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        site(folder, text, zone=zone, **environ)
    message = str(error.value)
    assert message.startswith(str(folder / "gridsched.toml"))
    return [line.removeprefix("  - ") for line in message.splitlines() if line.startswith("  - ")] or [message]


def test_a_site_needs_only_a_zone(tmp_path: Path) -> None:
    settings = site(tmp_path)
    assert (settings.site.name, settings.web.port, settings.clock) == ("home", 8080, None)
    assert settings.zones[0].policy == tmp_path / "policies" / "surplus-first.toml"
    assert settings.site.data == tmp_path / "data"
    assert settings.store.url == f"sqlite:///{tmp_path}/data/gridsched.sqlite"
    assert settings.token_file == tmp_path / "operator.token"


def test_every_section_is_read_in_its_units(tmp_path: Path) -> None:
    settings = site(
        tmp_path,
        """
        [web]
        host = "0.0.0.0"
        max_blob_bytes = "2 GiB"
        tls_cert = "cert.pem"
        tls_key = "/etc/key.pem"
        [http]
        per_minute = 6
        hosts = { "192.168.1.20" = 60, "Meter.local:8080" = 0.5 }
        [clock]
        replay_from = 2018-01-28T00:00:00+01:00
        speed = 900
        [control]
        every = 30
        sync_every = "10s"
        longest_lease = "1h30m"
        [blobs]
        quota = "1.5 GB"
        keep = "2d"
        [[adapter]]
        use = "signals/file.py"
        path = "week.csv"
        every = "15m"
        """,
    )
    assert settings.web.max_blob_bytes == 2 << 30
    assert (settings.web.tls_cert, settings.web.tls_key) == (tmp_path / "cert.pem", Path("/etc/key.pem"))
    assert (settings.http.per_minute, settings.http.burst) == (6.0, 4)
    assert settings.http.hosts == {"192.168.1.20": 60.0, "meter.local:8080": 0.5}
    assert settings.clock is not None
    assert (settings.clock.replay_from, settings.clock.speed) == (datetime(2018, 1, 27, 23, tzinfo=UTC), 900.0)
    assert (settings.control.every, settings.control.longest_lease) == (timedelta(seconds=30), timedelta(minutes=90))
    assert (settings.blobs.quota_bytes, settings.blobs.keep) == (1_500_000_000, timedelta(days=2))
    assert settings.adapters[0].use == "signals/file.py"
    assert settings.adapters[0].options == {"path": "week.csv", "every": "15m"}


def test_all_problems_are_told_at_once_and_the_nearest_key_is_named(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """
        [web]
        prot = 80
        max_queue = "many"
        [contrl]
        every = "1m"
        [control]
        sync_every = "soon"
        [[adapter]]
        key = "${NOT_SET}"
        """,
        zone=ZONE + ZONE + '[[zone]]\nname = "Big Zone"\npolicy = "a.toml"\n',
    )
    assert len(found) == 8
    for wanted in (
        "unknown key 'contrl'; did you mean 'control'?",
        "[web] unknown key 'prot'; did you mean 'port'?",
        "[web] max_queue: 'many' is not a int",
        "[control] sync_every: 'soon' is not a duration",
        "[[adapter]] 1 'use' is missing",
        "environment variable NOT_SET is not set",
        "'de-lu' is there twice",
        "[[zone]] 3 name: 'Big Zone'",
    ):
        assert any(wanted in line for line in found), (wanted, found)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[web]\nport = 70000", "port"),
        ("[web]\nport = true", "True is not a int"),
        ('[web]\ntls_cert = "a.pem"', "tls_cert and tls_key belong together"),
        ("[web]\nmax_queue = 0", "max_queue: must be above 0"),
        ("[http]\nper_minute = 0", "per_minute: must be above 0"),
        ("[http]\nburst = 0", "burst: must be above 0"),
        ("[http]\nhosts = 3", "not a table of hosts"),
        ('[http]\nhosts = { meter = 0, box = "many", hub = true }', "'meter' = 0, 'box' = 'many', 'hub' = True: requests a minute"),
        ("[clock]\nspeed = 2", "'replay_from' is missing"),
        ("[clock]\nreplay_from = 2018-01-28T00:00:00", "no UTC offset|its UTC offset"),
        ("[clock]\nreplay_from = 2018-01-28T00:00:00Z\nspeed = 0", "speed: must be above 0"),
        ('[control]\nsync_every = "60s"', "absent_after"),
        ('[control]\nlease_ttl = "30s"', "lease_ttl: 0:00:30 is not twice sync_every"),
        ('[control]\nlongest_lease = "1m"', "longest_lease: must be at least lease_ttl"),
        ("[blobs]\nquota = 0", "quota: must be above 0"),
        ("[blobs]\nkeep = -1", "keep: must be 0 or more"),
        ("[blobs]\nkeep = inf", "longer than any calendar"),
        ('[blobs]\nquota = "lots"', "not a size"),
        ('[store]\nurl = "mysql://x"', "sqlite:///"),
        ('[site]\nname = "My Home"', "My Home"),
        ("web = 3", r"\[web\] must be a table"),
        ("zone = 3\n[web]\n", r"must be written \[\[zone\]\]|not valid TOML"),
        ("[web\n", "not valid TOML"),
    ],
)
def test_a_value_out_of_reason_is_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        site(tmp_path, text, zone="" if text.startswith("zone") else ZONE)


def test_a_site_without_zones_or_without_a_file_says_what_to_do(tmp_path: Path) -> None:
    assert "no [[zone]]" in problems(tmp_path, zone="")[0]
    with pytest.raises(ConfigError, match="gridsched init"):
        load(tmp_path / "nowhere")


def test_the_environment_overrides_one_key(tmp_path: Path) -> None:
    settings = site(
        tmp_path,
        "[web]\nport = 1",
        GRIDSCHED_WEB_PORT="9000",
        GRIDSCHED_WEB_METRICS_NEED_TOKEN="true",
        GRIDSCHED_STORE_URL="postgresql+psycopg://h/d",
        GRIDSCHED_CONTROL_EVERY="2m",
        GRIDSCHED_SITE="/elsewhere",
        GRIDSCHED_HOME="/elsewhere",
        GRIDSCHED_CI="1",
    )
    assert (settings.web.port, settings.web.metrics_need_token) == (9000, True)
    assert settings.store.url == "postgresql+psycopg://h/d"
    assert settings.control.every == timedelta(minutes=2)


def test_a_misspelt_override_is_not_ignored(tmp_path: Path) -> None:
    assert "GRIDSCHED_WEB_PROT: unknown key 'prot'; did you mean 'port'?" in problems(tmp_path, GRIDSCHED_WEB_PROT="1")[0]
    assert "'many' is not a int" in problems(tmp_path, GRIDSCHED_WEB_PORT="many")[0]


def test_secrets_come_from_the_environment_and_never_show(tmp_path: Path) -> None:
    text = """
        [store]
        url = "postgresql+psycopg://me:${PASSWORD}@host/db"
        [[adapter]]
        use = "signals/x.py"
        headers = { key = "Bearer ${KEY}", list = ["${KEY}"] }
        """
    settings = site(tmp_path, text, PASSWORD="hunter2", KEY="s3cret")
    assert settings.store.url == "postgresql+psycopg://me:hunter2@host/db"
    assert settings.adapters[0].options["headers"] == {"key": "Bearer s3cret", "list": ["s3cret"]}
    assert settings.adapters[0].secrets == ("s3cret",)
    assert "hunter2" not in repr(settings)
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize(
    ("written", "bytes_"), [("512 MB", 512_000_000), ("64kB", 64_000), ("1 KiB", 1024), ("0.5 GB", 500_000_000), (7, 7), ("7", 7)]
)
def test_sizes_are_decimal_unless_they_say_otherwise(written: object, bytes_: int) -> None:
    assert size_bytes(written) == bytes_


@pytest.mark.parametrize("written", ["", "MB", "-1 MB", "1 XB", "1 KB", "1 kiB", True, None, 1.5, [1]])
def test_what_is_no_size_is_refused(written: object) -> None:
    with pytest.raises(InvalidInput, match="not a size"):
        size_bytes(written)


def test_the_client_takes_its_address_from_the_environment() -> None:
    told = client(environ={"GRIDSCHED_URL": "http://h", "GRIDSCHED_TOKEN": "t", "GRIDSCHED_SITE": "/s", "GRIDSCHED_HOME": ""})
    assert (told.url, told.token, told.site, told.home) == ("http://h", "t", Path("/s"), None)
    assert "'t'" not in repr(told)
    assert client(environ={}).url is None
