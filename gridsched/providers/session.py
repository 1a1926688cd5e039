"""The one way out to providers: HTTP with a token bucket per host, retry with back-off, a size limit, and keys kept out of errors.

Adapters are handed a `Session` as their ``Http``. It returns whatever a provider answers (an adapter knows what a 404
means there), except where there is nothing to read: no connection, a body over the limit, or trouble that outlasts the
retries. Then it raises AdapterError with the `Fault` and, for a rate limit, how long the provider asked to wait. Until then no
adapter asks that host again: a short wait is waited for, a long one is the same error at once. Once it is closed
nobody is asked any more: it raises Busy, which says nothing about the provider.
"""

import random
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote, urlsplit

import requests

from gridsched.adapter import Fault, Response
from gridsched.core.errors import AdapterError, Busy
from gridsched.core.units import utc

__all__ = ["Limits", "Session", "TokenBucket", "masked"]

_SECRET = re.compile(r"(?i)\b((?:[\w-]*(?:key|token|secret|password|auth|signature))=)[^&\s'\"]+")
_USER = re.compile(r"//[^/@\s]+@")
_URL = re.compile(r" with url: \S+")  # as requests tells of a host that it cannot reach
_RETRY = frozenset({429, 500, 502, 503, 504})
_LONGEST_HOLD_S = 86_400.0  # a provider that errs about its Retry-After is not lost for longer than a day


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How politely to ask. ``per_minute`` and ``burst`` are per host; a wait longer than ``longest_wait_s`` is not waited for.

    ``hosts`` gives single hosts (lower case, with or without their port) a ``per_minute`` of their own.
    """

    per_minute: float = 2.0
    burst: int = 4
    hosts: Mapping[str, float] = field(default_factory=dict)
    timeout_s: float = 30.0
    attempts: int = 3
    first_backoff_s: float = 2.0
    longest_wait_s: float = 60.0
    body_bytes: int = 16 * 2**20

    def rate(self, host: str) -> float:
        """Requests a minute that ``host`` (with its port, if any) is asked in the long run."""
        return self.hosts.get(host, self.hosts.get(urlsplit(f"//{host}").hostname or "", self.per_minute))


@dataclass(frozen=True, slots=True)
class _Request:
    """One question to a provider, as often as it takes."""

    method: str
    url: str
    params: Mapping[str, str | int] | None = None
    headers: Mapping[str, str] | None = None
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Hold:
    """A host that answered ``status`` wants to be left alone until then, on the session's monotonic clock."""

    status: int
    until_s: float


class TokenBucket:
    """Lets ``burst`` requests through at once and ``per_minute`` in the long run. Thread-safe; never sleeps itself."""

    def __init__(self, *, per_minute: float, burst: int, monotonic: Callable[[], float]) -> None:
        self._rate = per_minute / 60
        self._burst = float(burst)
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._tokens = self._burst
        self._at = monotonic()

    def reserve(self, longest_wait_s: float) -> float:
        """Take a token and return the seconds until it may be used; above ``longest_wait_s`` nothing is taken."""
        with self._lock:
            now = self._monotonic()
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
            self._at = now
            wait_s = max(0.0, (1 - self._tokens) / self._rate)
            if wait_s <= longest_wait_s:
                self._tokens -= 1
            return wait_s


