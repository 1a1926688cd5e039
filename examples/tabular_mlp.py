"""A small multi-layer perceptron that tells three wines apart by their chemistry.

Submit it with ``gridsched job submit examples/tabular_mlp.py``.

178 wines with 13 measurements each; every fourth is kept for the test.
"""

import csv
import gzip
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

ATTRIBUTION = "Wine, S. Aeberhard and M. Forina, UCI Machine Learning Repository, CC BY 4.0"


def model() -> nn.Module:
    """Version 0: 13 measurements -> 32 -> 32 -> 3 logits. The first layer learns the scale of each measurement."""
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm1d(13), nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))


def loss(outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross entropy with the true cultivar."""
    return functional.cross_entropy(outputs, batch["y"])


def example_batch() -> dict[str, torch.Tensor]:
    """Two samples. The argument of ``nn.Sequential`` is called ``input``, so that is the field's name."""
    return {"input": torch.zeros(2, 13), "y": torch.zeros(2, dtype=torch.int64)}


def dataset() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Training and test samples: ``input`` [n, 13] float32 and ``y`` [n] int64."""
    with gzip.open(Path(__file__).parent / "data" / "wine.csv.gz", "rt", newline="") as file:
        rows = np.array(list(csv.reader(file))[1:], dtype=np.float64)
    x, y = rows[:, :-1].astype(np.float32), rows[:, -1].astype(np.int64)
    test = np.arange(len(y)) % 4 == 3
    return {"input": x[~test], "y": y[~test]}, {"input": x[test], "y": y[test]}


def method() -> dict[str, object]:
    """Local AdamW, plain averaging."""
    return {
        "epochs": 12,
        "batch_size": 16,
        "samples_per_unit": 48,
        "units_per_round": 3,
        "passes": 4,
        "inner": {"name": "adamw", "lr": 0.01, "weight_decay": 0.01},
    }
