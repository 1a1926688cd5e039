"""``gridsched job replay``: a job's versions made again from its journal, on the site's own machine."""

from collections import Counter
from pathlib import Path

import typer
from rich.markup import escape

from gridsched import config
from gridsched.cli.base import SiteOption, err, out, told

__all__ = ["replay"]


def replay(job_id: str, site: SiteOption = None) -> None:
    """Make every version again from the journal and the stored updates, and compare digests; the daemon need not run.

    Says the first version that differs, and which ones cannot be made again because their updates are no longer stored.
    """
    from gridsched.replay import Outcome, replay_site

    counted: Counter[Outcome] = Counter()
    with told(), out.status(f"making the versions of {escape(job_id)} again") as status:
        for made in replay_site(site or config.client().site or Path(), job_id):
            counted[made.outcome] += 1
            status.update(f"version {made.number}")
            if made.outcome is not Outcome.SAME:
                err.print(f"version {made.number} {_TOLD[made.outcome]}: {made.detail}", style="red", markup=False)
    out.print(f"job {job_id}: {counted[Outcome.SAME]} of {counted.total()} versions made again with the digests of the journal")
    if counted.total() > counted[Outcome.SAME]:
        raise typer.Exit(1)


_TOLD = {"differs": "differs from the journal", "lost": "cannot be made again"}
