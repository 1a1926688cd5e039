"""Talking to an OpenADR 3 VTN, the utility's server: log in, list programs and events page by page, confirm an event by a report.

3.0 and 3.1 do not understand each other: 3.1 tells where to log in, writes targets as plain names and reports without a program
(OpenAPI documents of both: https://github.com/grid-coordination/openadr3-specification). Errors are problem objects (RFC 7807).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import urlencode

from gridsched.adapter import Fault, Http, Response, body_of, read_json
from gridsched.core.errors import AdapterError

__all__ = ["OpenAdrVersion", "Vtn"]

_PAGE, _MOST_PAGES = 50, 20
_EARLY = timedelta(minutes=1)


class OpenAdrVersion(StrEnum):
    """The two dialects."""

    V30 = "3.0"
    V31 = "3.1"


@dataclass(slots=True, kw_only=True)
class Vtn:
    """One VTN at its base path ``url``. Without a ``client_id`` nobody logs in; a token is kept until a minute before it ends.

    Every method raises AdapterError, with what the VTN's problem object says.
    """

    url: str
    version: OpenAdrVersion
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    token_url: str = ""
    scope: str = ""
    name: str = "openadr"
    _token: tuple[str, datetime] | None = field(default=None, repr=False)

    def programs(self, http: Http, now: datetime) -> list[Any]:
        """Every program we may see."""
        return list(self._all(http, now, "programs", []))

    def events(self, http: Http, now: datetime, *, program: str = "", targets: Sequence[str] = (), target_type: str = "") -> list[Any]:
        """Every event we may see, of one program (by its id) and for ``targets`` where they are given."""
        query = [("programID", program)] if program else []
        if targets and self.version is OpenAdrVersion.V30:
            query += [("targetType", target_type), *(("targetValues", target) for target in targets)]
        else:
            query += [("targets", target) for target in targets]
        return list(self._all(http, now, "events", query))

    def report(self, http: Http, now: datetime, event: Mapping[str, Any], *, client: str, states: Mapping[int, str]) -> None:
        """Tell the operating state in the event's intervals, by their ids. A report that is there already (409) is as good."""
        told = [{"id": interval, "payloads": [{"type": "OPERATING_STATE", "values": [state]}]} for interval, state in states.items()]
        body: dict[str, object] = {
            "eventID": event.get("id"),
            "clientName": client,
            "reportName": "gridsched",
            "resources": [{"resourceName": client, "intervals": told}],
        }
        if self.version is OpenAdrVersion.V30:
            body["programID"] = event.get("programID")
        headers = {**self._login(http, now), "Content-Type": "application/json"}
        answer = http.post(f"{self.url}/reports", body=json.dumps(body).encode(), headers=headers)
        if answer.status not in (200, 201, 409):
            self._body(answer)

    def _all(self, http: Http, now: datetime, what: str, query: Iterable[tuple[str, str]]) -> Iterator[Any]:
        """Every object of a list that comes in pages."""
        for page in range(_MOST_PAGES):
            asked = urlencode([*query, ("skip", page * _PAGE), ("limit", _PAGE)])
            found = read_json(self._body(http.get(f"{self.url}/{what}?{asked}", headers=self._login(http, now))), source=self.name)
            if not isinstance(found, list):
                raise AdapterError(f"{self.name}: {what} is not a list; is url the VTN's base path?", kind=Fault.MALFORMED)
            yield from found
            if len(found) < _PAGE:
                return
        raise AdapterError(f"{self.name}: more than {_MOST_PAGES * _PAGE} {what}; name a program or targets", kind=Fault.TOO_LARGE)

    def _login(self, http: Http, now: datetime) -> dict[str, str]:
        """The headers of one who is logged in (RFC 6749, section 4.4)."""
        if not self.client_id:
            return {}
        if self._token is None or now >= self._token[1]:
            form = {"grant_type": "client_credentials", "client_id": self.client_id, "client_secret": self.client_secret}
            body = urlencode(form | ({"scope": self.scope} if self.scope else {})).encode()
            answer = http.post(self._where(http), body=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
            granted = self._object(answer)
            token, lasts_s = granted.get("access_token"), granted.get("expires_in", 3600)
            if not isinstance(token, str) or type(lasts_s) not in (int, float) or not 0 <= lasts_s < 1e9:
                raise AdapterError(f"{self.name}: the login gave no usable access_token", kind=Fault.MALFORMED)
            self._token = (token, now + timedelta(seconds=lasts_s) - _EARLY)
        return {"Authorization": f"Bearer {self._token[0]}"}

    def _where(self, http: Http) -> str:
        """Where to log in: as configured, as 3.1 tells, or the usual path."""
        if not self.token_url and self.version is OpenAdrVersion.V31:
            self.token_url = str(self._object(http.get(f"{self.url}/auth/server")).get("tokenURL") or "")
        return self.token_url or f"{self.url}/auth/token"

    def _object(self, answer: Response) -> dict[str, Any]:
        found = read_json(self._body(answer), source=self.name)
        return found if isinstance(found, dict) else {}

    def _body(self, answer: Response) -> bytes:
        """The body of a good answer; a refusal forgets the token, so that the next fetch logs in anew."""
        try:
            return body_of(answer, source=self.name)
        except AdapterError as error:
            if answer.status == 401:
                self._token = None
            raise AdapterError(": ".join([str(error), *_problem(answer.body)]), kind=error.kind) from None


def _problem(body: bytes) -> list[str]:
    """What a problem object says, in as many sentences as it has."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return []
    keys = ("title", "detail", "error", "error_description")
    return [str(found[key]) for key in keys if found.get(key)] if isinstance(found, dict) else []
