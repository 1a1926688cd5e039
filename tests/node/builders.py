"""A small real program and its data, put into a fake daemon; and what a peaceful run of its unit gives."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from gridsched import wire
from gridsched.core.method import Codec, InnerOptimizer
from gridsched.core.work import UnitKind, UnitSpec
from gridsched.node.settings import NodeSettings, Priority
from gridsched.node.state import Home, Identity
from gridsched.train import codec
from gridsched.train.dataset import write_dataset
from gridsched.train.program import constants, to_bytes
from gridsched.train.torch_runtime import TorchRuntime, hardware_class
from gridsched.train.unit import run
from gridsched.train.version import initial_version
from tests.node.fake_daemon import TOKEN, FakeDaemon
from tests.train.builders import dataset_of, hard_net, samples


def unit(daemon: FakeDaemon, **changes: Any) -> UnitSpec:
    """A unit whose blobs the daemon stores; 14 samples a pass, two a step."""
    program, tensors = hard_net()
    manifest = write_dataset(samples(), name="samples", shard_samples=32, put=daemon.put)
    spec = UnitSpec(
        unit_id="job.r0.u0",
        job_id="job",
        kind=UnitKind.TRAIN,
        program=daemon.put(to_bytes(program, constants(program, tensors))),
        dataset=daemon.put(manifest.to_bytes()),
        base=daemon.put(initial_version(program, tensors).to_bytes()),
        version=0,
        epoch=0,
        start=0,
        stop=14,
        batch_size=2,
        passes=1,
        seed=7,
        inner=InnerOptimizer(lr=0.01, momentum=0.9),
        codec=Codec.RAW,
        digest_every=5,
    )
    return replace(spec, **changes)


def order(spec: UnitSpec, *, generation: int = 1, desired: str = "run", **changes: Any) -> wire.Order:
    values: dict[str, Any] = {"reason": "planned", "power_w": 100.0, "ttl_s": 60.0, "wait_s": 0.0} | changes
    return wire.Order(lease_id=f"{spec.unit_id}.l{generation}", generation=generation, desired=desired, unit=spec, **values)


def told(given: wire.Order, **changes: Any) -> wire.Order:
    """``given`` with some fields changed."""
    return wire.Order(**{name: getattr(given, name) for name in given.__struct_fields__} | changes)


def peaceful_update(spec: UnitSpec) -> bytes:
    """The bytes of the update of a run that nothing disturbed."""
    program, tensors = hard_net()
    outcome = run(spec, TorchRuntime(program, tensors), dataset_of(samples()), initial_version(program, tensors).tensors)
    return codec.encode(outcome.delta, spec.codec)


def joined(folder: Path, daemon: FakeDaemon, settings: str = "") -> Home:
    """A home folder as `gridsched node join` leaves it."""
    home = Home(folder)
    home.make()
    home.set_identity(
        Identity(
            url=daemon.url, node_id="n1", token=TOKEN, zone="z", power_w=100.0, runtime=hardware_class(), clock_speed=daemon.clock_speed
        )
    )
    text = f'priority = "normal"\nsave_every = "200ms"\n{settings}\n[limits]\nmin_free_disk = "0 B"\n'.replace("200ms", "1s")
    home.settings.write_text(text)
    return home


def quiet() -> NodeSettings:
    return NodeSettings(priority=Priority.NORMAL)


def start_agent(home: Home) -> "subprocess.Popen[str]":
    """A real agent process, as `gridsched node run` starts it."""
    code = "import sys; from gridsched.cli.node import app; app(sys.argv[1:])"
    command = [sys.executable, "-c", code, "run", "--home", str(home.folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
