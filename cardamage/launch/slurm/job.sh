# The body of every batch script, after the variables of its job: begin, run, end, and be requeued.
# An element of an array may do this for several runs in turn, or some of them at once in lanes, each
# as a job of its own would.
#
# The script decides what becomes of a job, because it alone sees every death: a stage that was
# killed, a node that went away, a process of rank 0. It runs SLURM's commands on the host, while
# the stage may be inside a container. SLURM keeps the script and the environment of the submission
# and starts both again after a requeue; everything else is read from the run directory.
#
# shellcheck shell=bash
# shellcheck disable=SC2154  # code, runs, others, script, starts, python, ... are set before

export PYTHONPATH="$code${PYTHONPATH:+:$PYTHONPATH}"
export CARDAMAGE_WATCHDOG_S="${CARDAMAGE_WATCHDOG_S:-$watchdog_s}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$cpus_per_task}"

# A person's taste in formats and filters is not ours.
# shellcheck disable=SC2086  # names of variables
unset ${!SQUEUE_*} ${!SCANCEL_*}
retry_s=10

# An element of an array is A_i: its bare id may name the whole array.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}

first=${SLURM_ARRAY_TASK_ID:-0}
choose "$first"
mine=()
for ((turn = first; turn < ${#runs[@]}; turn += elements)); do
  mine+=("${runs[turn]}")
done
in_turn=()
[ ${#mine[@]} = 1 ] || in_turn=(--in-turn)

attempt() (  # SIGUSR2 may be sent to all of the job
  trap '' USR2
  "${once[@]}" "${python[@]}" -m cardamage.launch.slurm.attempt --code "$code" \
    --limit "$starts" "${in_turn[@]}" "$@" "$run" "$stage"
)

state() {  # this job's by SLURM, which may be away for minutes; nothing where nobody says
  local turn
  for turn in {1..30}; do
    squeue -h -j "$job" -o "%T" 2>/dev/null && return 0
    sleep "$retry_s"
  done
}

ask_requeue() {  # fails where SLURM refuses, not where it is away
  local turn said
  for turn in {1..30}; do
    said=$(scontrol requeue "$job" 2>&1) && return 0  # bare, in a trap, it has another status
    case $said in
      *[Uu]nable\ to\ contact* | *[Tt]imed\ out* | *[Cc]onnection* | *[Zz]ero\ [Bb]ytes*) ;;
      *) break ;;
    esac
    sleep "$retry_s"
  done
  echo "$said" >&2
  return 1
}

fits_without() (  # $1: nodes; whether this job finds enough others
  anew
  sbatch --test-only --exclude="$1" "$script" >/dev/null 2>&1
)

anew() {  # as if submitted from outside any job
  local conf=${SLURM_CONF:-}
  # shellcheck disable=SC2086  # names of variables
  unset ${!SLURM_*} ${!SLURMD_*} ${!SRUN_*} ${!SBATCH_*}
  [ -z "$conf" ] || export SLURM_CONF="$conf"
}

requeue() {  # $1: a node to stay away from, or nothing
  trap '' TERM  # or this script dies of the requeue it asks for
  local excluded= after=
  [ ! -f "$run/slurm/$stage.after" ] || after=$(<"$run/slurm/$stage.after")
  if [ -n "$1" ]; then  # with those that the profile excludes
    excluded=$(squeue -h -j "$job" -o "%x" 2>/dev/null)
    case $excluded in '' | '(null)' | None) excluded=$1 ;; *) excluded=$excluded,$1 ;; esac
    fits_without "$excluded" || { echo "node $1 is not avoided: too few are left"; excluded=; }
  fi
  ask_requeue || resubmit "$excluded" || return 1
  [ -z "$excluded" ] || scontrol update JobId="$job" ExcNodeList="$excluded"
  [ -z "$after" ] || scontrol update JobId="$job" Dependency="$after"
  sleep 300  # until SLURM ends it
}

resubmit() {  # where a job may not be requeued: submit it again, and let those behind it wait for it
  local new id needs root comment
  local array=${SLURM_ARRAY_JOB_ID:-} task=${SLURM_ARRAY_TASK_ID:-}
  comment=$(squeue -h -j "$job" -o "%k" 2>/dev/null | head -n 1)
  [ "$comment" != '(null)' ] || comment=
  new=$(
    anew
    sbatch --parsable ${comment:+--comment="$comment"} ${task:+--array="$task"} ${1:+--exclude="$1"} ${after:+--dependency="$after"} "$script"
  ) || return 1
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
  for root in "${mine[@]}" "${others[@]}"; do
    mkdir -p "$root/slurm" && echo "$job $new" >> "$root/slurm/resubmitted"
  done
  echo "resubmitted as job $new"
  exit 75
}

at_term() {  # SLURM ends this job: it is to be preempted or requeued, or its time is over
  by_slurm=(--by-slurm)
  is_lane && return
  # At the time limit the stage did not save in time: start again from what it saved last.
  [ "$(squeue -h -j "$job" -o "%r")" = TimeLimit ] && { ask_requeue || resubmit ''; }
}

is_lane() { [ "$BASHPID" != $$ ]; }

pids=()  # what is at work: the step, or the lanes
asked=
by_slurm=()
at_usr2() {  # sent to this shell, as by scancel --batch or --full: the stage is to save
  asked=1
  by_slurm=(--by-slurm)
  [ ${#pids[@]} = 0 ] || kill -USR2 "${pids[@]}" 2>/dev/null
}

wait_for() {  # $1: a process; sets status to what it ends with: a trapped signal ends wait early
  wait "$1"
  status=$?
  while kill -0 "$1" 2>/dev/null; do
    wait "$1"
    status=$?
  done
}

work() {  # on the run chosen; sets verdict, 75 when it is to start again, and then elsewhere
  local status
  attempt begin
  verdict=$?
  case $verdict in
    0) ;;
    3) verdict=0 && return ;;  # there was nothing to do
    *) came_to_an_end; return ;;
  esac
  "${step[@]}" "${python[@]}" -m cardamage "${command[@]}" &
  pids=($!)
  [ -z "$asked" ] || kill -USR2 "${pids[@]}"
  wait_for "${pids[0]}"
  pids=()
  elsewhere=$(attempt end "${by_slurm[@]}" --status $status)
  verdict=$?
  came_to_an_end
}

