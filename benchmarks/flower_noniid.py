"""Flower's side of train_noniid.py: its FedAvg strategy over ten clients, in an environment of its own that holds flwr and torch.

    PYTHON flower_noniid.py COLUMN.npz STATE.npz ROUNDS PASSES BATCH

The clients train in this process and the strategy is called as a Flower server calls it: parameters as Flower serialises them, one
``FitRes`` for each client, ``FedAvg.aggregate_fit``. What a network would add is time, which is not compared here. The state is written
after every round, and a run that was stopped goes on from it.
"""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from flwr.common import Code, FitRes, Parameters, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FedAvg
from small_cnn import LR, MOMENTUM, WEIGHT_DECAY, SmallCnn, loss
from torch import Tensor


def train(model: SmallCnn, x: Tensor, y: Tensor, passes: int, batch: int, generator: torch.Generator) -> None:
    """One client's round, as in ``niid_bench``: a fresh optimizer, samples shuffled in every pass."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    model.train()
    for _ in range(passes):
        for chosen in torch.randperm(len(y), generator=generator).split(batch):
            optimizer.zero_grad()
            loss(model(x[chosen]), {"y": y[chosen]}).backward()
            optimizer.step()


@torch.no_grad()
def accuracy(model: SmallCnn, x: Tensor, y: Tensor) -> float:
    """The share of test samples that get their own label."""
    model.eval()
    right = sum(int((model(part).argmax(1) == truth).sum()) for part, truth in zip(x.split(1000), y.split(1000), strict=True))
    return right / len(y)


def put(model: SmallCnn, parameters: Parameters) -> None:
    """Load what the server sent."""
    arrays = parameters_to_ndarrays(parameters)
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in zip(model.state_dict(), arrays, strict=True)})


class Client(ClientProxy):
    """Names a client to the strategy; training is called directly."""

    def get_properties(self, *_: object) -> None:
        """Not asked for by FedAvg."""

    get_parameters = fit = evaluate = reconnect = get_properties


def main() -> None:
    """Train the rounds that are not in the state yet."""
    torch.set_num_threads(1)
    column, state = np.load(sys.argv[1]), Path(sys.argv[2])
    rounds, passes, batch = map(int, sys.argv[3:6])
    x, y, test_x, test_y = (torch.from_numpy(column[name]) for name in ("x", "y", "test_x", "test_y"))
    borders = np.cumsum([0, *column["parts"]])
    clients = [(x[start:stop], y[start:stop]) for start, stop in pairwise(borders)]
    model, names = SmallCnn(), list(SmallCnn().state_dict())
    saved = dict(np.load(state)) if state.is_file() else {name: column[name] for name in names} | {"accuracy": np.zeros(0)}
    strategy, found = FedAvg(), list(saved["accuracy"])
    parameters = ndarrays_to_parameters([saved[name] for name in names])
    for number in range(len(found), rounds):
        results = []
        for index, (own_x, own_y) in enumerate(clients):
            put(model, parameters)
            train(model, own_x, own_y, passes, batch, torch.Generator().manual_seed(number * len(clients) + index))
            sent = ndarrays_to_parameters([tensor.detach().numpy() for tensor in model.state_dict().values()])
            status = Status(code=Code.OK, message="")
            results.append((Client(str(index)), FitRes(status=status, parameters=sent, num_examples=len(own_y), metrics={})))
        merged, _ = strategy.aggregate_fit(number + 1, results, [])
        assert merged is not None
        parameters = merged
        put(model, parameters)
        found.append(accuracy(model, test_x, test_y))
        aside = state.with_suffix(".aside.npz")
        np.savez(aside, accuracy=np.array(found), **dict(zip(names, parameters_to_ndarrays(parameters), strict=True)))
        aside.replace(state)
        print(f"  Flower FedAvg, round {number + 1}/{rounds}: {found[-1]:.4f}", flush=True)


if __name__ == "__main__":
    main()
