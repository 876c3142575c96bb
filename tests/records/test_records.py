"""Records: whole or not there, versioned, and refused with a reason."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from helpers.survey_records import three_records
from theodolite.records.errors import BadInput
from theodolite.records.folder import FolderTaken, refuse_taken, sole_writer, whole_folder, write_whole
from theodolite.records.survey import BadRecord, SurveyRecord, read_survey
from theodolite.records.training import read_training
from theodolite.records.writing import git_revision, run_record
from theodolite.report.stored import read_stored


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("trouble", [KeyboardInterrupt, RuntimeError])
def test_a_folder_whose_writing_is_interrupted_is_not_there(tmp_path: Path, trouble: type[BaseException]) -> None:
    with pytest.raises(trouble), whole_folder(tmp_path / "out") as folder:
        (folder / "half").write_text("half")
        raise trouble
    assert leftovers(tmp_path) == []


def test_an_interrupted_overwrite_leaves_the_old_folder_as_it_was(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "out") as folder:
        (folder / "old").write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "out", overwrite=True) as folder:
        (folder / "new").write_text("new")
        raise KeyboardInterrupt
    assert leftovers(tmp_path) == ["out"]
    assert leftovers(tmp_path / "out") == ["old"]


def test_a_taken_folder_is_refused_unless_it_may_go(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    with pytest.raises(FolderTaken, match="--overwrite"), whole_folder(tmp_path / "out"):
        pass
    with whole_folder(tmp_path / "out", overwrite=True) as folder:
        (folder / "new").write_text("new")
    assert leftovers(tmp_path / "out") == ["new"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(FolderTaken, match="is a file"), whole_folder(tmp_path / "file", overwrite=True):
        pass


def test_an_interrupt_between_the_two_renames_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    rename, calls = Path.rename, []

    def interrupted(path: Path, target: Path) -> Path:
        calls.append(path.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "out", overwrite=True) as folder:
        (folder / "new").write_text("new")
    assert calls[0] == "out" and len(calls) == 3
    assert leftovers(tmp_path) == ["out"] and leftovers(tmp_path / "out") == ["old"]


@pytest.mark.parametrize("is_there", [True, False])
def test_what_killed_processes_left_is_restored_or_removed(tmp_path: Path, is_there: bool) -> None:
    """A kill between the two renames of an overwrite, one before them, and one while a run was discarded."""
    for name in (".out.old-1", ".out.part-2", ".out.discarded-3", ".other.part-4", *(["out"] if is_there else [])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / ".out.part-5").write_text("of a file")
    with pytest.raises(FolderTaken), whole_folder(tmp_path / "out"):
        pass
    if is_there:  # refused before anything is touched
        with sole_writer(tmp_path / "out"):
            pass
    assert leftovers(tmp_path) == [".other.part-4", "out"]
    assert (tmp_path / "out" / "file").read_text() == ("out" if is_there else ".out.old-1")


LOCKING = """
import sys
from pathlib import Path
from theodolite.records.folder import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_one_process_writes_an_output_at_a_time(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", LOCKING, str(tmp_path / "out")], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"locked\n"
        with pytest.raises(BadInput, match=r"another process is writing .*out; wait for it"), whole_folder(tmp_path / "out"):
            pass
        with whole_folder(tmp_path / "another"):
            pass
        process.kill()
    with whole_folder(tmp_path / "out"), sole_writer(tmp_path / "out"):  # a lock ends with its process, and can be nested
        pass
    assert leftovers(tmp_path) == ["another", "out"]


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    for out in (tmp_path / "f" / "x", tmp_path / "f" / "x" / "y"):
        with pytest.raises(BadInput, match="f is a file"):
            refuse_taken(out, overwrite=True)
        with pytest.raises(BadInput, match="cannot be written"):
            write_whole(out, "x")
    with pytest.raises(BadInput, match="is a file"):
        refuse_taken(Path("/dev/null"), overwrite=True)
    assert (tmp_path / "f").read_text() == "x"


@pytest.mark.parametrize("out", [".", "..", "../here"])
def test_the_current_directory_and_what_holds_it_are_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(BadInput, match="current directory"), whole_folder(Path(out), overwrite=True):
        pass
    assert leftovers(tmp_path) == ["here"]


@pytest.mark.parametrize("call", ["mkdir", "rename"])
def test_what_the_file_system_refuses_is_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, call, refuse)
    with pytest.raises(BadInput, match=r"out cannot be written \(Permission denied\)"), whole_folder(tmp_path / "out"):
        pass
    assert leftovers(tmp_path) == []


