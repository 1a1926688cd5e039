"""Meters and inverters as they were recorded, read by ``http_json`` with nothing but configuration: each counts its own way."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gridsched import AdapterError, Batch
from tests.adapters.fake_http import FakeHttp
from tests.adapters.load import adapter, recorded

NOW = datetime(2026, 6, 1, 12, 7, 30, tzinfo=UTC)
METER = {"zone": "site", "url": "http://meter.local/", "signal": "surplus", "resolution": "1m", "unit": "W"}
EXPORT_IS_NEGATIVE: dict[str, Any] = {"scale": -1}
POWER_FLOW = "fronius/v1_v1_GetPowerFlowRealtimeData.fcgi"


def surplus(file: str, now: datetime = NOW, **table: Any) -> Batch:
    """The answer recorded in ``file``, read at ``now``."""
    payload = recorded("api", *file.split("/")).read_bytes()
    batch: Batch = adapter("http_json", {**METER, **table}).fetch(FakeHttp(payload), now)
    return batch


@pytest.mark.parametrize(
    ("file", "value", "surplus_w"),
    [
        ("shelly/evcc_gen2_test_01.json", "act_power", 332.2),
        ("shelly/evcc_gen1_test_02.json", "emeters.0.power", 620.34),
        ("shelly/evcc_connection_test_07.json", "apower", 350),
        ("tasmota/evcc_types_test_02.json", "StatusSNS.SML.Power_curr", 894),
        ("tasmota/evcc_types_test_03.json", "StatusSNS.SML.Power_curr", 36),
        ("homewizard/evcc_types_test_02.json", "active_power_w", -543),
        (POWER_FLOW, "Body.Data.Site.P_Grid", -367.722145),
    ],
)
def test_a_meter_that_counts_export_as_negative_is_turned_round(file: str, value: str, surplus_w: float) -> None:
    (reading,) = surplus(file, value=value, **EXPORT_IS_NEGATIVE)
    assert reading.value == surplus_w
    assert (reading.start, reading.end) == (NOW, NOW + timedelta(minutes=1))


def test_two_meters_of_one_house_agree_once_each_has_its_own_sign() -> None:
    (flow,) = surplus(POWER_FLOW, value="Body.Data.Site.P_Grid", **EXPORT_IS_NEGATIVE)
    (meter,) = surplus("fronius/v1_v1_GetMeterRealtimeData.cgi___Scope=Device_DeviceId=0", value="Body.Data.PowerReal_P_Sum")
    assert flow.value == meter.value


def test_one_channel_of_several_is_taken_by_its_place() -> None:
    (one,) = surplus("tasmota/evcc_types_test_01.json", value="StatusSNS.ENERGY.Power.0")
    assert one.value == 8.15
    with pytest.raises(AdapterError, match="no value for any slot"):
        surplus("tasmota/evcc_types_test_01.json", value="StatusSNS.ENERGY.Power")


@pytest.mark.parametrize(
    ("file", "value"),
    [
        (POWER_FLOW, "Body.Data.Site.P_PV"),  # null at night
        ("shelly/evcc_connection_test_04.json", "act_power"),  # an error message with a good status
        ("shelly/evcc_gen2_test_10.json", "apower"),
    ],
)
def test_what_a_device_does_not_say_is_unknown_and_not_zero(file: str, value: str) -> None:
    with pytest.raises(AdapterError, match="has nothing at") as caught:
        surplus(file, value=value)
    assert caught.value.kind == "not_published"


@pytest.mark.parametrize(("file", "kind"), [("fronius/v1_.error.html", "html"), ("dsmr/TELEGRAM_V5.txt", "malformed")])
def test_a_page_or_a_telegram_instead_of_json_is_named(file: str, kind: str) -> None:
    with pytest.raises(AdapterError) as caught:
        surplus(file, value="power")
    assert caught.value.kind == kind


class TestDeviceClock:
    """Where a device says when it measured, its own time counts, and not when its message arrived."""

    file = "tasmota/evcc_types_test_00.json"
    power: dict[str, Any] = {"value": "StatusSNS.ENERGY.Power", "time": "StatusSNS.Time"}  # noqa: RUF012 - a table, never changed
    measured = datetime(2023, 2, 5, 19, 31, 48, tzinfo=UTC)

    def test_a_local_time_is_read_in_the_timezone_declared(self) -> None:
        (reading,) = surplus(self.file, self.measured, timezone="Europe/Berlin", **self.power)
        assert (reading.start, reading.value) == (self.measured, 47.11)

    def test_a_local_time_without_a_timezone_is_refused(self) -> None:
        with pytest.raises(AdapterError, match="no value for any slot"):
            surplus(self.file, self.measured, **self.power)

    def test_a_message_kept_from_yesterday_is_stale(self) -> None:
        with pytest.raises(AdapterError) as caught:
            surplus(self.file, self.measured + timedelta(days=1), timezone="Europe/Berlin", max_age="5m", **self.power)
        assert caught.value.kind == "stale"

    def test_a_stamp_with_a_letter_for_summer_time_is_refused_and_not_guessed(self) -> None:
        table = {**METER, "unit": "kW", "time": "at", "value": "kw", "timezone": "Europe/Amsterdam"}
        payload = json.dumps([{"at": "201025020000S", "kw": 0.2}, {"at": "2020-10-25T02:00:00+02:00", "kw": 0.3}]).encode()
        batch = adapter("http_json", table).parse(payload, now=datetime(2020, 10, 25, tzinfo=UTC))
        assert [r.value for r in batch] == [300.0]
        assert "not readable" in batch.dropped[0].reason
