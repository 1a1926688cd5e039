"""WattTime, API v3: https://api.watttime.org, with an account (the free plan covers CAISO_NORTH); marginal emissions of a region.

A login gives a token for half an hour; the forecast comes in steps of five minutes for up to 72 hours, from now on, in pounds
for a megawatt-hour. It says what one kilowatt-hour *more* causes, not what the average one did; 0 means that power is being
curtailed.
"""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gridsched import (
    AdapterError,
    Batch,
    Fault,
    Http,
    InvalidInput,
    Layout,
    Quality,
    Response,
    Row,
    SignalKind,
    body_of,
    read_json,
    read_options,
    read_rows,
    refuse_old,
)

URL = "https://api.watttime.org"
TOKEN_KEPT = timedelta(minutes=29)  # it is good for 30
STEP_S = 300
UNITS = MappingProxyType({"lbs_co2_per_mwh": "lbs/MWh"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``region`` as WattTime spells it, ``CAISO_NORTH`` say; ``horizon_hours`` is how far the forecast reaches, at most 72."""

    zone: str
    username: str
    password: str
    region: str
    signal_type: str = "co2_moer"
    horizon_hours: int = 24
    url: str = URL

    def __post_init__(self) -> None:
        if not 1 <= self.horizon_hours <= 72:
            raise InvalidInput(f"horizon_hours must be from 1 to 72, got {self.horizon_hours}")


class WattTime:
    """What a kilowatt-hour more will cause, as forecast."""

    name = "watttime"
    signals: tuple[SignalKind, ...] = (SignalKind.CARBON,)
    every = timedelta(minutes=15)

    def __init__(self, table: Mapping[str, object], *, site: Path) -> None:  # noqa: ARG002 - part of the protocol
        self.options = read_options(Options, table, adapter=self.name)
        self.zone = self.options.zone
        self._token: tuple[str, datetime] | None = None

    def fetch(self, http: Http, now: datetime) -> Batch:
        """The forecast from now on, logging in again where the token is too old."""
        options = self.options
        response = http.get(
            f"{options.url}/v3/forecast",
            params={"region": options.region, "signal_type": options.signal_type, "horizon_hours": options.horizon_hours},
            headers={"Authorization": f"Bearer {self._fresh_token(http, now)}"},
        )
        if response.status == 401:
            self._token = None
        return self.parse(body_of(response, source=self.name), now=now)

    def parse(self, payload: bytes, *, now: datetime) -> Batch:
        """The readings in ``payload``; raises AdapterError."""
        document = read_json(payload, source=self.name)
        rows, meta = (document.get("data"), document.get("meta")) if isinstance(document, dict) else (None, None)
        if not isinstance(rows, list) or not isinstance(meta, dict):
            raise AdapterError(f"{self.name} answered without data and meta", kind=Fault.MALFORMED)
        self._check(meta)
        layout = Layout(
            zone=self.zone,
            signal=SignalKind.CARBON,
            source=f"{self.name}/{self.options.signal_type}",
            resolution=timedelta(seconds=STEP_S),
            unit=UNITS[meta["units"]],
            quality=Quality.FORECAST,
        )
        batch = read_rows(layout, [_row(index, row) for index, row in enumerate(rows)], known_at=now)
        return refuse_old(batch, now=now, max_age=timedelta(0), source=self.name)

    def _check(self, meta: dict[str, Any]) -> None:
        """That the answer is about the region and signal asked for, in steps and units known here."""
        for key in ("region", "signal_type"):
            asked = getattr(self.options, key)
            if meta.get(key) != asked:
                raise AdapterError(f"{self.name} answered for {key} {meta.get(key)!r}, not {asked!r}", kind=Fault.MALFORMED)
        if meta.get("data_point_period_seconds", STEP_S) != STEP_S:
            step = meta["data_point_period_seconds"]
            raise AdapterError(f"{self.name} answered in steps of {step!r} s, not {STEP_S}", kind=Fault.MALFORMED)
        if not isinstance(meta.get("units"), str) or meta["units"] not in UNITS:
            raise AdapterError(f"{self.name} answered in {meta.get('units')!r}, not in {', '.join(UNITS)}", kind=Fault.WRONG_UNIT)

    def _fresh_token(self, http: Http, now: datetime) -> str:
        """The token, which is kept for as long as it is good."""
        if self._token is None or not now - self._token[1] < TOKEN_KEPT:
            user = f"{self.options.username}:{self.options.password}".encode()
            answer = http.get(f"{self.options.url}/login", headers={"Authorization": f"Basic {b64encode(user).decode()}"})
            self._token = (_token(answer), now)
        return self._token[0]


def _token(answer: Response) -> str:
    document = read_json(body_of(answer, source=f"{WattTime.name}/login"), source=f"{WattTime.name}/login")
    token = document.get("token") if isinstance(document, dict) else None
    if not isinstance(token, str) or not token:
        raise AdapterError(f"{WattTime.name} let us log in but gave no token", kind=Fault.MALFORMED)
    return token


def _row(index: int, row: object) -> Row:
    label = f"data[{index}]"
    if not isinstance(row, dict):
        return Row(label=label, stamp=None, value="not a row")
    return Row(label=label, stamp=row.get("point_time"), value=row.get("value"))
