"""Which jobs a submission is, and what each waits for; no SLURM is needed."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from cardamage.errors import ConfigError
from cardamage.launch.planning.plan import make_plan
from cardamage.launch.planning.profiles import SlurmProfile
from cardamage.launch.slurm.batch_job import BatchJob, by_run
from cardamage.launch.slurm.limits import Limit, Limits
from cardamage.launch.slurm.plan import Submission, plan_submission
from cardamage.launch.slurm.rounds import slot_jobs
from cardamage.launch.slurm.site import Partition, Site, check_partition
from cardamage.runs.paths import STAGES, RunPaths
from cardamage.runs.stages import StageRecord
from tests.helpers.markers import write_stage

CONFIG = """\
name: cars
data: {source: synthetic, classes: [scratch, dent], image_size: [32, 32]}
model: {name: segnet2}
optim: {name: adam}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "cars.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def submission(
    *configs: str,
    max_array_size: int = 1001,
    max_running: int | None = None,
    limits: Limits | None = None,
    **stages: object,
) -> Submission:
    plan = make_plan([Path(name) for name in configs], [], Path("runs"), STAGES)
    profile = SlurmProfile.model_validate({"backend": "slurm", **stages})
    site = Site({}, max_array_size, limits or Limits())
    return plan_submission(plan, profile, "big", site, max_running=max_running)


def sweep(folder: Path, **grid: list[object]) -> str:
    content = {"name": "many", "sweep": {"config": "cars.yaml", "grid": grid}}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(content))
    return "sweep.yaml"


def in_words(job: BatchJob) -> str:
    runs = "+".join(dict.fromkeys(work.run.name for work in job.works))
    return " ".join([f"{job.label}({runs})", *map(str, job.after)])


def numbers(jobs: Sequence[BatchJob]) -> dict[Path, dict[str, str]]:
    """The jobs by run and stage, numbered in their order."""
    return {
        root: {
            stage: f"{jobs.index(job)}_{index}" if job.is_array else str(jobs.index(job))
            for stage, (job, index) in stages.items()
        }
        for root, stages in by_run(jobs).items()
    }


def test_a_run_is_four_jobs_one_after_another(folder: Path):
    found = submission("cars.yaml").jobs
    assert [in_words(job) for job in found] == [
        "pack(cars)",
        "train(cars) afterok pack",
        "test(cars) afterok train",
        "report(cars) afterany test",
    ]
    root = folder / "runs" / "cars"
    assert found[1].script == root / "slurm" / "train.sbatch"
    assert found[1].output == f"{root}/logs/train.log"
    assert numbers(found) == {root: {"pack": "0", "train": "1", "test": "2", "report": "3"}}


def test_a_stage_that_is_done_is_not_queued(folder: Path):
    run = RunPaths(folder / "runs" / "cars")
    shards = folder / "shards" / "x"
    shards.mkdir(parents=True)
    (shards / "manifest.json").write_text("{}")
    plan = make_plan([Path("cars.yaml")], [], Path("runs"), STAGES).plans[0]
    run.root.mkdir(parents=True)
    run.config.write_text(plan.experiment.to_yaml())
    write_stage(run, StageRecord("pack", "done", output={"shards": str(shards)}))
    found = submission("cars.yaml").jobs
    assert in_words(found[0]) == "train(cars)"


def test_checkpoints_may_be_tested_in_parts(folder: Path):
    found = submission("cars.yaml", test={"jobs": 3}).jobs
    assert [in_words(job) for job in found][2:] == [
        "test-parts(cars) afterok train",
        "test(cars) afterany test-parts",
        "report(cars) afterany test",
    ]
    ids = numbers(found)
    assert ids[folder / "runs" / "cars"] == {
        "pack": "0",
        "train": "1",
        **{f"test.{i}": f"2_{i}" for i in range(3)},
        "test": "3",
        "report": "4",
    }


