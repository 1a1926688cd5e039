"""``gridsched token`` and ``gridsched withdraw``: who may look, order and rule, and invitations taken back."""

from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table

from gridsched.cli.base import SiteOption, TokenOption, UrlOption, daemon_at, out
from gridsched.cli.operator import only_zone, when

__all__ = ["app", "withdraw"]

app = typer.Typer(no_args_is_help=True, help="Tokens of people and programs on the operator's side.")


class Grade(StrEnum):
    """What a person may do: look, also order, also make tokens and change policies."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


@app.command()
def make(
    name: Annotated[str, typer.Argument(help="Whose it is, as the audit log will say: lower-case letters, digits, - and _.")],
    role: Annotated[Grade, typer.Option(help="viewer looks, operator also orders, admin also makes tokens and changes policies.")],
    site: SiteOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Make a token. It is shown once."""
    with daemon_at(site, url, token) as daemon:
        made = daemon.post("/v1/tokens", {"name": name, "role": role.value})
    out.print(f"token [bold]{made['name']}[/bold], role {made['role']}; it is shown now and never again:", soft_wrap=True)
    out.print(made["token"], markup=False, soft_wrap=True)


@app.command("list")
def list_tokens(site: SiteOption = None, url: UrlOption = None, token: TokenOption = None) -> None:
    """All tokens, without their secrets."""
    with daemon_at(site, url, token) as daemon:
        rows = daemon.get("/v1/tokens")
    table = Table("token", "role", "made", "revoked", box=None)
    for row in rows:
        table.add_row(row["name"], row["role"], when(row["made_at"]), when(row["revoked_at"]) if row["revoked_at"] else "")
    out.print(table)


@app.command()
def revoke(name: str, site: SiteOption = None, url: UrlOption = None, token: TokenOption = None) -> None:
    """Make a token worthless at once; a console that is open with it closes."""
    with daemon_at(site, url, token) as daemon:
        daemon.post(f"/v1/tokens/{name}/revoke")
    out.print(f"token {name} is worth nothing from now on")


def withdraw(
    code: Annotated[str, typer.Argument(help="One code; without it, all open invitations of a zone.")] = "",
    zone: Annotated[str, typer.Option(help="Default: the daemon's only zone.")] = "",
    site: SiteOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Take back invitations that nobody has used; nodes that have joined stay (see gridsched revoke)."""
    with daemon_at(site, url, token) as daemon:
        which = {"code": code} if code else {"zone": zone or only_zone(daemon)}
        ended = daemon.post("/v1/invites/withdraw", which)["withdrawn"]
    out.print(f"{ended} open invitation{'' if ended == 1 else 's'} withdrawn")
