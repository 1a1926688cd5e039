"""What belongs to a node's consumer: its statement, all that the daemon stores of it, and its end."""

import csv
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from gridsched.cli.base import err, out, told
from gridsched.cli.node import HomeOption, home_of
from gridsched.core.errors import InvalidInput
from gridsched.core.units import MICRO, kwh
from gridsched.node import own
from gridsched.wire import Statement, StatementLine

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to ``gridsched node``."""
    app.command()(statement)
    app.command()(export)
    app.command()(leave)


def statement(
    home: HomeOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="For a spreadsheet.")] = False,
) -> None:
    """What this node has earned, line by line, as the daemon's ledger has it."""
    with told():
        found = own.statement(home_of(home))
        if as_json:
            print(json.dumps({"node_id": found.node_id, "balance_micro": found.balance_micro, "lines": [*map(_fields, found.lines)]}))
        elif as_csv:
            table = csv.DictWriter(sys.stdout, [*StatementLine.__struct_fields__], lineterminator="\n")
            table.writeheader()
            table.writerows(map(_fields, found.lines))
        else:
            _print(found)


def _print(found: Statement) -> None:
    for line in found.lines:
        energy = f"{kwh(line.energy_j):10.4f} kWh" if line.energy_j is not None else f"{'':14}"
        what = f"{line.kind:8} {energy} {line.amount_micro / MICRO:12.6f} EUR  {line.lease_id or ''}"
        out.print(f"{line.at[:19].replace('T', ' ')} UTC  {what}", markup=False, soft_wrap=True)
    earned = f"{found.balance_micro / MICRO:.6f} EUR earned for {kwh(found.energy_j):.4f} kWh"
    out.print(f"{earned}; up to {found.pending_micro / MICRO:.6f} EUR more reserved for work under way", markup=False)


def _fields(line: StatementLine) -> dict[str, object]:
    return {name: getattr(line, name) for name in line.__struct_fields__}


def export(
    file: Annotated[Path, typer.Argument(help="A new file, in JSON.")],
    home: HomeOption = None,
) -> None:
    """Write down all that the daemon stores about this node: itself, its choice, its leases, its meter, and every fact that names it."""
    with told():
        if file.exists():
            raise InvalidInput(f"{file} exists; name a new file")
        data = own.record(home_of(home))
        try:
            file.write_bytes(data)
        except OSError as error:
            raise InvalidInput(f"{file} cannot be written ({error.strerror}); name another file") from error
        out.print(f"all that the daemon stores about this node is in {file}", markup=False, soft_wrap=True)


def leave(
    erase: Annotated[bool, typer.Option("--erase", help="Also what the daemon stores about it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: HomeOption = None,
) -> None:
    """Take this machine away from its daemon for good: its token is worth nothing from then on, what it earned stays its own."""
    with told():
        folder = home_of(home)
        identity = folder.identity()
        if not yes:
            question = f"Node {identity.node_id} leaves {identity.url} and cannot come back under that name. Go on?"
            typer.confirm(question, abort=True, err=True)
        own.leave(folder, erase=erase)
        out.print(f"node {identity.node_id} has left {identity.url}", markup=False, soft_wrap=True)
        if erase:
            out.print("the daemon keeps its name, its leases with their energy and reward, and what its journal says of them; nothing else")
        if folder.local.all():
            err.print(f"your own data stay in {folder.local.folder}; delete them if you want", markup=False, soft_wrap=True)
