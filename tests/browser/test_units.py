"""Whole work units: the same bits in wasmtime, Node and Chromium, and across them when a unit moves in its middle."""

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from gridsched.core.method import Codec, InnerOptimizer, Precision
from gridsched.core.work import UnitKind
from gridsched.train.export import export
from gridsched.train.program import from_bytes, to_bytes
from gridsched.train.tensors import tensors_from_bytes, tensors_to_bytes
from tests.browser.hosts import Host, HostError, spec_json
from tests.browser.units import Case, InPython, InTrainer, Reached, Station, case_of, plan_name, plans
from tests.train.builders import SAMPLES, cross_entropy, example, exported_example, hard_net, samples, unit_spec

pytestmark = pytest.mark.node

EXAMPLES = ["graph_gcn", "image_cnn", "tabular_mlp", "text_gru", "transformer"]
ADAMW = InnerOptimizer(name="adamw", lr=0.01, weight_decay=0.02)
CHROMIUM = pytest.param("chromium", marks=pytest.mark.browser)
PAGES = ["node", CHROMIUM]
HOSTS = ["python", "node", CHROMIUM]


def station(name: str, request: pytest.FixtureRequest) -> Station:
    return InPython() if name == "python" else InTrainer(request.getfixturevalue(name))


def hard(**changes: Any) -> Case:
    """A small network with draws, statistics and an odd last batch; 14 steps in two passes."""
    return case_of(*hard_net(), samples(), unit_spec(**{"inner": ADAMW, "codec": Codec.INT8, "exact_buffers": True, **changes}))


def of_example(name: str, *, steps: int) -> Case:
    """Two passes over an example's own data with its own optimizer, the last batch of a pass cut."""
    job = example(name)
    fields, size = job.dataset()[0], min(job.method.batch_size, 8)
    stop = min(size * steps, len(next(iter(fields.values())))) - 3
    spec = unit_spec(inner=job.method.inner, start=0, stop=stop, batch_size=size, codec=Codec.INT4, digest_every=2)
    return case_of(*exported_example(name), fields, spec)


@functools.cache
def straight(name: str, steps: int) -> Reached:
    """Where wasmtime ends without a break."""
    case = of_example(name, steps=steps)
    return InPython().run(case, stop=case.spec.steps)


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("page", PAGES)
def test_a_unit_of_every_example_ends_in_the_bits_of_wasmtime(page: str, name: str, request: pytest.FixtureRequest) -> None:
    case = of_example(name, steps=3)
    assert station(page, request).run(case, stop=case.spec.steps) == straight(name, 3)


@pytest.mark.long
@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("page", PAGES)
def test_two_hundred_steps_of_every_example_end_in_the_bits_of_wasmtime(page: str, name: str, request: pytest.FixtureRequest) -> None:
    case = of_example(name, steps=100)
    assert station(page, request).run(case, stop=case.spec.steps) == straight(name, 100)


SETTINGS: dict[str, dict[str, Any]] = {
    "momentum and decay": {"inner": InnerOptimizer(lr=0.05, momentum=0.9, weight_decay=1e-3)},
    "pulled back": {"inner": InnerOptimizer(lr=0.05, prox=0.1)},
    "a stretch": {"first": 8, "of": 56, "start": 0, "stop": 50},
    "a bag": {"bag": 1},
    "an evaluation": {"kind": UnitKind.EVALUATE, "passes": 1},
    "as half precision": {"codec": Codec.HALF},
    "with rounded statistics": {"exact_buffers": False},
    "one batch": {"batch_size": 500},
    "a large seed": {"seed": 2**62 + 1},
}


@pytest.mark.parametrize("changes", SETTINGS.values(), ids=SETTINGS)
def test_every_setting_of_a_unit_ends_in_the_bits_of_wasmtime(changes: dict[str, Any], node: Host) -> None:
    case = hard(**changes)
    assert InTrainer(node).run(case, stop=case.spec.steps) == InPython().run(case, stop=case.spec.steps)


