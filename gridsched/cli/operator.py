"""The operator's commands: make a site, check it, serve it, and ask why."""

import logging
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from gridsched import config
from gridsched.cli.base import SiteOption, TokenOption, UrlOption, daemon_at, err, out, told
from gridsched.core.errors import InvalidInput, NotFound
from gridsched.core.units import MICRO, kwh
from gridsched.remote import Operator

__all__ = ["database", "only_zone", "register", "tell_decision", "when"]

database = typer.Typer(no_args_is_help=True, help="The database's schema.")
explain = typer.Typer(no_args_is_help=True, help="Why: the chain from a lease or decision back to the readings.")


def register(app: typer.Typer) -> None:
    """Hang the operator's commands on the root."""
    for command in (init, check, serve, nodes, pardon, revoke, status, ledger):
        app.command()(command)
    app.command("pause")(pause)
    app.command("resume")(resume)
    app.add_typer(explain, name="explain")


def init(folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")]) -> None:
    """Make a site: a folder with gridsched.toml, adapters/ and policies/."""
    from gridsched import sites

    with told():
        settings = sites.make_site(folder)
    out.print(f"made a site in [bold]{escape(str(folder))}[/bold]: gridsched.toml, adapters/, policies/, examples/ and operator.token")
    out.print(f"  zone {settings.zones[0].name} is ruled by {settings.zones[0].policy.name}; change either to suit your grid")
    out.print(f"next: gridsched check --site {folder}\n      gridsched serve --site {folder}", markup=False)


def check(site: SiteOption = None) -> None:
    """Tell everything that is wrong with a site, and start nothing."""
    from gridsched import sites

    with told():
        findings = sites.check(_folder(site))
    for finding in findings:
        mark = "[red]no[/red]" if finding.problem else "[green]ok[/green]"
        out.print(f" {mark}  [bold]{escape(finding.what)}[/bold]  {escape(finding.problem or finding.found)}")
    wrong = sum(bool(finding.problem) for finding in findings)
    if wrong:
        err.print(f"{wrong} of {len(findings)} need attention", style="red")
        raise typer.Exit(1)
    out.print("all good: gridsched serve" + (f" --site {site}" if site else ""), markup=False)


def serve(
    site: SiteOption = None,
    host: Annotated[str | None, typer.Option(help="Listen there instead of what gridsched.toml says.")] = None,
    port: Annotated[int | None, typer.Option(help="Likewise; 0 is any free port.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide and explain, but grant nothing: no node works.")] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Run the daemon until Ctrl-C."""
    logging.basicConfig(stream=sys.stderr, level=log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    for noisy, level in (("alembic", logging.WARNING), ("urllib3", logging.WARNING), ("apscheduler", logging.ERROR)):
        logging.getLogger(noisy).setLevel(level)  # APScheduler warns each time that a task is due while it is still under way
    with told():
        from gridsched import sites
        from gridsched.daemon import Daemon

        settings = config.load(_folder(site))
        sites.write_token(settings)
        daemon = Daemon(settings, dry_run=dry_run)
        daemon.run(host=host, port=port, ready=lambda url: _say_ready(url, settings.token_file, dry_run=dry_run))
    _leave()


def _leave() -> None:
    """End the process at once: all is closed, and Python itself would wait for every fetch that a provider still keeps waiting."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def _say_ready(url: str, token_file: Path, *, dry_run: bool) -> None:
    out.print(f"gridsched is ready: {url}  (operator token in {token_file})", soft_wrap=True, markup=False)
    if dry_run:
        out.print("this is a dry run: it decides and explains, and grants nothing")
    sys.stdout.flush()


@database.command()
def upgrade(site: SiteOption = None) -> None:
    """Bring the schema to this release; serving does it too."""
    with told():
        from gridsched.store.sql import SqlStore

        settings = config.load(_folder(site))
        settings.site.data.mkdir(parents=True, exist_ok=True)
        store = SqlStore(settings.store.url)
        store.upgrade()
        store.close()
    out.print("the schema is up to date")


def only_zone(daemon: Operator) -> str:
    """The zone that goes without saying; raises where there are several."""
    zones = [zone["zone"] for zone in daemon.get("/v1/status")["zones"]]
    if len(zones) != 1:
        raise InvalidInput(f"name a zone with --zone; there are {', '.join(zones)}")
    return str(zones[0])


def nodes(site: SiteOption = None, url: UrlOption = None, token: TokenOption = None) -> None:
    """All nodes: what each does, and why."""
    with daemon_at(site, url, token) as daemon:
        rows = daemon.get("/v1/nodes")
    table = Table("node", "zone", "why", "unit", "step", "W", "steps/s", "reliability", "earned", box=None)
    for row in rows:
        step = f"{row['step']}/{row['steps']}" if row.get("unit_id") else ""
        table.add_row(
            row["node_id"],
            row["zone"],
            row["reason"],
            row.get("unit_id") or "",
            step,
            f"{row['drawn_w']:.0f}",
            f"{row['speed']:.3g}",
            f"{row['reliability']:.0%}",
            f"{row['earned_micro'] / MICRO:.6f}",
        )
    out.print(table if rows else "no node has joined yet; make a code with: gridsched invite")
    for row in rows:
        if row.get("quarantined_at"):
            why = f"quarantined since {when(row['quarantined_at'])}: {row['quarantine_reason']}"
            out.print(f"{row['node_id']} is {why}; let it work again with: gridsched pardon {row['node_id']}", soft_wrap=True, markup=False)


def pardon(node: str, site: SiteOption = None, url: UrlOption = None, token: TokenOption = None) -> None:
    """Let a quarantined node work again; it is audited like a newcomer."""
    with daemon_at(site, url, token) as daemon:
        before = _row_of(daemon, node)
        daemon.post(f"/v1/nodes/{node}/pardon")
    if not before["quarantined_at"]:
        out.print(f"node {node} is not quarantined; nothing has changed")
        return
    out.print(f"node {node} may work again; every unit of it is audited until enough in a row were right")


def _row_of(daemon: Operator, node: str) -> dict[str, Any]:
    for row in daemon.get("/v1/nodes"):
        if row["node_id"] == node:
            return dict(row)
    raise NotFound(f"there is no node {node}; see gridsched nodes")


def revoke(
    node: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    site: SiteOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Shut a node out for good: its token is worth nothing from now on; what it has earned stays its own."""
    with daemon_at(site, url, token) as daemon:
        _row_of(daemon, node)
        if not yes and not typer.confirm(f"shut {node} out? it would have to join again, under another name"):
            raise typer.Exit(1)
        daemon.post(f"/v1/nodes/{node}/revoke")
    out.print(f"node {node} is shut out; let it join again, under another name, with: gridsched invite")


def status(site: SiteOption = None, url: UrlOption = None, token: TokenOption = None) -> None:
    """Each zone: what may be drawn, what is drawn, and why."""
    with daemon_at(site, url, token) as daemon:
        seen = daemon.get("/v1/status")
    if seen.get("dry_run"):
        out.print("[bold]dry run[/bold]: targets are decided and explained, and nothing is granted")
    for zone in seen["zones"]:
        out.print(f"[bold]{zone['zone']}[/bold]  target {zone['target_w']:.0f} W, drawn {zone['drawn_w']:.0f} W: {zone['reason']}")
        if zone.get("detail"):
            out.print(f"  {zone['detail']}", markup=False)
    for job in seen["jobs"]:
        accuracy = "" if job.get("accuracy") is None else f", accuracy {job['accuracy']:.1%}"
        out.print(f"job {job['job_id']}  {job['state']}, epoch {job['epoch']}, version {job['version']}{accuracy}")


def pause(zone: str, site: SiteOption = None, url: UrlOption = None, token: TokenOption = None) -> None:
    """Pause everything in a zone until you resume it."""
    with daemon_at(site, url, token) as daemon:
        daemon.post(f"/v1/zones/{zone}/pause")
    out.print(f"zone {zone} is paused; go on with: gridsched resume {zone}")


def resume(zone: str, site: SiteOption = None, url: UrlOption = None, token: TokenOption = None) -> None:
    """Let a paused zone go on."""
    with daemon_at(site, url, token) as daemon:
        daemon.post(f"/v1/zones/{zone}/resume")
    out.print(f"zone {zone} goes on with the next control tick")


def ledger(
    csv: Annotated[bool, typer.Option("--csv", help="All transfers as CSV.")] = False,
    site: SiteOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Who has earned what; whether debits equal credits and the chain is whole."""
    with daemon_at(site, url, token) as daemon:
        if csv:
            out.print(daemon.text("/v1/ledger/transfers", format="csv"), end="", soft_wrap=True, markup=False)
            return
        books = daemon.get("/v1/ledger")
    table = Table("account", "earned", "paid", "reserved", "balance", box=None)
    for row in books["accounts"]:
        pending = row["credits_pending"] - row["debits_pending"]
        figures = (row["credits_posted"], row["debits_posted"], pending, row["credits_posted"] - row["debits_posted"])
        table.add_row(row["account_id"], *(f"{figure / MICRO:.6f}" for figure in figures))
    out.print(table)
    balance = "equal" if books["balanced"] else "[red]DO NOT equal[/red]"
    chain = "is whole" if books["chain_ok"] else "[red]IS BROKEN[/red]"
    out.print(f"debits {balance} credits; the chain of transfers {chain}")


@explain.command("lease")
def explain_lease(lease_id: str, site: SiteOption = None, url: UrlOption = None, token: TokenOption = None) -> None:
    """The story of a lease: what it did, what it earned, and the decision behind it."""
    with daemon_at(site, url, token) as daemon:
        story = daemon.get(f"/v1/explain/lease/{lease_id}")
    lease = story["lease"]
    name, node, watts = lease["lease_id"], lease["node_id"], lease["power_w"]
    working, idle = kwh(lease["energy_j"]) * 1000, kwh(lease["idle_j"]) * 1000
    out.print(f"[bold]{name}[/bold] let [bold]{node}[/bold] draw up to {watts:.0f} W for unit {lease['unit_id']}")
    out.print(f"  offered {when(lease['offered_at'])}; now {lease['state']} because {_words(lease['reason'])}, at step {lease['step']}")
    out.print(f"  {working:.2f} Wh while working, {idle:.2f} Wh idle, cost {lease['cost_micro'] / MICRO:.6f} EUR")
    for fact in story.get("facts", []):
        why = f": {_words(fact['reason'])}" if fact.get("reason") else ""
        out.print(f"  {when(fact['at'])}  {_words(fact['kind'])}{why}", markup=False)
    for move in story.get("transfers", []):
        euros = move["amount_micro"] / MICRO
        out.print(f"  {when(move['at'])}  {move['kind']} {euros:.6f} EUR  {move['debit']} -> {move['credit']}", markup=False)
    if story.get("decision"):
        tell_decision(story["decision"])


@explain.command("decision")
def explain_decision(decision_id: str, site: SiteOption = None, url: UrlOption = None, token: TokenOption = None) -> None:
    """The story of a decision: the policy, what it saw, and where each value came from."""
    with daemon_at(site, url, token) as daemon:
        tell_decision(daemon.get(f"/v1/explain/decision/{decision_id}")["decision"])


def tell_decision(decision: dict[str, Any]) -> None:
    """Print a decision, its policy and what it saw."""
    name, watts = decision["decision_id"], decision["target_w"]
    out.print(f"decision [bold]{name}[/bold]: {watts:.0f} W ({decision['tier']}) because {_words(decision['reason'])}")
    out.print(f"  {decision['detail']}", markup=False)
    out.print(f"  policy {decision['policy']} ({decision['policy_digest'][:12]}), at {when(decision['decided_at'])}", markup=False)
    for seen in decision["inputs"]:
        reading = seen.get("reading") or {}
        slot = f", slot {when(reading['start'])} to {when(reading['end'])}, known {when(reading['known_at'])}" if reading else ""
        out.print(f"  saw {seen['signal']} = {seen['value']:g} from {seen['source']}, {seen['age_s']:.0f} s old{slot}", markup=False)


def _folder(site: Path | None) -> Path:
    return site or config.client().site or Path()


def when(text: str) -> str:
    """A moment in ISO 8601, as people read it."""
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S} UTC"


def _words(name: str) -> str:
    return name.replace("_", " ")
