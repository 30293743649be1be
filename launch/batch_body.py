"""What a batch script does after its ``#SBATCH`` lines: begin, run, end, and be queued again.

The batch script decides what becomes of a job, because it alone sees every death: a stage that was
killed, a node that went away, a process of rank 0. It runs SLURM's commands on the host, while the
stage may be inside a container. SLURM keeps the script and the environment of the submission and
starts both again after a requeue; everything else is read from the run directory.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launch.profiles import Container

FUNCTIONS = r"""
# An element of an array is A_i: its bare id may name the whole array.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}

requeue() {  # $1: a node to stay away from, or nothing
  trap '' TERM  # or this script dies of the requeue it asks for
  scontrol requeue "$job" || resubmit "$1" || return
  [ -z "$1" ] || scontrol update JobId="$job" ExcNodeList="$1"
  sleep 300  # until SLURM ends it
}

resubmit() {  # where a job may not be requeued: submit it anew, and let those behind it wait for it
  local new id needs root
  local conf=${SLURM_CONF:-} array=${SLURM_ARRAY_JOB_ID:-} task=${SLURM_ARRAY_TASK_ID:-}
  new=$(
    unset ${!SLURM_*} ${!SLURMD_*} ${!SRUN_*} ${!SBATCH_*}
    [ -z "$conf" ] || export SLURM_CONF="$conf"
    sbatch --parsable ${task:+--array="$task"} ${1:+--exclude="$1"} "$script"
  ) || return
  new=${new%%;*}${task:+_$task}
  squeue -h -r -u "$(id -un)" -t PENDING -o '%i %E' |
    awk -v job="$job" -v array="$array" -v task="$task" -v new="$new" '
      {
        split($1, id, "_")
        gsub(/\([^)]*\)/, "", $2)  # as in afterok:12(unfulfilled)
        count = split($2, needs, ",")
        all = ""
        for (i = 1; i <= count; i++) {
          kind = substr(needs[i], 1, index(needs[i], ":") - 1)
          on = substr(needs[i], length(kind) + 2)
          if (on == job) need = kind ":" new
          else if (task == "" || on != array "_*") need = needs[i]
          else if (kind != "aftercorr") need = needs[i] "," kind ":" new
          else if (id[2] == task) need = "afterok:" new
          else need = needs[i]
          all = all (i > 1 ? "," : "") need
        }
      }
      all != $2 { print $1, all }' |
    while read -r id needs; do scontrol update JobId="$id" Dependency="$needs"; done
  for root in "$run" "${others[@]}"; do
    mkdir -p "$root/slurm" && echo "$job $new" >> "$root/slurm/resubmitted"
  done
  echo "resubmitted as job $new"
  exit 75
}

at_time_limit() {  # the stage did not save in time: start again from what it saved last
  [ "$(squeue -h -j "$job" -o %r)" = TimeLimit ] && { scontrol requeue "$job" || resubmit; }
}
""".strip()

BODY = r"""
attempt begin || exit
trap at_time_limit TERM
{run} &
step=$!
wait $step
status=$?
while kill -0 $step 2>/dev/null; do  # a trapped signal ends wait early
  wait $step
  status=$?
