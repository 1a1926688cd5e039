"""A job file's network under Flower: federated averaging in rounds of one pass, every node over its own share of the samples.

Written as Flower's own quickstart is (flower.ai/docs/framework). Started by ``gridsched evaluate peers --flower VENV``, once as the server
and once on each node that is on. A round takes whoever is there; the server is asked after each one how good the model is, and writes a
JSON line.
"""

import inspect
import json
import time
from pathlib import Path

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from gridsched.train.jobfile import load_jobfile

server_app = ServerApp()
client_app = ClientApp()


@server_app.main()
def serve(grid: Grid, context: Context) -> None:
    """All rounds, each with the nodes that are there."""
    torch.set_num_threads(1)
    config = context.run_config
    job = load_jobfile(Path(str(config["job"])))
    module, (_, test), report = job.model(), job.dataset(), Path(str(config["report"]))

    def over(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        module.load_state_dict(arrays.to_torch_state_dict())
        right = accuracy_of(module, test)
        if server_round:
            with report.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"epoch": server_round - 1, "accuracy": right}) + "\n")
        return MetricRecord({"accuracy": right})

    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=1, min_evaluate_nodes=0, min_available_nodes=1)
    strategy.start(
        grid=grid, initial_arrays=ArrayRecord(module.state_dict()), num_rounds=int(config["num-server-rounds"]), evaluate_fn=over
    )


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """One pass over this node's share; it rests between steps, so as not to use more than its share of a core."""
    torch.set_num_threads(1)
    config, place = context.run_config, int(context.node_config["partition-id"])
    job = load_jobfile(Path(str(config["job"])))
    inner, module = job.method.inner, job.model()
    module.load_state_dict(message.content["arrays"].to_torch_state_dict())
    fields = list(inspect.signature(module.forward).parameters)
    if inner.name == "sgd":
        optimizer = torch.optim.SGD(module.parameters(), lr=inner.lr, momentum=inner.momentum, weight_decay=inner.weight_decay)
    else:
        optimizer = torch.optim.AdamW(module.parameters(), lr=inner.lr, weight_decay=inner.weight_decay)
    samples, _ = job.dataset()
    mine = np.random.default_rng().permutation(np.arange(len(samples["y"]))[place :: int(config["nodes"])])
    module.train()
    for start in range(0, len(mine), job.method.batch_size):
        began = time.process_time()
        batch = {name: torch.from_numpy(field[mine[start : start + job.method.batch_size]]) for name, field in samples.items()}
        optimizer.zero_grad()
        job.loss(module(*(batch[name] for name in fields)), batch).backward()
        optimizer.step()
        time.sleep((time.process_time() - began) * (1 / float(config["share"]) - 1))
    told = RecordDict({"arrays": ArrayRecord(module.state_dict()), "metrics": MetricRecord({"num-examples": len(mine)})})
    return Message(content=told, reply_to=message)


def accuracy_of(module: torch.nn.Module, test: dict[str, np.ndarray]) -> float:
    """The share of right answers."""
    fields = list(inspect.signature(module.forward).parameters)
    module.eval()
    with torch.no_grad():
        parts = [
            {name: torch.from_numpy(field[start : start + 500]) for name, field in test.items()} for start in range(0, len(test["y"]), 500)
        ]
        right = sum(int((module(*(part[name] for name in fields)).argmax(-1) == part["y"]).sum()) for part in parts)
    return right / len(test["y"])
