"""A node's end at the word of the person it belongs to."""

from dataclasses import replace
from datetime import datetime

from gridsched.core.consent import opted_out
from gridsched.core.facts import Fact
from gridsched.core.fleet import Node, Presence
from gridsched.core.meter import MeterReading
from gridsched.flow import admit
from gridsched.ports import Tx

__all__ = ["leave"]


def leave(tx: Tx, now: datetime, node_id: str, *, erase: bool) -> list[Fact]:
    """Take a node away for good; with ``erase``, with all that nobody else's books rest on: what it is, when it was there, its meter.

    Its leases stay with their energy and reward, and with them its name: the energy of epochs and the ledger, which is a chain, are made
    of them. So does the journal of what has happened, which is never changed.
    """
    facts = admit.revoke_node(tx, now, node_id)
    if erase:
        node = tx.must(Node, node_id)
        bare = replace(node, device="", memory_bytes=0, runtime="", meter="", data={})
        tx.put(bare)
        tx.put(Presence(node_id=node_id))
        tx.put(opted_out(node_id, now))
        tx.delete(MeterReading, node_id=node_id)
    return facts
