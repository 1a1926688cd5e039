"""A job file's network under plain ``torch.distributed``: data parallel over gloo, a checkpoint at the end of every epoch.

The way that PyTorch's own documentation shows (torchrun with an elastic number of nodes; docs.pytorch.org/docs/stable/elastic). Started
by ``gridsched evaluate peers``, once on each node that is on, through ``torch.distributed.run``; it can be run by hand in the same way.
Whoever is left after a failure begins again at the last checkpoint. Rank 0 writes one JSON line for each epoch.
"""

import argparse
import inspect
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from gridsched.train.jobfile import load_jobfile


def main() -> None:
    """Train to the last epoch."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", type=Path)
    parser.add_argument("folder", type=Path, help="shared by all: the checkpoint and the report")
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--share", type=float, default=1.0, help="of a core that this node may use")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    job = load_jobfile(options.job)
    inner = job.method.inner
    module = job.model()
    model = DistributedDataParallel(module)
    fields = list(inspect.signature(module.forward).parameters)
    if inner.name == "sgd":
        optimizer = torch.optim.SGD(model.parameters(), lr=inner.lr, momentum=inner.momentum, weight_decay=inner.weight_decay)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=inner.lr, weight_decay=inner.weight_decay)
    train, test = job.dataset()
    checkpoint = options.folder / "checkpoint.pt"
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)  # noqa: TID251 - its own file, in the way its users do it
        module.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["epoch"]
    for epoch in range(first, options.epochs):
        model.train()
        order = np.random.default_rng(epoch).permutation(len(train["y"]))[dist.get_rank() :: dist.get_world_size()]
        size = job.method.batch_size
        for start in range(0, len(train["y"]) // dist.get_world_size() // size * size, size):
            began = time.process_time()
            batch = {name: torch.from_numpy(field[order[start : start + size]]) for name, field in train.items()}
            optimizer.zero_grad()
            job.loss(model(*(batch[name] for name in fields)), batch).backward()
            optimizer.step()
            time.sleep((time.process_time() - began) * (1 / options.share - 1))
        if dist.get_rank() == 0:
            aside = checkpoint.with_suffix(".part")
            torch.save({"model": module.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}, aside)  # noqa: TID251
            aside.replace(checkpoint)
            report(options.folder / "epochs.jsonl", epoch, accuracy_of(module, fields, test))
        dist.barrier()
    dist.destroy_process_group()


def accuracy_of(module: torch.nn.Module, fields: list[str], test: dict[str, np.ndarray]) -> float:
    """The share of right answers."""
    module.eval()
    with torch.no_grad():
        parts = [
            {name: torch.from_numpy(field[start : start + 500]) for name, field in test.items()} for start in range(0, len(test["y"]), 500)
        ]
        right = sum(int((module(*(part[name] for name in fields)).argmax(-1) == part["y"]).sum()) for part in parts)
    return right / len(test["y"])


def report(path: Path, epoch: int, accuracy: float) -> None:
    """One line more."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"epoch": epoch, "accuracy": accuracy, "nodes": dist.get_world_size()}) + "\n")


if __name__ == "__main__":
    main()
