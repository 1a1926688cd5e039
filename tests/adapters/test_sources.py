"""When a provider is asked: at its usual pace, and more often while tomorrow is about to be published. No clock runs here."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from gridsched import AdapterError, Batch, ConfigError, InvalidInput, Publication, Quality, Reading, SignalKind
from gridsched.config import load
from gridsched.core.settings import AdapterTable, Settings
from gridsched.daemon import Daemon
from gridsched.plugins import shipped
from gridsched.sources import Source, open_session, open_sources, secrets_of
from gridsched.testing import ManualClock
from tests.adapters.fake_http import FakeHttp
from tests.adapters.load import adapter

BERLIN = ZoneInfo("Europe/Berlin")
WINDOW = Publication(opens=time(12, 50), closes=time(15), timezone="Europe/Berlin", every=timedelta(minutes=5))


@dataclass
class Provider:
    """An adapter whose provider publishes tomorrow at ``out``; it notes when it is asked."""

    out: time
    publishes: Publication | None = WINDOW
    fails: Callable[[datetime], bool] = lambda _: False
    asked: list[datetime] = field(default_factory=list)
    name: str = "played"
    signals: tuple[SignalKind, ...] = (SignalKind.PRICE,)
    every: timedelta = timedelta(hours=1)
    zone: str = "de"

    def fetch(self, http: object, now: datetime) -> Batch:
        self.asked.append(now)
        if self.fails(now):
            raise AdapterError("closed", kind="unavailable")
        local = now.astimezone(BERLIN)
        days = 2 if local.time() >= self.out else 1
        midnight = datetime.combine(local.date(), time(), tzinfo=BERLIN).astimezone(UTC)
        starts = [midnight + timedelta(hours=n) for n in range(24 * days)]
        return Batch(readings=tuple(reading(start, now) for start in starts))


def reading(start: datetime, now: datetime) -> Reading:
    return Reading(
        zone="de",
        signal=SignalKind.PRICE,
        start=start,
        end=start + timedelta(hours=1),
        value=1.0,
        quality=Quality.MEASURED,
        source="played",
        known_at=now,
    )


class Pen:
    """A writer that takes everything."""

    def submit(self, verb: object) -> "Future[Any]":
        done: Future[Any] = Future()
        done.set_result(None)
        return done


def walk(provider: Provider, start: datetime, hours: float, every: timedelta | None = None) -> list[str]:
    """The local times of day at which the provider is asked while the timetable's task is walked through."""
    source = Source(name="played.de.1", adapter=provider, every=every or provider.every)
    clock = ManualClock(start)
    daemon: Any = SimpleNamespace(sources=[source], clock=clock, http=FakeHttp(), writer=Pen())
    daemon.policies = SimpleNamespace(by_zone={})
    daemon.settings = SimpleNamespace(control=SimpleNamespace(every=timedelta(minutes=1), sync_every=timedelta(minutes=1)))
    for name in ("sweep", "merge", "tidy"):
        setattr(daemon, name, lambda: None)
    daemon.poll = lambda s: Daemon.poll(daemon, s)
    task = next(task for task in Daemon.timetable(daemon) if task.name == "poll played.de.1")
    while clock.now() < start + timedelta(hours=hours):
        task.call()
        clock.advance(task.every)
    return [f"{at.astimezone(BERLIN):%H:%M}" for at in provider.asked]


def test_in_the_window_the_provider_is_asked_every_few_minutes_until_tomorrow_is_there() -> None:
    asked = walk(Provider(out=time(13, 2)), datetime(2026, 6, 1, 12, tzinfo=BERLIN), 6)
    assert asked == ["12:00", "12:50", "12:55", "13:00", "13:05", "14:05", "15:05", "16:05", "17:05"]


def test_what_never_comes_is_asked_for_until_the_window_closes_and_then_at_the_usual_pace() -> None:
    asked = walk(Provider(out=time(23)), datetime(2026, 6, 1, 14, 30, tzinfo=BERLIN), 4)
    assert asked == ["14:30", "14:35", "14:40", "14:45", "14:50", "14:55", "15:55", "16:55", "17:55"]


def test_the_window_opens_again_the_next_day_though_the_short_day_spilled_an_hour_over() -> None:
    spring = datetime(2026, 3, 28, 12, tzinfo=BERLIN)
    asked = walk(Provider(out=time(13)), spring.astimezone(UTC), 24.2)
    assert asked[:4] == ["12:00", "12:50", "12:55", "13:00"]
    assert asked[-3:] == ["12:50", "12:55", "13:00"], "an hour earlier in UTC than the day before"


def test_a_provider_that_fails_in_its_window_is_asked_again_at_the_windows_pace() -> None:
    closed = Provider(out=time(13), fails=lambda now: now.astimezone(BERLIN).time() < time(13, 10))
    assert walk(closed, datetime(2026, 6, 1, 12, 50, tzinfo=BERLIN), 1) == ["12:50", "12:55", "13:00", "13:05", "13:10"]


def test_who_asks_more_often_anyway_goes_on_doing_so() -> None:
    asked = walk(Provider(out=time(13)), datetime(2026, 6, 1, 12, 48, tzinfo=BERLIN), 0.1, every=timedelta(minutes=1))
    assert asked == ["12:48", "12:49", "12:50", "12:51", "12:52", "12:53"]


def test_without_a_window_every_call_asks() -> None:
    asked = walk(Provider(out=time(13), publishes=None), datetime(2026, 6, 1, 12, tzinfo=BERLIN), 3)
    assert asked == ["12:00", "13:00", "14:00"]


