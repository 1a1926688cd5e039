"""The status page: its files, and the policy they come under."""

from tests.web.conftest import House


def test_the_page_and_its_parts_come_under_a_strict_policy(house: House) -> None:
    for path in ("/", "/static/status.css", "/static/status.js"):
        answer = house.call("GET", path)
        assert answer.status_code == 200, path
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    page = house.call("GET", "/").text
    assert "http://" not in page
    assert "https://" not in page
    assert "onclick" not in page
    assert "<script>" not in page
    assert house.call("GET", "/static/../config.py").status_code == 404
