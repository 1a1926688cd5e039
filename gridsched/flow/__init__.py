"""VERBS: each ``(tx, now, ...)`` runs in one transaction and returns the facts it made."""