@dataclass(slots=True)
class Session:
    """An `Http` for all adapters together. ``monotonic`` and ``sleep`` are the daemon's clock; ``secrets`` are masked wherever they appear.

    A ``sleep`` may end early when the session is closed. ``now`` is only used for a Retry-After that names a date.
    """

    monotonic: Callable[[], float]
    sleep: Callable[[float], object]
    now: Callable[[], datetime]
    limits: Limits = field(default_factory=Limits)
    secrets: Iterable[str] = ()
    jitter: Callable[[], float] = random.random
    _requests: requests.Session = field(default_factory=requests.Session)
    _buckets: dict[str, TokenBucket] = field(default_factory=dict)
    _holds: dict[str, _Hold] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: bool = False

    def __post_init__(self) -> None:
        self._requests.headers["User-Agent"] = "gridsched"
        self._requests.trust_env = False  # no .netrc credentials, and only config.py reads the environment

    def get(self, url: str, *, params: Mapping[str, str | int] | None = None, headers: Mapping[str, str] | None = None) -> Response:
        """The last answer after at most ``limits.attempts`` tries; raises AdapterError where there is none worth reading."""
        return self._ask(_Request("GET", url, params=params, headers=headers))

    def post(self, url: str, *, body: bytes, headers: Mapping[str, str] | None = None) -> Response:
        """The last answer to ``body``, on the terms of `get`."""
        return self._ask(_Request("POST", url, headers=headers, body=body))

    def _ask(self, request: "_Request") -> Response:
        host = urlsplit(request.url).netloc.rpartition("@")[2].lower()
        for attempt in range(1, self.limits.attempts + 1):
            self._take_turn(host)
            if self._closed:
                raise Busy(f"{host} was not asked: the daemon is stopping; try again when it is back")
            last = attempt == self.limits.attempts
            try:
                response = self._once(request)
            except requests.RequestException as error:
                if last:
                    message = f"{host} cannot be reached: {self._masked(str(error))}"
                    raise AdapterError(message, kind=Fault.UNAVAILABLE) from None  # the cause would show the key
                self.sleep(self._backoff_s(attempt))
                continue
            if response.status not in _RETRY:
                return response
            wait_s = self._heeded(host, response)
            if last or (wait_s or 0) > self.limits.longest_wait_s:
                if response.status == 429:
                    raise _refused(host, response.status, wait_s)
                return response
            if wait_s is None:  # else the next turn comes no sooner
                self.sleep(self._backoff_s(attempt))
        raise AssertionError("every last attempt returns or raises")

    def close(self) -> None:
        """Drop kept connections; who waits for another try is told `Busy` when the wait ends."""
        self._closed = True
        self._requests.close()

    def _take_turn(self, host: str) -> None:
        """Wait until ``host`` has a token and no Retry-After holds it; raises AdapterError where that would be too long."""
        self._held_s(host)  # one that is held costs no token
        wait_s = self._bucket(host).reserve(self.limits.longest_wait_s)
        if wait_s > self.limits.longest_wait_s:
            raise AdapterError(f"too many requests to {host} are waiting already", kind=Fault.RATE_LIMITED, retry_after_s=wait_s)
        if wait_s > 0:
            self.sleep(wait_s)
        held_s = self._held_s(host)  # meanwhile another may have been told to wait
        if held_s > 0:
            self.sleep(held_s)

    def _bucket(self, host: str) -> TokenBucket:
        with self._lock:
            bucket = self._buckets.get(host)
            if bucket is None:
                bucket = TokenBucket(per_minute=self.limits.rate(host), burst=self.limits.burst, monotonic=self.monotonic)
                self._buckets[host] = bucket
            return bucket

    def _heeded(self, host: str, response: Response) -> float | None:
        """The wait that ``response`` asks for, from now on kept by all; None where it asks for none."""
        wait_s = self._retry_after_s(response)
        if wait_s is not None:
            hold = _Hold(response.status, self.monotonic() + wait_s)
            with self._lock:
                self._holds[host] = max(hold, self._holds.get(host, hold), key=lambda one: one.until_s)
        return wait_s

    def _held_s(self, host: str) -> float:
        """How long ``host`` still wants to be left alone; raises AdapterError where that is longer than anyone waits."""
        hold = self._holds.get(host)
        wait_s = 0.0 if hold is None else hold.until_s - self.monotonic()
        if hold is not None and wait_s > self.limits.longest_wait_s:
            raise _refused(host, hold.status, wait_s)
        return wait_s

    def _once(self, request: "_Request") -> Response:
        with self._requests.request(
            request.method,
            request.url,
            params=request.params,
            headers=request.headers,
            data=request.body,
            timeout=self.limits.timeout_s,
            stream=True,
        ) as answer:
            body = bytearray()
            for piece in answer.iter_content(64 * 1024):
                body += piece
                if len(body) > self.limits.body_bytes:
                    host = urlsplit(request.url).netloc
                    raise AdapterError(f"{host} answered with more than {self.limits.body_bytes} bytes", kind=Fault.TOO_LARGE)
            names = {name.lower(): value for name, value in answer.headers.items()}
            content_type = names.get("content-type", "").partition(";")[0].strip().lower()
            return Response(status=answer.status_code, body=bytes(body), headers=names, content_type=content_type)

    def _backoff_s(self, attempt: int) -> float:
        """Twice as long each time, spread over half its length so that many sites do not come back together."""
        full = min(self.limits.longest_wait_s, self.limits.first_backoff_s * 2.0 ** (attempt - 1))
        return full * (0.5 + 0.5 * self.jitter())

    def _retry_after_s(self, response: Response) -> float | None:
        """The wait the provider asks for (RFC 9110 section 10.2.3: seconds or a date), at most a day; or None."""
        written = response.headers.get("retry-after", "").strip()
        try:
            seconds = float(written) if written.isdigit() else (utc(parsedate_to_datetime(written)) - self.now()).total_seconds()
        except (ValueError, OverflowError):
            return None
        return min(max(0.0, seconds), _LONGEST_HOLD_S)

    def _masked(self, text: str) -> str:
        return masked(text, self.secrets)


def _refused(host: str, status: int, wait_s: float | None) -> AdapterError:
    said, kind = ("asks for fewer requests", Fault.RATE_LIMITED) if status == 429 else ("is in trouble", Fault.UNAVAILABLE)
    after = "" if wait_s is None else f"; it is asked again in {wait_s:.0f} s"
    return AdapterError(f"{host} {said} (HTTP {status}){after}", kind=kind, retry_after_s=wait_s)


def masked(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` without ``secrets``, as they are and as URLs write them, and without what else may hold a key.

    That is: the path that could not be reached, values of query parameters that look like keys, and user:password in URLs.
    """
    for secret in sorted(filter(None, secrets), key=len, reverse=True):  # one may be part of another
        text = text.replace(secret, "***").replace(quote(secret, safe=""), "***")
    return _USER.sub("//***@", _SECRET.sub(r"\1***", _URL.sub("", text)))
