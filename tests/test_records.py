"""Records: whole or not there, versioned, and refused with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from report_records import three_records
from theodolite.records.errors import BadInput
from theodolite.records.folder import FolderTaken, whole_folder, write_whole
from theodolite.records.survey import BadRecord, SurveyRecord, read_survey


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


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_whole(tmp_path / "deep" / "file", "one")
    with pytest.raises(AttributeError):
        write_whole(tmp_path / "deep" / "file", 3)  # type: ignore[arg-type]
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
        (three_records()[0].to_json().replace('"version": 1', '"version": 2'), "version"),
        (three_records()[0].to_json().replace('"seed":', '"sead":', 1), "Extra inputs|Field required"),
        ("{", "Invalid JSON"),
    ):
        path.write_text(text)
        with pytest.raises(BadRecord, match=reason):
            read_survey(tmp_path)
    assert issubclass(BadRecord, BadInput)