class OddNet(nn.Module):
    """[batch, 5] words -> [batch, 12]: tied weights, a parameter that is not trained, buffers that are not floats, and draws."""

    mask: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 8)
        self.between = nn.Linear(8, 8).requires_grad_(False)
        self.out = nn.Linear(8, 12, bias=False)
        self.out.weight = self.embed.weight
        self.register_buffer("mask", torch.arange(8) % 3 > 0)
        self.register_buffer("calls", torch.tensor(7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = functional.dropout(functional.relu(self.between(self.embed(x))), 0.3, self.training) * self.mask
        found: torch.Tensor = self.out(hidden.mean(1))
        return found


def odd(**changes: Any) -> Case:
    torch.manual_seed(4)
    batch = {"x": torch.zeros(2, 5, dtype=torch.int64), "y": torch.zeros(2, dtype=torch.int64)}
    draw = np.random.default_rng(6)
    fields = {"x": draw.integers(0, 12, (SAMPLES, 5)), "y": draw.integers(0, 12, SAMPLES)}
    program, tensors = from_bytes(to_bytes(*export(OddNet(), batch, cross_entropy)))
    assert (program.names("frozen"), program.aliases) == (("between.weight", "between.bias"), {"out.weight": "embed.weight"})
    return case_of(program, tensors, fields, unit_spec(**changes))


ODD: dict[str, dict[str, Any]] = {
    "at once": {},
    "in micro-batches": {"micro_batch": 3},
    "in micro-batches, pulled back": {"micro_batch": 3, "inner": InnerOptimizer(lr=0.05, momentum=0.9, prox=0.1)},
    "evaluated in micro-batches": {"micro_batch": 3, "kind": UnitKind.EVALUATE},
}


@pytest.mark.parametrize("case", [pytest.param(changes, id=name) for name, changes in ODD.items()])
def test_tied_frozen_and_whole_numbered_tensors_end_in_the_bits_of_wasmtime(case: dict[str, Any], node: Host) -> None:
    unit = odd(**case)
    page, native = InTrainer(node), InPython()
    saved = page.run(unit, stop=5).saved
    assert saved == native.run(unit, stop=5).saved
    assert not any(name.startswith("model/between") for name in tensors_from_bytes(saved)[0])
    whole = native.run(unit, stop=unit.spec.steps)
    assert page.run(unit, stop=unit.spec.steps, continuation=saved) == whole


def test_a_loss_that_json_has_no_word_for_is_left_out(node: Host) -> None:
    case = hard(inner=InnerOptimizer(lr=1e30))
    answer, _ = node.perform("unit", {**case.blobs, **plans(case)}, spec=spec_json(case.spec), stop=case.spec.steps)
    assert answer["loss_sum"] in ("nan", "inf")
    assert answer["metrics"] == {"samples": 110}


@pytest.mark.parametrize("to", HOSTS)
@pytest.mark.parametrize("away", HOSTS)
def test_a_unit_that_moves_in_its_middle_ends_in_the_same_bits(away: str, to: str, request: pytest.FixtureRequest) -> None:
    case = hard()
    there, here = station(away, request), station(to, request)
    whole = InPython().run(case, stop=case.spec.steps)
    for step in (0, 1, 6, 7, 13):
        saved = there.run(case, stop=step).saved
        assert saved == here.run(case, stop=step).saved
        assert here.run(case, stop=case.spec.steps, continuation=saved) == whole


@pytest.mark.browser
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_unit_of_every_example_goes_through_all_hosts(name: str, node: Host, chromium: Host) -> None:
    case = of_example(name, steps=3)
    saved = InTrainer(chromium).run(case, stop=1).saved
    saved = InPython().run(case, stop=2, continuation=saved).saved
    saved = InTrainer(node).run(case, stop=3, continuation=saved).saved
    assert InTrainer(chromium).run(case, stop=case.spec.steps, continuation=saved) == straight(name, 3)


@pytest.mark.parametrize(("inner", "sign"), [(InnerOptimizer(momentum=0.9), True), (ADAMW, False)], ids=["sgd", "adamw"])
def test_an_optimizer_starts_where_torchs_does_to_the_sign_of_zero(inner: InnerOptimizer, sign: bool, node: Host) -> None:
    case = hard(inner=inner)
    _, metadata = tensors_from_bytes(plans(case)[plan_name(case, "train", 8)])
    idle = tensors_to_bytes({"code": np.zeros(0, np.int32)}, metadata)  # a step that calls nothing leaves everything at its start
    state, _ = tensors_from_bytes(InTrainer(node).run(case, stop=1, instead={plan_name(case, "train", 8): idle}).saved)
    slots = [array for name, array in state.items() if name.startswith("optimizer/")]
    assert slots
    assert all((array == 0).all() and (np.signbit(array) == sign).all() for array in slots)


def test_what_is_warm_is_not_asked_for_again_and_nothing_is_taken_for_another(node: Host) -> None:
    first, other = hard(), hard(inner=InnerOptimizer(momentum=0.9))
    away = odd(codec=Codec.INT8)
    units = [first, hard(unit_id="u2", epoch=3), other, away, first]
    files = {name: data for case in units for name, data in {**case.blobs, **plans(case)}.items()}
    asked, updates = node.perform("units", files, specs=[spec_json(case.spec) for case in units])
    for index, case in enumerate(units):
        assert updates[str(index)] == InPython().run(case, stop=case.spec.steps).saved, index
    _, begun, again, optimizer, strange, back = " ".join(asked).split("unit ")
    sizes = {case.spec.inner.name: [plan_name(case, "train", size) for size in (8, 7)] for case in (first, other)}
    assert [again.split()[1:], " ".join(optimizer.split()[1:])] == [[first.spec.base], " ".join([*sizes["sgd"], first.spec.base])]
    assert len(begun.split()) == len(back.split()) > len(again.split())
    assert away.spec.program in strange.split()
    assert away.spec.dataset in strange.split()


# What is refused.


def refused(node: Host, case: Case, said: str, *, stop: int = 1, **more: Any) -> None:
    with pytest.raises(HostError, match=f"TrainerError: .*{said}"):
        InTrainer(node).run(case, stop=stop, **more)


def test_there_is_no_step_after_the_last(node: Host) -> None:
    refused(node, hard(), "unit u1 is done", stop=15)


def test_a_unit_that_another_has_displaced_says_so(node: Host) -> None:
    case = hard()
    with pytest.raises(HostError, match="another unit has begun with these kernels"):
        node.perform("another", {**case.blobs, **plans(case)}, spec=spec_json(case.spec))


def test_a_continuation_of_another_unit_is_refused(node: Host) -> None:
    saved = InPython().run(hard(), stop=3).saved
    refused(node, hard(unit_id="u2"), "continuation of unit u1 at step 3 does not fit unit u2", continuation=saved)
    refused(node, hard(passes=1, batch_size=50), "continuation of unit u1 at step 3 does not fit", continuation=saved)


def test_a_continuation_of_another_model_is_refused_and_leaves_the_unit_at_its_start(node: Host) -> None:
    case = hard()
    begun, _, rest = InPython().run(case, stop=3).saved.partition(b"model/conv.bias")
    unfit = begun + b"model/conv.bigs" + rest
    refused(node, case, "tensor conv.bias should be float32 \\[4\\], got nothing", continuation=unfit)
    found = InTrainer(node).run(case, stop=case.spec.steps, instead={"unfit": unfit})
    assert found == InPython().run(case, stop=case.spec.steps)


def test_a_continuation_whose_tensors_have_other_shapes_is_refused(node: Host) -> None:
    state, metadata = tensors_from_bytes(InPython().run(hard(), stop=3).saved)
    turned = tensors_to_bytes({**state, "model/out.weight": state["model/out.weight"].T}, metadata)
    refused(node, hard(), "tensor out.weight should be float32 \\[3, 64\\], got float32 \\[64, 3\\]", continuation=turned)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"precision": Precision.MIXED}, "mixed precision"),
        ({"local": "photos"}, "own data photos"),
        ({"stop": 71}, "positions 5 to 71 of its samples; dataset samples has 70"),
        ({"of": 66, "first": 9}, "of the 66 samples from 9"),
    ],
)
def test_units_that_a_page_cannot_do_are_refused(node: Host, changes: dict[str, Any], said: str) -> None:
    refused(node, hard(**changes), said)


