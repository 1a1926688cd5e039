"""``kill -9`` at any moment: every answered write is in the database when it is opened again, with its fact, and none twice."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from gridsched.core.facts import NodePresent
from gridsched.core.fleet import Presence
from gridsched.store.sql import SqlStore

ROUNDS = 3

CHILD = """
import sys
from gridsched.clock import SystemClock
from gridsched.core.facts import NodePresent
from gridsched.core.fleet import Presence
from gridsched.ports import Reply
from gridsched.store.sql import SqlStore
from gridsched.store.writer import GroupWriter

url, first = sys.argv[1], int(sys.argv[2])

def arrive(tx, now, items):
    tx.put(*(Presence(node_id=item, seen_at=now) for item in items))
    return Reply(items, [NodePresent(at=now, node_id=item, zone="z") for item in items])

def say(future):
    sys.stdout.write(future.result() + "\\n")  # in the writer's thread, at the moment of the answer
    sys.stdout.flush()

writer = GroupWriter(SqlStore(url), SystemClock(), max_queue=64, on_commit=lambda facts: None)
waiting = []
for number in range(first, 10**9):
    waiting.append(writer.submit_many(arrive, f"n{number:09}"))
    waiting[-1].add_done_callback(say)
    if len(waiting) > 32:
        waiting.pop(0).result()
"""


def test_what_was_answered_survives_kill_9(database: str, repository: Path) -> None:
    random_pause = random.Random(7)
    answered: list[str] = []
    for attempt in range(ROUNDS):
        lines = random_pause.randrange(1, 400)
        answered += _write_until_killed(database, repository, first=attempt * 1_000_000, lines=lines)
        store = SqlStore(database)
        with store.read() as tx:
            stored = {presence.node_id for presence in tx.find(Presence)}
            told = [fact.node_id for _, fact in tx.facts(limit=10**6) if isinstance(fact, NodePresent)]
        store.close()
        assert set(answered) <= stored
        assert sorted(told) == sorted(stored), "each write has its fact, once"
    assert len(answered) >= ROUNDS


def _write_until_killed(url: str, repository: Path, *, first: int, lines: int) -> list[str]:
    """Start a writer, wait for ``lines`` answers, kill it in the middle of what it does; all answers it gave."""
    command = [sys.executable, "-c", CHILD, url, str(first)]
    with subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        seen = [line for _, line in zip(range(lines), child.stdout, strict=False)]
        os.kill(child.pid, signal.SIGKILL)
        seen += child.stdout.readlines()
    assert len(seen) >= lines, "the child stopped by itself"
    return [line.strip() for line in seen if line.endswith("\n")]
