"""A search on a real SLURM: queued once, it decides by itself what is tried and what goes on."""

import pytest

from cardamage.runs.paths import StudyPaths
from cardamage.runs.rung import read_rung
from cardamage.runs.stages import read_stage
from cardamage.search.decide import advance
from cardamage.search.record import SearchRecord, read_search, trial_run
from tests.helpers.programs import Program
from tests.helpers.submissions import ONE_NODE, TOY, jobs_of, run_of, states, wait_until_over

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

SEARCH = """\
name: rates
sweep:
  config: toy.yaml
  space: {optim.lr: {low: 1.0e-4, high: 0.1, log: true}, loss.name: [cross_entropy, dice]}
  search: {method: random, trials: TRIALS}
  halving: {rungs: [1], keep: 0.6}
"""
FEW_JOBS = ONE_NODE.replace("minutes: 5", "minutes: 5, qos: some")


@pytest.mark.parametrize(
    ("trials", "finalists", "profile"),
    [(2, 1, ONE_NODE), (3, 2, FEW_JOBS)],  # which in turn, or it were 12 jobs
    ids=["all at once", "few jobs"],
)
def test_a_search_chains_its_rounds(
    program: Program, slurm, trials: int, finalists: int, profile: str
):
    search = SEARCH.replace("TRIALS", str(trials))
    for name, text in (("toy", TOY), ("search", search), ("one", profile)):
        (program.folder / f"{name}.yaml").write_text(text)
    command = ("launch/submit.py", "search.yaml", "--cluster", "one.yaml")
    assert program.succeeds(*command).startswith(f"rates: round 1 of 2: {trials} trials to epoch 1")
    study = StudyPaths(run_of(program, "rates").root)
    assert "is being run already" in program.refuses(*command)
    wait_until_over(slurm, study, timeout_s=600)
    record = read_search(study)
    assert record is not None, program("launch/status.py").stdout
    assert [len(trials) for trials in record.rounds] == [trials, finalists]
    for trial in range(trials):
        run = trial_run(study, trial)
        if trial in record.finalists():
            assert states(run) == ["done"] * 4
            assert [*run.finished_checkpoints()] == [1, 2]
            assert set(jobs_of(run)) == {"train", "test", "report"}
        else:
            assert states(run)[:2] == ["done", "done"]
            assert (read_rung(run), [*run.finished_checkpoints()]) == (1, [1])
    assert read_stage(study, "report").state == "done"
    assert len(read_stage(study, "report").output["tested"]) == finalists
    # The decisions follow from what is stored.
    assert advance(study, SearchRecord(settings=record.settings)) == record
    assert f"rates: the search of {trials} trials is over" in program.succeeds(*command)
