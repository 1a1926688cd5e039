"""A small convolutional network that tells ten kinds of garment apart.

Submit it with ``gridsched job submit examples/fashion_cnn.py``. The 60,000 training and 10,000 test images are Fashion-MNIST's; they come
with Debian's package ``dataset-fashion-mnist``.

Federated averaging: units of 6,000 samples, five to a round. For learning on separate data, give ``method()`` a partition, such as
``"partition": {"by": "dirichlet", "alpha": 0.5, "parts": 10}, "units_per_round": 0``.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from gridsched.train.images import fashion_mnist

ATTRIBUTION = "Fashion-MNIST, Zalando SE, MIT licence"


class Garments(nn.Module):
    """[batch, 1, 28, 28] pixels of 0 to 255 -> [batch, 10] logits; 26,746 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.norm1 = nn.GroupNorm(2, 8)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.norm2 = nn.GroupNorm(2, 16)
        self.hidden = nn.Linear(16 * 7 * 7, 32)
        self.out = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits of the ten kinds."""
        x = x.float().div(255)
        x = functional.relu(self.norm1(functional.max_pool2d(self.conv1(x), 2)))
        x = functional.relu(self.norm2(functional.max_pool2d(self.conv2(x), 2)))
        return self.out(functional.relu(self.hidden(x.flatten(1))))


def model() -> nn.Module:
    """Version 0."""
    torch.manual_seed(0)
    return Garments()


def loss(outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross entropy with the true kind."""
    return functional.cross_entropy(outputs, batch["y"])


def example_batch() -> dict[str, torch.Tensor]:
    """Two samples of the right shape and dtype."""
    return {"x": torch.zeros(2, 1, 28, 28, dtype=torch.uint8), "y": torch.zeros(2, dtype=torch.int64)}


def dataset() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Training and test samples: ``x`` [n, 1, 28, 28] uint8 and ``y`` [n] int64."""
    return fashion_mnist(scaled=False)


def method() -> dict[str, object]:
    """Federated averaging."""
    return {
        "name": "fedavg",
        "epochs": 5,
        "batch_size": 50,
        "samples_per_unit": 6000,
        "units_per_round": 5,
        "inner": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
    }
