"""Nouns and pure decisions: frozen records; standard library and numpy only; takes ``now``, never asks."""
