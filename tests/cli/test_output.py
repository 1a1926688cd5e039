"""Files that commands write: what is in the way is told before the work, in a sentence."""

import errno
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gridsched.cli import app
from gridsched.cli.output import importing, may_draw, may_write, writing
from gridsched.core.errors import InvalidInput
from tests.cli.conftest import never

REMEDY = "pip install 'gridsched[report]'"


def fails(*words: object) -> str:
    """What a failing command says; never a traceback."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    return result.stderr


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("study", ["churn", "peers", "data", "members", "combination"])
def test_a_study_that_could_not_be_drawn_starts_no_run(study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridsched.cli.evaluate._carry_out", never)
    assert REMEDY in fails("evaluate", study, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_study_s_folder_that_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridsched.cli.evaluate._carry_out", never)
    (tmp_path / "file").touch()
    assert "cannot be written" in fails("evaluate", "churn", tmp_path / "file")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    for words in (["init", str(folder)], ["db", "upgrade", "--site", str(folder)]):
        assert CliRunner().invoke(app, words).exit_code == 0
    return folder


def test_epochs_are_not_looked_up_for_a_file_that_cannot_be_written(site: Path, tmp_path: Path) -> None:
    said = fails("report", "epochs", "j", "--csv", tmp_path / "none" / "epochs.csv", "--site", site)
    assert f"there is no folder {tmp_path / 'none'}" in said


@pytest.mark.usefixtures("bare")
def test_epochs_as_a_file_say_what_they_need(site: Path, tmp_path: Path) -> None:
    assert REMEDY in fails("report", "epochs", "j", "--csv", tmp_path / "epochs.csv", "--site", site)
    assert "gridsched job list" in fails("report", "epochs", "j", "--site", site), "the table needs nothing more"


@pytest.mark.usefixtures("bare")
def test_a_day_that_cannot_be_drawn_is_not_looked_up(site: Path, tmp_path: Path) -> None:
    assert REMEDY in fails("report", "day", "--out", tmp_path / "day.png", "--site", site)


def test_a_day_s_picture_goes_where_it_can_be_written(site: Path) -> None:
    assert "there is no folder" in fails("report", "day", "--out", site / "gridsched.toml" / "day.png", "--site", site)


def test_a_file_goes_into_a_folder_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "old.csv").touch()
    for path in (None, tmp_path / "new.csv", tmp_path / "old.csv", Path(os.devnull)):
        may_write(path)
    for path, why in ((tmp_path, "it is a folder"), (tmp_path / "a" / "b.csv", "no folder"), (tmp_path / "old.csv" / "b.csv", "no folder")):
        with pytest.raises(InvalidInput, match=why):
            may_write(path)


def test_what_may_not_be_changed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InvalidInput, match="permission denied"):
        may_write(tmp_path / "new.csv")


def test_a_picture_is_a_png_whose_folder_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (None, Path("x.png"), tmp_path / "a" / "b" / "X.PNG"):
        may_draw(path)
    for path, why in ((tmp_path / "x.jpeg", "end in .png"), (tmp_path / "file" / "x.png", "there is no folder")):
        with pytest.raises(InvalidInput, match=why):
            may_draw(path)


def test_a_disk_that_fills_on_the_way_is_told_with_the_file() -> None:
    said = "x.csv cannot be written: No space left on device; choose another place"
    with pytest.raises(InvalidInput, match=said), writing(Path("x.csv")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_module_of_our_own_that_is_missing_stays_a_bug() -> None:
    with pytest.raises(ModuleNotFoundError), importing():
        raise ModuleNotFoundError("No module named 'gridsched.reprot'", name="gridsched.reprot")
