"""An invitation as people get it: an address to open, and the same address as a QR code (ISO/IEC 18004) for screen and print.

The one-time code stands behind the address's ``#``: browsers keep that part to themselves, so it is in no log on the way.
"""

import io
import socket
from urllib.parse import urlsplit, urlunsplit

import segno

from gridsched.core.errors import InvalidInput

__all__ = ["in_reach", "join_url", "png", "svg", "terminal"]

_LONGEST = 500
_ANYWHERE = ("0.0.0.0", "::")  # noqa: S104 (where a daemon says it listens, not where we do)
_NOWHERE = "192.0.2.1"  # RFC 5737: nobody has this address, and asking the way to it sends nothing
_BORDER, _SCALE = 4, 10  # four modules of quiet around it, as the standard asks for


def join_url(base: str, code: str) -> str:
    """The address that enrols a device by opening it. Raises `InvalidInput` for a ``base`` that is none."""
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidInput(f"{base!r} is not the address of a daemon; write it like http://192.168.1.10:8080")
    return urlunsplit((parts.scheme, parts.netloc, "/join", "", f"code={code}"))


def in_reach(base: str) -> str:
    """``base`` as other machines reach it: a daemon that listens everywhere is found under this machine's own address."""
    parts = urlsplit(base)
    if parts.hostname not in _ANYWHERE:
        return base
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_NOWHERE, 9))
            own = probe.getsockname()[0]
        except OSError:  # no network at all
            own = "127.0.0.1"
    return urlunsplit(parts._replace(netloc=f"{own}:{parts.port}" if parts.port else own))


def terminal(text: str) -> str:
    """The QR code in half blocks, two modules a line of text."""
    lines = io.StringIO()
    _code(text).terminal(lines, compact=True)
    return lines.getvalue()


def svg(text: str) -> str:
    """The QR code as a picture that prints sharp at any size; it needs no style sheet and no script."""
    found = io.BytesIO()
    _code(text).save(found, kind="svg", scale=_SCALE, border=_BORDER, light="#fff", xmldecl=False, nl=False, svgclass=None, lineclass=None)
    return found.getvalue().decode()


def png(text: str) -> bytes:
    """The QR code as pixels, ten a module."""
    found = io.BytesIO()
    _code(text).save(found, kind="png", scale=_SCALE, border=_BORDER)
    return found.getvalue()


def _code(text: str) -> segno.QRCode:
    if not 0 < len(text) <= _LONGEST:
        raise InvalidInput(f"a QR code here holds 1 to {_LONGEST} characters, not {len(text)}")
    return segno.make_qr(text, error="m")