def test_a_folder_in_one_that_may_not_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(BadInput, match="cannot be written to"):
        refuse_taken(tmp_path / "deep" / "out", overwrite=False)


@pytest.mark.parametrize(("trouble", "raised"), [(KeyboardInterrupt, KeyboardInterrupt), (OSError, BadInput)])
def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: type[BaseException], raised: type[BaseException]
) -> None:
    def stop(*_: object) -> None:
        raise trouble

    write_whole(tmp_path / "deep" / "file", "one")
    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(raised):
        write_whole(tmp_path / "deep" / "file", "two")
    assert leftovers(tmp_path / "deep") == ["file"]
    assert (tmp_path / "deep" / "file").read_text() == "one"


def test_a_survey_reads_back_as_it_was_written(tmp_path: Path) -> None:
    record = three_records()[0]
    (tmp_path / "survey.json").write_text(record.to_json())
    assert read_survey(tmp_path) == record
    assert read_survey(tmp_path).to_json() == record.to_json()
    assert isinstance(read_survey(tmp_path / "survey.json"), SurveyRecord)


def test_what_is_no_survey_of_this_version_is_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(BadRecord, match=r"holds no survey\.json"):
        read_survey(tmp_path)
    path = tmp_path / "survey.json"
    for text, reason in (
        (three_records()[0].to_json().replace('"version": 2', '"version": 1'), "version"),
        (three_records()[0].to_json().replace('"seed":', '"sead":', 1), "Extra inputs|Field required"),
        ("{", "Invalid JSON"),
    ):
        path.write_text(text)
        with pytest.raises(BadRecord, match=reason):
            read_survey(tmp_path)
    assert issubclass(BadRecord, BadInput)


def test_a_file_that_is_no_text_is_refused_like_any_other_that_is_no_record(tmp_path: Path) -> None:
    for name in ("survey.json", "training.json"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadRecord, match="is no survey record"):
        read_survey(tmp_path)
    with pytest.raises(BadRecord, match="is no training record"):
        read_training(tmp_path)
    (tmp_path / "survey.json").write_text(three_records()[1].model_copy(update={"examples": ()}).to_json())
    (tmp_path / "run.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadRecord, match="is no run record"):
        read_stored(tmp_path)


def test_a_run_names_its_host_and_its_threads_where_it_has_any() -> None:
    plain, threaded = (run_record("survey", datetime.now(UTC), {"asking": 1.23456}, threads=threads) for threads in (None, 3))
    assert plain.host["cpus"] == os.cpu_count() and "torch_threads" not in plain.host
    assert threaded.host == {**plain.host, "torch_threads": 3}
    assert plain.seconds_by_part == {"asking": 1.235}


def test_a_git_revision_is_that_of_the_checkout_which_tracks_the_package(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@x", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    module, foreign = (tmp_path / home / "records" / "writing.py" for home in ("package", ".venv"))
    for path in (module, foreign):
        path.parent.mkdir(parents=True)
        path.write_text("x")
        for folder in (path.parent, path.parents[1]):
            (folder / "__init__.py").touch()
    assert git_revision(module) is None
    git("init", "--quiet")
    git("add", "package")
    git("commit", "--quiet", "--message", "one")
    assert git_revision(module) == git("rev-parse", "HEAD")
    assert git_revision(foreign) is None
    (tmp_path / "package" / "__init__.py").write_text("y")
    assert git_revision(module) == git("rev-parse", "HEAD") + "+changes"
