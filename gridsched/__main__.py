"""``python -m gridsched``."""

from gridsched.cli import app

app()
