"""What all commands share: the root, the options that name a daemon, and how an error is told."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gridsched import __version__
from gridsched.core.errors import GridschedError
from gridsched.remote import Operator, connect

__all__ = ["SiteOption", "TokenOption", "UrlOption", "app", "daemon_at", "err", "out", "told"]

app = typer.Typer(
    no_args_is_help=True,
    help="Surplus electricity into trained models. Start with: gridsched demo",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False)

SiteOption = Annotated[
    Path | None, typer.Option("--site", help="The site's folder; default $GRIDSCHED_SITE, or this folder if it is a site.")
]
UrlOption = Annotated[
    str | None, typer.Option("--url", help="The daemon's address; default that of --site, else $GRIDSCHED_URL, else the default site's.")
]
TokenOption = Annotated[
    str | None,
    typer.Option("--token", help="Default $GRIDSCHED_TOKEN where --site is not given, else at the site's own address its operator.token."),
]


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"gridsched {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the release and leave.")] = False,
) -> None:
    """Surplus electricity into trained models."""


@contextmanager
def told() -> Iterator[None]:
    """Our own errors become one red paragraph and exit code 1; anything else is a bug and keeps its traceback."""
    try:
        yield
    except GridschedError as error:
        err.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@contextmanager
def daemon_at(site: Path | None, url: str | None, token: str | None) -> Iterator[Operator]:
    """The daemon that the options name, with errors told."""
    with told():
        operator = connect(url=url, token=token, site=site)
        try:
            yield operator
        finally:
            operator.close()
