"""Limits on submitted jobs, as SLURM 22.05 prints them."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from cardamage.launch.planning.profiles import SlurmProfile
from cardamage.launch.slurm import limits
from cardamage.launch.slurm.batch_job import BatchJob, Work
from cardamage.launch.slurm.limits import Limit, ask_limits

SHOWN = """\
Association Records

ClusterName=big Account=root UserName= Partition= Priority=0 ID=1
    ParentAccount= Lft=1 DefAssoc=No
    GrpSubmitJobs=N(3) GrpWall=N(0.00)
    MaxJobs= MaxJobsAccrue= MaxSubmitJobs= MaxWallPJ=
ClusterName=big Account=lab UserName= Partition= Priority=0 ID=3
    ParentAccount=root(1) Lft=2 DefAssoc=No
    GrpSubmitJobs=50(3) GrpWall=N(0.00)
    MaxJobs= MaxJobsAccrue= MaxSubmitJobs= MaxWallPJ=
ClusterName=big Account=lab UserName=ann(0) Partition= Priority=0 ID=4
    ParentAccount= Lft=3 DefAssoc=Yes
    GrpSubmitJobs=N(3) GrpWall=N(0.00)
    MaxJobs= MaxJobsAccrue= MaxSubmitJobs=20(3) MaxWallPJ=

QOS Records

QOS=few(2)
    GrpJobs=N(0) GrpJobsAccrue=N(0) GrpSubmitJobs=9(2) GrpWall=N(0.00)
    Account Limits
        No Accounts
    User Limits
      0
        MaxJobsPU=N(0) MaxJobsAccruePU=N(0) MaxSubmitJobsPU=4(1)
"""


def job(stage: str, runs: int) -> BatchJob:
    works = tuple(Work(Path(f"/runs/{run}"), stage, (stage,)) for run in range(runs))
    return BatchJob(stage, stage, works, Path("/code"), Path("/runs"), stage)


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"assoc_mgr": SHOWN, "qos": "normal||\nfew|9|4\nlong||6\n", "assoc": "lab|\n"}
    monkeypatch.setattr(limits.getpass, "getuser", lambda: "ann")
    monkeypatch.setattr(
        limits,
        "ask",
        lambda *command, timeout_s: subprocess.CompletedProcess(
            command, 0, next(text for name, text in answers.items() if name in command), ""
        ),
    )


@pytest.mark.parametrize(
    ("asked", "jobs", "exceeded"),
    [
        ({}, (job("train", 17),), None),
        (
            {},
            (job("pack", 1), job("train", 17)),
            (Limit("MaxSubmitJobs of you in account lab", 20, 3), 18),
        ),
        ({"account": "other"}, (job("train", 99),), None),
        (
            {"qos": "few"},
            (job("train", 4),),
            (Limit("MaxSubmitJobsPerUser of qos few", 4, 1), 4),
        ),
        (
            {"partition": "slow"},
            (job("train", 7),),
            (Limit("MaxSubmitJobsPerUser of qos long", 6, 0), 7),
        ),
    ],
)
def test_what_counts_for_a_job(asked: dict[str, str], jobs: Iterable[BatchJob], exceeded: object):
    profile = SlurmProfile.model_validate({"backend": "slurm", "all_stages": asked})
    assert ask_limits({"slow": "long", "": "N/A"}).exceeded(jobs, profile) == exceeded


def test_the_limits_of_accounts_above_hold_too():
    found = ask_limits({}).accounts["lab"]
    assert found == (
        Limit("MaxSubmitJobs of you in account lab", 20, 3),
        Limit("GrpSubmitJobs of account lab", 50, 3),
    )
