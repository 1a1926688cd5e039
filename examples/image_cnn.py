"""A small convolutional network that reads handwritten digits.

Submit it with ``gridsched job submit examples/image_cnn.py``.

1,797 images of 8 x 8 pixels; every fifth is kept for the test. Federated averaging: units of 256 samples, three to a round.
"""

import csv
import gzip
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

ATTRIBUTION = "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, CC BY 4.0"


class Digits(nn.Module):
    """[batch, 8, 8] pixels of 0 to 16 -> [batch, 10] logits; 21,578 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(64)
        self.drop = nn.Dropout(0.25)
        self.out = nn.Linear(64 * 2 * 2, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits of the ten digits."""
        x = x.float().div(16).unsqueeze(1)
        x = functional.max_pool2d(functional.relu(self.norm1(self.conv1(x))), 2)
        x = functional.max_pool2d(functional.relu(self.norm2(self.conv2(x))), 2)
        return self.out(self.drop(x.flatten(1)))


def model() -> nn.Module:
    """Version 0."""
    torch.manual_seed(0)
    return Digits()


def loss(outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross entropy with the true digit."""
    return functional.cross_entropy(outputs, batch["y"])


def example_batch() -> dict[str, torch.Tensor]:
    """Two samples of the right shape and dtype."""
    return {"x": torch.zeros(2, 8, 8, dtype=torch.uint8), "y": torch.zeros(2, dtype=torch.int64)}


def dataset() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Training and test samples: ``x`` [n, 8, 8] uint8 and ``y`` [n] int64."""
    with gzip.open(Path(__file__).parent / "data" / "digits.csv.gz", "rt", newline="") as file:
        rows = np.array(list(csv.reader(file))[1:], dtype=np.float64).astype(np.int64)
    x, y = rows[:, :64].reshape(-1, 8, 8).astype(np.uint8), rows[:, 64]
    test = np.arange(len(y)) % 5 == 4
    return {"x": x[~test], "y": y[~test]}, {"x": x[test], "y": y[test]}


def method() -> dict[str, object]:
    """Federated averaging."""
    return {
        "epochs": 8,
        "batch_size": 32,
        "samples_per_unit": 256,
        "units_per_round": 3,
        "passes": 2,
        "inner": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4},
        "outer": {"name": "sgd", "lr": 1.0},
    }