done
elsewhere=$(attempt end --status $status)
verdict=$?
# After scancel a requeue would bring the job back.
if [ $verdict = 75 ] && [ "$(squeue -h -j "$job" -o %T)" = RUNNING ]; then requeue "$elsewhere"; fi
exit $verdict
""".strip()


@dataclass(frozen=True)
class Work:
    """What a job, or an element of an array, works for.

    Attributes:
        run: the run directory; absolute.
        stage: the stage, which names the marker and the log: ``test.3`` for a part of ``test``.
        program: the program relative to the code, and its arguments after the run as shell text.
        others: more runs that this work is done for; in the shell ``"${others[@]}"``.
    """

    run: Path
    stage: str
    program: tuple[str, ...]
    others: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Body:
    """Everything that the text depends on.

    Attributes:
        script: the file the text is written to, which a job that cannot be requeued submits anew.
        code: the snapshot.
        works: one for a job, one for each element of an array.
        cpus_per_task: cores of each process.
        gpus: whether it has any.
        starts: so many in a row may end without progress.
        watchdog_s: seconds without a step that the stage may take; 0 for any.
        directory: where the submission was made, which relative paths start from.
        container: what the stage runs inside.
    """

    script: Path
    code: Path
    works: Sequence[Work]
    cpus_per_task: int
    gpus: bool
    starts: int
    watchdog_s: float
    directory: Path
    container: Container | None

    def text(self) -> str:
        """The shell text."""
        return "\n".join([*self._values(), "", FUNCTIONS, "", *self._attempt(), "", self._end()])

    def _values(self) -> list[str]:
        lines = [f"script={_quote(self.script)}", f"code={_quote(self.code)}"]
        others = [other for work in self.works for other in work.others]
        lines += (
            ["others=(", *(f"  {_quote(other)}" for other in others), ")"]
            if others
            else ["others=()"]
        )
        if len(self.works) == 1:
            lines += [f"run={_quote(self.works[0].run)}", f"stage={self.works[0].stage}"]
            return [*lines, *self._exports()]
        lines += ["runs=(", *(f"  {_quote(work.run)}" for work in self.works), ")"]
        lines += ["run=${runs[$SLURM_ARRAY_TASK_ID]}"]
        stages = [work.stage for work in self.works]
        if len(set(stages)) == 1:
            return [*lines, f"stage={stages[0]}", *self._exports()]
        lines += [f"stages=({' '.join(stages)})", "stage=${stages[$SLURM_ARRAY_TASK_ID]}"]
        return [*lines, *self._exports()]

    def _exports(self) -> list[str]:
        lines = [
            'export PYTHONPATH="$code${PYTHONPATH:+:$PYTHONPATH}"',
            'export CARDAMAGE_RENDEZVOUS="$run/slurm"',
            f'export CARDAMAGE_WATCHDOG_S="${{CARDAMAGE_WATCHDOG_S:-{self.watchdog_s:g}}}"',
            f'export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-{self.cpus_per_task}}}"',
        ]
        return lines if self.gpus else [*lines, "export ACCELERATE_USE_CPU=true"]

    def _attempt(self) -> list[str]:
        outside, inside = self._container()
        step = ["srun", "--nodes=1", "--ntasks=1", "--overlap", *outside] if outside else []
        command = " ".join([*step, *inside, *self._python()])
        module = f'{command} "$code/launch/attempt.py" --limit {self.starts} "$@" "$run" "$stage"'
        return ["attempt() {", f"  {module}", "}"]

    def _end(self) -> str:
        outside, inside = self._container()
        srun = [
            "srun",
            "--kill-on-bad-exit=1",
            "--wait=60",
            "--export=ALL",
            f"--cpus-per-task={self.cpus_per_task}",
        ]
        program, *arguments = self.works[0].program
        command = [*srun, *outside, *inside, *self._python(), f'"$code/{program}"', '"$run"']
        return BODY.format(run=" ".join([*command, *arguments]))

    def _python(self) -> list[str]:
        # -P: Python puts neither the program's folder nor the working directory before the code.
        python = self.container.python if self.container else sys.executable
        return [shlex.quote(python), "-P", "-u"]

    def _container(self) -> tuple[list[str], list[str]]:
        """Options of srun, and words before the program, quoted for the shell."""
        if self.container is None:
            return [], []
        binds = [*(f"{path}:{path}" for path in self._folders()), *self.container.mounts]
        prefix = ["env", 'PYTHONPATH="$code"']
        if self.container.runtime == "pyxis":
            mounts = f"--container-mounts={','.join(binds)}"
            # Left alone, pyxis starts in the image's own folder, and relative paths lead nowhere.
            workdir = f"--container-workdir={self.directory}"
            options = [f"--container-image={self.container.image}", mounts, workdir]
            return [shlex.quote(word) for word in (*options, *self.container.options)], prefix
        words = ["apptainer", "exec", *self.container.options]
        words += [word for bind in binds for word in ("--bind", bind)]
        return [], [*map(shlex.quote, [*words, self.container.image]), *prefix]

    def _folders(self) -> list[Path]:
        """The folders that a job reads and writes, without those inside another of them.

        The runs' parents, since the runs of a submission share code and packing.
        """
        roots = [root for work in self.works for root in (work.run, *work.others)]
        wanted = [*(root.parent for root in roots), self.code.resolve(), self.directory]
        wanted = list(dict.fromkeys(wanted))
        return [path for path in wanted if not set(path.parents) & set(wanted)]


def _quote(path: Path) -> str:
    return shlex.quote(str(path))
