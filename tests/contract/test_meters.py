"""What every meter promises, run over every shipped one, and what the kept register adds to it."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gridsched.core.errors import ConfigError, StorageFull
from gridsched.core.meter import MeterMethod
from gridsched.node.register import KeptRegister, load_meter
from gridsched.plugins import load_adapter, shipped
from gridsched.ports import Meter
from gridsched.providers.broker import Message
from tests.mosquitto import mosquitto

ADAPTERS = shipped("adapters")


@dataclass
class Bench:
    """A device whose time and work the test moves: ``work(seconds, share)`` passes real time at a share of full use."""

    root: Path
    now_s: float = 1000.0
    cpu_s: float = 5.0
    counter_uj: int = 262_000_000_000
    range_uj: int = 262_143_328_850
    plug_j: float = 4_645_425_600.0
    gpu_w: float = 0.0
    hearers: list[Callable[[Message], None]] = field(default_factory=list)

    def work(self, seconds: float, share: float = 1.0, watts: float = 40.0) -> None:
        self.now_s += seconds
        self.cpu_s += seconds * share
        self.plug_j += seconds * share * watts
        self.gpu_w = share * watts
        self.counter_uj = (self.counter_uj + int(seconds * share * watts * 1e6)) % self.range_uj
        self.write()

    def write(self) -> None:
        for hear in self.hearers:
            hear(self.tells())
        for zone, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"), ("intel-rapl:1", "psys")):
            folder = self.root / zone
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "name").write_text(name + "\n")
            (folder / "energy_uj").write_text(f"{self.counter_uj}\n")
            (folder / "max_energy_range_uj").write_text(f"{self.range_uj}\n")

    def tells(self, *, retained: bool = False) -> Message:
        """What the plug says by MQTT, in watt hours."""
        return Message(payload=json.dumps({"aenergy": {"total": self.plug_j / 3600}}).encode(), retained=retained)

    def follow(self, topic: str, take: Callable[[Message], None], refused: Callable[[str], None]) -> Callable[[], None]:
        self.hearers.append(take)
        take(self.tells(retained=True))
        take(self.tells())
        return lambda: self.hearers.remove(take)


def _estimate(bench: Bench, table: Mapping[str, object]) -> Any:
    kind = load_adapter("meters/estimate.py", ADAPTERS)
    return kind(table, power_w=100.0, cpu_s=lambda: bench.cpu_s, monotonic=lambda: bench.now_s)


def _rapl(bench: Bench, table: Mapping[str, object]) -> Any:
    kind = load_adapter("meters/rapl.py", ADAPTERS)
    return kind({"root": str(bench.root)} | dict(table), power_w=100.0, monotonic=lambda: bench.now_s)


class FakeNvml:
    """Two GPUs that share the bench's work, as ``pynvml`` tells of them; old ones have no counter."""

    class NVMLError(Exception):
        pass

    class NVMLError_NotSupported(NVMLError):  # noqa: N801 - its name in pynvml
        pass

    def __init__(self, bench: Bench, *, gpus: int = 2, old: bool = False) -> None:
        self.bench, self.gpus, self.old = bench, gpus, old
        self.silent = ""

    def nvmlInit(self) -> None:  # noqa: N802
        if self.silent:
            raise self.NVMLError(self.silent)

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.gpus

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: int) -> int:  # noqa: N802
        self.nvmlInit()
        if self.old:
            raise self.NVMLError_NotSupported
        return round(self.bench.plug_j * 1e3 * (0.75, 0.25)[gpu])

    def nvmlDeviceGetPowerUsage(self, gpu: int) -> int:  # noqa: N802
        return round(self.bench.gpu_w * 1e3 * (0.75, 0.25)[gpu])


def _nvml(bench: Bench, table: Mapping[str, object], **how: Any) -> Any:
    kind = load_adapter("meters/nvml.py", ADAPTERS)
    nvml = how.pop("nvml", None) or FakeNvml(bench, **how)
    return kind(table, power_w=100.0, nvml=nvml, monotonic=lambda: bench.now_s)


def _mqtt(bench: Bench, table: Mapping[str, object]) -> Any:
    kind = load_adapter("meters/mqtt.py", ADAPTERS)
    plug = {"host": "broker.local", "topic": "plug/status", "value": "aenergy.total", "unit": "Wh"}
    return kind(plug | dict(table), power_w=100.0, follow=bench.follow, monotonic=lambda: bench.now_s)


