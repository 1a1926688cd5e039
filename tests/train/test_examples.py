"""Every example, exported, written, read back and rebuilt, trains in the very bits of eager PyTorch."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn

from gridsched.core.method import InnerOptimizer
from gridsched.train.export import call_module
from gridsched.train.tensors import Array
from gridsched.train.torch_runtime import TorchRuntime, load_version
from gridsched.train.version import initial_version, owner_tensors, read_version
from tests.train.builders import dataset_of, example, exported_example

EXAMPLES = ["graph_gcn", "image_cnn", "tabular_mlp", "text_gru", "transformer"]
OPTIMIZERS = [
    InnerOptimizer(name="sgd", lr=0.05, momentum=0.9, weight_decay=1e-3),
    InnerOptimizer(name="adamw", lr=0.01, weight_decay=0.02),
]


def eager_optimizer(module: nn.Module, inner: InnerOptimizer) -> torch.optim.Optimizer:
    if inner.name == "sgd":
        return torch.optim.SGD(module.parameters(), lr=inner.lr, momentum=inner.momentum, weight_decay=inner.weight_decay)
    return torch.optim.AdamW(
        module.parameters(), lr=inner.lr, weight_decay=inner.weight_decay, betas=(inner.beta1, inner.beta2), eps=inner.eps
    )


def batches(fields: Mapping[str, Array], size: int, count: int) -> list[dict[str, Array]]:
    dataset = dataset_of(fields)
    draw = np.random.default_rng(0)
    return [dataset.batch(draw.integers(0, dataset.samples, size)) for _ in range(count)]


@pytest.mark.parametrize("inner", OPTIMIZERS, ids=lambda inner: inner.name)
@pytest.mark.parametrize("name", EXAMPLES)
def test_ten_steps_through_the_program_equal_ten_eager_steps_bit_for_bit(name: str, inner: InnerOptimizer) -> None:
    job = example(name)
    module = job.model()
    runtime = TorchRuntime(*exported_example(name))
    runtime.start(inner)
    optimizer = eager_optimizer(module.train(), inner)
    for step, batch in enumerate(batches(job.dataset()[0], 8, 10)):
        torch.manual_seed(step)
        optimizer.zero_grad()
        fields = {field: torch.tensor(array) for field, array in batch.items()}
        loss = job.loss(call_module(module, fields), fields)
        loss.backward()
        optimizer.step()
        assert runtime.train_step(batch, step) == loss.item()
    state = runtime.state()
    eager = {key: tensor.numpy() for key, tensor in module.state_dict().items() if key in state}
    assert eager.keys() == state.keys()
    assert [key for key in state if eager[key].tobytes() != state[key].tobytes()] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_evaluation_equals_the_eager_module_in_eval_mode(name: str) -> None:
    job = example(name)
    module = job.model()
    runtime = TorchRuntime(*exported_example(name))
    (batch,) = batches(job.dataset()[1], 7, 1)
    before = runtime.state()
    found = runtime.evaluate(batch)
    with torch.no_grad():
        fields = {field: torch.tensor(array) for field, array in batch.items()}
        outputs = call_module(module.eval(), fields)
    assert found.loss == job.loss(outputs, fields).item()
    assert (found.correct, found.count) == (int((outputs.argmax(-1) == fields["y"]).sum()), fields["y"].numel())
    assert {key: array.tobytes() for key, array in runtime.state().items()} == {key: array.tobytes() for key, array in before.items()}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_fetched_version_loads_into_the_owners_own_module(name: str) -> None:
    job = example(name)
    program, tensors = exported_example(name)
    moved = {key: array + 1 if array.dtype == np.float32 else array for key, array in tensors.items()}
    version = read_version(initial_version(program, moved).to_bytes())
    own = job.model()
    load_version(own, version.tensors)
    plain = job.model()
    plain.load_state_dict({key: torch.tensor(array) for key, array in owner_tensors(program, version).items()})
    for module in (own, plain):
        for key, tensor in module.state_dict().items():
            stored = program.aliases.get(key, key)
            assert tensor.numpy().tobytes() == moved[stored].tobytes(), key
