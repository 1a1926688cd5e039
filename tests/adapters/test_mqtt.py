"""MQTT meters, against a real Mosquitto; what a payload means is told without one."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gridsched import AdapterError, Batch, Broker, ConfigError, InvalidInput
from tests.adapters.fake_http import FakeHttp
from tests.adapters.load import adapter
from tests.adapters.payloads import BERLIN
from tests.e2e.prometheus import free_port
from tests.mosquitto import Mosquitto, mosquitto

NOW = datetime(2026, 6, 1, 12, 7, 30, tzinfo=UTC)
TOPIC = "tele/plug/SENSOR"
TABLE = {"zone": "site", "topic": TOPIC, "host": "127.0.0.1", "value": "ENERGY.Power", "positive": "import"}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path_factory.mktemp("mosquitto")) as running:
        yield running


def tasmota(power: object, at: datetime | None = None) -> bytes:
    """What a Tasmota plug sends: its local time without offset."""
    time = {"Time": f"{at:%Y-%m-%dT%H:%M:%S}"} if at else {}
    return json.dumps({**time, "ENERGY": {"Total": 1290.396, "Power": power}}).encode()


def fetch(broker: Mosquitto, **table: Any) -> Batch:
    batch: Batch = adapter("mqtt", {**TABLE, "port": broker.port, **table}).fetch(FakeHttp(), NOW)
    return batch


def refused(broker: Mosquitto, **table: Any) -> AdapterError:
    with pytest.raises(AdapterError) as caught:
        fetch(broker, **table)
    return caught.value


@pytest.mark.mosquitto
class TestOverARealBroker:
    def test_the_next_message_is_the_value_from_now_on_and_its_sign_is_turned(self, broker: Mosquitto) -> None:
        with broker.telling(TOPIC, tasmota(-894)):
            (reading,) = fetch(broker)
        assert (reading.value, reading.start, reading.end - reading.start) == (894.0, NOW, timedelta(minutes=1))
        assert reading.source == f"mqtt:{TOPIC}"

    def test_a_retained_message_without_a_time_is_not_taken_for_news(self, broker: Mosquitto) -> None:
        broker.keep("kept", tasmota(-5000))
        error = refused(broker, topic="kept", wait="1s")
        assert error.kind == "not_published"
        assert "retained" in str(error)
        with broker.telling("kept", tasmota(-7)):
            assert [r.value for r in fetch(broker, topic="kept")] == [7.0]

    def test_a_retained_message_that_carries_its_time_counts_while_it_is_fresh(self, broker: Mosquitto) -> None:
        broker.keep("fresh", tasmota(-120, NOW - timedelta(seconds=50)))
        (reading,) = fetch(broker, topic="fresh", time="Time", timezone="UTC", wait="5s")
        assert (reading.value, reading.start) == (120.0, NOW - timedelta(seconds=50))

    def test_a_retained_message_of_yesterday_is_stale_and_the_next_live_one_counts(self, broker: Mosquitto) -> None:
        broker.keep("old", tasmota(-120, NOW - timedelta(days=1)))
        error = refused(broker, topic="old", time="Time", timezone="UTC", wait="1s")
        assert error.kind == "stale"
        with broker.telling("old", tasmota(-80, NOW)):
            assert [r.value for r in fetch(broker, topic="old", time="Time", timezone="UTC")] == [80.0]

    def test_silence_is_told_apart_from_a_broker_that_is_down(self, broker: Mosquitto) -> None:
        error = refused(broker, topic="silent", wait="1s")
        assert error.kind == "not_published"
        assert "silent said nothing within 1 s" in str(error)
        error = refused(broker, port=free_port())
        assert error.kind == "unavailable"
        assert "cannot be reached" in str(error)

    def test_a_broker_that_goes_down_meanwhile_is_unavailable(self, tmp_path: Path) -> None:
        with mosquitto(tmp_path) as dying:
            waiting = Broker(host="127.0.0.1", port=dying.port).messages("topic", patience_s=20.0)
            with dying.telling("topic", b"1"):
                assert next(waiting).payload == b"1"
            dying.stop()
            with pytest.raises(AdapterError) as caught:
                list(waiting)
        assert caught.value.kind == "unavailable"
        assert "closed the connection" in str(caught.value)

    def test_who_has_no_password_is_refused_and_the_password_never_shows(self, tmp_path: Path) -> None:
        with mosquitto(tmp_path, username="grid", password="s3cret") as locked:
            with locked.telling(TOPIC, tasmota(-1)):
                assert len(fetch(locked, username="grid", password="s3cret")) == 1
            for wrong in ({"username": "grid", "password": "wr0ng"}, {}):
                error = refused(locked, **wrong)
                assert error.kind == "refused"
                assert "check username and password" in str(error)
                assert "wr0ng" not in str(error)
        one = adapter("mqtt", {**TABLE, "username": "grid", "password": "s3cret"})
        assert "s3cret" not in repr(one.options) + repr(one._broker)

    def test_a_topic_one_may_not_read_only_stays_silent_or_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "acl").write_text("topic read open/#\n")
        with mosquitto(tmp_path, f"acl_file {tmp_path / 'acl'}") as strict:
            error = refused(strict, topic="closed/plug", wait="1s")
        assert error.kind in ("refused", "not_published")

    def test_over_tls_the_broker_must_be_the_one_it_says(self, tmp_path: Path) -> None:
        make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        make += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
        subprocess.run(make, check=True, capture_output=True)
        plain, port = free_port(), free_port()
        tls = [f"listener {port} 127.0.0.1", f"certfile {tmp_path / 'cert.pem'}", f"keyfile {tmp_path / 'key.pem'}"]
        with mosquitto(tmp_path, *tls, port=plain) as safe, safe.telling(TOPIC, tasmota(-3)):
            table = {**TABLE, "port": port, "tls": True}
            one = adapter("mqtt", {**table, "host": "localhost", "ca": "cert.pem"}, site=tmp_path)
            assert [r.value for r in one.fetch(FakeHttp(), NOW)] == [3.0]
            for wrong in ({"host": "127.0.0.1", "ca": "cert.pem"}, {"host": "localhost"}):
                with pytest.raises(AdapterError) as caught:
                    adapter("mqtt", {**table, **wrong}, site=tmp_path).fetch(FakeHttp(), NOW)
                assert caught.value.kind == "unavailable"


def parsed(payload: bytes, **table: Any) -> Batch:
    batch: Batch = adapter("mqtt", {**TABLE, **table}).parse(payload, now=NOW)
    return batch


@pytest.mark.parametrize(
    ("table", "payload", "value"),
    [
        ({"value": ""}, b"-894.5", 894.5),
        ({"value": ""}, b" 12,5 ", -12.5),
        ({"value": "", "positive": "export"}, b"1250", 1250.0),
        ({}, tasmota([8.15, 0.85]), -9.0),
        ({"value": "ENERGY.Power.1"}, tasmota([8.15, -2]), 2.0),
        ({"value": "apower", "unit": "kW"}, b'{"apower": -0.5}', 500.0),
        ({"value": "p", "positive": "export", "scale": 0.1, "offset": 5.0}, b'{"p": "100"}', 15.0),
        ({"signal": "price", "value": "p", "positive": None, "unit": "ct/kWh"}, b'{"p": -2.5}', -25.0),
    ],
)
def test_a_payload_is_read_by_its_path_unit_scale_and_direction(table: dict[str, Any], payload: bytes, value: float) -> None:
    one = {key: option for key, option in {**TABLE, **table}.items() if option is not None}
    assert [r.value for r in adapter("mqtt", one).parse(payload, now=NOW)] == [pytest.approx(value)]


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (b"", "empty"),
        (b'{"ENERGY": {"Po', "truncated"),
        (b"offline", "malformed"),
        (b'{"ENERGY": {"Power": "much"}}', "malformed"),
        (b'{"ENERGY": {"Power": true}}', "malformed"),
        (tasmota(None), "not_published"),
        (tasmota([]), "not_published"),
        (tasmota([1.0, None]), "not_published"),
        (b'{"POWER": 5}', "not_published"),
    ],
)
def test_what_is_no_figure_is_unknown_and_never_zero(payload: bytes, kind: str) -> None:
    with pytest.raises(AdapterError) as caught:
        parsed(payload)
    assert caught.value.kind == kind


def test_a_reading_is_as_old_as_its_payload_says() -> None:
    table = {"time": "Time", "timezone": "Europe/Berlin", "max_age": "2m"}
    local = NOW + timedelta(hours=2)
    (reading,) = parsed(tasmota(-1, local - timedelta(seconds=179)), **table)
    assert reading.start == NOW - timedelta(seconds=179)
    with pytest.raises(AdapterError, match="still serves old data") as caught:
        parsed(tasmota(-1, local - timedelta(seconds=180)), **table)
    assert caught.value.kind == "stale"


def test_a_device_that_lives_in_the_future_is_not_believed() -> None:
    with pytest.raises(AdapterError, match="2:00:00 ahead; set the device's clock or `timezone` right"):
        parsed(tasmota(-1, NOW + timedelta(hours=2)), time="Time", timezone="UTC")


@pytest.mark.parametrize("now", [datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 25, 1, 30, tzinfo=UTC)])
def test_in_the_hour_that_comes_twice_a_local_stamp_means_the_one_that_is_now(now: datetime) -> None:
    one = adapter("mqtt", {**TABLE, "time": "Time", "timezone": "Europe/Berlin"})
    batch = one.parse(tasmota(-1, datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)), now=now)
    assert [r.start for r in batch] == [now]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"positive": None}, "'import' or 'export' for a surplus"),
        ({"signal": "price", "unit": "EUR/MWh"}, "is for nothing else"),
        ({"topic": "evcc/+/power"}, "must name one topic"),
        ({"host": "mqtt://broker"}, "without mqtt://"),
        ({"port": 0}, "MQTT's is 1883"),
        ({"wait": "1h"}, "at most 5 minutes"),
        ({"unit": "kVA"}, "use W, kW"),
    ],
)
def test_a_wrong_option_is_told_before_anything_connects(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        adapter("mqtt", {key: option for key, option in {**TABLE, **wrong}.items() if option is not None})
    assert said in str(caught.value)


def test_a_certificate_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.pem"):
        next(Broker(host="localhost", tls=True, ca="nowhere.pem").messages("t", patience_s=1.0))


def test_a_broker_follows_one_topic() -> None:
    with pytest.raises(InvalidInput, match="one topic"):
        next(Broker(host="localhost").messages("a/#", patience_s=1.0))


def test_without_its_client_the_adapter_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "paho", None)
    with pytest.raises(ConfigError, match=r"pip install 'gridsched\[mqtt\]'"):
        adapter("mqtt", TABLE)
