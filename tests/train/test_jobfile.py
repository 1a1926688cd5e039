"""Job files: loaded, or refused with what is missing."""

from pathlib import Path

import pytest

from gridsched.core.errors import InvalidInput, NotFound
from gridsched.core.method import METHODS, Codec, InnerOptimizer, Method, OuterOptimizer
from gridsched.train.jobfile import JobFile, load_jobfile, method_from
from gridsched.train.partition import Partition
from tests.train.builders import EXAMPLES

FASHION = pytest.mark.fashion_mnist
JOB_FILES = [
    pytest.param(path, id=path.stem, marks=[FASHION] if "dataset-fashion-mnist" in path.read_text() else [])
    for path in sorted(EXAMPLES.glob("*.py"))
]


@pytest.mark.parametrize("path", JOB_FILES)
def test_every_example_is_a_job_file_with_data_and_attribution(path: Path) -> None:
    job = load_jobfile(path)
    train, test = job.dataset()
    assert set(train) == set(test) >= set(job.example_batch())
    assert len({len(array) for array in train.values()}) == len({len(array) for array in test.values()}) == 1
    assert job.attribution
    assert job.method.samples_per_unit <= len(train["y"])


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "job.py"
    path.write_text("def model(): ...\ndef loss(o, b): ...\n")
    with pytest.raises(InvalidInput, match=r"does not define example_batch\(\), dataset\(\), method\(\)"):
        load_jobfile(path)


