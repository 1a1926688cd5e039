"""A recurrent network that learns to write like a sonnet, character by character.

gridsched job submit examples/text_gru.py
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

ATTRIBUTION = "William Shakespeare, Sonnets (1609), public domain"
WINDOW = 16
ALPHABET = "\n !',-.:;?abcdefghijklmnopqrstuvwxyz"


class Writer(nn.Module):
    """[batch, 16] characters -> [batch, 16, alphabet] logits of the character that follows each."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(ALPHABET), 32)
        self.gru = nn.GRU(32, 96, batch_first=True)
        self.out = nn.Linear(96, len(ALPHABET))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits of every next character."""
        return self.out(self.gru(self.embed(x))[0])


def model() -> nn.Module:
    """Version 0."""
    torch.manual_seed(0)
    return Writer()


def loss(outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross entropy per character."""
    return functional.cross_entropy(outputs.flatten(0, 1), batch["y"].flatten())


def example_batch() -> dict[str, torch.Tensor]:
    """Two windows of text."""
    return {name: torch.zeros(2, WINDOW, dtype=torch.int64) for name in ("x", "y")}


def dataset() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Overlapping windows ``x`` and the same one character later ``y``, both [n, 16] int64; the last tenth is the test."""
    text = (Path(__file__).parent / "data" / "text.txt").read_text(encoding="utf-8").lower()
    codes = np.array([ALPHABET.index(character) for character in text], dtype=np.int64)
    rows = codes[np.arange(0, len(codes) - WINDOW - 1, 8)[:, None] + np.arange(WINDOW + 1)]
    cut = len(rows) * 9 // 10
    train, test = rows[: cut - WINDOW // 8], rows[cut:]  # a window's length apart, so that no character is in both
    return {"x": train[:, :-1], "y": train[:, 1:]}, {"x": test[:, :-1], "y": test[:, 1:]}


def method() -> dict[str, object]:
    """Local AdamW with the outer step of DiLoCo."""
    return {
        "epochs": 6,
        "batch_size": 16,
        "samples_per_unit": 128,
        "units_per_round": 4,
        "passes": 2,
        "inner": {"name": "adamw", "lr": 0.005, "weight_decay": 0.01},
        "outer": {"name": "nesterov", "lr": 0.7, "momentum": 0.6},
    }
