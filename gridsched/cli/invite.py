"""``gridsched invite``: a one-time code, as words to type, an address to open, and a picture to scan or print."""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.markup import escape

from gridsched.cli.base import SiteOption, TokenOption, UrlOption, daemon_at, err, out
from gridsched.cli.operator import only_zone, when
from gridsched.cli.output import may_write, writing
from gridsched.core.quantity import duration

__all__ = ["invite"]

_HERE_ONLY = ("127.0.0.1", "localhost", "::1")


def invite(
    zone: Annotated[str, typer.Option(help="Default: the daemon's only zone.")] = "",
    valid_for: Annotated[str, typer.Option("--for", help="How long the code may be used, such as 24h.")] = "24h",
    at: Annotated[str, typer.Option(help="The address by which phones and tablets reach the daemon; default: as this command does.")] = "",
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the QR code there too, to be printed.")] = None,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Likewise, as pixels.")] = None,
    site: SiteOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Make a one-time code that lets one node join: a machine by command, a phone by scanning a QR code."""
    from gridsched.web import invitation

    with daemon_at(site, url, token) as daemon:
        base = at or invitation.in_reach(daemon.url)
        invitation.join_url(base, "")  # what cannot be opened or written is told before a code is made for it
        may_write(svg)
        may_write(png)
        seconds = duration(valid_for).total_seconds()
        made = daemon.post("/v1/invites", {"zone": zone or only_zone(daemon), "for_s": seconds})
        address = invitation.join_url(base, made["code"])
        out.print(f"code [bold]{made['code']}[/bold], good for one node until {when(made['expires_at'])}")
        if out.is_terminal:
            out.print(invitation.terminal(address), markup=False, highlight=False)
        out.print(f"a phone, a tablet or any browser opens: {address}", soft_wrap=True, markup=False)
        command = f"gridsched node join {base.rstrip('/')} --code {made['code']}"
        out.print(f"a machine with gridsched runs:          {command}", soft_wrap=True, markup=False)
        _write(svg, invitation.svg(address).encode())
        _write(png, invitation.png(address))
    if urlsplit(base).hostname in _HERE_ONLY:
        err.print(
            "only this machine can open that address; start the daemon with --host 0.0.0.0, or name its address with --at", style="yellow"
        )


def _write(path: Path | None, data: bytes) -> None:
    if path is None:
        return
    with writing(path):
        path.write_bytes(data)
    out.print(f"the QR code is in [bold]{escape(str(path))}[/bold]")
