"""A graph convolutional network (Kipf and Welling 2017) that tells which side each member of a karate club took.

Submit it with ``gridsched job submit examples/graph_gcn.py``.

34 members and 78 friendships. The graph is part of the model, as a buffer; a sample is one member.
"""

import csv
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

ATTRIBUTION = "W. W. Zachary, An Information Flow Model for Conflict and Fission in Small Groups, 1977"
MEMBERS = 34
_DATA = Path(__file__).parent / "data"


class Gcn(nn.Module):
    """[batch] members -> [batch, 2] logits; two rounds of averaging over friends."""

    def __init__(self, edges: torch.Tensor) -> None:
        super().__init__()
        both = torch.cat([edges, edges.flip(1), torch.arange(MEMBERS).repeat(2, 1).T])
        degree = torch.zeros(MEMBERS).index_add(0, both[:, 0], torch.ones(len(both)))
        self.register_buffer("source", both[:, 1].contiguous())
        self.register_buffer("goal", both[:, 0].contiguous())
        self.register_buffer("weight", (degree[both[:, 0]] * degree[both[:, 1]]).rsqrt().unsqueeze(1))
        self.features = nn.Parameter(torch.randn(MEMBERS, 16) / 4)
        self.hidden = nn.Linear(16, 16)
        self.out = nn.Linear(16, 2)

    def mix(self, h: torch.Tensor) -> torch.Tensor:
        """[members, k] -> [members, k]: each member's own and friends' values, weighted by degree."""
        return torch.zeros_like(h).index_add(0, self.goal, h.index_select(0, self.source) * self.weight)

    def forward(self, member: torch.Tensor) -> torch.Tensor:
        """The logits of the members asked for."""
        h = functional.relu(self.hidden(self.mix(self.features)))
        return self.out(self.mix(h)).index_select(0, member)


def model() -> nn.Module:
    """Version 0."""
    torch.manual_seed(0)
    with (_DATA / "karate_edges.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return Gcn(torch.tensor([[int(a), int(b)] for a, b in rows]))


def loss(outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross entropy with the side taken."""
    return functional.cross_entropy(outputs, batch["y"])


def example_batch() -> dict[str, torch.Tensor]:
    """Two members."""
    return {"member": torch.zeros(2, dtype=torch.int64), "y": torch.zeros(2, dtype=torch.int64)}


def dataset() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """``member`` [n] and the side ``y`` [n], both int64; every third member is kept for the test."""
    with (_DATA / "karate_members.csv").open(newline="") as file:
        rows = np.array(list(csv.reader(file))[1:], dtype=np.int64)
    test = np.arange(len(rows)) % 3 == 2
    train, held = rows[~test], rows[test]
    return {"member": train[:, 0], "y": train[:, 1]}, {"member": held[:, 0], "y": held[:, 1]}


def method() -> dict[str, object]:
    """Synchronous data parallel: one step per unit."""
    return {
        "epochs": 60,
        "batch_size": 12,
        "samples_per_unit": 12,
        "units_per_round": 2,
        "passes": 1,
        "inner": {"name": "sgd", "lr": 1.0},
    }
