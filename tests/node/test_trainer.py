"""The training child as its supervisor starts it."""

from pathlib import Path

import psutil

from gridsched.node.state import Home
from gridsched.node.trainer import Trainer
from tests.node.builders import quiet


def test_the_child_is_told_to_be_exact_on_cuda_before_it_can_ask_and_to_keep_no_memory_for_idle_threads(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.make()
    trainer = Trainer(home, quiet(), lambda _: None, lambda _: None)
    trainer.start()
    assert trainer.pid is not None
    told = psutil.Process(trainer.pid).environ()
    trainer.quit(within_s=0.01)
    assert told["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert told["OPENBLAS_NUM_THREADS"] == "1"
    assert told.keys() >= {"PATH"}, "the rest of the environment is kept"
