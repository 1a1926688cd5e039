"""The page's node without a page: its decisions are the native agent's, its words the wire's, and its parts hold on their own."""

import itertools
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gridsched import wire
from gridsched.core.fleet import DeviceState, NodeReason
from gridsched.core.lease import LeaseReason
from gridsched.node.decide import Local, Phase, next_action
from tests.browser.hosts import REPOSITORY, bundle
from tests.node.test_decide import order as order_of

SOURCE = REPOSITORY / "browser" / "src"
_HINDRANCE = {
    DeviceState.FREE: "",
    DeviceState.USER_ACTIVE: "device_busy",
    DeviceState.HOT: "device_hot",
    DeviceState.ON_BATTERY: "on_battery",
}
_LEASES = {"none": None, "same": ("u1", 1), "newer": ("u1", 2), "other": ("u2", 1)}


def run(module: str, folder: Path, *, said: str = "") -> "subprocess.CompletedProcess[str]":
    """``module`` of this folder, bundled and run by Node."""
    script = bundle(module, folder, "--platform=node")
    return subprocess.run(["node", str(script)], input=said, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.node
def test_the_page_decides_as_the_native_agent_does(tmp_path: Path) -> None:
    cases, expected = [], []
    desires = ("run", "pause", "hand_over", "stop")
    for phase, lease, desired, device, flags in itertools.product(
        Phase, _LEASES, desires, _HINDRANCE, itertools.product((False, True), repeat=6)
    ):
        may_go_on, opted_in, consent_ended, silent, waited, leaving = flags
        for paused_s, saved in ((0.0, True), (700.0, True), (700.0, False)) if phase is Phase.PAUSED else ((0.0, False),):
            local = Local(
                phase=phase, lease_id="u1.l1", generation=1, unit_id="u1", may_go_on=may_go_on, opted_in=opted_in, silent=silent,
                consent_ended=consent_ended, device=device, waited=waited, leaving=leaving, paused_s=paused_s, saved=saved,
            )  # fmt: skip
            order = _order(lease, desired)
            action = next_action(order, local)
            expected.append({"move": action.move.value, "reason": action.reason})
            cases.append([None if order is None else _plain(order), _local(local)])
    done = run("decide_all.ts", tmp_path, said=json.dumps(cases))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    wrong = [(case, mine, theirs) for case, mine, theirs in zip(cases, found, expected, strict=True) if mine != theirs]
    assert not wrong, wrong[0]


@pytest.mark.node
@pytest.mark.parametrize("module", ["join_logic.ts", "kept_pages.ts", "page_memory.ts"])
def test_the_parts_of_the_page_hold_without_it(tmp_path: Path, module: str) -> None:
    done = run(module, tmp_path)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.parametrize("name", ["Join", "Joined", "LeaseReport", "MeterReport", "ConsentChoice", "HandOver", "UpdateNotice", "Orders",
                                  "ConsentView", "Statement", "StatementLine", "Offer", "OfferedJob"])  # fmt: skip
def test_the_page_speaks_the_wires_very_words(name: str) -> None:
    fields = {field.name for field in msgspec.structs.fields(getattr(wire, name))}
    assert _interface(name) == fields


def test_what_the_page_leaves_out_has_a_default() -> None:
    for name in ("Hello", "Sync", "Order"):
        told = msgspec.structs.fields(getattr(wire, name))
        assert _interface(name) <= {field.name for field in told}
        assert {field.name for field in told if field.required} <= _interface(name)
    assert f"VERSION = {wire.VERSION};" in (SOURCE / "node" / "wire.ts").read_text(encoding="utf-8")


def test_every_reason_for_a_rest_has_plain_words_in_both_languages() -> None:
    text = (SOURCE / "join" / "strings.ts").read_text(encoding="utf-8")
    english, german = text.split("const de:")
    pauses = {
        LeaseReason.NO_SURPLUS, LeaseReason.ALARM, LeaseReason.STALE_SIGNAL, LeaseReason.TARGET_LOWERED, LeaseReason.NOT_SCHEDULED,
        LeaseReason.DEVICE_BUSY, LeaseReason.DEVICE_HOT, LeaseReason.ON_BATTERY, LeaseReason.DISK_FULL, LeaseReason.PAUSED_BY_OPERATOR,
        LeaseReason.PAUSED_TOO_LONG,
    }  # fmt: skip
    shown = {reason.value for reason in (*NodeReason, *pauses)} - {"absent", "doubtful"}
    for words in (english, german):
        assert shown <= set(re.findall(r"^    r_(\w+):", words, re.MULTILINE))


def _interface(name: str) -> set[str]:
    source = (SOURCE / "node" / "wire.ts").read_text(encoding="utf-8")
    found = re.search(rf"export interface {name} \{{\n(.*?)\n\}}", source, re.DOTALL)
    assert found is not None, name
    return set(re.findall(r"^    (\w+)\??:", found[1], re.MULTILINE))


def _order(lease: str, desired: str) -> wire.Order | None:
    named = _LEASES[lease]
    return None if named is None else order_of(desired, unit_id=named[0], generation=named[1])


def _plain(order: wire.Order) -> Any:
    said = {name: getattr(order, name) for name in ("lease_id", "generation", "desired", "reason")}
    return {**said, "unit": {"unit_id": order.unit.unit_id}}


def _local(local: Local) -> dict[str, Any]:
    return {
        "phase": local.phase.value, "leaseId": local.lease_id, "generation": local.generation, "unitId": local.unit_id,
        "mayGoOn": local.may_go_on, "optedIn": local.opted_in, "consentEnded": local.consent_ended, "hindrance": _HINDRANCE[local.device],
        "silent": local.silent, "waited": local.waited, "leaving": local.leaving, "pausedS": local.paused_s, "shelveAfterS": 600.0,
        "saved": local.saved,
    }  # fmt: skip
