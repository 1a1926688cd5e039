"""What ``kill -9`` of the daemon costs a job that runs: nothing of it, and some seconds.

    python benchmarks/train_daemon_killed.py [--kills 5] [--seed 0]

The same job twice on four real nodes: in peace, and with its daemon killed at random moments and started again at once. It must go
on by itself to the same versions in the same bits, with every unit accepted once, the books balanced and their chain unbroken; the
time that a kill costs is the difference of the two, for each kill, and beside it how long the daemon did not answer.

The peers were not measured in this run; what is known of them is in ``peers``, with where it is from.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import fleet

from gridsched import owner
from tests.e2e.site_process import Site

NODES, ROUNDS, PASSES = 4, 16, 20
PEERS = {
    "Flower 1.41, SuperLink killed after 3 of 12 rounds and restarted on its database": "run failed after 40 s, its rounds lost (measured)",
    "TensorFlow 2.21, parameter server killed": "UnavailableError within 0.12 s, job over (measured)",
    "NVFlare 2.9": "not supported: its high availability is deprecated, the maintainers' advice is to save models oneself (documentation)",
}


def run(moments: random.Random | None, kills: int) -> dict[str, Any]:
    """The job from its first version to its last, with ``kills`` at random moments, or in peace."""
    job = fleet.submission(rounds=ROUNDS, units=NODES, passes=PASSES)
    with tempfile.TemporaryDirectory() as folder, Site(Path(folder) / "site") as site:
        site.join(*(f"n{number}" for number in range(NODES)), cpu_share=1.0)
        owner.submit(site.operator, job)
        job_id = job.spec.job_id
        away_s = []
        for number in range(kills if moments is not None else 0):
            merged = 2 + number * (ROUNDS - 4) // kills
            site.wait(f"version {merged} is there", lambda n=merged: site.job(job_id)["version"] >= n)  # type: ignore[misc]
            time.sleep(moments.uniform(0.0, 1.5) if moments is not None else 0.0)  # any moment of a round
            assert site.job(job_id)["state"] == "running", "the job was over before the blow; make it longer"
            began = time.monotonic()
            site.daemon.kill()
            site.serve()
            away_s.append(time.monotonic() - began)
        site.finish(job_id, within_s=400.0)
        at_s = fleet.moments(site, job_id)
        digests = fleet.must_hold(site, job_id)
        assert site.daemon.crashes == len(away_s)
    return {"seconds": at_s[-1] - at_s[1], "digests": digests, "away_s": away_s}


def main() -> None:
    """Run both and print the verdict."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    peace = run(None, 0)
    print(f"in peace: {len(peace['digests']) - 2} rounds in {peace['seconds']:.1f} s", flush=True)
    churn = run(random.Random(options.seed), options.kills)
    lost_s = (churn["seconds"] - peace["seconds"]) / options.kills
    same = churn["digests"] == peace["digests"]
    print(
        f"{options.kills} kills: {churn['seconds']:.1f} s, {lost_s:.1f} s lost a kill, {'the same' if same else 'OTHER'} versions",
        flush=True,
    )
    fleet.tell(
        "train_daemon_killed",
        value=round(lost_s, 2),
        unit="s lost for each kill of the daemon, its restart included",
        goal="goes on to the same final digest, every unit accepted once",
        reached=same,
        digest=churn["digests"][-1],
        versions=len(churn["digests"]),
        peers=PEERS,
        runs={
            "peace_s": round(peace["seconds"], 2),
            "killed_s": round(churn["seconds"], 2),
            "away_s": [round(s, 2) for s in churn["away_s"]],
        },
    )


if __name__ == "__main__":
    main()