def test_a_file_that_fails_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "job.py"
    path.write_text("a = 1\nb = a / 0\n")
    with pytest.raises(InvalidInput, match=r"job\.py, line 2: ZeroDivisionError"):
        load_jobfile(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no job file"):
        load_jobfile(tmp_path / "none.py")


def test_method_settings_become_records() -> None:
    method = method_from({"epochs": 3, "inner": {"name": "adamw", "lr": 0.1}, "codec": "int8"}, "job.py")
    assert (method.epochs, method.inner.name, method.codec) == (3, "adamw", Codec.INT8)
    assert method_from({}, "job.py") == Method()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_the_field_is_a_setting(name: str) -> None:
    assert method_from({"name": name}, "job.py").name == name


def test_the_job_file_s_own_settings_go_before_the_method_s() -> None:
    diloco = method_from({"name": "diloco", "inner_steps": 50, "batch_size": 8, "outer": {"lr": 0.5}}, "job.py")
    assert (diloco.samples_per_unit, diloco.outer, diloco.inner.name) == (
        400,
        OuterOptimizer(name="nesterov", lr=0.5, momentum=0.9),
        "adamw",
    )
    assert method_from({"name": "diloco", "inner": {"name": "sgd"}}, "job.py").inner == InnerOptimizer(name="sgd")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"epoch": 3}, "'epoch' is not known; known are name, epochs"),
        ({"inner": {"rate": 1}}, "inner setting 'rate'"),
        ({"codec": "zip"}, "codec 'zip'"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ([], "must return a dict"),
        ({"name": "fedsgd"}, "no method 'fedsgd'; use single, sync"),
        ({"inner_steps": 0}, "inner_steps must be a whole number"),
        ({"quorum": 5}, "quorum 5 can never be reached with 4"),
        ({"unit_seconds": 5.0}, "needs a quorum"),
        ({"merge": "best"}, "merge 'best' is not known; use mean"),
        ({"epochs": "3"}, "method setting epochs must be a whole number, got '3'"),
        ({"epochs": 2.5}, "epochs must be a whole number, got 2.5"),
        ({"epochs": True}, "epochs must be a whole number, got True"),
        ({"grace_s": "5s"}, "grace_s must be a number, got '5s'"),
        ({"inner": {"lr": "0.1"}}, "inner setting lr must be a number, got '0.1'"),
        ({"outer": "nesterov"}, "outer must be a dict of settings, got 'nesterov'"),
        ({"inner": {"momentum": -1}}, "momentum must be 0 or more and below 1, got -1"),
        ({"inner": {"name": "adamw", "beta1": 1.5}}, "beta1 must be 0 or more and below 1, got 1.5"),
        ({"inner": {"weight_decay": -0.1}}, "weight_decay must be 0 or more, got -0.1"),
    ],
)
def test_a_wrong_setting_is_named(settings: object, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        method_from(settings, "job.py")


FUNCTIONS = "def model(): ...\ndef loss(o, b): ...\ndef example_batch(): ...\ndef dataset(): ...\n"


def jobfile_with(folder: Path, method: object, more: str = "") -> JobFile:
    path = folder / "job.py"
    path.write_text(f"{FUNCTIONS}{more}\ndef method(): return {method!r}\n")
    return load_jobfile(path)


@pytest.mark.parametrize("function", ["model", "example_batch", "dataset", "partition"])
def test_a_function_that_fails_names_its_line(tmp_path: Path, function: str) -> None:
    loaded = jobfile_with(tmp_path, {}, f"def {function}(*_):\n    return 1 / 0")
    with pytest.raises(InvalidInput, match=r"job\.py, line 6: ZeroDivisionError: division by zero"):
        getattr(loaded, function)()


def test_a_method_that_fails_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(f"{FUNCTIONS}def method(): return 1 / 0\n")
    with pytest.raises(InvalidInput, match=r"job\.py, line 5: ZeroDivisionError"):
        load_jobfile(tmp_path / "job.py")


def test_what_the_job_file_itself_says_goes_through(tmp_path: Path) -> None:
    loaded = jobfile_with(tmp_path, {}, "from gridsched.core.errors import NotFound\ndef dataset(): raise NotFound('install it')")
    with pytest.raises(NotFound, match=r"^install it$"):
        loaded.dataset()


def test_a_partition_is_a_setting_or_a_function(tmp_path: Path) -> None:
    cut = jobfile_with(tmp_path, {"name": "fedavg", "units_per_round": 0, "partition": {"by": "dirichlet", "alpha": 0.1, "parts": 4}})
    assert cut.partition == Partition(by="dirichlet", alpha=0.1, parts=4)
    own = jobfile_with(tmp_path, {}, "def partition(train): return [[0], [1]]")
    assert callable(own.partition)
    assert own.partition({}) == [[0], [1]]
    assert jobfile_with(tmp_path, {}).partition is None


def test_an_ensemble_has_members_or_a_part_for_each(tmp_path: Path) -> None:
    bagging = {"name": "ensemble-bagging"}
    assert jobfile_with(tmp_path, bagging).members == 5
    assert jobfile_with(tmp_path, bagging | {"members": 3}).members == 3
    assert jobfile_with(tmp_path, bagging | {"partition": {"by": "iid"}}).members == 0
    one_class = jobfile_with(tmp_path, {"name": "ensemble-one-class"})
    assert (one_class.members, one_class.partition) == (0, Partition(by="owner", field="y"))


@pytest.mark.parametrize(
    ("method", "more", "reason"),
    [
        ({"partition": {"by": "size"}}, "", "partition by 'size' is not known"),
        ({"partition": {"by": "iid", "part": 3}}, "", "partition setting 'part' is not known; known are by, parts"),
        ({"partition": "iid"}, "", "partition must be a dict"),
        ({"partition": {"by": "iid"}}, "def partition(train): ...", "is cut twice"),
        ({"name": "fedavg", "members": 3}, "", "members belongs to ensemble-bagging"),
        ({"name": "ensemble-bagging", "members": 0}, "", "from 1 to 1000, got 0"),
        ({"name": "ensemble-bagging", "members": 3, "partition": {"by": "iid"}}, "", "one member for each"),
        ({"name": "ensemble-one-class", "partition": {"by": "iid"}}, "", "takes no partition"),
        ({"local": "steps", "partition": {"by": "iid"}}, "", "with local each node's own data are a part"),
        ({"local": "steps"}, "def partition(train): ...", "with local each node's own data are a part"),
        ({"local": "steps", "name": "ensemble-one-class"}, "", "with local each node's own data are a part"),
        ({"local": 7}, "", "local must be the name of data that nodes hold"),
    ],
)
def test_settings_that_do_not_belong_together_are_refused(tmp_path: Path, method: object, more: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        jobfile_with(tmp_path, method, more)