Make = Callable[[Bench, Mapping[str, object]], Any]
METERS: dict[str, Make] = {"estimate": _estimate, "mqtt": _mqtt, "nvml": _nvml, "rapl": _rapl}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(root=tmp_path / "powercap")
    made.write()
    return made


@pytest.fixture(params=sorted(METERS))
def make(request: pytest.FixtureRequest) -> Make:
    return METERS[request.param]


def test_every_shipped_meter_is_in_this_suite() -> None:
    assert {path.stem for path in (ADAPTERS / "meters").glob("*.py")} == set(METERS)


def test_the_register_counts_up_with_work_and_says_how_it_knows(make: Make, bench: Bench) -> None:
    meter = make(bench, {})
    before = meter.read()
    bench.work(10.0)
    after = meter.read()
    assert after.energy_j > before.energy_j
    assert after.power_w == pytest.approx((after.energy_j - before.energy_j) / 10.0)
    assert after.method in list(MeterMethod)


def test_the_register_never_runs_backwards_however_often_it_is_read(make: Make, bench: Bench) -> None:
    meter = make(bench, {})
    seen = [meter.read().energy_j]
    for seconds, share in ((0.0, 0.0), (0.001, 1.0), (5.0, 0.0), (0.0, 0.0), (60.0, 1.0), (0.02, 0.5)):
        bench.work(seconds, share)
        seen.append(meter.read().energy_j)
    assert seen == sorted(seen)


def test_reading_more_often_does_not_change_the_sum(make: Make, bench: Bench) -> None:
    once, often = make(bench, {}), make(bench, {})
    once.read()  # a register may begin with its first reading
    for _ in range(200):
        bench.work(0.05, 0.5)
        often.read()
    assert often.read().energy_j == pytest.approx(once.read().energy_j, rel=0.02)


def test_a_misspelt_option_names_the_nearest(make: Make, bench: Bench) -> None:
    with pytest.raises(ConfigError, match="unknown key"):
        make(bench, {"idle": 3})


def test_an_estimate_is_linear_between_idle_and_full(bench: Bench) -> None:
    meter = _estimate(bench, {"max_w": 110.0, "idle_w": 10.0})
    for share, watts in ((0.0, 10.0), (0.5, 60.0), (1.0, 110.0), (3.0, 110.0)):
        bench.work(10.0, share)
        assert meter.read().power_w == pytest.approx(watts)


def test_an_estimate_never_exceeds_the_registered_power(bench: Bench) -> None:
    meter = _estimate(bench, {})
    bench.work(100.0, 8.0)
    assert meter.read().energy_j == pytest.approx(100.0 * 100.0)


def test_rapl_counts_on_over_the_counters_wrap(bench: Bench) -> None:
    meter = _rapl(bench, {})
    bench.work(10.0, watts=40.0)
    assert bench.counter_uj < 262_000_000_000, "the counter has wrapped"
    assert meter.read().energy_j == pytest.approx(400.0)


def test_rapl_counts_no_turn_where_the_counter_began_anew_while_the_machine_slept(bench: Bench) -> None:
    meter = _rapl(bench, {})
    bench.work(10.0, watts=40.0)
    assert meter.read().energy_j == pytest.approx(400.0)
    bench.counter_uj, bench.now_s = 5_000_000, bench.now_s + 1.0
    bench.write()
    assert meter.read().energy_j == pytest.approx(405.0)


def test_rapl_adds_memory_but_not_the_parts_of_a_package_nor_the_whole_platform(bench: Bench) -> None:
    (bench.root / "intel-rapl:0:1").mkdir()
    for name, value in (("name", "dram"), ("energy_uj", "0"), ("max_energy_range_uj", str(bench.range_uj))):
        (bench.root / "intel-rapl:0:1" / name).write_text(value)
    meter = _rapl(bench, {})
    bench.work(1.0, watts=40.0)
    (bench.root / "intel-rapl:0:1" / "energy_uj").write_text("5000000")
    assert meter.read().energy_j == pytest.approx(45.0)


def test_rapl_without_counters_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"estimate\.py"):
        _rapl(Bench(root=tmp_path / "none"), {})


def test_rapl_that_may_not_be_read_names_the_file(bench: Bench) -> None:
    (bench.root / "intel-rapl:0" / "energy_uj").unlink()
    (bench.root / "intel-rapl:0" / "energy_uj").mkdir()
    with pytest.raises(ConfigError, match="energy_uj"):
        _rapl(bench, {})


def test_nvml_adds_all_gpus_up_or_counts_the_one_that_is_named(bench: Bench) -> None:
    both, first = _nvml(bench, {}), _nvml(bench, {"gpu": 0})
    bench.work(10.0, watts=40.0)
    assert both.read().energy_j == pytest.approx(400.0)
    assert first.read().energy_j == pytest.approx(300.0)
    assert first.read().method == "measured"