def test_runs_of_a_sweep_share_packing_and_are_arrays_that_fit_the_site(folder: Path):
    name = sweep(folder, **{"optim.lr": [0.1, 0.2, 0.3]})
    found = submission(name, max_array_size=2).jobs
    a, b, c = (f"many-lr_{rate}" for rate in (0.1, 0.2, 0.3))
    assert [in_words(job) for job in found] == [
        f"pack({a})",
        f"train-part0({a}+{b}) afterok pack",
        f"test-part0({a}+{b}) aftercorr train-part0",
        f"report-part0({a}+{b}) aftercorr test-part0",
        f"train-part1({c}) afterok pack",
        f"test-part1({c}) afterok train-part1",
        f"report-part1({c}) afterany test-part1",
        "compare-many(many) afterany test-part0 afterany test-part1",
    ]
    ids = numbers(found)
    runs = folder / "runs"
    assert ids[runs / b] == {"pack": "0", "train": "1_1", "test": "2_1", "report": "3_1"}
    assert ids[runs / c] == {"pack": "0", "train": "4", "test": "5", "report": "6"}
    assert ids[runs / "many"] == {"report": "7"}
    (packing,) = found[0].works
    assert packing.program == ("pack", "--also", '"${others[@]}"')
    assert packing.others == (runs / b, runs / c)


def test_runs_of_another_dataset_do_not_wait_for_its_packing(folder: Path):
    name = sweep(folder, **{"data.subset": [0.5, 1.0], "optim.lr": [0.1, 0.2]})
    words = [in_words(job) for job in submission(name).jobs]
    packs = [text for text in words if text.startswith("pack")]
    trains = [text for text in words if text.startswith("train")]
    assert len(packs) == 2
    assert [text.rpartition(") ")[2] for text in trains] == ["afterok pack-0", "afterok pack-1"]


def test_so_many_run_at_once_over_all_arrays(folder: Path):
    name = sweep(folder, **{"optim.lr": [0.1, 0.2, 0.3, 0.4]})
    jobs = submission(name, max_array_size=2, max_running=3).jobs
    limits = {job.label: job.max_running for job in jobs if job.is_array}
    assert (limits["train-part0"], limits["train-part1"]) == (2, 1)


def test_the_limit_holds_over_groups_that_pack_differently(folder: Path):
    sizes = [[side, 32] for side in (16, 32, 48)]
    name = sweep(folder, **{"data.image_size": sizes, "optim.lr": [0.1, 0.2, 0.3]})
    jobs = {job.label: job for job in submission(name, max_running=4).jobs}
    assert [jobs[f"train-{group}"].max_running for group in range(3)] == [2, 1, 1]
    jobs = {job.label: job for job in submission(name, max_running=2).jobs}
    assert [jobs[f"train-{group}"].max_running for group in range(3)] == [1, 1, 1]
    waits = [[str(need) for need in jobs[f"train-{group}"].after] for group in range(3)]
    assert waits == [
        ["afterok pack-0"],
        ["afterok pack-1"],
        ["afterok pack-2", "afterany report-0"],
    ]


def limited(most: int, used: int = 0) -> Limits:
    return Limits(accounts={"lab": (Limit("MaxSubmitJobs", most, used),)}, default_account="lab")


def test_a_limit_on_submitted_jobs_has_runs_take_turns(folder: Path):
    name = sweep(folder, seed=list(range(200)))
    jobs = submission(name, limits=limited(20)).jobs
    assert sum(job.elements for job in jobs) == 20
    train = next(job for job in jobs if job.stage == "train")
    assert (train.elements, train.in_turn) == (6, 34)
    assert sorted(work.run.name for work in train.works) == sorted(
        {work.run.name for work in train.works}
    )
    place = by_run(jobs)
    first, seventh = train.works[0].run, train.works[6].run
    assert place[first] == place[seventh]
    assert train.links().keys() == {train.folder / f"logs-{index}" for index in range(6)}
    # With all in one job there is no array, and each stage waits for the one before.
    jobs = submission(name, limits=limited(8, used=3)).jobs
    assert [job.elements for job in jobs] == [1] * 5
    assert str(jobs[2].after[0]) == "afterok train"
    with pytest.raises(ConfigError, match="needs at least 5 more, and 4 may be submitted"):
        submission(name, limits=limited(20, used=16))


def search(folder: Path, trials: int, **more: object) -> str:
    halving = {"rungs": [1], "keep": 0.5}
    space = {"optim.lr": {"low": 0.1, "high": 0.2}}
    drawn = {"trials": trials, **more}
    content = {"config": "cars.yaml", "space": space, "search": drawn, "halving": halving}
    (folder / "search.yaml").write_text(yaml.safe_dump({"name": "found", "sweep": content}))
    return "search.yaml"


