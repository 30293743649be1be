"""How attempts are counted and judged, on run directories as stages and srun leave them."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cardamage.config import loading
from cardamage.errors import ExitStatus, RunError
from cardamage.launch.slurm.attempt import HAS_ENDED, NOTHING_TO_DO, begin, end
from cardamage.launch.slurm.starts import progress, read_starts
from cardamage.launch.watching.record import new_launch, read_launch
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import StageRecord, read_stage
from cardamage.system.files import write_json
from tests.helpers.markers import write_stage

LIMIT = 3


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunPaths:
    """A run that is packed, and whose other stages wait; job 12 works for it."""
    made = RunPaths(tmp_path / "run")
    made.logs.mkdir(parents=True)
    made.config.write_text("name: run\n")
    write_stage(made, StageRecord("pack", "done"))
    for stage in ("train", "test", "report"):
        write_stage(made, StageRecord(stage))
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[0-1]")
    return made


def start(run: RunPaths, said: str = "", saved: int | None = None, **marker: object) -> None:
    """Begin an attempt of training, and leave what its stage would."""
    assert begin(run, "train", LIMIT) == ExitStatus.DONE
    if marker:
        before = read_stage(run, "train")
        write_stage(run, replace(before, attempts=before.attempts + 1, **marker))
    if saved is not None:
        write_json(run.progress, {"epoch": 0, "step": saved})
    with run.log("train").open("a") as log:
        log.write(said)


def states(run: RunPaths) -> list[str]:
    return [read_stage(run, stage).state for stage in ("train", "test", "report")]


def test_a_stage_that_is_done_is_done_whatever_srun_says(run: RunPaths):
    start(run, state="done", exit_status=0)
    assert end(run, "train", LIMIT, 143) == ExitStatus.DONE
    assert states(run) == ["done", "waiting", "waiting"]


def test_a_marker_of_an_earlier_attempt_does_not_count(run: RunPaths):
    write_stage(run, StageRecord("train", "done", attempts=1))
    start(run)
    assert end(run, "train", LIMIT, 137) == ExitStatus.STOPPED
    assert read_stage(run, "train").state == "stopped"


@pytest.mark.parametrize(
    ("error_class", "status"),
    [("user", ExitStatus.USER_ERROR), ("final", ExitStatus.FAILED)],
)
def test_what_would_fail_again_is_not_retried(run: RunPaths, error_class: str, status: ExitStatus):
    start(run, state="failed", error="no", error_class=error_class, exit_status=int(status))
    assert end(run, "train", LIMIT, 1) == status
    assert states(run) == ["failed", "cancelled", "cancelled"]


def test_a_mistake_found_before_the_marker_is_not_retried(run: RunPaths):
    start(run, said="error: optim.lr: must be greater than 0\n")
    assert end(run, "train", LIMIT, 2) == ExitStatus.USER_ERROR
    record = read_stage(run, "train")
    assert (record.state, record.error_class) == ("failed", "user")
    assert record.error == "optim.lr: must be greater than 0"


def test_a_stage_that_saved_goes_on(run: RunPaths):
    start(run, state="stopped", error="saved at step 7", error_class="stopped", saved=7)
    assert end(run, "train", LIMIT, 75) == ExitStatus.STOPPED
    assert read_stage(run, "train").error == "saved at step 7"
    assert states(run)[1:] == ["waiting", "waiting"]


def test_the_process_that_ended_first_is_named(run: RunPaths):
    said = "srun: error: n1: task 1: Killed\nsrun: error: n0: task 0: Exited with exit code 1\n"
    start(run, said, state="running")
    assert end(run, "train", LIMIT, 137) == ExitStatus.STOPPED
    record = read_stage(run, "train")
    assert record.error == "process 1 on n1: Killed"
    assert (record.state, record.error_class) == ("stopped", "fault")


def test_a_node_that_kills_twice_in_a_row_is_avoided(
    run: RunPaths, capsys: pytest.CaptureFixture[str]
):
    for saved, node, avoided in ((1, "n1", ""), (2, "n0", ""), (3, "n0", "n0\n")):
        start(run, f"srun: error: {node}: task 1: Killed\n", saved, state="running")
        capsys.readouterr()
        assert end(run, "train", LIMIT, 137) == ExitStatus.STOPPED
        assert capsys.readouterr().out == avoided


def test_a_node_whose_process_merely_failed_is_not_avoided(
    run: RunPaths, capsys: pytest.CaptureFixture[str]
):
    for saved in (1, 2):
        said = "srun: error: n0: task 0: Exited with exit code 1\n"
        start(run, said, saved, state="failed", error_class="fault", error="gloo")
        capsys.readouterr()
        assert end(run, "train", LIMIT, 1) == ExitStatus.STOPPED
        assert capsys.readouterr().out == ""


def test_starts_without_progress_come_to_an_end(run: RunPaths):
    for attempt in range(LIMIT):
        start(run, state="failed", error_class="fault", error=f"bang {attempt}")
        status = end(run, "train", LIMIT, 1)
    assert status == ExitStatus.FAILED
    assert read_stage(run, "train").error == (
        "3 starts in a row brought no progress; the last: bang 2"
    )
    assert states(run) == ["failed", "cancelled", "cancelled"]


def test_starts_with_progress_never_end(run: RunPaths):
    for step in range(3 * LIMIT):
        start(run, state="failed", error_class="fault", error="bang", saved=step)
        assert end(run, "train", LIMIT, 1) == ExitStatus.STOPPED


def test_starts_that_never_came_to_an_end_do_not_count(run: RunPaths):
    for _ in range(10):  # preempted, or requeued, or their nodes failed
        start(run)
    start(run, state="failed", error_class="fault", error="bang")
    assert end(run, "train", LIMIT, 1) == ExitStatus.STOPPED


@pytest.mark.parametrize(
    ("said", "by_slurm"),
    [
        ("", True),
        ("slurmstepd: error: *** STEP 12.0 ON n0 CANCELLED AT 2026 DUE TO PREEMPTION ***\n", False),
        ("slurmstepd: error: *** STEP 12.0 ON n0 CANCELLED AT 2026 DUE TO TIME LIMIT ***\n", False),
        ("srun: error: Node failure on n1\n", False),
        ("srun: error: n0: task 0: User defined signal 2\n", False),
    ],
)
def test_starts_that_slurm_ended_do_not_count_and_its_own_failures_do(
    run: RunPaths, said: str, by_slurm: bool
):
    for _ in range(10):
        start(run, said, state="running")
        assert end(run, "train", LIMIT, 143, by_slurm=by_slurm) == ExitStatus.STOPPED
    for attempt in range(LIMIT):
        start(run, "srun: error: n0: task 0: Killed\n", state="running")
        status = end(run, "train", LIMIT, 137)
        assert (status == ExitStatus.FAILED) == (attempt == LIMIT - 1)


def test_ten_that_saved_before_the_first_step_do_not_count(run: RunPaths):
    for _ in range(10):
        start(run, state="stopped", error="saved at step 0", error_class="stopped", saved=0)
        assert end(run, "train", LIMIT, 75) == ExitStatus.STOPPED


def test_what_is_cancelled_is_not_started_and_not_retried(run: RunPaths):
    start(run, state="stopped", error="saved at step 7", error_class="stopped")
    write_json(run.cancel_request, {"request": "STOP"})
    assert end(run, "train", LIMIT, 75) == ExitStatus.FAILED
    assert states(run) == ["stopped", "cancelled", "cancelled"]
    assert begin(run, "train", LIMIT) == ExitStatus.FAILED
    assert read_stage(run, "train").state == "cancelled"


def test_a_stage_does_not_start_before_the_one_it_needs(run: RunPaths):
    with pytest.raises(RunError, match="stage test needs train, which is waiting"):
        begin(run, "test.0", LIMIT)


def test_a_start_says_where_it_is(run: RunPaths, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "10")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    run.log("train").write_text("before\n")
    start(run)
    (found,) = read_starts(run, "train")
    assert (found.job, found.nodes, found.log_start) == ("10_2", "n[0-1]", len("before\n"))


def test_progress_is_what_is_saved(run: RunPaths):
    assert progress(run, "train") == [0, 0, 0]
    run.resume.mkdir()
    run.progress.write_text(json.dumps({"epoch": 2, "step": 9}))
    run.checkpoints.mkdir()
    run.checkpoint(1).touch()
    assert progress(run, "train") == [1, 2, 9]
    assert progress(run, "report") == []
    run.test_counts("test", 1).parent.mkdir(parents=True)
    run.test_counts("test", 1).touch()
    assert progress(run, "test.1") == [1]


def test_a_stage_that_could_not_write_its_marker_tells_by_its_log(run: RunPaths):
    start(run, "error: /runs/x: no space left\n", state="running")
    assert end(run, "train", LIMIT, 2) == ExitStatus.USER_ERROR
    record = read_stage(run, "train")
    assert (record.state, record.error) == ("failed", "/runs/x: no space left")


def test_a_package_that_is_missing_is_not_retried(run: RunPaths):
    start(run, "Traceback (most recent call last):\nModuleNotFoundError: No module named 'numpy'\n")
    assert end(run, "train", LIMIT, 1) == ExitStatus.USER_ERROR
    assert "No module named 'numpy'" in str(read_stage(run, "train").error)


def test_a_stage_that_is_done_is_not_started_again(run: RunPaths):
    experiment = loading.parse({"name": "run", "data": {"source": "x", "classes": ["a"]}})
    run.config.write_text(experiment.to_yaml())
    epochs = experiment.train.epochs
    write_stage(run, StageRecord("train", "done", attempts=1, output={"epochs": epochs}))
    run.checkpoints.mkdir()
    run.checkpoint(epochs).touch()
    assert begin(run, "train", LIMIT) == ExitStatus.DONE  # metrics.csv is missing
    run.metrics.touch()
    assert begin(run, "train", LIMIT) == NOTHING_TO_DO
    assert len(read_starts(run, "train")) == 1


def launched(run: RunPaths, **parts: object) -> None:
    launch = asdict(new_launch("slurm", "big", [], {"train": ["sbatch", "train.sbatch"]}))
    write_json(run.launch, {**launch, "comment": "cardamage-1", **parts})


def test_no_job_of_a_submission_that_was_cut_off_begins(run: RunPaths):
    launched(run, pid=2**22 + 1, born=None)
    assert begin(run, "train", LIMIT) == ExitStatus.FAILED
    assert states(run) == ["cancelled", "waiting", "waiting"]
    assert read_starts(run, "train") == []
    launch = read_launch(run)
    assert launch is not None
    assert launch.ended  # it can be submitted again from any machine


def test_a_submission_counts_as_soon_as_all_of_it_is_queued(run: RunPaths, tmp_path: Path):
    submission = tmp_path / "all.json"
    write_json(submission, {str(run.root): {"train": "12"}, "/elsewhere": {"train": "13"}})
    launched(run, pid=2**22 + 1, born=None, submission=str(submission))
    assert begin(run, "train", LIMIT) == ExitStatus.DONE


def test_a_run_in_turn_that_has_ended_is_not_begun_again(run: RunPaths):
    write_stage(run, StageRecord("train", "failed"))
    assert begin(run, "train", LIMIT, in_turn=True) == HAS_ENDED
    assert begin(run, "train", LIMIT) == ExitStatus.DONE
