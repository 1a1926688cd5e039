"""The small network of the non-IID benchmark: two 5 x 5 convolutions (6 and 16 filters) and three dense layers, 44,426 parameters.

That of NIID-Bench (Li et al. 2022, arXiv:2102.02079) and of Flower's ``niid_bench``, with their optimizer. A job file like any other, and
the one place where the peer's program takes the same model from.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

ATTRIBUTION = "Fashion-MNIST, Zalando SE, MIT licence"
BATCH, LR, MOMENTUM, WEIGHT_DECAY = 64, 0.01, 0.9, 1e-5


class SmallCnn(nn.Module):
    """[batch, 1, 28, 28] pixels of 0 to 255 -> [batch, 10] logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.dense1 = nn.Linear(16 * 4 * 4, 120)
        self.dense2 = nn.Linear(120, 84)
        self.out = nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits of the ten kinds of garment."""
        x = functional.max_pool2d(functional.relu(self.conv1(x.float().div(255))), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2).flatten(1)
        return self.out(functional.relu(self.dense2(functional.relu(self.dense1(x)))))


def model() -> nn.Module:
    """Version 0."""
    torch.manual_seed(0)
    return SmallCnn()


def loss(outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross entropy with the true kind of garment."""
    return functional.cross_entropy(outputs, batch["y"])


def example_batch() -> dict[str, torch.Tensor]:
    """Two samples."""
    return {"x": torch.zeros(2, 1, 28, 28, dtype=torch.uint8), "y": torch.zeros(2, dtype=torch.int64)}


def dataset() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Fashion-MNIST, whole."""
    from gridsched.train.images import fashion_mnist

    return fashion_mnist(scaled=False)


def method() -> dict[str, object]:
    """Federated averaging as the benchmark has it; how the samples are shared out is for the benchmark to say."""
    return {
        "name": "fedavg",
        "units_per_round": 0,
        "batch_size": BATCH,
        "inner": {"name": "sgd", "lr": LR, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY},
    }