def test_under_a_limit_the_trials_of_all_rounds_take_turns(folder: Path):
    name = search(folder, 12, parallel=6)
    jobs = submission(name, limits=limited(16)).jobs
    # pack; 6 and 6 trials, then 6 to the end; a decision before each but the first; the comparison
    assert [(job.stage, job.elements, len(job.works)) for job in jobs] == [
        ("pack", 1, 1),
        ("train", 2, 6),
        ("report", 1, 1),
        ("train", 2, 6),
        ("report", 1, 1),
        *((stage, 2, 6) for stage in STAGES[1:]),
        ("report", 1, 1),
    ]
    root = folder / "runs" / "found"
    ids = slot_jobs(jobs, {job.label: str(n) for n, job in enumerate(jobs)})[root]
    assert [ids[f"report.train3.{slot}"] for slot in range(4)] == ["5_0", "5_1", "5_0", "5_1"]
    with pytest.raises(ConfigError, match=r"needs at least 9 more, and 8 may .* fewer rounds"):
        submission(name, limits=limited(8))


def test_a_profile_may_have_runs_take_turns(folder: Path):
    name = sweep(folder, seed=list(range(5)))
    jobs = {job.stage: job for job in submission(name, runs_per_job=2).jobs[:-1]}
    assert [jobs[stage].elements for stage in STAGES] == [1, 3, 3, 3]
    jobs = {job.stage: job for job in submission(name, train={"side_by_side": 3}).jobs[:-1]}
    assert [jobs[stage].elements for stage in STAGES] == [1, 2, 2, 2]


def test_two_hundred_runs_are_five_calls(folder: Path):
    name = sweep(folder, seed=list(range(200)))
    assert len(submission(name).jobs) == 5


SITE = Site({"cpu": Partition("cpu", True, 60), "long": Partition("long", False, None)})


@pytest.mark.parametrize(
    ("partition", "minutes", "complaint"),
    [
        ("cpi", 5, r'"cpi" is unknown \(did you mean "cpu"\?\); there are: cpu, long'),
        (None, 61, "61 is more than partition cpu allows, which is 60"),
        ("cpu", 61, "61 is more than partition cpu allows"),
        ("long,cpu", 61, None),
        ("cpu", 60, None),
    ],
)
def test_a_time_that_no_partition_allows_would_wait_for_ever(
    partition: str | None, minutes: int, complaint: str | None
):
    if complaint is None:
        check_partition(SITE, "train", partition, minutes)
        return
    with pytest.raises(ConfigError, match=complaint):
        check_partition(SITE, "train", partition, minutes)


def test_a_dry_run_needs_no_slurm_and_changes_nothing(program, tmp_path: Path):
    (program.folder / "cars.yaml").write_text(CONFIG)
    before = set(program.folder.rglob("*"))
    command = ("launch/submit.py", "cars.yaml", "--cluster", "slurm")
    nowhere = tmp_path / "bin"
    nowhere.mkdir()
    assert "#SBATCH" not in program.succeeds(*command, "--dry-run", PATH=str(nowhere))
    out = program.succeeds(*command, "--dry-run", "--verbose", PATH=str(nowhere))
    assert set(program.folder.rglob("*")) == before
    assert out.count("#!/bin/bash") == 4
    assert "\n#   test: job cars-test; waits for: afterok train\n#   report: " in out
    assert "\n# 3. job cars-test\n" in out
    line = program.refuses(*command, PATH=str(nowhere))
    assert "this machine has no squeue" in line
    assert "--cluster local" in line
    assert set(program.folder.rglob("*")) == before


@pytest.mark.parametrize("name", ["a:b", "a\nb"])
def test_a_path_that_no_job_could_use_is_refused(program, name: str):
    (program.folder / "cars.yaml").write_text(CONFIG)
    command = ("launch/submit.py", "cars.yaml", "--cluster", "slurm", "--dry-run")
    line = program.refuses(*command, "--runs-dir", name)
    assert "choose another place with --runs-dir" in line
