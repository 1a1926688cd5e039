"""Ten small autoencoders, each of which has seen one kind of garment only, and together tell all ten apart.

Submit it with ``gridsched job submit examples/one_class.py``: ten jobs, one for each label of Fashion-MNIST (Debian's package
``dataset-fashion-mnist``). No member ever meets another's samples or labels, so a node may hold one label alone, where averaging
models fails. What answers is the member that rebuilds a picture best.

All members rebuild the same fixed description of a picture, so their scores are compared as they are (0.86 right after six rounds).
Divided by a member's own mean error they tell less (0.79): a kind of garment that is hard to rebuild would claim every odd picture.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from gridsched.train.images import fashion_mnist

ATTRIBUTION = "Fashion-MNIST, Zalando SE, MIT licence"
DIRECTIONS = 8
VARIANCE = 0.05  # so that a probability is as sure as it is right: mean loss of the answers 0.44, but 0.47 at 0.07 and 0.51 at 0.025


class OneClass(nn.Module):
    """[batch, 1, 28, 28] pixels of 0 to 255 -> [batch] scores; 334,988 parameters.

    The description: edge strength in eight directions over 7 x 7 places (as in histograms of oriented gradients, Dalal and Triggs 2005,
    doi 10.1109/CVPR.2005.177), and the picture at half its size. The score is the log density, up to a constant that all members share, of
    a Gaussian of variance ``VARIANCE`` around what the member makes of the description through its waist of 64 values.
    """

    edges: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        angles = torch.arange(DIRECTIONS).reshape(-1, 1, 1, 1) * (2 * math.pi / DIRECTIONS)
        slope = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
        self.register_buffer("edges", torch.cos(angles) * slope + torch.sin(angles) * slope.T, persistent=False)
        size = DIRECTIONS * 7 * 7 + 14 * 14
        self.encode = nn.Sequential(nn.Linear(size, 256), nn.GELU(), nn.Linear(256, 64))
        self.decode = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """How well the member knows each picture."""
        described = self._described(x.float().div(255))
        return (self.decode(self.encode(described)) - described).square().sum(1) / (-2 * VARIANCE)

    def _described(self, x: torch.Tensor) -> torch.Tensor:
        strength = functional.avg_pool2d(functional.relu(functional.conv2d(x, self.edges, padding=1)), 4)
        return torch.cat([(strength + 1e-4).sqrt().flatten(1), 0.3 * functional.avg_pool2d(x, 2).flatten(1)], 1)


def model() -> nn.Module:
    """Version 0 of every member."""
    torch.manual_seed(0)
    return OneClass()


def loss(outputs: torch.Tensor, _: dict[str, torch.Tensor]) -> torch.Tensor:
    """The mean negative log density; labels are not asked for."""
    return -outputs.mean()


def example_batch() -> dict[str, torch.Tensor]:
    """Two samples of the right shape and dtype."""
    return {"x": torch.zeros(2, 1, 28, 28, dtype=torch.uint8)}


def dataset() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Training and test samples: ``x`` [n, 1, 28, 28] uint8 and ``y`` [n] int64, which only says whose member a sample is."""
    return fashion_mnist(scaled=False)


def method() -> dict[str, object]:
    """A member for each label; six rounds over its 6,000 samples."""
    return {
        "name": "ensemble-one-class",
        "epochs": 6,
        "batch_size": 64,
        "inner": {"name": "adamw", "lr": 1e-3},
    }