def test_nvml_of_a_gpu_without_a_counter_sums_up_its_power_and_says_so(bench: Bench) -> None:
    meter = _nvml(bench, {}, old=True)
    for watts, sum_j in ((40.0, 200.0), (40.0, 600.0), (20.0, 900.0)):
        bench.work(10.0, watts=watts)
        assert meter.read().energy_j == pytest.approx(sum_j)
    assert meter.read().method == "estimated"


def test_nvml_of_a_driver_that_was_loaded_anew_never_runs_backwards(bench: Bench) -> None:
    meter = _nvml(bench, {})
    bench.work(10.0)
    told_j = meter.read().energy_j
    bench.plug_j = 0.0
    bench.work(1.0)
    assert meter.read().energy_j == told_j
    bench.work(10.0)
    assert meter.read().energy_j == pytest.approx(told_j + 400.0)


@pytest.mark.parametrize(("gpus", "table", "said"), [(0, {}, "no GPU here"), (2, {"gpu": 2}, "no GPU 2 here, nvidia-smi lists 2")])
def test_nvml_without_its_gpu_names_the_way_out(bench: Bench, gpus: int, table: Mapping[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=rf"{said}.*estimate\.py"):
        _nvml(bench, table, gpus=gpus)


def test_nvml_that_does_not_answer_is_told_in_its_words(bench: Bench) -> None:
    nvml = FakeNvml(bench)
    meter = _nvml(bench, {}, nvml=nvml)
    nvml.silent = "Driver Not Loaded"
    bench.work(1.0)
    with pytest.raises(ConfigError, match=r"does not answer any more .*Driver Not Loaded"):
        meter.read()
    with pytest.raises(ConfigError, match=r"no usable GPU \(Driver Not Loaded\)"):
        _nvml(bench, {}, nvml=nvml)


def test_nvml_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(ConfigError, match="nvidia-ml-py is missing"):
        load_adapter("meters/nvml.py", ADAPTERS)({})


def test_a_plug_counts_from_its_first_live_message_whatever_it_had_kept(bench: Bench) -> None:
    meter = _mqtt(bench, {})
    kept = bench.tells(retained=True)
    bench.plug_j += 50_000.0
    assert meter.read().energy_j == 0.0
    bench.hearers[0](kept)
    bench.work(10.0)
    assert meter.read().energy_j == pytest.approx(400.0)


def test_a_plug_s_big_steps_are_told_at_the_device_s_power_and_none_of_them_is_lost(bench: Bench) -> None:
    """A step of 3.6 kJ within one sync would look like 180 W, and the daemon refuses that of a device of 100 W."""
    meter = _mqtt(bench, {})
    told = [meter.read().energy_j]
    for _ in range(6):
        for _ in range(5):
            bench.now_s += 20.0
            told.append(meter.read().energy_j)
        bench.plug_j += 8_000.0  # 80 W, told every 100 s
        bench.write()
    for _ in range(5):
        bench.now_s += 20.0
        told.append(meter.read().energy_j)
    assert max(after - before for before, after in pairwise(told)) <= 2000.0
    assert told[-1] == pytest.approx(48_000.0)


def test_a_plug_that_starts_again_at_zero_loses_a_step_and_never_runs_backwards(bench: Bench) -> None:
    meter = _mqtt(bench, {})
    meter.read()
    bench.work(10.0)
    told = meter.read().energy_j
    bench.plug_j = 0.0
    bench.work(10.0)
    assert meter.read().energy_j == told
    bench.work(10.0)
    assert meter.read().energy_j == pytest.approx(told + 400.0)


def test_a_plug_s_jump_beyond_the_device_s_power_is_not_paid(bench: Bench) -> None:
    meter = _mqtt(bench, {})
    meter.read()
    bench.plug_j += 1e6
    bench.work(10.0)
    bench.now_s += 10_000.0
    assert meter.read().energy_j == pytest.approx(1050.0)


@pytest.mark.parametrize("payload", [b"offline", b"{}", b'{"aenergy": {"total": null}}', b'{"aenergy": {"total": "much"}}'])
def test_what_a_plug_says_without_a_figure_changes_nothing(bench: Bench, payload: bytes) -> None:
    meter = _mqtt(bench, {})
    meter.read()
    bench.hearers[0](Message(payload=payload, retained=False))
    bench.work(10.0)
    assert meter.read().energy_j == pytest.approx(400.0)


def test_a_silent_plug_is_told_with_what_to_look_at(bench: Bench) -> None:
    kind = load_adapter("meters/mqtt.py", ADAPTERS)
    table = {"host": "broker.local", "topic": "plug/status", "wait": "0.01s"}
    with pytest.raises(ConfigError, match=r"plug/status at broker\.local gave no figure"):
        kind(table, follow=lambda *_: lambda: None).read()
    with pytest.raises(ConfigError, match="check username"):
        kind(table, follow=lambda _topic, _take, refused: (refused("check username"), lambda: None)[1]).read()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"unit": "kW"}, "use J, Wh"), ({"scale": -1.0}, "scale must be above 0"), ({"host": "a/b"}, "without mqtt://")],
)
def test_a_plug_s_wrong_option_is_told_at_once(bench: Bench, wrong: Mapping[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        _mqtt(bench, wrong)


@pytest.mark.mosquitto
def test_a_plug_at_a_real_broker_is_followed_also_after_the_broker_was_down(tmp_path: Path) -> None:
    steps = [json.dumps({"ENERGY": {"Total": 5 + n / 1000}}).encode() for n in range(400)]
    with mosquitto(tmp_path) as broker:
        table = {"host": "127.0.0.1", "port": broker.port, "topic": "tele/plug/SENSOR", "value": "ENERGY.Total"}
        meter = load_adapter("meters/mqtt.py", ADAPTERS)(table, power_w=1e6)
        with broker.telling("tele/plug/SENSOR", *steps[:200]):
            while meter.read().energy_j == 0.0:
                pass
    before_j = meter.read().energy_j
    with mosquitto(tmp_path, port=broker.port) as again, again.telling("tele/plug/SENSOR", *steps[200:]):
        while meter.read().energy_j == before_j:
            pass
    assert meter.read().method == "measured"
    meter.close()


def test_a_meter_is_loaded_by_its_name_and_counts_this_process() -> None:
    meter = load_meter("meters/estimate.py", {"max_w": 50.0}, power_w=100.0)
    assert meter.read().method == "estimated"


# The register that is kept.


def test_the_register_goes_on_where_a_killed_agent_left_it(make: Make, bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "register.json"
    first = KeptRegister(make(bench, {}), file, speed=1.0)
    bench.work(10.0)
    told = first.read().energy_j
    again = KeptRegister(make(bench, {}), file, speed=1.0)
    assert again.read().energy_j == told
    bench.work(10.0)
    assert again.read().energy_j == pytest.approx(2 * told, rel=1e-6)


def test_a_replay_meters_what_the_day_would_have_used(make: Make, bench: Bench, tmp_path: Path) -> None:
    real = KeptRegister(make(bench, {}), tmp_path / "real.json", speed=1.0)
    replay = KeptRegister(make(bench, {}), tmp_path / "replay.json", speed=900.0)
    bench.work(2.0)
    assert replay.read().energy_j == pytest.approx(900.0 * real.read().energy_j)


def test_what_could_not_be_kept_is_not_told_and_not_lost(bench: Bench, tmp_path: Path) -> None:
    full = [True]

    def write(path: Path, data: bytes) -> None:
        if full[0]:
            raise StorageFull
        path.write_bytes(data)

    meter: Meter = _estimate(bench, {})
    register = KeptRegister(meter, tmp_path / "register.json", speed=1.0, write=write)
    bench.work(10.0)
    with pytest.raises(StorageFull):
        register.read()
    bench.work(10.0)
    full[0] = False
    assert register.read().energy_j == pytest.approx(2000.0)


def test_a_damaged_register_is_not_taken_for_zero(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "register.json"
    file.write_text('{"energy_j": ')
    with pytest.raises(ConfigError, match=str(file)):
        KeptRegister(_estimate(bench, {}), file, speed=1.0)


def test_a_device_that_may_use_a_fraction_of_a_core_draws_its_most_at_that_fraction(bench: Bench) -> None:
    meter = _estimate(bench, {"max_w": 80.0, "idle_w": 0.0, "cores": 0.25})
    bench.work(10.0, share=0.25)
    assert meter.read().power_w == pytest.approx(80.0)
    bench.work(10.0, share=0.125)
    assert meter.read().power_w == pytest.approx(40.0)


def test_the_agent_s_own_time_can_be_left_out() -> None:
    kind = load_adapter("meters/estimate.py", ADAPTERS)
    own_cpu_s = sys.modules[kind.__module__].own_cpu_s
    assert own_cpu_s(agent=True) > own_cpu_s(agent=False) >= 0.0
