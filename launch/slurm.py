"""The SLURM backend: one job a stage, each waiting for the one before; and what SLURM says of them.

Everything a job needs lies in the run directory: the code as it was submitted, the config, the
markers. A login node may forget about it at once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cardamage.errors import CardamageError, ConfigError
from cardamage.paths import RunPaths
from launch.plan import RunPlan
from launch.profiles import Resources, SlurmProfile, TestResources
from launch.sbatch import StageScript, body, executor

_TIMEOUT_S = 30
_KEPT = ("SLURM_CONF",)  # where the cluster's configuration is, not what an allocation was given


def scripts(plan: RunPlan, profile: SlurmProfile) -> list[StageScript]:
    """The jobs of one run, each of which needs the one before."""
    run = RunPaths(plan.run.root.resolve())
    made = []
    for job in plan.jobs:
        resources: Resources = getattr(profile, job.stage)
        program = (f"jobs/{job.stage}.py",)
        if job.stage == "test" and isinstance(resources, TestResources) and resources.array > 1:
            part = ("--part", f"$SLURM_ARRAY_TASK_ID/{resources.array}")
            name = f"{plan.experiment.name}-test-parts"
            made.append(
                StageScript(run, job.stage, name, (*program, *part), resources, resources.array)
            )
        name = f"{plan.experiment.name}-{job.stage}"
        made.append(StageScript(run, job.stage, name, program, resources))
    return made


def texts(plan: RunPlan, profile: SlurmProfile, code: Path) -> list[tuple[StageScript, str]]:
    """Every batch script of a run as it would be submitted; ``<job>`` stands for a job's id."""
    made: list[tuple[StageScript, str]] = []
    for script in scripts(plan, profile):
        needs = [f"<{made[-1][0].name}>"] if made else []
        text = executor(script, profile, needs).text(body(script, profile, code))
        made.append((script, text))
    return made


def preflight(plan: RunPlan, profile: SlurmProfile, code: Path) -> None:
    """Ask SLURM whether it would take the jobs of a run; nothing is queued.

    Raises:
        ConfigError: it would not: a partition it lacks, more than a partition has.
        CardamageError: SLURM does not answer.
    """
    for script in scripts(plan, profile):
        text = executor(script, profile).text(body(script, profile, code))
        found = _ask("sbatch", "--test-only", given=text)
        if found.returncode != 0:
            reason = _gist(found.stderr)
            raise ConfigError(
                f"SLURM refuses stage {script.stage} of {plan.experiment.name}: {reason}; "
                f"change the profile, or see `sinfo` for what there is"
            )


def submit(plan: RunPlan, profile: SlurmProfile, code: Path) -> dict[str, str]:
    """Submit the stages of a run; returns the job ids by job name, in order.

    When SLURM refuses one, those before it are cancelled.

    Raises:
        CardamageError: SLURM refused or did not answer.
    """
    submitted: dict[str, str] = {}
    with _clean_environment():
        for script in scripts(plan, profile):
            script.run.slurm.mkdir(exist_ok=True)
            script.run.logs.mkdir(exist_ok=True)
            needs = list(submitted.values())[-1:]
            try:
                made = executor(script, profile, needs)
                job = made.submit_body(body(script, profile, code))
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                cancel(submitted.values())
                raise CardamageError(
                    f"SLURM refused stage {script.stage} of {plan.experiment.name}: "
                    f"{_gist(str(error))}; nothing of it is left in the queue"
                ) from None
            submitted[script.name] = job
    return submitted


@dataclass(frozen=True)
class JobState:
    """What SLURM says of a job.

    Attributes:
        state: SLURM's word for it, such as ``PENDING``; ``UNKNOWN`` when nobody knows.
        reason: why it waits.
        nodes: where it runs.
    """

    state: str
    reason: str = ""
    nodes: str = ""

    @property
    def is_queued(self) -> bool:
        """Whether it waits, or waits again."""
        return self.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED")

    @property
    def is_running(self) -> bool:
        """Whether it has nodes."""
        return self.state in ("RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SIGNALING")


def job_states(jobs: Iterable[str]) -> Mapping[str, JobState]:
    """What SLURM says of jobs: the queue first, then accounting; ``UNKNOWN`` for the rest.

    Works with accounting off and with SLURM down: then nothing is known.
    """
    wanted = list(dict.fromkeys(jobs))
    found: dict[str, JobState] = {}
    if not wanted or not shutil.which("squeue"):
        return dict.fromkeys(wanted, JobState("UNKNOWN"))
    lines = _lines("squeue", "--noheader", "--states=all", "--format=%F|%T|%r|%N", wanted=wanted)
    for job, state, reason, nodes in lines:
        if job not in found or JobState(state).is_running:  # of an array, what is furthest
            found[job] = JobState(state, reason, nodes)
    if missing := [job for job in wanted if job not in found]:
        command = ("sacct", "--noheader", "--parsable2", "--allocations")
        for job, state, nodes in _lines(*command, "--format=JobID,State,NodeList", wanted=missing):
            found.setdefault(job.partition("_")[0], JobState(state.split()[0], "", nodes))
    return {job: found.get(job, JobState("UNKNOWN")) for job in wanted}


def cancel(jobs: Iterable[str]) -> None:
    """Take jobs out of the queue, and end those that run.

    Raises:
        CardamageError: SLURM does not answer.
    """
    if wanted := list(jobs):
        found = _ask("scancel", *reversed(wanted))
        if found.returncode != 0:
            raise CardamageError(f"scancel failed: {_gist(found.stderr)}")


def _lines(*command: str, wanted: Sequence[str]) -> list[list[str]]:
    """The fields of each line; none when the command fails: it may be that nobody knows."""
    try:
        found = _ask(*command, f"--jobs={','.join(wanted)}")
    except CardamageError:
        return []
    return [line.split("|") for line in found.stdout.splitlines() if line.strip()]


def _ask(*command: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    with _clean_environment():
        try:
            return subprocess.run(
                command,
                input=given,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except FileNotFoundError:
            raise CardamageError(f"{command[0]} is not on this machine's path") from None
        except subprocess.TimeoutExpired:
            raise CardamageError(
                f"{command[0]} gave no answer within {_TIMEOUT_S} s; is SLURM up?"
            ) from None


@contextmanager
def _clean_environment() -> Iterator[None]:
    """Hide what an enclosing allocation set: its children would take it for theirs."""
    prefixes = ("SLURM_", "SBATCH_", "SRUN_", "PMI_", "PMIX_", "SALLOC_")
    hidden = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if name.startswith(prefixes) and name not in _KEPT
    }
    try:
        yield
    finally:
        os.environ.update(hidden)


def _gist(text: str) -> str:
    """The last telling line of what a SLURM command complained."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()] or lines or ["no reason given"]
    return errors[0].removeprefix("sbatch: error: ").removeprefix("allocation failure: ")
