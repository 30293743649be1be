"""The batch script of a stage, and its submission by submitit.

submitit checks the options, writes the ``#SBATCH`` lines, runs ``sbatch`` and reads the job's id.
The command is ours: a job that starts again has to resume from the run directory, never from a
pickled function, so nothing is pickled. :func:`render` needs no SLURM: a dry run shows the very
text that is submitted. submitit takes 0.2 s to import, so this module is imported only where jobs
are made.
"""

import io
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from cardamage.errors import UserError
from cardamage.launch.planning.profiles import SlurmProfile, SlurmStage
from cardamage.launch.slurm.batch_job import BatchJob, asked_for
from cardamage.launch.watching.client import SUBMIT_S, clean, gist
from cardamage.system.files import naming

_BODY = Path(__file__).with_name("job.sh")
_FOLLOWED = (
    '  run=$(readlink -f "$run")',
    '  [ -f "$run/config.yaml" ] || return 1  # no trial came here',
)


class StageExecutor(submitit.SlurmExecutor):
    """submitit's SLURM executor for a stage of runs: a command of ours, and no pickle.

    ``dependency`` is what it waits for, as in ``afterok:12``; ``comment`` follows that of the
    profile, if it has one.
    """

    def __init__(
        self, job: BatchJob, profile: SlurmProfile, dependency: str = "", comment: str = ""
    ) -> None:
        super().__init__(job.folder)
        self.job, self.profile, self.dependency = job, profile, dependency
        asked = asked_for(job, profile)
        self.comment = f"{asked.extra.get('comment', '')} {comment}".strip()
        more: dict[str, Any] = {
            **asked.extra,
            "output": job.output,
            "chdir": str(Path.cwd()),
            "requeue": True,
            "kill-on-invalid-dep": "yes",
            "signal": f"USR2@{profile.save_seconds}",
        }
        self.update_parameters(
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
            array_parallelism=job.max_running or job.elements,
            setup=[
                *(f"export {name}={shlex.quote(v)}" for name, v in profile.environment.items()),
                *profile.setup,
                *asked.setup,
            ],
            additional_parameters={
                name: value for name, value in more.items() if value is not False
            },
        )
        if job.is_array:
            self.parameters["map_count"] = job.elements  # as submitit does for arrays of its own

    @classmethod
    def affinity(cls) -> int:
        """Allow rendering where there is no SLURM."""
        return 2

    def text(self) -> str:
        """The whole batch script, without its dependency: that is an id, and files hold none."""
        return self._make_submission_file_text(body(self.job, self.profile), uid="")

    def queue(self) -> str:
        """Submit it; returns the id of the job, or of the whole array.

        Raises:
            UserError: SLURM refuses it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            # It prints what it raises, too.
            with naming(self.job.script), redirect_stderr(io.StringIO()):
                return str(self._submit_command(body(self.job, self.profile)).job_id)
        except (FailedJobError, FailedSubmissionError) as error:
            raise UserError(
                f"SLURM refuses {self.job.script}: {gist(str(error))}; nothing is queued: submit "
                f"again when there is place, or change the profile"
            ) from None
        finally:
            for left in self.folder.glob(".submission_file_*.sh"):
                left.unlink()

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        # A new job inherits nothing of one that this process may run in.
        hidden = {*os.environ} - {*clean(os.environ)}
        hidden.update(overruled(asked_for(self.job, self.profile)))
        waits = [f"--dependency={self.dependency}"] if self.dependency else []
        waits += [f"--comment={self.comment}"] if self.comment else []
        clear = ["env", *(f"--unset={name}" for name in sorted(hidden))]
        return [*clear, "timeout", str(SUBMIT_S), "sbatch", *waits, str(submission_file_path)]

    def _write_job_id(self, job_id: str, uid: str) -> None:  # noqa: ARG002 - submitit's hook
        """Keep the submitted file under its label, by which a job that is resubmitted finds it."""
        (self.folder / f"{job_id}_submission.sh").replace(self.job.script)


def render(job: BatchJob, profile: SlurmProfile) -> str:
    """The batch script of a job, without its dependencies."""
    return StageExecutor(job, profile).text()


def overruled(asked: SlurmStage) -> list[str]:
    """The variables by which sbatch would overrule what a profile says."""
    said = {"ACCOUNT": asked.account, "PARTITION": asked.partition, "QOS": asked.qos}
    return [f"SBATCH_{name}" for name, value in said.items() if value is not None]


def body(job: BatchJob, profile: SlurmProfile) -> str:
    """The shell text after the setup: the variables of the job, then ``job.sh``."""
    asked = asked_for(job, profile)
    outside, inside = _container(job, profile)
    once = ["srun", "--nodes=1", "--ntasks=1", "--overlap", *outside] if outside else []
    step = ["srun", "--kill-on-bad-exit=1", "--wait=60", "--export=ALL"]
    step += [f"--cpus-per-task={asked.cpus_per_task}", *outside]
    lanes = min(asked.side_by_side, job.in_turn)
    step += ["--overlap"] * (lanes > 1)
    program, *arguments = job.works[0].program
    lines = [
        f"script={_quote(job.script)}",
        f"code={_quote(job.code)}",
        *_array("others", [_quote(run) for work in job.works for run in work.others]),
        *_array("runs", [_quote(work.run) for work in job.works]),
        *_array("stages", [work.stage for work in job.works]),
        f"elements={job.elements}",
        f"lanes={lanes}",
        f"starts={profile.starts_without_progress}",
        f"watchdog_s={profile.watchdog_minutes * 60:g}",
        f"cpus_per_task={asked.cpus_per_task}",
        f"once=({' '.join(once)})  # before what begins and ends an attempt",
        f"step=({' '.join(step)})",
        f"python=({' '.join(inside)})",
        "choose() {  # a run by its index; fails where there is none",
        "  run=${runs[$1]}",
        *(_FOLLOWED if job.works[0].is_slot else ()),
        "  stage=${stages[$1]}",
        '  export CARDAMAGE_RENDEZVOUS="$run/slurm"',
        " ".join([f'  command=({program} "$run"', *arguments]) + ")",
        "}",
    ]
    if not asked.gpus:
        lines.append("export ACCELERATE_USE_CPU=true")
    return "\n".join([*lines, "", _BODY.read_text(encoding="utf-8").rstrip()])


def _array(name: str, words: Sequence[str]) -> list[str]:
    return [f"{name}=(", *(f"  {word}" for word in words), ")"] if words else [f"{name}=()"]


def _container(job: BatchJob, profile: SlurmProfile) -> tuple[list[str], list[str]]:
    """Options of srun, and the words up to the Python module, quoted for the shell."""
    # -P: Python puts neither the program's folder nor the working directory before the code.
    container = profile.container
    if container is None:
        return [], [shlex.quote(sys.executable), "-P", "-u"]
    python = ["env", 'PYTHONPATH="$code"', shlex.quote(container.python), "-P", "-u"]
    binds = [*(f"{path}:{path}" for path in _folders(job)), *container.mounts]
    if container.runtime == "pyxis":
        mounts = f"--container-mounts={','.join(binds)}"
        # Left alone, pyxis starts in the image's own folder, and relative paths lead nowhere.
        workdir = f"--container-workdir={Path.cwd()}"
        options = [f"--container-image={container.image}", mounts, workdir]
        return [shlex.quote(word) for word in (*options, *container.options)], python
    words = ["apptainer", "exec", *container.options]
    words += [word for bind in binds for word in ("--bind", bind)]
    return [], [*map(shlex.quote, [*words, container.image]), *python]


def _folders(job: BatchJob) -> list[Path]:
    """The folders that a job reads and writes, without those inside another of them.

    The runs' parents, since the runs of a submission share code and packing.
    """
    roots = [root for work in job.works for root in (work.run, *work.others)]
    roots += [work.run.parents[2] for work in job.works if work.is_slot]
    wanted = dict.fromkeys([*(root.parent for root in roots), job.code.resolve(), Path.cwd()])
    return [path for path in wanted if wanted.keys().isdisjoint(path.parents)]


def _quote(path: Path) -> str:
    return shlex.quote(str(path))
