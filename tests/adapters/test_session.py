"""The daemon's way out, against a real server on this machine; time is a counter that sleeping moves."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gridsched import AdapterError
from gridsched.core.errors import Busy
from gridsched.providers.session import Limits, Session, TokenBucket, masked

START = datetime(2026, 6, 1, 12, tzinfo=UTC)


@dataclass(slots=True)
class Time:
    """A clock that moves when someone sleeps."""

    at: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds

    def now(self) -> datetime:
        return START + timedelta(seconds=self.at - 1000.0)


@dataclass(slots=True)
class Provider:
    """What the server answers, one after another (the last one again and again), and what it was asked."""

    url: str = ""
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=lambda: [(200, {}, b"{}")])
    asked: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)


@pytest.fixture
def provider() -> Iterator[Provider]:
    state = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            state.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.do_GET()

        def do_GET(self) -> None:
            state.asked.append(self.path)
            state.headers = {name.lower(): value for name, value in self.headers.items()}
            status, headers, body = state.answers.pop(0) if len(state.answers) > 1 else state.answers[0]
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_port}"
        yield state
        server.shutdown()
        thread.join()


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def session(time: Time) -> Iterator[Session]:
    made = Session(
        monotonic=time.monotonic, sleep=time.sleep, now=time.now, limits=Limits(timeout_s=5), secrets=("s3cret",), jitter=lambda: 1.0
    )
    yield made
    made.close()


def test_an_answer_comes_back_whole_with_its_headers_in_lower_case(provider: Provider, session: Session) -> None:
    provider.answers = [(200, {"Content-Type": "Application/JSON; charset=utf-8", "X-Mine": "a"}, b"[1]")]
    response = session.get(f"{provider.url}/v2/price", params={"bzn": "DE-LU", "n": 5}, headers={"auth-token": "T"})
    assert (response.status, response.body, response.content_type, response.headers["x-mine"]) == (200, b"[1]", "application/json", "a")
    assert provider.asked == ["/v2/price?bzn=DE-LU&n=5"]
    assert provider.headers["auth-token"] == "T"


@pytest.mark.parametrize("status", [204, 400, 401, 404, 422])
def test_an_answer_that_an_adapter_understands_is_not_asked_for_twice(provider: Provider, session: Session, status: int) -> None:
    provider.answers = [(status, {}, b"")]
    assert session.get(provider.url).status == status
    assert len(provider.asked) == 1


def test_trouble_is_retried_with_growing_back_off(provider: Provider, session: Session, time: Time) -> None:
    provider.answers = [(503, {}, b""), (502, {}, b""), (200, {}, b"[]")]
    assert session.get(provider.url).body == b"[]"
    assert time.slept == [2.0, 4.0]


def test_trouble_that_lasts_is_handed_to_the_adapter(provider: Provider, session: Session) -> None:
    provider.answers = [(503, {}, b"maintenance")]
    assert session.get(provider.url).body == b"maintenance"
    assert len(provider.asked) == 3


@pytest.mark.parametrize(("written", "waited"), [("7", 7.0), ("Mon, 01 Jun 2026 12:00:09 GMT", 9.0), ("soon", 2.0)])
def test_a_provider_says_how_long_to_wait(provider: Provider, session: Session, time: Time, written: str, waited: float) -> None:
    provider.answers = [(429, {"Retry-After": written}, b""), (200, {}, b"[]")]
    assert session.get(provider.url).status == 200
    assert time.slept == [waited]


def test_a_wait_that_is_too_long_is_left_to_the_timetable(provider: Provider, session: Session, time: Time) -> None:
    provider.answers = [(429, {"Retry-After": "600"}, b"")]
    with pytest.raises(AdapterError, match="fewer requests") as caught:
        session.get(provider.url)
    assert (caught.value.kind, caught.value.retry_after_s) == ("rate_limited", 600.0)
    assert (len(provider.asked), time.slept) == (1, [])


def test_a_host_that_asks_to_be_left_alone_is_asked_by_nobody_until_then(provider: Provider, session: Session, time: Time) -> None:
    provider.answers = [(429, {"Retry-After": "3600"}, b""), (200, {}, b"[]")]
    with pytest.raises(AdapterError, match=r"fewer requests \(HTTP 429\); it is asked again in 3600 s"):
        session.get(provider.url)
    time.at += 1800
    for _ in range(10):
        with pytest.raises(AdapterError, match="fewer requests") as caught:
            session.get(provider.url + "/another")
        assert (caught.value.kind, caught.value.retry_after_s) == ("rate_limited", 1800.0)
    assert (len(provider.asked), time.slept) == (1, [])
    assert session.get(provider.url.replace("127.0.0.1", "localhost")).status == 200
    time.at += 1790
    assert session.get(provider.url).status == 200
    assert (len(provider.asked), time.slept) == (3, [10.0])


def test_trouble_that_will_last_is_waited_out_too_but_no_longer_than_a_day(provider: Provider, session: Session, time: Time) -> None:
    provider.answers = [(503, {"Retry-After": 30 * "9"}, b"maintenance"), (200, {}, b"[]")]
    assert session.get(provider.url).body == b"maintenance"
    time.at += 86_000
    with pytest.raises(AdapterError, match=r"in trouble \(HTTP 503\); it is asked again in 400 s") as caught:
        session.get(provider.url)
    assert caught.value.kind == "unavailable"
    time.at += 400
    assert session.get(provider.url).body == b"[]"
    assert time.slept == []


def test_who_waits_for_a_turn_asks_no_more_once_another_was_told_to_wait(provider: Provider, time: Time) -> None:
    def sleep_while_another_asks(seconds: float) -> None:
        first = not time.slept
        time.sleep(seconds)
        if first:
            with pytest.raises(AdapterError, match="asked again in 3600 s"):
                made.get(provider.url + "/other")

    made = Session(monotonic=time.monotonic, sleep=sleep_while_another_asks, now=time.now, limits=Limits(burst=1, timeout_s=5))
    provider.answers = [(200, {}, b"[]"), (429, {"Retry-After": "3600"}, b"")]
    made.get(provider.url)
    with pytest.raises(AdapterError, match="asked again in 3600 s"):
        made.get(provider.url + "/late")
    assert provider.asked == ["/", "/other"]
    made.close()


@pytest.mark.parametrize("written", ["\u00b2", "Fri, 31 Dec 9999 23:59:59 -1200", "-5"])
def test_a_wait_that_cannot_be_read_is_none(provider: Provider, session: Session, time: Time, written: str) -> None:
    provider.answers = [(429, {"Retry-After": written}, b""), (200, {}, b"[]")]
    assert session.get(provider.url).status == 200
    assert time.slept == [2.0]


def test_a_host_is_asked_no_faster_than_its_bucket_fills(provider: Provider, session: Session, time: Time) -> None:
    for _ in range(4):
        session.get(provider.url)
    assert time.slept == []
    session.get(provider.url)
    session.get(provider.url)
    assert time.slept == [30.0, 30.0]


def test_a_host_that_may_be_asked_more_often_has_its_own_pace_and_the_others_keep_theirs(provider: Provider, time: Time) -> None:
    limits = Limits(burst=1, hosts={"127.0.0.1": 60.0}, timeout_s=5)
    session = Session(monotonic=time.monotonic, sleep=time.sleep, now=time.now, limits=limits)
    for host in ("127.0.0.1", "127.0.0.1", "localhost", "localhost"):
        session.get(provider.url.replace("127.0.0.1", host))
    assert time.slept == [1.0, pytest.approx(30.0)]
    session.close()


def test_a_host_is_named_with_its_port_or_without() -> None:
    limits = Limits(per_minute=2, hosts={"meter.local": 60, "box.local:81": 30})
    asked = ("meter.local", "meter.local:80", "box.local:81", "box.local:80", "box.local", "[::1]:80")
    assert [limits.rate(host) for host in asked] == [60, 60, 30, 2, 2, 2]


def test_one_host_has_one_bucket_however_it_is_written(provider: Provider, session: Session, time: Time) -> None:
    for url in (provider.url, provider.url.replace("//", "//user:pass@"), provider.url.upper().replace("HTTP", "http")) * 2:
        session.get(url)
    assert time.slept == [30.0, 30.0]


def test_when_too_many_wait_already_the_next_is_refused() -> None:
    time = Time()
    bucket = TokenBucket(per_minute=2, burst=1, monotonic=time.monotonic)
    assert [bucket.reserve(60) for _ in range(4)] == [0.0, 30.0, 60.0, 90.0]
    time.at += 30.0
    assert bucket.reserve(60) == 60.0


def test_a_body_over_the_limit_is_cut_off(provider: Provider, time: Time) -> None:
    small = Session(monotonic=time.monotonic, sleep=time.sleep, now=time.now, limits=Limits(body_bytes=1000, timeout_s=5))
    provider.answers = [(200, {}, b"x" * 200_000)]
    with pytest.raises(AdapterError, match="more than 1000 bytes") as caught:
        small.get(provider.url)
    assert caught.value.kind == "too_large"
    small.close()


def test_a_body_cut_by_the_network_is_asked_for_again(provider: Provider, session: Session) -> None:
    provider.answers = [(200, {"Content-Length": "50", "Connection": "close"}, b"[1, 2"), (200, {}, b"[1]")]
    assert session.get(provider.url).body == b"[1]"


def test_a_host_that_is_not_there_is_named_without_the_key(session: Session, time: Time) -> None:
    with pytest.raises(AdapterError) as caught:
        session.get("http://127.0.0.1:1/THE-KEY/estimate", params={"securityToken": "abc123", "x": "s3cret", "appid": "app456"})
    assert caught.value.kind == "unavailable"
    assert "127.0.0.1:1 cannot be reached" in str(caught.value)
    assert "Connection refused" in str(caught.value)
    for secret in ("THE-KEY", "abc123", "s3cret", "app456"):
        assert secret not in str(caught.value)
    assert caught.value.__cause__ is None
    assert time.slept == [2.0, 4.0]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET /api?securityToken=abc&start=1", "GET /api?securityToken=***&start=1"),
        ("api_key=abc", "api_key=***"),
        ("https://user:pass@host/x", "https://***@host/x"),
        ("my s3cret is out", "my *** is out"),
        ("monkey=see", "monkey=***"),
        ("/x?country=de", "/x?country=de"),
        ("pool: Max retries exceeded with url: /KEY/x?appid=KEY (Caused by a cut)", "pool: Max retries exceeded (Caused by a cut)"),
        ("/x?appid=a%2Fs3cret%3D", "/x?appid=***"),
        ("a/s3cret= is out", "*** is out"),
    ],
)
def test_keys_are_masked(text: str, shown: str) -> None:
    assert masked(text, ("s3cret", "", "a/s3cret=")) == shown


def test_a_closed_session_asks_nobody_again(provider: Provider, time: Time) -> None:
    stopping = threading.Event()
    session = Session(monotonic=time.monotonic, sleep=stopping.wait, now=time.now, limits=Limits(timeout_s=5, first_backoff_s=60.0))
    provider.answers = [(503, {}, b"")]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(session.get, provider.url)
        while not provider.asked:
            assert not waiting.done()
        session.close()
        stopping.set()
        with pytest.raises(Busy, match="stopping"):
            waiting.result(timeout=10)
    assert len(provider.asked) == 1


def test_a_body_is_posted_again_after_trouble(provider: Provider, session: Session) -> None:
    provider.answers = [(503, {}, b""), (200, {}, b"ok")]
    answer = session.post(provider.url + "/token", body=b"grant_type=client_credentials", headers={"X-Who": "us"})
    assert answer.body == b"ok"
    assert provider.bodies == 2 * [b"grant_type=client_credentials"]
    assert provider.asked == ["/token", "/token"]
    assert provider.headers["x-who"] == "us"
