"""A small transformer that learns to write like a sonnet, character by character.

gridsched job submit examples/transformer.py
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

ATTRIBUTION = "William Shakespeare, Sonnets (1609), public domain"
WINDOW = 32
WIDTH = 48
ALPHABET = "\n !',-.:;?abcdefghijklmnopqrstuvwxyz"


class Block(nn.Module):
    """[batch, window, width] -> the same: attention to what came before, then a small network, each added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query_key_value = nn.Linear(WIDTH, 3 * WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.feed = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
        self.drop = nn.Dropout(0.1)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Attend, then think; both are added to what was there."""
        q, k, v = self.query_key_value(self.norm1(h)).unflatten(-1, (3, 4, WIDTH // 4)).permute(2, 0, 3, 1, 4).unbind(0)
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        h = h + self.drop(self.mix(attended))
        return h + self.drop(self.feed(self.norm2(h)))


class Writer(nn.Module):
    """[batch, 32] characters -> [batch, 32, alphabet] logits; the output layer shares the embedding's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(ALPHABET), WIDTH)
        self.place = nn.Parameter(torch.randn(WINDOW, WIDTH) / 50)
        self.blocks = nn.Sequential(Block(), Block())
        self.norm = nn.LayerNorm(WIDTH)
        self.out = nn.Linear(WIDTH, len(ALPHABET), bias=False)
        self.out.weight = self.embed.weight
        nn.init.normal_(self.embed.weight, std=0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits of every next character."""
        return self.out(self.norm(self.blocks(self.embed(x) + self.place)))


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
    """Overlapping windows ``x`` and the same one character later ``y``, both [n, 32] int64; the last tenth is the test."""
    text = (Path(__file__).parent / "data" / "text.txt").read_text(encoding="utf-8").lower()
    codes = np.array([ALPHABET.index(character) for character in text], dtype=np.int64)
    rows = codes[np.arange(0, len(codes) - WINDOW - 1, 8)[:, None] + np.arange(WINDOW + 1)]
    cut = len(rows) * 9 // 10
    train, test = rows[: cut - WINDOW // 8], rows[cut:]  # a window's length apart, so that no character is in both
    return {"x": train[:, :-1], "y": train[:, 1:]}, {"x": test[:, :-1], "y": test[:, 1:]}


def method() -> dict[str, object]:
    """Local AdamW with the outer step of DiLoCo."""
    return {
        "epochs": 12,
        "batch_size": 16,
        "samples_per_unit": 128,
        "units_per_round": 4,
        "passes": 2,
        "inner": {"name": "adamw", "lr": 0.005, "weight_decay": 0.01},
        "outer": {"name": "nesterov", "lr": 0.7, "momentum": 0.6},
    }
