"""The app that Flower runs for flower_round.py: federated averaging of `fashion_mlp.py`, as Flower's own quickstart is written."""

import time
from pathlib import Path

import torch
from fashion_mlp import BATCH, LR, MOMENTUM, dataset, loss, model
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

server_app = ServerApp()
client_app = ClientApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """All nodes take part in every round; nothing is evaluated, and the end of each round is written down."""
    config = context.run_config
    nodes, stamps = int(config["nodes"]), Path(str(config["stamps"]))

    def over(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        with stamps.open("a", encoding="ascii") as lines:
            lines.write(f"{time.time():.6f}\n")
        return MetricRecord({"round": server_round, "arrays": len(arrays)})

    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=nodes, min_evaluate_nodes=0, min_available_nodes=nodes)
    strategy.start(
        grid=grid, initial_arrays=ArrayRecord(model().state_dict()), num_rounds=int(config["num-server-rounds"]), evaluate_fn=over
    )


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """One local epoch over this node's share."""
    torch.set_num_threads(1)
    net = model()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    fields = {name: torch.from_numpy(array) for name, array in dataset()[0].items()}
    shard = torch.arange(len(fields["y"])).chunk(int(context.run_config["nodes"]))[int(context.node_config["partition-id"])]
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM)
    for chosen in shard[torch.randperm(len(shard))].split(BATCH):
        optimizer.zero_grad()
        loss(net(fields["input"][chosen]), {"y": fields["y"][chosen]}).backward()
        optimizer.step()
    told = RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": MetricRecord({"num-examples": len(shard)})})
    return Message(content=told, reply_to=message)