def test_coming_by_late_shifts_nothing_to_the_next_round() -> None:
    provider = Provider(out=time(23))
    source = Source(name="played", adapter=provider, every=provider.every)
    start = datetime(2026, 6, 1, 6, tzinfo=UTC)
    for minute in (0, 5.4, 59.9, 61, 65, 120.5):  # a timetable with jitter
        source.poll(FakeHttp(), Pen(), start + timedelta(minutes=minute))  # type: ignore[arg-type]
    assert [(at - start).total_seconds() / 60 for at in provider.asked] == [0, 59.9, 120.5]


@pytest.mark.parametrize(
    ("now", "newest", "awaited"),
    [
        (datetime(2026, 6, 1, 12, 49, 59, tzinfo=BERLIN), None, False),
        (datetime(2026, 6, 1, 12, 50, tzinfo=BERLIN), None, True),
        (datetime(2026, 6, 1, 13, tzinfo=BERLIN), datetime(2026, 6, 1, 23, 45, tzinfo=BERLIN), True),
        (datetime(2026, 6, 1, 13, tzinfo=BERLIN), datetime(2026, 6, 2, 9, 45, tzinfo=UTC), True),
        (datetime(2026, 6, 1, 13, tzinfo=BERLIN), datetime(2026, 6, 2, 10, tzinfo=UTC), False),
        (datetime(2026, 6, 1, 15, tzinfo=BERLIN), None, False),
        (datetime(2026, 10, 24, 13, tzinfo=BERLIN), datetime(2026, 10, 25, 10, 45, tzinfo=UTC), True),
        (datetime(2026, 10, 24, 13, tzinfo=BERLIN), datetime(2026, 10, 25, 11, tzinfo=UTC), False),
    ],
)
def test_tomorrow_is_awaited_from_the_window_on_until_its_noon_is_there(now: datetime, newest: datetime | None, awaited: bool) -> None:
    assert WINDOW.awaited(now.astimezone(UTC), newest) is awaited


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"closes": time(12)}, "close later that day"),
        ({"timezone": "Berlin"}, "IANA"),
        ({"every": timedelta(0)}, "longer than 0"),
    ],
)
def test_a_window_that_cannot_be_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Publication(**{"opens": time(12, 50), "closes": time(15), "timezone": "Europe/Berlin", **wrong})


@pytest.mark.parametrize(
    ("made", "opens"),
    [
        (("energy_charts", {"zone": "de"}), time(12, 50)),
        (("awattar", {"zone": "de"}), time(13, 55)),
        (("energy_charts", {"zone": "de", "series": "signal"}), None),
    ],
)
def test_the_shipped_price_adapters_say_when_tomorrow_comes_out(made: tuple[str, dict[str, object]], opens: time | None) -> None:
    window = adapter(*made).publishes
    assert (window.opens if window else None) == opens


def test_what_looks_like_a_key_is_masked_wherever_it_stands_in_the_options() -> None:
    options = {
        "token": "tok-1234",
        "client_secret": "sec-1234",
        "headers": {"X-Api-Key": "key-1234", "Authorization": "Bearer abc-1234", "Accept": "text/plain"},
        "token_url": "https://vtn.example/login",
        "password": "1",
        "url": "https://meter.example",
    }
    secrets = secrets_of(AdapterTable(use="x.py", options=options))
    assert secrets == ["tok-1234", "sec-1234", "key-1234", "Bearer abc-1234", "abc-1234"]


PLAYED = """
[[zone]]
name = "de"
policy = "x.toml"
[[adapter]]
use = "signals/http_json.py"
zone = "${ZONE}"
url = "htp://api.example/${KEY}/estimate?appid=a${APP}"
headers = { list = "${KEY}, ${LIST}" }
"""


@pytest.fixture
def from_environment(tmp_path: Path) -> Settings:
    """A site whose adapter's key stands in a URL's path, and under names that say nothing."""
    (tmp_path / "gridsched.toml").write_text(PLAYED)
    environ = {"ZONE": "de", "KEY": "key-5678\n", "APP": "app-5678", "LIST": "lst-5678", "OTHER": "other-5678"}
    return load(tmp_path, environ=environ)


def test_what_came_from_the_environment_is_a_secret_whatever_its_name_unless_it_is_too_short(from_environment: Settings) -> None:
    assert secrets_of(from_environment.adapters[0]) == ["key-5678", "app-5678", "lst-5678"]


def test_what_came_from_the_environment_shows_in_no_error_of_the_session(from_environment: Settings) -> None:
    session = open_session(from_environment, sleep=lambda _: None, now=lambda: datetime(2026, 6, 1, tzinfo=UTC))
    with pytest.raises(AdapterError, match=r"htp://api\.example") as caught:
        session.get(from_environment.adapters[0].options["url"])
    session.close()
    assert "5678" not in str(caught.value)


def test_an_adapter_that_cannot_be_made_shows_no_key(from_environment: Settings) -> None:
    table = from_environment.adapters[0]
    url = table.options["url"] + "{"
    wrong = replace(table, options={"zone": "de", "url": url, "signal": "price", "resolution": "1h", "value": "v", "unit": "EUR/MWh"})
    with pytest.raises(ConfigError, match=r"url 'htp://api\.example/\*\*\*") as caught:
        open_sources([wrong], site=shipped("adapters").parent)
    assert "5678" not in str(caught.value)


def test_an_adapter_s_own_complaint_shows_no_key(caplog: pytest.LogCaptureFixture) -> None:
    def fails(now: datetime) -> bool:
        raise KeyError("https://x.example?k=tok-1234")

    source = Source(name="played", adapter=Provider(out=time(13), fails=fails), every=timedelta(hours=1), secrets=["tok-1234"])
    source.poll(FakeHttp(), Pen(), datetime(2026, 6, 1, tzinfo=UTC))  # type: ignore[arg-type]
    assert "https://x.example?k=***" in caplog.text
    assert "tok-1234" not in caplog.text
