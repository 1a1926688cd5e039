"""By hand, as the README shows: two nodes train the example, its owner fetches it, and everyone can ask why and for how much."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gridsched.train.jobfile import load_jobfile
from tests.e2e.conftest import Peace
from tests.e2e.site_process import JOB_FILE

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def job_id(peace: Peace) -> str:
    """The example just as it is, submitted and watched by the command line."""
    said = peace.site.cli("job", "submit", str(JOB_FILE), "--epochs", "4")
    found = re.search(r"job (tabular_mlp-[0-9a-f]{6}):", said)
    assert found, said
    watched = peace.site.cli("job", "watch", found[1])
    assert f"job {found[1]} is done" in watched
    assert [line.split(":")[0] for line in watched.splitlines() if line.startswith("epoch")] == [f"epoch {n}" for n in range(4)]
    return found[1]


def test_the_fetched_weights_are_the_evaluated_ones(peace: Peace, job_id: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    peace.site.cli("job", "fetch", job_id, "--output", str(path))
    told = json.loads(path.with_suffix(".json").read_text())
    job = load_jobfile(JOB_FILE)
    module, (_, test) = job.model(), job.dataset()
    before = accuracy(module, test)
    module.load_state_dict(load_file(path))
    assert accuracy(module, test) == told["accuracy"] == peace.site.job(job_id)["accuracy"]
    assert told["accuracy"] > 0.9 > before
    assert told["digest"] == peace.site.job(job_id)["digest"]


def accuracy(module: torch.nn.Module, samples: Any) -> float:
    module.eval()
    with torch.inference_mode():
        chosen = module(torch.from_numpy(samples["input"])).argmax(dim=1)
    return float((chosen == torch.from_numpy(samples["y"])).double().mean())


def test_the_books_balance_and_pay_what_was_posted(peace: Peace, job_id: str) -> None:
    books = peace.site.operator.get("/v1/ledger")
    assert books["balanced"]
    assert books["chain_ok"]
    earned = {row["account_id"]: row["balance_micro"] for row in books["accounts"]}
    posted = peace.site.facts("reward_posted")
    for name in ("n1", "n2"):
        assert peace.site.row(name)["earned_micro"] == sum(f["amount_micro"] for f in posted if f["node_id"] == name) > 0
    assert sum(earned.values()) == 0, "what the nodes have earned, somebody owes"
    epochs = peace.site.operator.get(f"/v1/jobs/{job_id}/epochs")
    assert sum(e["reward_micro"] for e in epochs) == sum(f["amount_micro"] for f in posted if f["job_id"] == job_id)
    assert all(e["useful_j"] > 0 for e in epochs)
    assert "debits equal credits; the chain of transfers is whole" in peace.site.cli("ledger")


def test_a_lease_is_explained_down_to_the_reading(peace: Peace, job_id: str) -> None:
    lease_id = next(f["lease_id"] for f in peace.site.facts("unit_accepted") if f["job_id"] == job_id)
    story = peace.site.operator.get(f"/v1/explain/lease/{lease_id}")
    decision = story["decision"]
    seen = next(row for row in decision["inputs"] if row["signal"] == "price")
    assert (seen["value"], seen["reading"]["value"], seen["reading"]["source"]) == (10.0, 10.0, "file:price.csv")
    assert seen["reading"]["known_at"] <= decision["decided_at"] <= story["lease"]["offered_at"]
    told = peace.site.cli("explain", "lease", lease_id)
    for link in (lease_id, decision["decision_id"], decision["policy_digest"][:12], "saw price = 10 from file:price.csv", "known "):
        assert link in told, told
    assert re.search(r"post [0-9.]+ EUR .*-> node:", told), told
