# The body of every batch script, after the variables of its job: begin, run, end, and be requeued.
#
# The script decides what becomes of a job, because it alone sees every death: a stage that was
# killed, a node that went away, a process of rank 0. It runs SLURM's commands on the host, while
# the stage may be inside a container. SLURM keeps the script and the environment of the submission
# and starts both again after a requeue; everything else is read from the run directory.
#
# shellcheck shell=bash
# shellcheck disable=SC2154  # code, run, stage, others, script, starts, python, ... are set before

export PYTHONPATH="$code${PYTHONPATH:+:$PYTHONPATH}"
export CARDAMAGE_RENDEZVOUS="$run/slurm"
export CARDAMAGE_WATCHDOG_S="${CARDAMAGE_WATCHDOG_S:-$watchdog_s}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$cpus_per_task}"

# An element of an array is A_i: its bare id may name the whole array.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}

attempt() (  # SIGUSR2 may be sent to all of the job
  trap '' USR2
  "${once[@]}" "${python[@]}" -m cardamage.launch.slurm.attempt --code "$code" \
    --limit "$starts" "$@" "$run" "$stage"
)

requeue() {  # $1: a node to stay away from, or nothing
  trap '' TERM  # or this script dies of the requeue it asks for
  scontrol requeue "$job" || resubmit "$1" || return
  [ -z "$1" ] || scontrol update JobId="$job" ExcNodeList="$1"
  sleep 300  # until SLURM ends it
}

resubmit() {  # where a job may not be requeued: submit it again, and let those behind it wait for it
  local new id needs root
  local conf=${SLURM_CONF:-} array=${SLURM_ARRAY_JOB_ID:-} task=${SLURM_ARRAY_TASK_ID:-}
  new=$(
    # shellcheck disable=SC2086  # names of variables
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

at_term() {  # SLURM ends this job: it is to be preempted or requeued, or its time is over
  by_slurm=(--by-slurm)
  # At the time limit the stage did not save in time: start again from what it saved last.
  [ "$(squeue -h -j "$job" -o %r)" = TimeLimit ] && { scontrol requeue "$job" || resubmit; }
}

pid=
asked=
by_slurm=()
at_usr2() {  # sent to this shell, as by scancel --batch or --full: the stage is to save
  asked=1
  by_slurm=(--by-slurm)
  [ -z "$pid" ] || kill -USR2 "$pid" 2>/dev/null
}

trap at_usr2 USR2
attempt begin
begun=$?
[ $begun != 3 ] || exit 0  # there was nothing to do
[ $begun = 0 ] || exit $begun
trap at_term TERM
"${step[@]}" "${python[@]}" -m cardamage "${command[@]}" &
pid=$!
[ -z "$asked" ] || kill -USR2 $pid
wait $pid
status=$?
while kill -0 $pid 2>/dev/null; do  # a trapped signal ends wait early
  wait $pid
  status=$?
done
pid=
elsewhere=$(attempt end "${by_slurm[@]}" --status $status)
verdict=$?
# After scancel a requeue would bring the job back.
if [ $verdict = 75 ] && [ "$(squeue -h -j "$job" -o %T)" = RUNNING ]; then requeue "$elsewhere"; fi
exit $verdict
