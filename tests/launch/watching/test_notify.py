"""People are told once of a run that is done or has failed, and nothing that goes wrong counts."""

import sys
from types import SimpleNamespace

import pytest

from cardamage.config import loading
from cardamage.errors import ConfigError, ExitStatus
from cardamage.launch.local import backend
from cardamage.launch.slurm import attempt
from cardamage.launch.watching import notify
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import StageRecord
from cardamage.runs.tables import write_table
from tests.helpers.markers import write_stage


@pytest.fixture
def run(tmp_path):
    made = RunPaths(tmp_path / "runs" / "cars")
    made.logs.mkdir(parents=True)
    return made


def configure(run, **section):
    values = {
        "name": "cars",
        "data": {"source": "synthetic", "classes": ["dent"]},
        "notify": section or None,
    }
    run.config.write_text(loading.parse(values).to_yaml())
    rows = [{"epoch": epoch, "val_dice_fg": value} for epoch, value in ((1, 0.5), (2, 0.625))]
    write_table(run.metrics, rows)


@pytest.fixture
def said(run, tmp_path):
    """What the command of the config wrote, a line each time."""
    out = tmp_path / "said"
    configure(run, command=f'echo "$CARDAMAGE_STATE|$CARDAMAGE_RUN|$CARDAMAGE_MESSAGE" >> "{out}"')
    return lambda: out.read_text().splitlines() if out.exists() else []


def test_the_command_is_told_what_there_is_to_know(run, said):
    notify.tell(run, "done", "report")
    notify.tell(run, "failed", "train", "the disk is full")
    done, failed = said()
    assert done.startswith(f"done|{run.root}|cars is done: best is epoch 2")
    assert "0.625" in done
    assert failed == f"failed|{run.root}|cars: train failed: the disk is full"


def test_here_a_run_that_ended_is_told_and_one_that_was_stopped_is_not(run, said):
    for ending in (
        ("report", ExitStatus.DONE, ""),
        ("pack", ExitStatus.DONE, ""),  # --stages pack
        ("train", ExitStatus.STOPPED, "as asked"),
        ("train", ExitStatus.USER_ERROR, "no such file"),
    ):
        backend._tell(run, ending)
    assert [line.partition("|")[0] for line in said()] == ["done", "failed"]


@pytest.mark.parametrize(
    ("stage", "state", "status", "has_run", "expected"),
    [
        ("report", "done", ExitStatus.DONE, True, ["done"]),
        ("report", "done", ExitStatus.DONE, False, []),  # it begins once more
        ("train", "done", ExitStatus.DONE, True, []),
        ("train", "stopped", ExitStatus.STOPPED, True, []),  # it is queued again
        ("train", "stopped", ExitStatus.STOPPED, True, ["stuck"]),
        ("train", "failed", ExitStatus.FAILED, True, ["failed"]),
        ("train", "failed", ExitStatus.FAILED, False, ["failed"]),  # too many starts
        ("test", "waiting", ExitStatus.USER_ERROR, False, []),  # training failed, and said so
    ],
)
def test_on_slurm_the_job_that_the_run_ended_with_tells(
    run, said, stage, state, status, has_run, expected
):
    why = "process 1 on n1 got nowhere for 600 s" if expected == ["stuck"] else "why"
    write_stage(run, StageRecord(stage, state, error=why))
    attempt.tell_end(run, stage, status, has_run=has_run)
    assert [line.partition("|")[0] for line in said()] == expected


def test_a_url_is_told_with_secrets_from_the_environment(run, monkeypatch):
    sent = []

    class Apprise:
        def add(self, url):
            sent.append(url)
            return url.startswith("ntfy")

        def notify(self, **words):
            sent.append(words)
            return True

    monkeypatch.setitem(sys.modules, "apprise", SimpleNamespace(Apprise=Apprise))
    monkeypatch.setenv("TOPIC", "secret")
    configure(run, url="ntfy://$TOPIC")
    notify.tell(run, "failed", "pack", "no images")
    assert sent == [
        "ntfy://secret",
        {"title": "cars failed", "body": "cars: pack failed: no images"},
    ]
    configure(run, url="nowhere://")
    notify.tell(run, "failed", "pack", "no images")
    assert sent[2:] == ["nowhere://"]


@pytest.mark.parametrize(
    "section", [{"command": "exit 3"}, {"command": "no_such_program_here"}, {}]
)
def test_what_goes_wrong_ends_nothing(run, section):
    configure(run, **section)
    notify.tell(run, "done", "report")
    run.config.write_text("name: [")
    notify.tell(run, "done", "report")


def test_a_section_that_tells_nobody_is_refused_and_none_changes_what_a_run_is():
    values = {"data": {"source": "synthetic", "classes": ["dent"]}}
    with pytest.raises(ConfigError, match="command or url"):
        loading.parse({**values, "notify": {}})
    told = loading.parse({**values, "notify": {"command": "true"}})
    assert told.hash() == loading.parse(values).hash()


def test_of_a_study_nobody_is_told_and_nothing_is_said(tmp_path, caplog):
    notify.tell(RunPaths(tmp_path / "study"), "done", "report")
    assert caplog.messages == []