came_to_an_end() {  # or SLURM ended the attempt, too, and another start has to see to it
  [ ${#by_slurm[@]} = 0 ] || [ "$verdict" -le 128 ] || verdict=75
}

was_done() {  # by an earlier start of this job, which had many runs to do
  [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] && [ ${#mine[@]} -gt 1 ] &&
    grep -q '"state": "done"' "$run/stages/$stage.json" 2>/dev/null
}

again() {
  if is_lane; then  # the job is queued again once the other lanes are over
    [ -z "$elsewhere" ] || echo "$elsewhere" >>"$avoided"
    exit 75
  fi
  case $(state) in  # after scancel a requeue would bring the job back
    RUNNING | '') requeue "$elsewhere" ;;
  esac
  exit 75
}

ended=1  # what the job ends with: 0 where any of its runs is done, as the others have markers
elsewhere=

count() {  # $1: a verdict
  [ "$ended" = 0 ] || ended=$1
}

take_turns() {  # $1: the first of the runs; $2: how far apart they are
  local turn
  pids=()  # not the lanes before this one
  trap at_usr2 USR2
  trap at_term TERM
  for ((turn = $1; turn < ${#runs[@]}; turn += $2)); do
    [ ${#by_slurm[@]} = 0 ] || again  # asked to make room after the run before
    if ! choose "$turn" || was_done; then ended=0 && continue; fi
    [ ${#mine[@]} = 1 ] || exec >>"$run/logs/$stage.log" 2>&1
    work
    [ "$verdict" != 75 ] || again
    count "$verdict"
  done
}

[ "$lanes" -le ${#mine[@]} ] || lanes=${#mine[@]}
if [ "$lanes" -gt 1 ]; then
  avoided=$(mktemp)
  trap '' USR2  # or it ends a lane that does not heed it yet
  for ((lane = 0; lane < lanes; lane++)); do
    (take_turns $((first + lane * elements)) $((lanes * elements)); exit "$ended") &
    pids+=($!)
  done
  trap at_usr2 USR2
  trap at_term TERM
  verdict=0
  for each in "${pids[@]}"; do
    wait_for "$each"
    if [ "$status" = 75 ]; then verdict=75; else count "$status"; fi
  done
  elsewhere=$(head -n 1 "$avoided")
  rm -f "$avoided"
  [ "$verdict" != 75 ] || again
else
  take_turns "$first" "$elements"
fi
exit "$ended"
