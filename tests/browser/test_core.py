"""The pages' trainer, part by part: the same bytes as Python's, and the same refusals."""

import hashlib
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsched.core.errors import InvalidInput
from gridsched.core.method import Codec
from gridsched.core.work import UnitKind
from gridsched.train import codec, draws, tensors
from gridsched.train.dataset import Dataset, pass_order, write_dataset
from gridsched.train.program import constants, to_bytes
from gridsched.train.tensors import Array, tensors_to_bytes
from gridsched.train.unit import Continuation, Metrics, _samples
from gridsched.train.version import initial_version
from tests.browser.hosts import KERNELS, Host, HostError, spec_json
from tests.train.builders import hard_net, unit_spec

pytestmark = pytest.mark.node

KEYS = st.integers(0, 2**63 - 1)
MANY = settings(max_examples=25)  # each asks another process


def test_the_runtime_is_named_after_the_modules_bytes(node: Host) -> None:
    digest = hashlib.sha256(KERNELS.read_bytes()).hexdigest()
    assert node.perform("load", {"kernels": KERNELS.read_bytes()})[0] == [digest, f"wasm-{digest[:8]}"]


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 119, 120, 1000, (1 << 20) + 3])
def test_a_digest_is_that_of_all_pieces(node: Host, size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    sizes = [size // 3, 0, size - size // 3]
    assert node.perform("sha256", {"data": data}, sizes=sizes)[0] == hashlib.sha256(data).hexdigest()


@given(seed=st.integers(-(2**70), 2**70), epoch=st.integers(0, 2**40))
@MANY
def test_keys_are_pythons_for_seeds_of_any_size(node: Host, seed: int, epoch: int) -> None:
    assert node.perform("key", words=["order", seed, epoch])[0] == str(draws.draw_key("order", seed, epoch))


@given(key=KEYS, count=st.integers(0, 3000))
@MANY
def test_draws_are_pythons(node: Host, key: int, count: int) -> None:
    assert node.perform("permutation", key=key, count=count)[0] == draws.permutation(key, count).tolist()
    assert node.perform("ints", key=key, count=count)[0] == draws.uniform_ints(key, count).tolist()
    assert node.perform("floats", key=key, start=count // 2, stop=count)[0] == draws.uniform_floats(key, count // 2, count).tolist()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"first": 7, "of": 40, "start": 3, "stop": 40},
        {"bag": 2},
        {"bag": 0, "first": 9, "of": 61},
        {"kind": UnitKind.EVALUATE},
        {"seed": 2**62 + 1},
    ],
    ids=["epoch", "stretch", "bag", "bag of a stretch", "evaluation", "large seed"],
)
def test_samples_come_in_pythons_order(node: Host, changes: dict[str, Any]) -> None:
    spec = unit_spec(**changes)
    found = node.perform("order", spec=spec_json(spec), all=70, which=1, position=13)[0]
    assert found == [
        _samples(spec, _dataset()).tolist(),
        pass_order(spec.seed, spec.epoch, spec.first + spec.start, 1, spec.samples).tolist(),
        str(draws.draw_key("step", spec.seed, spec.epoch, spec.first + spec.start, 13)),
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(value=JSON)
@MANY
def test_json_is_read_as_it_was_written(node: Host, value: Any) -> None:
    assert node.perform("json", {"text": json.dumps(value).encode()})[0] == value


def test_backslashes_and_quotes_end_no_text_too_early_or_too_late(node: Host) -> None:
    value = ["\\", '\\"', '"', {'a\\"b\\\\': "\\\\"}]
    assert node.perform("json", {"text": json.dumps(value).encode()})[0] == value


def test_whole_numbers_beyond_doubles_stay_exact(node: Host) -> None:
    assert node.perform("json", {"text": b"[9007199254740993, -9223372036854775808, 1e3]"})[0] == [
        "9007199254740993n",
        "-9223372036854775808n",
        1000,
    ]


BROKEN = [
    "",
    "{",
    '{"a":1,"a":2}',
    '{"__proto__":1,"__proto__":2}',
    "[1,]",
    "01",
    "+1",
    "1 2",
    "NaN",
    '"\n"',
    '"\\x"',
    '{"a" 1}',
    "{a:1}",
    "tru",
    "[" * 200 + "]" * 200,
]


@pytest.mark.parametrize("text", [*BROKEN, "\ufeff1"])
def test_broken_json_is_refused(node: Host, text: str) -> None:
    with pytest.raises(HostError, match="not valid JSON"):
        node.perform("json", {"text": text.encode()})


@given(numbers=st.lists(st.floats(), min_size=1))
@MANY
def test_doubles_travel_bit_by_bit(node: Host, numbers: list[float]) -> None:
    data = struct.pack(f"<{len(numbers)}d", *numbers)
    texts, files = node.perform("hex", {"doubles": data})
    assert texts == [number.hex() for number in numbers]
    assert [number.hex() for number in struct.unpack(f"<{len(numbers)}d", files["back"])] == texts


def _arrays() -> dict[str, Array]:
    draw = np.random.default_rng(2)
    found: dict[str, Array] = {f"layer.{name}": draw.normal(size=(3, 2)).astype(name) for name in ("float64", "float32", "float16")}
    found |= {name: draw.integers(0, 90, (2, 3)).astype(name) for name in tensors.DTYPES if "float" not in name}
    return found | {
        "10": np.zeros((0, 4), np.float32),
        "9": np.array(4, np.float32),
        "\U0001f600 Ünïcode": np.zeros(3, np.int8),
        "\uffee": np.ones(1, np.int8),
    }


def test_a_file_is_written_again_to_the_same_bytes(node: Host) -> None:
    data = tensors_to_bytes(_arrays(), {"b": 'quote " and \\ and \x07 and é', "a": "1", "\U0001f600": "", "\uffee": "\x7f"})
    names, files = node.perform("tensors", {"file": data})
    assert set(names) == set(_arrays())
    assert files["file"] == data


def _file(header: object, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def _entry(**changes: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


BAD_FILES = {
    "no header": (b"1234567", "cut short"),
    "a header longer than the file": (b"\xff" + b"\0" * 7 + b"{}", "cut short"),
    "an absurd header": (b"\xff" * 8, "not a safetensors file"),
    "bytes that are not UTF-8": (b"\x02" + b"\0" * 7 + b"\xff\xff", "UTF-8"),
    "a list": (_file([]), "JSON object"),
    "metadata that is no text": (_file({"__metadata__": {"a": 1}}), "must be text"),
    "an unknown key": (_file({"x": _entry(more=1)}, bytes(8)), "unknown key"),
    "a missing key": (_file({"x": {"dtype": "F32", "shape": [2]}}, bytes(8)), "no data_offsets"),
    "an unknown dtype": (_file({"x": _entry(dtype="F8")}, bytes(8)), "unknown dtype F8"),
    "a negative size": (_file({"x": _entry(shape=[-2])}, bytes(8)), "whole number"),
    "an endless size": (_file({"x": _entry(shape=[2**52, 2**52])}, bytes(8)), "impossible shape"),
    "too many axes": (_file({"x": _entry(shape=[1] * 17)}, bytes(8)), "impossible shape"),
    "offsets backwards": (_file({"x": _entry(data_offsets=[8, 0])}, bytes(8)), "impossible offsets"),
    "three offsets": (_file({"x": _entry(data_offsets=[0, 8, 8])}, bytes(8)), "impossible offsets"),
    "a cut body": (_file({"x": _entry()}, bytes(7)), "cut short"),
    "a shape that does not fit": (_file({"x": _entry(shape=[3])}, bytes(8)), "does not fit its 8 bytes"),
    "bytes left over": (_file({"x": _entry()}, bytes(9)), "1 bytes after"),
    "a gap": (_file({"x": _entry(data_offsets=[4, 12])}, bytes(12)), "gap or an overlap"),
    "an overlap": (_file({"x": _entry(), "y": _entry()}, bytes(8)), "gap or an overlap"),
    "a long name": (_file({"x" * 513: _entry()}, bytes(8)), "513 characters"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_files_that_are_not_well_formed_are_refused_here_and_there(node: Host, case: str) -> None:
    data, said = BAD_FILES[case]
    with pytest.raises(InvalidInput):
        tensors.tensors_from_bytes(data)
    with pytest.raises(HostError, match=f"TrainerError: .*{said}"):
        node.perform("tensors", {"file": data})


def _continuation() -> Continuation:
    state = {f"model/{name}": array for name, array in _arrays().items()}
    metrics = Metrics(loss_sum=0.1 + 0.2, samples=64)
    return Continuation(
        unit_id='ü "1"', step=3, hardware_class="wasm-00000000", tensors=state, metrics=metrics, digests=("a" * 64, "b" * 64)
    )


def test_a_continuation_is_written_again_to_the_same_bytes(node: Host) -> None:
    saved = _continuation()
    answer, files = node.perform("continuation", {"file": saved.to_bytes()})
    assert answer == [saved.unit_id, saved.step, saved.metrics.samples, list(saved.digests)]
    assert files["file"] == saved.to_bytes()


@pytest.mark.parametrize(
    ("was", "now"),
    [('"step": 3', '"step": -3'), ('"step": 3', '"stop": 3'), ("0x1.3333333333334p-2", "zero"), ('"correct": 0', '"correct": "0"')],
)
def test_broken_continuations_are_refused(node: Host, was: str, now: str) -> None:
    held, metadata = tensors.tensors_from_bytes(_continuation().to_bytes())
    assert was in metadata["gridsched.continuation"]
    data = tensors_to_bytes(held, {"gridsched.continuation": metadata["gridsched.continuation"].replace(was, now)})
    with pytest.raises(HostError, match="TrainerError"):
        node.perform("continuation", {"file": data})
    with pytest.raises(HostError, match="this is not a continuation"):
        node.perform("continuation", {"file": tensors_to_bytes(held)})


def test_programs_and_versions_are_read_by_role(node: Host) -> None:
    program, held = hard_net()
    file = to_bytes(program, constants(program, held))
    assert node.perform("program", {"file": file})[0] == [[spec.name, spec.role] for spec in program.tensors]
    version = initial_version(program, held)
    assert node.perform("version", {"file": version.to_bytes()})[0] == sorted(version.tensors)
    for command in ("program", "version", "plan"):
        with pytest.raises(HostError, match="TrainerError"):
            node.perform(command, {"file": tensors_to_bytes(held)})


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ('"format":1', '"format":2', "program format 2"),
        ('"role":"parameter"', '"role":"constant"', "the constant conv.weight is missing"),
        ('"role":"parameter"', '"role":"guest"', "tensor conv.weight has the unknown role guest"),
        ('"layout":', '"lay":', "no layout"),
        ('"shape":[4,1,3,3]', '"shape":[4,9]', "tensor conv.weight of the program should be float32 \\[4, 9\\]"),
    ],
)
def test_broken_programs_are_refused(node: Host, was: str, now: str, said: str) -> None:
    program, held = hard_net()
    kept = held if "shape" in was else {}  # with its model tensors a program file is a model in itself
    found, metadata = tensors.tensors_from_bytes(to_bytes(program, kept))
    text = metadata["gridsched.program"].replace(was, now)
    assert text != metadata["gridsched.program"]
    with pytest.raises(HostError, match=f"TrainerError: .*{said}"):
        node.perform("program", {"file": tensors_to_bytes(found, {"gridsched.program": text})})


def test_a_version_is_its_model_without_old_momentum_and_with_all_its_buffers(node: Host) -> None:
    held = {"w": np.ones(2, np.float32), "outer/w": np.ones(2, np.float32)}
    assert node.perform("version", {"file": tensors_to_bytes(held, {"gridsched.version": '{"buffers":[]}'})})[0] == ["w"]
    with pytest.raises(HostError, match="buffer b of the version is missing in it"):
        node.perform("version", {"file": tensors_to_bytes(held, {"gridsched.version": '{"buffers":["b"]}'})})


# Datasets.


def _dataset(shard_samples: int = 20, stored: dict[str, bytes] | None = None) -> Dataset:
    blobs = {} if stored is None else stored
    fields: dict[str, Array] = {"x": np.random.default_rng(1).normal(size=(70, 2, 3)).astype(np.float32), "y": np.arange(70)}

    def put(data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return digest

    manifest = write_dataset(fields, name="samples", shard_samples=shard_samples, put=put)
    blobs["manifest"] = manifest.to_bytes()
    return Dataset(manifest, blobs.__getitem__)


@pytest.mark.parametrize(("keep", "times"), [(0, 2), (1 << 20, 1)], ids=["nothing kept", "all kept"])
def test_samples_are_gathered_and_shards_asked_for_once_while_kept(node: Host, keep: int, times: int) -> None:
    stored: dict[str, bytes] = {}
    dataset = _dataset(stored=stored)
    positions = [3, 69, 3, 25, 0, 19, 20, 21]
    asked, files = node.perform("gather", stored, positions=positions, keepBytes=keep)
    shards = [shard.digest for shard in dataset.manifest.shards]
    assert asked == [shards[0], shards[1], shards[3]] * times
    assert files["fields"] == tensors_to_bytes(dataset.batch(np.array(positions)))


def test_a_damaged_shard_is_named(node: Host) -> None:
    stored: dict[str, bytes] = {}
    digest = _dataset(stored=stored).manifest.shards[1].digest
    stored[digest] = stored[digest][:-1] + b"?"
    with pytest.raises(HostError, match=f"shard 1 of dataset samples \\({digest[:12]}\\) does not match its digest"):
        node.perform("gather", stored, positions=[30], keepBytes=0)


@pytest.mark.parametrize(
    ("was", "now"),
    [('"shape":[2,3]', '"shape":[3,2]'), ('{"dtype":"int64","name":"y","shape":[]}', ""), ('"name":"y"', '"name":"z"')],
    ids=["another shape", "one too many", "another name"],
)
def test_a_shard_of_other_fields_is_named(node: Host, was: str, now: str) -> None:
    stored: dict[str, bytes] = {}
    _dataset(stored=stored)
    changed = stored["manifest"].decode().replace(was, now).replace("},]", "}]")
    assert changed != stored["manifest"].decode()
    with pytest.raises(HostError, match="shard 1 of dataset samples does not hold the fields its manifest says"):
        node.perform("gather", stored | {"manifest": changed.encode()}, positions=[30], keepBytes=0)


def test_samples_that_no_memory_holds_are_told(node: Host) -> None:
    stored: dict[str, bytes] = {}
    _dataset(stored=stored)
    stored["manifest"] = stored["manifest"].replace(b'"shape":[2,3]', b'"shape":[1099511627776,2]')
    with pytest.raises(HostError, match="the unit's samples take 16777216 MiB of memory"):
        node.perform("gather", stored, positions=[30, 31], keepBytes=0)


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ('"format":1', '"format":2', "dataset format 2"),
        ('"name":"samples"', '"name":"Samples"', "must be lower-case"),
        ('"int64"', '"int63"', 'has dtype "int63"'),
        (",20]", ",0]", "a shard needs a sha256 digest and at least one sample"),
        ('"shards":[["', '"shards":[["G', "a shard needs a sha256 digest and at least one sample"),
        (",20]", ",20,1]", "a shard needs a sha256 digest and at least one sample"),
        ('"name":"x"', '"name":"y"', "each with a name of its own"),
        ('"shape":[2,3]', '"shape":[1,1,1,1,1,1,1,2,3]', "9 axes"),
        ('"attribution":""', '"credit":""', "no attribution"),
    ],
)
def test_broken_manifests_are_refused(node: Host, was: str, now: str, said: str) -> None:
    stored: dict[str, bytes] = {}
    _dataset(stored=stored)
    changed = stored["manifest"].decode().replace(was, now)
    assert changed != stored["manifest"].decode()
    with pytest.raises(HostError, match=f"TrainerError: .*{said}"):
        node.perform("gather", stored | {"manifest": changed.encode()}, positions=[0], keepBytes=0)


# Updates.


def _delta() -> dict[str, Array]:
    draw = np.random.default_rng(8)
    rows = draw.normal(size=(301, 257)).astype(np.float32) * np.exp(draw.normal(size=(301, 1)) * 6).astype(np.float32)
    rows[5] = 0
    rows[6, :3] = 70_000, -1e-30, 3e-8
    return {
        "rows": rows,
        "small": (draw.normal(size=40_000) * 2**-15).astype(np.float32),
        "ties": np.array([127, 0.5, 1.5, 2.5, -0.5, -1.5, -0.0], np.float32),
        "halves": np.float32(1) + np.arange(0, 4097, dtype=np.float32) * np.float32(2**-12),
        "one": np.array(-3, np.float32),
        "none": np.zeros((0, 3), np.float32),
        "counted": np.array([2**40, -1]),
    }


@pytest.mark.parametrize("exact", [False, True], ids=["all rounded", "exact buffers"])
@pytest.mark.parametrize("chosen", list(Codec))
def test_an_update_is_pythons(node: Host, chosen: Codec, exact: bool) -> None:
    spec, buffers = unit_spec(codec=chosen, seed=2**60 + 7, exact_buffers=exact), ["small", "one", "none", "counted"]
    _, files = node.perform("encode", {"delta": tensors_to_bytes(_delta())}, spec=spec_json(spec), buffers=buffers)
    assert files["update"] == codec.encode_update(_delta(), spec, buffers=buffers)


def test_running_statistics_of_a_kind_that_cannot_be_rounded_here_travel_as_they_are(node: Host) -> None:
    delta: dict[str, Array] = {"wide": np.linspace(0, 1, 5)}
    spec = unit_spec(codec=Codec.INT8, exact_buffers=True)
    _, files = node.perform("encode", {"delta": tensors_to_bytes(delta)}, spec=spec_json(spec), buffers=["wide"])
    assert files["update"] == codec.encode_update(delta, spec, buffers=["wide"])


@given(bits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=600))
@MANY
def test_updates_of_any_finite_bits_are_pythons(node: Host, bits: list[int]) -> None:
    values = np.array(bits, np.uint32).view(np.float32)
    delta = {"x": np.where(np.isfinite(values), values, np.float32(0))}
    for chosen in (Codec.HALF, Codec.INT8, Codec.INT4):
        spec = unit_spec(codec=chosen)
        _, files = node.perform("encode", {"delta": tensors_to_bytes(delta)}, spec=spec_json(spec))
        assert files["update"] == codec.encode_update(delta, spec, buffers=())


@pytest.mark.parametrize("chosen", [Codec.HALF, Codec.INT8, Codec.INT4])
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_arrives_as_such(node: Host, chosen: Codec, odd: float) -> None:
    delta = {"x": np.array([1, odd, 2], np.float32)}
    _, files = node.perform("encode", {"delta": tensors_to_bytes(delta)}, spec=spec_json(unit_spec(codec=chosen)))
    assert not np.isfinite(codec.decode(files["update"])["x"]).all()


def test_a_tensor_that_cannot_travel_is_named(node: Host) -> None:
    delta = {"wide": np.zeros(3)}
    with pytest.raises(HostError, match="tensor wide is float64"):
        node.perform("encode", {"delta": tensors_to_bytes(delta)}, spec=spec_json(unit_spec(codec=Codec.INT8)))
