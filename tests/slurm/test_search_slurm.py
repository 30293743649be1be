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
  search: {method: random, trials: 3}
  halving: {rungs: [1], keep: KEPT}
"""
FEW_JOBS = ONE_NODE.replace("minutes: 5", "minutes: 5, qos: some")


@pytest.mark.parametrize(
    ("kept", "finalists", "profile"),
    [("0.3", 1, ONE_NODE), ("0.6", 2, FEW_JOBS)],  # which in turn, or it were 12 jobs
    ids=["all at once", "few jobs"],
)
def test_a_search_chains_its_rounds(
    program: Program, slurm, kept: str, finalists: int, profile: str
):
    search = SEARCH.replace("KEPT", kept)
    for name, text in (("toy", TOY), ("search", search), ("one", profile)):
        (program.folder / f"{name}.yaml").write_text(text)
    command = ("launch/submit.py", "search.yaml", "--cluster", "one.yaml")
    assert program.succeeds(*command).startswith("rates: round 1 of 2: 3 trials to epoch 1")
    study = StudyPaths(run_of(program, "rates").root)
    assert "is being run already" in program.refuses(*command)
    wait_until_over(slurm, study, timeout_s=600)
    record = read_search(study)
    assert record is not None, program("launch/status.py").stdout
    assert [len(trials) for trials in record.rounds] == [3, finalists]
    for trial in range(3):
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
    assert "rates: the search of 3 trials is over" in program.succeeds(*command)
