"""Joining, running and asking: the node's three ways in, put together from the parts of this room."""

import logging
import platform
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from gridsched.clock import SystemClock
from gridsched.config import environment_with
from gridsched.core.errors import Busy, ConfigError, GridschedError, MessageError, Unreachable
from gridsched.node.agent import Agent
from gridsched.node.channel import Channel
from gridsched.node.client import Client
from gridsched.node.contact import choice_message
from gridsched.node.line import Lines, ThreadLine
from gridsched.node.memory import Memory
from gridsched.node.pipe import Gate, Ready, event
from gridsched.node.register import load_meter
from gridsched.node.settings import NodeSettings, read_settings, settings_text
from gridsched.node.state import Choice, Home, HomeLock, Identity
from gridsched.node.trainer import ENVIRONMENT, Trainer
from gridsched.ports import Meter
from gridsched.wire import Join, Joined

__all__ = ["Told", "choose", "default_name", "join", "probe_runtime", "run_agent"]

log = logging.getLogger(__name__)

_PROBE_S = 120.0


def default_name() -> str:
    """This machine's name as a node may be called."""
    name = re.sub(r"[^a-z0-9_-]+", "-", platform.node().lower()).strip("-_")[:63]
    return name or "node"


def join(home: Home, url: str, code: str, *, name: str, power_w: float, settings: NodeSettings | None = None) -> Joined:
    """Enrol with a one-time ``code`` and keep the token in ``home``. Raises ConfigError where a node lives there already."""
    home.make()
    with HomeLock(home.folder):
        if (home.folder / "identity.json").exists():
            known = home.identity()
            raise ConfigError(
                f"{home.folder} is already node {known.node_id} of {known.url}; use another --home, or delete it to start anew"
            )
        chosen = settings if settings is not None else read_settings(home.settings)
        _meter(chosen, power_w)
        found = probe_runtime(home, chosen)
        client = Client(url)
        joined = client.join(
            Join(
                code=code,
                node_id=name,
                device=f"{platform.system()}-{platform.machine()}".lower(),
                power_w=power_w,
                memory_bytes=Memory(chosen.limits.max_memory_bytes, found.resident_bytes).offered(),
                runtime=found.runtime,
                meter=chosen.meter,
            )
        )
        client.close()
        home.set_identity(
            Identity(
                url=client.url,
                node_id=joined.node_id,
                token=joined.token,
                zone=joined.zone,
                power_w=power_w,
                runtime=found.runtime,
                clock_speed=joined.clock_speed,
                runtime_bytes=found.resident_bytes,
            )
        )
        if not home.settings.exists():
            home.write(home.settings, settings_text(chosen, power_w=power_w).encode())
    return joined


def probe_runtime(home: Home, settings: NodeSettings) -> Ready:
    """This machine's runtime, its hardware class and its size, asked of a child, so that the agent itself never loads it.

    Whoever calls holds the home's lock: the gate is shut by it.
    """
    with Gate(home.gate, owner=True):
        pass
    command = [sys.executable, "-m", "gridsched.node.worker", str(home.folder), "--priority", "normal"]
    command += ["--runtime", settings.runtime, "--device", settings.device, "--threads", str(settings.threads)]
    try:
        found = subprocess.run(  # noqa: S603
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_S, check=False, env=environment_with(ENVIRONMENT)
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"the training runtime did not start within {_PROBE_S:.0f} s; is the machine overloaded?") from error
    for data in found.stdout.splitlines():
        try:
            message = event(data)
        except MessageError:
            continue
        if isinstance(message, Ready):
            return message
    words = found.stderr.decode(errors="replace").strip().splitlines()
    raise ConfigError(f"the training runtime does not start: {words[-1] if words else 'it says nothing'}")


class Told(StrEnum):
    """Who passes a choice on to the daemon: it is told already, a running agent does it, or the next one will."""

    DAEMON = "daemon"
    AGENT = "agent"
    LATER = "later"


def choose(home: Home, choice: Choice) -> Told:
    """Write the owner's choice down, then tell the daemon unless a running agent will.

    An opt-out stands from the moment it is written, whoever can be reached.
    """
    identity = home.identity()
    home.set_choice(choice)
    if HomeLock(home.folder).held():
        return Told.AGENT
    client = Client(identity.url, identity.token)
    try:
        client.choose(choice_message(choice, SystemClock().now(), identity.clock_speed))
    except (Unreachable, Busy):
        return Told.LATER
    finally:
        client.close()
    home.set_sent_choice(choice.choice_id)
    return Told.DAEMON


def run_agent(home: Home, *, runtime: str = "", on_start: Callable[[Identity], None] = lambda _: None) -> None:
    """Run until a signal asks to stop; raises the error that made going on senseless. One agent per home.

    ``runtime``, where given, goes before the settings' in this run.
    """
    settings = read_settings(home.settings)
    settings = replace(settings, runtime=runtime) if runtime else settings
    known = home.identity()
    with HomeLock(home.folder):  # before anything else: asking for the runtime shuts the gate, and a running agent's child with it
        identity = _with_runtime(home, known, settings)
        meter = _meter(settings, identity.power_w)

        def lines(deliver: Callable[[Callable[[], None]], None]) -> Lines:
            def one(name: str) -> ThreadLine:
                return ThreadLine(name, Client(identity.url, identity.token), deliver)

            return Lines(talk=one("talk"), send=one("send"), fetch=one("fetch"))

        agent = Agent(
            home, identity, settings, meter, lines=lines, trainer=lambda on_event, on_exit: Trainer(home, settings, on_event, on_exit)
        )
        channel = Channel(identity.url, identity.token, agent.push)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: agent.leave())
        on_start(identity)
        channel.start()
        try:
            agent.run()
        finally:
            channel.stop()


def _with_runtime(home: Home, identity: Identity, settings: NodeSettings) -> Identity:
    """The identity with the runtime that is asked for by now: jobs are offered by it, and what is not installed is told at once."""
    if settings.runtime == "auto" or identity.runtime.startswith(f"{settings.runtime}-"):
        return identity
    found = probe_runtime(home, settings)
    return replace(identity, runtime=found.runtime, runtime_bytes=found.resident_bytes)


def _meter(settings: NodeSettings, power_w: float) -> Meter:
    try:
        return load_meter(
            settings.meter, settings.meter_options, power_w=power_w, adapters=Path(settings.adapters) if settings.adapters else None
        )
    except GridschedError as error:
        raise ConfigError(f"the meter {settings.meter} cannot be used: {error}") from error
