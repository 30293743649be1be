"""The batch script of a stage, as text: what is asked of SLURM, and what runs in the job.

:func:`render` needs no SLURM, so a dry run prints the very text that is submitted. submitit checks
the options and writes the ``#SBATCH`` lines. The command is ours: a job that starts again has to go
on from the run directory, never from a pickled function. submitit takes 0.2 s to import, so this
module is imported only where jobs are made.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from cardamage.paths import RunPaths
from launch.batch_body import Body, Work
from launch.profiles import SlurmProfile, SlurmStage


@dataclass(frozen=True)
class Training:
    """The training of another run, as one that continues it waits for it.

    Attributes:
        job: the label of its job, or the id of one that was queued before.
        element: its index in that job, where that is an array of this submission.
        is_queued: whether ``job`` is an id.
    """

    job: str
    element: int | None = None
    is_queued: bool = False

    def __str__(self) -> str:
        job = f"job {self.job}" if self.is_queued else self.job
        return job if self.element is None else f"{job}[{self.element}]"

    def number(self, submitted: Mapping[str, str]) -> str:
        """The job's id, given those of this submission by label."""
        job = self.job if self.is_queued else submitted[self.job]
        return job if self.element is None else f"{job}_{self.element}"


@dataclass(frozen=True)
class BatchJob:
    """A job, or an array of jobs, to be submitted with one call of ``sbatch``.

    Attributes:
        name: what SLURM shows.
        stage: the stage of the profile that says what is asked for.
        works: what it works for; an array if there are several.
        code: the snapshot it runs.
        folder: where its script lies, and the links that lead an array to the logs.
        label: tells its script from others in the folder.
        after: the kind of dependency, such as ``afterok``, by label of the job it waits for.
        max_running: so many elements of an array may run at once; None for any.
        continues: the training of another run that it waits for as well.
    """

    name: str
    stage: str
    works: tuple[Work, ...]
    code: Path
    folder: Path
    label: str
    after: tuple[tuple[str, str], ...] = ()
    max_running: int | None = None
    continues: Training | None = None

    @property
    def script(self) -> Path:
        """The file of the batch script."""
        return self.folder / f"{self.label}.sbatch"

    @property
    def is_array(self) -> bool:
        """Whether it is an array of jobs."""
        return len(self.works) > 1

    @property
    def output(self) -> str:
        """Where it prints to, as SLURM's pattern; in an array ``%a`` is the index of an element."""
        name = f"{self.works[0].stage}.log"
        if not self.is_array:
            return f"{_literal(self._logs(0))}/{name}"
        if self._is_of_one_run:
            return f"{_literal(self._logs(0))}/{self.stage}.%a.log"
        return f"{_literal(self._link)}-%a/{name}"

    def links(self) -> dict[Path, Path]:
        """The links by which each element of an array prints into its own run's folder of logs.

        All stages of the same runs print through the same ones.
        """
        if not self.is_array or self._is_of_one_run:
            return {}
        return {
            self._link.with_name(f"{self._link.name}-{index}"): self._logs(index)
            for index in range(len(self.works))
        }

    @property
    def _is_of_one_run(self) -> bool:
        return len({work.run for work in self.works}) == 1

    @property
    def _link(self) -> Path:
        return self.folder / f"logs{self.label.removeprefix(self.stage)}"

    def _logs(self, index: int) -> Path:
        return RunPaths(self.works[index].run).logs


class StageExecutor(submitit.SlurmExecutor):
    """submitit's SLURM executor, to render a command of ours in place of a pickled function."""

    @classmethod
    def affinity(cls) -> int:
        """Allow rendering where there is no SLURM."""
        return 2

    def text(self, body: str) -> str:
        """The whole batch script."""
        return str(self._make_submission_file_text(body, uid=""))


def render(job: BatchJob, profile: SlurmProfile) -> str:
    """The batch script of a job, without its dependencies: those are ids, and files hold none."""
    asked: SlurmStage = getattr(profile, job.stage)
    directory = Path.cwd()
    more: dict[str, Any] = {
        **asked.extra,
        "output": job.output,
        "chdir": str(directory),
        "requeue": True,
        "kill-on-invalid-dep": "yes",
        "signal": f"USR2@{profile.save_seconds}",
    }
    if job.is_array:
        limit = f"%{job.max_running}" if job.max_running else ""
        more["array"] = f"0-{len(job.works) - 1}{limit}"
    executor = StageExecutor(job.folder)
    executor.update_parameters(
        job_name=job.name,
        time=asked.time_minutes,
        nodes=asked.nodes,
        ntasks_per_node=asked.tasks,
        cpus_per_task=asked.cpus_per_task,
        gpus_per_node=asked.gpus_per_node or None,
        mem=None if asked.mem_gb is None else f"{round(asked.mem_gb * 1024)}M",
        partition=asked.partition,
        account=asked.account,
        qos=asked.qos,
        constraint=asked.constraint,
        exclude=asked.exclude,
        wckey=None,
        stderr_to_stdout=True,
        use_srun=False,
        setup=[*_exports(profile), *profile.setup, *asked.setup],
        additional_parameters={name: value for name, value in more.items() if value is not False},
    )
    body = Body(
        script=job.script,
        code=job.code,
        works=job.works,
        cpus_per_task=asked.cpus_per_task,
        gpus=asked.gpus_per_node > 0,
        starts=profile.starts_without_progress,
        watchdog_s=profile.watchdog_minutes * 60,
        directory=directory,
        container=profile.container,
    )
    return executor.text(body.text())


def absolute(path: Path) -> Path:
    """The path from the root, with its links left as they are: other nodes may see them so."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute leaves ".." in


def _literal(path: Path) -> str:
    """A path as part of SLURM's file name patterns."""
    return str(path).replace("%", "%%")


def _exports(profile: SlurmProfile) -> list[str]:
    return [f"export {name}={shlex.quote(v)}" for name, v in profile.environment.items()]
