"""The network of the training benchmarks: 784 -> 200 -> 200 -> 10, 199,210 parameters, on 4,000 samples of Fashion-MNIST.

A job file like any other, and the one place where the peers' programs take the same model and samples from.
"""

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

ATTRIBUTION = "Fashion-MNIST, Zalando SE, MIT licence"
FOLDER = Path("/usr/share/datasets/fashion-mnist")
SAMPLES, TEST_SAMPLES = 4000, 1000
BATCH, LR, MOMENTUM = 50, 0.05, 0.9


def model() -> nn.Module:
    """Version 0."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10))


def loss(outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross entropy with the true kind of garment."""
    return functional.cross_entropy(outputs, batch["y"])


def example_batch() -> dict[str, torch.Tensor]:
    """Two samples."""
    return {"input": torch.zeros(2, 784), "y": torch.zeros(2, dtype=torch.int64)}


def samples(kind: str, count: int) -> dict[str, np.ndarray]:
    """The first ``count`` of ``train`` or ``t10k``: ``input`` [n, 784] float32 from 0 to 1 and ``y`` [n] int64."""
    with gzip.open(FOLDER / f"{kind}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(16 + count * 784), np.uint8, offset=16).reshape(count, 784)
    with gzip.open(FOLDER / f"{kind}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(8 + count), np.uint8, offset=8)
    return {"input": pixels.astype(np.float32) / 255, "y": labels.astype(np.int64)}


def dataset() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """No test samples: what is measured is training, as with the peers."""
    return samples("train", SAMPLES), {}


def method() -> dict[str, object]:
    """Federated averaging with one local epoch; how many nodes share the samples is for the benchmark to say."""
    return {"name": "fedavg", "batch_size": BATCH, "inner": {"name": "sgd", "lr": LR, "momentum": MOMENTUM}}
