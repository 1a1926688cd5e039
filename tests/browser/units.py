"""Work units for the pages' trainer, and the hosts that run them: Python over wasmtime, Node and Chromium, all through one face."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol

from gridsched.core.work import UnitSpec
from gridsched.train.codec import encode_update
from gridsched.train.dataset import Dataset, DatasetManifest, write_dataset
from gridsched.train.plan import plan_of
from gridsched.train.program import Program, constants, to_bytes
from gridsched.train.tensors import Array, version_digest
from gridsched.train.unit import Continuation, UnitRun
from gridsched.train.version import initial_version
from gridsched.train.wasm_runtime import WasmRuntime
from tests.browser.hosts import Host, spec_json

__all__ = ["Case", "InPython", "InTrainer", "Reached", "Station", "case_of", "plan_name", "plans"]


@dataclass(frozen=True, slots=True)
class Case:
    """A unit with all that a node fetches for it: ``blobs`` by digest."""

    spec: UnitSpec
    program: Program
    tensors: Mapping[str, Array]
    blobs: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Reached:
    """Where a host stopped: ``saved`` is the update of a unit that is done, otherwise a continuation."""

    loss_sum: str
    digests: tuple[str, ...]
    saved: bytes


class Station(Protocol):
    """A host that runs units."""

    def run(self, case: Case, *, stop: int, continuation: bytes | None = None) -> Reached:
        """From the start, or from ``continuation``, until step ``stop``."""
        ...


def case_of(program: Program, tensors: Mapping[str, Array], fields: Mapping[str, Array], spec: UnitSpec) -> Case:
    """``fields`` become shards of 32 samples, ``tensors`` version 0."""
    blobs: dict[str, bytes] = {}

    def put(data: bytes) -> str:
        digest = version_digest(data)
        blobs[digest] = data
        return digest

    manifest = write_dataset(fields, name="samples", shard_samples=32, put=put)
    dataset, file = put(manifest.to_bytes()), put(to_bytes(program, constants(program, tensors)))
    base = put(initial_version(program, tensors).to_bytes())
    return Case(replace(spec, dataset=dataset, program=file, base=base), program, tensors, blobs)


class InPython:
    """`gridsched.train.unit` over wasmtime."""

    def run(self, case: Case, *, stop: int, continuation: bytes | None = None) -> Reached:
        spec = case.spec
        dataset = Dataset(DatasetManifest.from_bytes(case.blobs[spec.dataset]), case.blobs.__getitem__)
        runtime = WasmRuntime(case.program, constants(case.program, case.tensors))
        version = initial_version(case.program, case.tensors)
        unit = UnitRun(spec, runtime, dataset, version.tensors, buffers=version.buffers)
        if continuation is not None:
            unit.load(Continuation.from_bytes(continuation))
        while unit.position < stop:
            unit.step()
        saved = encode_update(unit.delta(), spec, buffers=unit.buffers) if unit.done else unit.save().to_bytes()
        return Reached(unit.metrics.loss_sum.hex(), unit.digests, saved)


@dataclass(frozen=True, slots=True)
class InTrainer:
    """`browser/src/trainer` in Node or Chromium."""

    host: Host

    def run(
        self, case: Case, *, stop: int, continuation: bytes | None = None, instead: Mapping[str, bytes] = MappingProxyType({})
    ) -> Reached:
        """As every station; ``instead`` are files that the page gets for those it should get."""
        files = {**case.blobs, **plans(case), **instead}
        if continuation is not None:
            files["continuation"] = continuation
        answer, made = self.host.perform("unit", files, spec=spec_json(case.spec), stop=stop)
        (saved,) = made.values()
        return Reached(answer["loss_sum"], tuple(answer["digests"]), saved)


def plans(case: Case) -> dict[str, bytes]:
    """All that a page could ask for, named by what it asks."""
    spec = case.spec
    sizes = {min(spec.batch_size, spec.samples), spec.samples % spec.batch_size}
    if spec.micro_batch:
        sizes |= {spec.micro_batch, *(size % spec.micro_batch for size in sizes)}
    wanted = [("apply", 1), *((kind, size) for size in sorted(sizes - {0}) for kind in ("train", "accumulate", "evaluate"))]
    return {plan_name(case, kind, size): plan_of(case.program, kind=kind, batch=size, inner=spec.inner).to_bytes() for kind, size in wanted}


def plan_name(case: Case, kind: str, size: int) -> str:
    """The file that a page gets for its request (see ``perform.ts``)."""
    return f"{kind} {size} {case.spec.program} {case.spec.inner.name}"
