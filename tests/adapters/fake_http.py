"""An `Http` that answers what it is told, and remembers what it was asked."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gridsched import Response


@dataclass(slots=True)
class FakeHttp:
    """``also`` answers the URLs that contain one of its keys, always well: a login, say, that is not what the test is about."""

    body: bytes = b""
    status: int = 200
    content_type: str = "application/json"
    also: Mapping[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str | int]]] = field(default_factory=list)
    posted: list[tuple[str, bytes]] = field(default_factory=list)
    sent_headers: dict[str, str] = field(default_factory=dict)

    def get(self, url: str, *, params: Mapping[str, str | int] | None = None, headers: Mapping[str, str] | None = None) -> Response:
        self.asked.append((url, dict(params or {})))
        self.sent_headers = dict(headers or {})
        for part, body in self.also.items():
            if part in url:
                return Response(status=200, body=body, headers={}, content_type="application/json")
        return Response(status=self.status, body=self.body, headers={}, content_type=self.content_type)

    def post(self, url: str, *, body: bytes, headers: Mapping[str, str] | None = None) -> Response:
        self.posted.append((url, body))
        return self.get(url, headers=headers)