def test_a_version_that_is_another_is_refused(node: Host) -> None:
    case = hard()
    refused(node, case, "the model version .* does not match its digest", instead={case.spec.base: case.blobs[case.spec.base][:-1] + b"?"})


def test_data_of_other_fields_is_refused(node: Host) -> None:
    other = case_of(*hard_net(), {"x": np.zeros((70, 4, 4), np.float32), "y": np.arange(70)}, hard().spec)
    refused(node, other, "needs field x as float32 \\[8, 1, 4, 4\\] per batch; the dataset has float32 \\[8, 4, 4\\]")


def changed(plan: bytes, change: Callable[[dict[str, Any]], object], code: Callable[[Any], object] = lambda _: None) -> bytes:
    tensors, metadata = tensors_from_bytes(plan)
    about, words = json.loads(metadata["gridsched.plan"]), tensors["code"].copy()
    change(about)
    code(words)
    return tensors_to_bytes({"code": words}, {"gridsched.plan": json.dumps(about)})


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a missing key": (lambda about: about.pop("seed"), "no seed"),
    "another format": (lambda about: about.update(format=2), "plan format 2"),
    "another kind": (lambda about: about.update(kind="evaluate"), "got one to evaluate 8"),
    "another batch": (lambda about: about.update(batch=9), "got one to train 9"),
    "an address below": (lambda about: about.update(seed=64), "the plan's seed lies outside"),
    "an end behind the end": (
        lambda about: about["tensors"].update(x=[about["memory_bytes"] - 4, "float32", [2]]),
        "tensor x lies outside",
    ),
    "a lacking tensor": (lambda about: about["tensors"].pop("conv.bias"), "do not agree"),
    "an anchor of nothing": (lambda about: about["anchors"].update(x=about["slots"]["exp_avg/conv.bias"]), "do not agree"),
}


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
def test_plans_that_do_not_fit_are_refused(node: Host, change: Callable[[dict[str, Any]], object], said: str) -> None:
    case = hard()
    refused(node, case, said, instead={plan_name(case, "train", 8): changed(plans(case)[plan_name(case, "train", 8)], change)})


