"""``gridsched audit``: an accepted unit computed once more, by anybody who may read it."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from gridsched import config
from gridsched.cli.base import SiteOption, TokenOption, UrlOption, err, out, told
from gridsched.core.errors import GridschedError
from gridsched.remote import connect

__all__ = ["audit"]


def audit(
    unit: Annotated[str, typer.Argument(metavar="UNIT", help="An accepted unit, such as JOB.r3.u2.")],
    runtime: Annotated[str, typer.Option(help="torch or wasm; default: what the unit was done with.")] = "",
    site: SiteOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Compute an accepted unit again from its version, program and samples, and compare the result bit for bit.

    Over a site's folder no daemon need run; with --url, or $GRIDSCHED_URL where --site is not given, it is a daemon's unit.
    Ends with 0 where the result is the same, 1 where it differs, 2 where nobody can say from here or nothing could be compared.
    """
    from gridsched import auditor

    with told(), _undecided(), Progress(console=out, transient=True) as progress:
        bar = progress.add_task(f"computing {unit}", total=None)

        def on_step(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)

        if url or (site is None and config.client().url):
            with closing(connect(url=url, token=token, site=site)) as daemon:
                found = auditor.audit_at(daemon, unit, runtime=runtime, on_step=on_step)
        else:
            found = auditor.audit_site(site or config.client().site or Path(), unit, runtime=runtime, on_step=on_step)
    if found.outcome is auditor.Outcome.SAME:
        out.print(f"{found.unit_id} is right: {found.detail} ({found.runtime})", soft_wrap=True)
        return
    wrong = found.outcome is auditor.Outcome.DIFFERS
    err.print(
        f"{found.unit_id} {'DIFFERS' if wrong else 'cannot be judged here'}: {found.detail}", style="red", markup=False, soft_wrap=True
    )
    raise typer.Exit(1 if wrong else 2)


@contextmanager
def _undecided() -> Iterator[None]:
    """An error on the way is no word on the unit: it has the exit code of one that cannot be judged, not of one that differs."""
    try:
        yield
    except GridschedError as error:
        err.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from error
