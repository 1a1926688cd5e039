"""Facts in, series out: what each fact counts, what a restart brings back, and what never becomes a label."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_type_hints

import pytest

from gridsched.core import facts as all_facts
from gridsched.core.facts import (
    EnergyMetered,
    EpochFinished,
    Fact,
    JobSubmitted,
    LeaseEnded,
    PolicyLoaded,
    ReadingsDropped,
    RoundMerged,
    RoundOpened,
    SignalDegraded,
    SignalRecovered,
    UnitAccepted,
    VersionEvaluated,
    ZoneObserved,
    kind_of,
)
from gridsched.core.round import Epoch
from gridsched.metrics import KEEP_EPOCHS, KEEP_JOBS, Metrics
from tests.core.policies import policy

NOW = datetime(2018, 1, 28, 2, 0, tzinfo=UTC)
KINDS: list[type[Fact]] = [
    kind for name in all_facts.__all__ if isinstance(kind := getattr(all_facts, name), type) and issubclass(kind, Fact) and kind is not Fact
]


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def some(kind: type[Fact]) -> Fact:
    """A fact of ``kind`` with a value of the right type in every field."""
    values: dict[object, Any] = {
        str: "word",
        int: 3,
        float: 2.5,
        datetime: NOW,
        float | None: 0.5,
        bool: True,
        datetime | None: NOW,
        dict[str, float]: {"price": 1.0},
        dict[str, int]: {},
        tuple[str, ...]: ("digits.v3",),
    }
    hints = get_type_hints(kind)
    return kind(**{f.name: values[hints[f.name]] for f in fields(kind)})


def tick(at: datetime, **changes: Any) -> ZoneObserved:
    fact = ZoneObserved(
        at=at,
        zone="de-lu",
        decision_id="d1",
        target_w=350.0,
        leased_w=300.0,
        drawn_w=287.5,
        reason="surplus",
        signals={"price": -12.02, "surplus": 350.0},
        nodes={"working": 2, "opted_out": 1},
        needed=("price", "surplus"),
    )
    return replace(fact, **changes)


def metered(*, epoch: int = 0, use: str = "useful", energy_j: float = 100.0, cost_micro: int = 10, job_id: str = "digits") -> EnergyMetered:
    return EnergyMetered(at=NOW, job_id=job_id, zone="de-lu", epoch=epoch, use=use, energy_j=energy_j, cost_micro=cost_micro)


def opened(epoch: int, job_id: str = "digits") -> RoundOpened:
    return RoundOpened(at=NOW, job_id=job_id, round_id=f"{job_id}.r{epoch}", epoch=epoch, units=4)


@pytest.mark.parametrize("kind", KINDS, ids=kind_of)
def test_every_fact_is_counted_and_moves_a_metric_of_its_own(kind: type[Fact]) -> None:
    metrics, idle = Metrics(), Metrics()
    metrics.observe(some(kind))
    assert value(metrics, "gridsched_facts_total", kind=kind_of(kind)) == 1

    def others(of: Metrics) -> set[tuple[str, tuple[tuple[str, str], ...], float]]:
        samples = (s for family in of.registry.collect() for s in family.samples)
        return {(s.name, tuple(s.labels.items()), s.value) for s in samples if s.name.startswith("gridsched") and "facts" not in s.name}

    assert others(metrics) != others(idle), f"{kind_of(kind)} reaches no metric"


def test_a_control_tick_shows_powers_signals_and_nodes() -> None:
    metrics = Metrics()
    metrics.observe(tick(NOW))
    assert value(metrics, "gridsched_target_watts", zone="de-lu") == 350
    assert value(metrics, "gridsched_drawn_watts", zone="de-lu") == 287.5
    assert value(metrics, "gridsched_signal", zone="de-lu", signal="price") == -12.02
    assert value(metrics, "gridsched_nodes", zone="de-lu", reason="working") == 2
    metrics.observe(tick(NOW, nodes={"paused": 3}))
    assert value(metrics, "gridsched_nodes", zone="de-lu", reason="working") == 0
    assert value(metrics, "gridsched_nodes", zone="de-lu", reason="paused") == 3


def test_a_signal_that_no_longer_counts_loses_its_value_and_ages_until_it_is_back() -> None:
    metrics = Metrics()
    price = {"zone": "de-lu", "signal": "price"}
    metrics.observe(tick(NOW))
    metrics.observe(tick(NOW, zone="at"))
    metrics.observe(tick(NOW + timedelta(minutes=20), signals={"surplus": 1.0}))
    assert value(metrics, "gridsched_signal", **price) is None
    assert value(metrics, "gridsched_signal_age_seconds", **price) == 1200
    assert value(metrics, "gridsched_signal_age_seconds", zone="at", signal="price") == 0
    metrics.observe(tick(NOW + timedelta(minutes=21)))
    assert value(metrics, "gridsched_signal_age_seconds", **price) == 0
    assert value(metrics, "gridsched_signal", **price) == -12.02


def test_a_needed_signal_that_was_missing_at_a_restart_ages_from_the_first_tick_on() -> None:
    metrics = Metrics()
    price = {"zone": "de-lu", "signal": "price"}
    for minutes in (0, 20):
        metrics.observe(tick(NOW + timedelta(minutes=minutes), signals={"surplus": 1.0}))
        assert value(metrics, "gridsched_signal_age_seconds", **price) == 60 * minutes
    assert value(metrics, "gridsched_signal", **price) is None


def test_a_signal_that_an_edited_policy_needs_no_longer_takes_its_series_along() -> None:
    metrics = Metrics()
    carbon = {"zone": "de-lu", "signal": "carbon"}
    for zone in ("de-lu", "at"):
        metrics.observe(tick(NOW, zone=zone, signals={"carbon": 90.0, "price": 1.0}, needed=("carbon", "price")))
    metrics.observe(tick(NOW + timedelta(minutes=20), signals={"price": 1.0}, needed=("price",)))
    assert value(metrics, "gridsched_signal", **carbon) is None
    assert value(metrics, "gridsched_signal_age_seconds", **carbon) is None
    assert value(metrics, "gridsched_signal_age_seconds", zone="de-lu", signal="price") == 0
    assert value(metrics, "gridsched_signal_age_seconds", zone="at", signal="carbon") == 0, "another zone's policy needs it still"
    metrics.observe(tick(NOW + timedelta(minutes=21), signals={"price": 1.0}, needed=("carbon", "price")))
    assert value(metrics, "gridsched_signal_age_seconds", **carbon) == 0, "needed again, it is waited for from now on"


def test_cost_falls_while_prices_are_negative_and_energy_only_grows() -> None:
    metrics = Metrics()
    for cost in (500, -800):
        metrics.observe(metered(cost_micro=cost))
    assert value(metrics, "gridsched_cost_micro", job_id="digits", zone="de-lu") == -300
    assert value(metrics, "gridsched_epoch_cost_micro", job_id="digits", epoch="0") == -300
    assert value(metrics, "gridsched_energy_joules_total", job_id="digits", zone="de-lu", use="useful") == 200


def test_the_books_of_a_finished_epoch_count_over_what_was_added_up() -> None:
    metrics = Metrics()
    metrics.observe(metered(energy_j=99.0))
    metrics.observe(EpochFinished(at=NOW, job_id="digits", epoch=0, useful_j=100.0, wasted_j=7.0, idle_j=3.0, reward_micro=42))
    assert [value(metrics, "gridsched_epoch_energy_joules", job_id="digits", epoch="0", use=u) for u in ("useful", "wasted", "idle")] == [
        100,
        7,
        3,
    ]
    assert value(metrics, "gridsched_epoch_reward_micro", job_id="digits", epoch="0") == 42


def test_only_the_last_epochs_of_a_job_keep_their_series_and_a_late_joule_does_not_bring_one_back() -> None:
    metrics = Metrics()
    for epoch in range(KEEP_EPOCHS + 5):
        metrics.observe(metered(epoch=epoch))
        metrics.observe(VersionEvaluated(at=NOW, job_id="digits", version=epoch, epoch=epoch, loss=0.1, accuracy=0.9, samples=10))
    metrics.observe(metered(epoch=2))
    kept = {s.labels["epoch"] for f in metrics.registry.collect() for s in f.samples if "epoch" in s.labels}
    assert kept == {str(epoch) for epoch in range(5, KEEP_EPOCHS + 5)}
    assert value(metrics, "gridsched_energy_joules_total", job_id="digits", zone="de-lu", use="useful") == 100 * (KEEP_EPOCHS + 6)


def test_the_job_not_heard_of_for_longest_makes_room() -> None:
    metrics = Metrics()
    for number in range(KEEP_JOBS):
        metrics.observe(metered(job_id=f"job-{number}"))
    metrics.observe(metered(job_id="job-0"))
    metrics.observe(metered(job_id="one-more"))
    left = {s.labels["job_id"] for f in metrics.registry.collect() for s in f.samples if "job_id" in s.labels}
    assert left == {"job-0", "one-more"} | {f"job-{n}" for n in range(2, KEEP_JOBS)}


def test_a_restart_brings_back_the_epochs_and_leaves_the_counters_at_zero() -> None:
    before, after = Metrics(), Metrics()
    for fact in (
        opened(0),
        metered(energy_j=80.0, cost_micro=-9),
        VersionEvaluated(at=NOW, job_id="digits", version=4, epoch=0, loss=0.3, accuracy=0.91, samples=360),
        EpochFinished(at=NOW, job_id="digits", epoch=0, useful_j=80.0, wasted_j=9.0, idle_j=0.0, reward_micro=5, audit_j=7.0),
        opened(1),
        metered(epoch=1, energy_j=12.0, cost_micro=1),
    ):
        before.observe(fact)
    first = Epoch(
        job_id="digits", number=0, started_at=NOW, ended_at=NOW, useful_j=80.0, wasted_j=9.0, reward_micro=5, cost_micro=-9, loss=0.3,
        accuracy=0.91, audit_j=7.0,
    )  # fmt: skip
    after.recall([Epoch(job_id="digits", number=1, started_at=NOW, useful_j=12.0, cost_micro=1), first], [])
    for name in (
        "gridsched_epoch_audit_joules",
        "gridsched_epoch_energy_joules",
        "gridsched_epoch_cost_micro",
        "gridsched_epoch_reward_micro",
        "gridsched_epoch_accuracy_ratio",
    ):
        for epoch in ("0", "1"):
            labels = {"job_id": "digits", "epoch": epoch} | ({"use": "useful"} if "energy" in name else {})
            assert value(after, name, **labels) == value(before, name, **labels), (name, epoch)
    assert value(after, "gridsched_epoch_audit_joules", job_id="digits", epoch="0") == 7
    assert value(after, "gridsched_epoch", job_id="digits") == 1
    assert value(after, "gridsched_model_accuracy_ratio", job_id="digits") == 0.91
    assert value(after, "gridsched_energy_joules_total", job_id="digits", zone="de-lu", use="useful") is None


def test_a_jobs_counters_begin_at_zero_before_they_count() -> None:
    metrics = Metrics()
    metrics.observe(JobSubmitted(at=NOW, job_id="digits", name="digits"))
    metrics.observe(opened(0))
    assert value(metrics, "gridsched_units_accepted_total", job_id="digits", kind="train") == 0
    assert value(metrics, "gridsched_rounds_merged_total", job_id="digits") == 0
    metrics.observe(UnitAccepted(at=NOW, job_id="digits", unit_id="u", node_id="n", lease_id="l", kind="train", samples=256, steps=8))
    metrics.observe(RoundMerged(at=NOW, job_id="digits", round_id="r", epoch=0, version=1, digest="d", samples=1024))
    assert value(metrics, "gridsched_units_accepted_total", job_id="digits", kind="train") == 1
    assert value(metrics, "gridsched_samples_merged_total", job_id="digits") == 1024
    assert value(metrics, "gridsched_model_version", job_id="digits") == 1


def test_a_new_policy_takes_the_place_of_the_old_one() -> None:
    metrics = Metrics()
    for digest in ("aa", "bb"):
        metrics.observe(PolicyLoaded(at=NOW, zone="de-lu", policy="surplus-first", digest=digest))
    assert value(metrics, "gridsched_policy_info", zone="de-lu", policy="surplus-first", digest="aa") is None
    assert value(metrics, "gridsched_policy_info", zone="de-lu", policy="surplus-first", digest="bb") == 1


def test_a_restart_names_the_policies_in_force_though_they_are_not_new() -> None:
    metrics, ruling = Metrics(), policy()
    metrics.recall([], [ruling])
    labels = {"zone": "demo", "policy": "test"}
    assert value(metrics, "gridsched_policy_info", **labels, digest=ruling.digest) == 1
    metrics.observe(PolicyLoaded(at=NOW, **labels, digest="bb"))
    assert value(metrics, "gridsched_policy_info", **labels, digest=ruling.digest) is None
    assert value(metrics, "gridsched_policy_info", **labels, digest="bb") == 1


def test_a_source_is_degraded_until_it_recovers() -> None:
    metrics = Metrics()
    metrics.observe(SignalDegraded(at=NOW, source="awattar", kind="timeout", detail="no answer in 10 s"))
    assert value(metrics, "gridsched_source_degraded", source="awattar") == 1
    metrics.observe(SignalRecovered(at=NOW, source="awattar"))
    assert value(metrics, "gridsched_source_degraded", source="awattar") == 0
    assert value(metrics, "gridsched_source_failures_total", source="awattar", kind="timeout") == 1


def test_nothing_that_names_a_node_or_is_free_text_becomes_a_label() -> None:
    metrics = Metrics()
    metrics.observe(ReadingsDropped(at=NOW, source="file", zone="de-lu", signal="price", count=2, reason="price 1e9 EUR/MWh is outside"))
    metrics.observe(
        LeaseEnded(
            at=NOW,
            lease_id="SECRET",
            unit_id="SECRET",
            job_id="digits",
            node_id="SECRET",
            zone="de-lu",
            generation=1,
            reason="node_silent",
            power_w=100.0,
            step=3,
            state="expired",
        )
    )
    page, content_type = metrics.expose()
    assert b"SECRET" not in page
    assert b"outside" not in page
    assert content_type.startswith("text/plain")
    assert value(metrics, "gridsched_leases_total", zone="de-lu", move="expired", reason="node_silent") == 1
    labels = {label for f in metrics.registry.collect() for s in f.samples for label in s.labels}
    assert not labels & {"job", "node_id", "lease_id", "unit_id", "detail"}