def test_plans_of_another_program_are_refused(node: Host) -> None:
    case = hard(stop=45)  # whole batches: a single plan, which agrees with itself
    plan = plans(case)[plan_name(case, "train", 8)]
    lacking = changed(plan, lambda about: about["tensors"].pop("conv.bias"))
    refused(node, case, "no place for tensor conv.bias, float32 \\[4\\]", instead={plan_name(case, "train", 8): lacking})
    odd = changed(plan, lambda about: about["anchors"].update(x=about["slots"]["exp_avg/conv.bias"]))
    refused(node, case, "anchor for x, which is no tensor", instead={plan_name(case, "train", 8): odd})


def test_a_call_that_the_module_does_not_know_is_told(node: Host) -> None:
    case = hard()
    unknown = changed(plans(case)[plan_name(case, "train", 8)], lambda _: None, lambda words: words.__setitem__(0, 10_000))
    refused(node, case, "word 0 of the plan is no kernel of this module", instead={plan_name(case, "train", 8): unknown})


def test_a_trap_in_the_kernels_is_told(node: Host) -> None:
    case = hard()
    astray = changed(plans(case)[plan_name(case, "train", 8)], lambda _: None, lambda words: words.__setitem__(1, -8))
    refused(node, case, "a step on 8 samples failed in the kernels", instead={plan_name(case, "train", 8): astray})


def test_a_plan_for_another_optimizer_does_not_take_a_continuation(node: Host) -> None:
    case = hard()
    momentum = replace(case.spec, inner=InnerOptimizer(momentum=0.9))
    saved = InPython().run(replace(case, spec=momentum), stop=3).saved
    refused(node, case, "tensor exp_avg/conv.weight should be", continuation=saved)
