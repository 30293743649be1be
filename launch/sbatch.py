"""The batch script of one stage: what is asked of SLURM, and what runs in the job.

:func:`render` is pure: it works where there is no SLURM, for ``--dry-run``. submitit writes the
``#SBATCH`` lines and submits; the body is ours, because a job that starts again has to go on from
the run directory and never from a pickled function.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from cardamage.paths import RunPaths
from launch.profiles import Container, Resources, SlurmProfile

BODY = r"""
set -u
run={run}
code={code}
attempt() {{ {python} -u "$code/launch/attempt.py" "$@" "$run" {stage}; }}
job=${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID}}
job=${{job:-$SLURM_JOB_ID}}
# The limit came before the stage had saved: start again from what it saved last.
trap '[ "$(squeue --noheader --jobs "$job" --format %r)" = TimeLimit ] && scontrol requeue "$job"' TERM
while attempt begin --limit {starts}; do
  {srun} &
  step=$!
  wait $step; status=$?
  while kill -0 $step 2>/dev/null; do wait $step; status=$?; done  # a trap ends wait early
  exclude=$(attempt end --status $status); verdict=$?
  [ $verdict = 75 ] || exit $verdict
  [ "$(squeue --noheader --jobs "$job" --format %T)" = RUNNING ] || exit 75
  if scontrol requeue "$job"; then
    [ -z "$exclude" ] || scontrol update JobId="$job" ExcNodeList="$exclude"
    sleep 600
  fi
  echo "the job cannot be queued again; going on in this allocation"
done
exit 1
"""
"""Begin, run, end, and go on: queued again where SLURM allows it, else in the same allocation."""


@dataclass(frozen=True)
class StageScript:
    """One stage of one run as a SLURM job.

    Attributes:
        run: the run; its root is absolute.
        stage: the stage.
        name: the job's name.
        program: the program and its arguments, relative to the code folder.
        resources: what is asked for.
        array: how many jobs share the work; None for a single one.
    """

    run: RunPaths
    stage: str
    name: str
    program: tuple[str, ...]
    resources: Resources
    array: int | None = None


class ScriptExecutor(submitit.SlurmExecutor):  # type: ignore[misc]  # submitit has no types
    """submitit's SLURM executor for a script of ours in place of a pickled function."""

    @classmethod
    def affinity(cls) -> int:
        """Allow making scripts where there is no SLURM."""
        return 2

    def text(self, body: str) -> str:
        """The whole batch script."""
        return str(self._make_submission_file_text(body, uid=""))

    def submit_body(self, body: str) -> str:
        """Submit the script and return the job id."""
        return str(self._submit_command(body).job_id)


def executor(
    script: StageScript, profile: SlurmProfile, needs: Sequence[str] = ()
) -> ScriptExecutor:
    """Submitit's executor, told everything that a stage asks for.

    Args:
        script: the stage.
        profile: the cluster.
        needs: ids of the jobs that have to end well first.
    """
    resources = script.resources
    log = str(script.run.log(script.stage)).replace("%", "%%")
    more: dict[str, Any] = {
        "output": log,
        "requeue": True,
        "export": "ALL",
        "chdir": str(Path.cwd()),
        **{key.replace("_", "-"): value for key, value in resources.sbatch.items()},
    }
    if needs:
        more["dependency"] = "afterok:" + ":".join(needs)
        more["kill-on-invalid-dep"] = "yes"
    if script.array:
        more["array"] = f"0-{script.array - 1}"
    if resources.gpus_per_node:
        more["gpus-per-node"] = resources.gpus_per_node
    made = ScriptExecutor(script.run.slurm)
    made.update_parameters(
        job_name=script.name,
        time=resources.time_min,
        nodes=resources.nodes,
        ntasks_per_node=resources.processes_per_node,
        cpus_per_task=resources.cpus_per_process,
        mem=None if resources.memory_gb is None else f"{round(resources.memory_gb * 1024)}M",
        partition=resources.partition,
        account=resources.account,
        qos=resources.qos,
        constraint=resources.constraint,
        wckey=None,
        signal_delay_s=profile.signal_lead_s,
        stderr_to_stdout=True,
        use_srun=False,
        setup=[*_exports(profile), *resources.setup],
        additional_parameters=more,
    )
    return made


def body(script: StageScript, profile: SlurmProfile, code: Path) -> str:
    """What runs in the job, as shell text.

    Args:
        script: the stage.
        profile: the cluster.
        code: the folder of the code that was submitted.
    """
    container, resources = profile.container, script.resources
    python = shlex.quote(container.python if container else sys.executable)
    mounts = [str(path) for path in (script.run.root, code, Path.cwd())]
    outside, inside = _container(container, mounts)
    srun = [
        "srun",
        "--unbuffered",
        "--export=ALL",
        f"--cpus-per-task={resources.cpus_per_process}",
        "--kill-on-bad-exit=1",
        "--wait=60",
        *outside,
    ]
    program = f'"$code/{script.program[0]}"'
    arguments = [*script.program[1:]]
    command = [*srun, *inside, python, "-u", program, '"$run"', *map(_argument, arguments)]
    return BODY.format(
        run=shlex.quote(str(script.run.root)),
        code=shlex.quote(str(code)),
        python=" ".join([*inside, python]),
        stage=script.stage,
        starts=profile.starts_without_progress,
        srun=" ".join(command),
    ).strip()


def _argument(text: str) -> str:
    """An argument as the shell shall see it; ``$`` names a variable of the job."""
    return f'"{text}"' if "$" in text else shlex.quote(text)


def _exports(profile: SlurmProfile) -> list[str]:
    variables: Mapping[str, str] = {
        "CARDAMAGE_WATCHDOG_S": str(round(profile.watchdog_min * 60, 3)),
        **profile.environment,
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    threads = 'export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"'
    return [*lines, threads]


def _container(container: Container | None, mounts: Sequence[str]) -> tuple[list[str], list[str]]:
    """What srun is told of a container, and what goes before the program, quoted for the shell."""
    if container is None:
        return [], ['env PYTHONPATH="$code"']
    binds = [*(f"{path}:{path}" for path in dict.fromkeys(mounts)), *container.mounts]
    if container.runtime == "pyxis":
        options = [f"--container-image={container.image}", f"--container-mounts={','.join(binds)}"]
        return [shlex.quote(option) for option in options], ['env PYTHONPATH="$code"']
    words = ["apptainer", "exec", *(w for bind in binds for w in ("--bind", bind)), container.image]
    return [], [*map(shlex.quote, words), 'env PYTHONPATH="$code"']
