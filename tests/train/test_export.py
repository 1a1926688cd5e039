"""What may become a program, and what is refused by name."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from gridsched.core.errors import ProgramError, UnsupportedOperator
from gridsched.core.method import InnerOptimizer
from gridsched.train.export import breaks_alone, export
from gridsched.train.graph import TensorSpec
from gridsched.train.operators import ALLOWED
from gridsched.train.torch_runtime import TorchRuntime, load_version
from tests.train.builders import HardNet, cross_entropy, example, exported_example, hard_net, samples

BATCH = {"x": torch.zeros(2, 4), "y": torch.zeros(2, dtype=torch.int64)}


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.out(x)
        return outputs


class Inverse(Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = super().forward(x) @ torch.linalg.inv(torch.eye(3) + 1)
        return outputs


class FixedBatch(Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.reshape(2, 4))


class Branching(Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x if x.sum() > 0 else -x)


class Pair(Linear):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        return x, x


class OtherName(Linear):
    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return super().forward(picture)


def test_an_operator_outside_the_allow_list_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedOperator, match=r"aten\.linalg_inv"):
        export(Inverse(), BATCH, cross_entropy)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (FixedBatch(), "fixes its batch size"),
        (Branching(), "cannot be traced"),
        (Pair(), "must return one tensor"),
        (OtherName(), "forward takes none"),
    ],
)
def test_a_model_that_cannot_be_a_program_is_refused_with_the_reason(module: nn.Module, reason: str) -> None:
    with pytest.raises(ProgramError, match=reason):
        export(module, BATCH, cross_entropy)


def test_a_loss_that_is_no_scalar_is_refused() -> None:
    with pytest.raises(ProgramError, match="must be a scalar"):
        export(Linear(), BATCH, lambda outputs, batch: outputs.sum(-1))


def test_an_example_batch_of_one_sample_is_refused() -> None:
    with pytest.raises(ProgramError, match="two or more samples"):
        export(Linear(), {"x": torch.zeros(1, 4)}, lambda outputs, batch: outputs.mean())


DOUBLE, FIVE = torch.tensor([2.0]), torch.tensor([5.0])


class Switching(Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            x = x * DOUBLE
        return super().forward(x - FIVE)


def test_a_constant_of_evaluation_is_not_taken_for_one_of_training() -> None:
    module = Switching()
    program, tensors = export(module, BATCH, cross_entropy)
    batch = {"x": torch.randn(5, 4), "y": torch.tensor([0, 1, 2, 0, 1])}
    arrays = {name: field.numpy() for name, field in batch.items()}
    runtime = TorchRuntime(program, tensors)
    assert runtime.answer(arrays)[1].tobytes() == module.eval()(batch["x"]).detach().numpy().tobytes()
    assert runtime.train_step(arrays, 0) == cross_entropy(module.train()(batch["x"]), batch).item()
    assert program.names("constant") == ("lifted_tensor_0", "lifted_tensor_1", "lifted_tensor_0.2")


def test_one_sample_alone_breaks_a_variance_over_the_batch_and_not_one_over_a_picture() -> None:
    wines = example("tabular_mlp").dataset()[0]
    assert breaks_alone(*exported_example("tabular_mlp"), {name: array[:2] for name, array in wines.items()}) == "0.running_var"
    assert breaks_alone(*hard_net(), {name: array[:2] for name, array in samples().items()}) == ""


@pytest.mark.parametrize("training", [True, False])
def test_the_module_keeps_its_mode_and_its_tensors(training: bool) -> None:
    module = HardNet().train(training)
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    export(module, {"x": torch.ones(2, 1, 4, 4), "y": torch.zeros(2, dtype=torch.int64)}, cross_entropy)
    assert module.training is training
    assert [key for key, tensor in module.state_dict().items() if not torch.equal(tensor, before[key])] == []


def test_names_roles_and_target_are_those_of_the_module() -> None:
    program, tensors = hard_net()
    assert set(tensors) == set(HardNet().state_dict())
    assert program.names("parameter") == tuple(name for name, _ in HardNet().named_parameters())
    assert program.target == "y"


def test_a_frozen_parameter_stays_and_is_not_trained() -> None:
    module = Linear()
    module.out.weight.requires_grad_(False)
    program, tensors = export(module, BATCH, cross_entropy)
    runtime = TorchRuntime(program, tensors)
    runtime.start(InnerOptimizer(lr=0.5))
    runtime.train_step({"x": np.ones((3, 4), np.float32), "y": np.zeros(3, np.int64)}, 0)
    state = runtime.state()
    assert state["out.weight"].tobytes() == tensors["out.weight"].tobytes()
    assert state["out.bias"].tobytes() != tensors["out.bias"].tobytes()


def test_a_channels_last_module_trains_in_eager_bits() -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(128, 3)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch = {"input": torch.randn(4, 3, 6, 6), "y": torch.tensor([0, 1, 2, 0])}
    program, tensors = export(module, batch, cross_entropy)
    assert program.spec("0.weight").layout == "channels_last"
    runtime = TorchRuntime(program, tensors)
    runtime.start(InnerOptimizer(lr=0.1))
    loss = cross_entropy(module.train()(batch["input"]), batch)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    assert runtime.train_step({name: field.numpy() for name, field in batch.items()}, 0) == loss.item()
    assert runtime.state()["0.weight"].tobytes() == module.state_dict()["0.weight"].contiguous().numpy().tobytes()


@pytest.mark.parametrize("name", ["forward", "out.weight.deeper", "__class__.x", "_modules.x"])
def test_a_tensor_may_be_named_like_anything_for_no_name_becomes_code(name: str) -> None:
    program, tensors = export(Linear(), BATCH, cross_entropy)
    strange = TensorSpec(name=name, dtype="float32", shape=(1,), role="buffer")
    runtime = TorchRuntime(dataclasses.replace(program, tensors=(*program.tensors, strange)), tensors)
    assert runtime.state()[name].tolist() == [0.0]


def test_a_version_of_another_model_does_not_load() -> None:
    with pytest.raises(ProgramError, match=r"missing \['out.bias'\]"):
        load_version(Linear(), {"out.weight": np.zeros((3, 4), np.float32)})
    with pytest.raises(ProgramError, match="shape"):
        load_version(Linear(), {"out.weight": np.zeros((4, 3), np.float32), "out.bias": np.zeros(3, np.float32)})


def test_every_operator_of_the_allow_list_is_one_that_torch_has() -> None:
    names = [op.split(".")[1:] for op in ALLOWED if op.startswith("aten.")]
    assert [name for name, overload in names if getattr(getattr(torch.ops.aten, name, None), overload, None) is None] == []
