"""The text of batch scripts; no SLURM is needed, and bash reads what SLURM would run."""

import os
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cardamage.launch.planning.profiles import SlurmProfile
from cardamage.launch.slurm.batch_job import BatchJob, Work
from cardamage.launch.slurm.script import StageExecutor, render
from tests.helpers.fake_runs import until

STEP = '"${step[@]}" "${python[@]}" -m cardamage "${command[@]}"'
WEIRD = Path("/shared/a 'weird' \"run\" 100% $HOME é")


def profile(**keys: object) -> SlurmProfile:
    return SlurmProfile.model_validate({"backend": "slurm", **keys})


def job(*roots: Path, stage: str = "train", **more: object) -> BatchJob:
    works = tuple(Work(root, stage, (stage,)) for root in roots)
    folder = roots[0] / "slurm"
    return BatchJob(f"x-{stage}", stage, works, roots[0] / "code" / "abc", folder, stage, **more)


def options(text: str) -> dict[str, str]:
    """The options of the ``#SBATCH`` lines as SLURM reads them."""
    found = {}
    for line in text.splitlines():
        if line.startswith("#SBATCH "):
            (word,) = shlex.split(line.removeprefix("#SBATCH "))
            name, _, value = word.removeprefix("--").partition("=")
            found[name] = value
    return found


def run_body(text: str, folder: Path, then: str, **env: str) -> str:
    """What bash prints that runs the values and functions of a script, and then some lines."""
    body, found, _ = text.partition('\n[ "$lanes" -le ')
    assert found
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "SLURM_JOB_ID": "7", **env}
    result = subprocess.run(
        ["bash", "-c", f"{body}\n{then}"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout


def heeds(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler of its own for a signal."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().split("\n") if line
    )
    return bool(int(status["SigCgt"], 16) >> (number - 1) & 1)


def test_every_key_of_a_stage_is_asked_for():
    asked = {
        "partition": "gpu,long",
        "account": "thesis",
        "qos": "high",
        "constraint": "a100|h100",
        "exclude": "n[3-5]",
        "nodes": 2,
        "gpus_per_node": 4,
        "cpus_per_task": 8,
        "mem_gb": 1.5,
        "time_minutes": 90,
        "extra": {"reservation": "course", "exclusive": True, "no_kill": False},
    }
    text = render(job(WEIRD), profile(train=asked, save_seconds=45))
    assert options(text) == {
        "job-name": "x-train",
        "partition": "gpu,long",
        "account": "thesis",
        "qos": "high",
        "constraint": "a100|h100",
        "exclude": "n[3-5]",
        "nodes": "2",
        "ntasks-per-node": "4",
        "gpus-per-node": "4",
        "cpus-per-task": "8",
        "mem": "1536M",
        "time": "90",
        "reservation": "course",
        "exclusive": "",
        "requeue": "",
        "kill-on-invalid-dep": "yes",
        "open-mode": "append",
        "signal": "USR2@45",
        "chdir": str(Path.cwd()),
        "output": str(WEIRD / "logs" / "train.log").replace("%", "%%"),
    }


def test_what_is_left_out_is_left_to_the_site():
    found = options(render(job(WEIRD), profile()))
    assert not {"partition", "account", "qos", "mem", "wckey", "gpus-per-node"} & set(found)


def test_a_weird_path_reaches_the_program_whole(tmp_path: Path):
    text = render(job(WEIRD), profile())
    then = 'printf "%s\\n" "$run" "$code" "$script" "$stage" "$PYTHONPATH" "$CARDAMAGE_RENDEZVOUS"'
    code = f"{WEIRD}/code/abc"
    assert run_body(text, tmp_path, then).splitlines() == [
        str(WEIRD),
        code,
        f"{WEIRD}/slurm/train.sbatch",
        "train",
        code,
        f"{WEIRD}/slurm",
    ]
    program = tmp_path / "srun"
    program.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    assert run_body(text, tmp_path, STEP).splitlines() == [
        "--kill-on-bad-exit=1",
        "--wait=60",
        "--export=ALL",
        "--cpus-per-task=2",
        sys.executable,
        "-P",
        "-u",
        "-m",
        "cardamage",
        "train",
        str(WEIRD),
    ]


def test_elements_of_an_array_find_their_runs_and_logs(tmp_path: Path):
    runs = [tmp_path / "a 100%", tmp_path / "b"]
    array = replace(job(*runs), folder=tmp_path / "100% all")
    text = render(array, profile())
    assert options(text)["array"] == "0-1%2"
    assert options(text)["output"] == f"{tmp_path}/100%% all/logs-%a/train.log"
    environment = {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "1"}
    found = run_body(text, tmp_path, 'printf "%s\\n" "$run" "$stage" "$job"', **environment)
    assert found.splitlines() == [str(runs[1]), "train", "12_1"]
    assert array.links() == {
        tmp_path / "100% all" / "logs-0": runs[0] / "logs",
        tmp_path / "100% all" / "logs-1": runs[1] / "logs",
    }


def test_an_element_takes_its_runs_in_turn_whatever_becomes_of_one(tmp_path: Path):
    runs = [tmp_path / name for name in "abcde"]
    for run in runs:
        (run / "logs").mkdir(parents=True)
    text = render(job(*runs, in_turn=3), profile())
    assert options(text)["array"] == "0-1%2"
    shell = {  # "attempt begin" and "end" by a python of our own: c fails, e is to start again
        "srun": "exit 0",
        "squeue": "echo RUNNING",
        "scontrol": 'echo "$@" >> told',
        "sleep": "exit 0",
        "python": f"""for word; do last=$before; before=$word; done
run=${{last##*/}}; echo "$run $*" >> '{tmp_path}/asked'
case "$*" in *" begin "*) exit 0 ;; esac
case $run in c) exit 1 ;; e) exit 75 ;; esac""",
    }
    for name, line in shell.items():
        (tmp_path / name).write_text(f"#!/bin/bash\ncd '{tmp_path}'\n{line}\n")
        (tmp_path / name).chmod(0o755)
    text = text.replace(sys.executable, str(tmp_path / "python"))
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "8"}
    environment |= {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0"}
    ended = subprocess.run(["bash", "-c", text], env=environment, check=False)
    assert ended.returncode == 75
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line.partition(" ")[0] for line in asked] == ["a", "a", "c", "c", "e", "e"]
    assert all("--in-turn" in line for line in asked)
    assert (tmp_path / "told").read_text() == "requeue 7_0\n"


def test_a_job_whose_time_is_over_before_a_stage_begins_is_queued_again(tmp_path: Path):
    runs = [tmp_path / name for name in "abc"]
    for run in runs:
        (run / "logs").mkdir(parents=True)
    (runs[0] / "stages").mkdir()
    (runs[0] / "stages" / "train.json").write_text('{"state": "done"}')
    text = render(job(*runs, in_turn=3), profile())
    shell = {
        "squeue": 'case "$*" in *%r*) echo TimeLimit ;; *) echo RUNNING ;; esac',
        "scontrol": 'echo "$@" >> told',
        "sleep": "exit 0",
        "python": f"""echo "$*" >> '{tmp_path}/asked'; exec /bin/sleep 60""",
    }
    for name, line in shell.items():
        (tmp_path / name).write_text(f"#!/bin/bash\ncd '{tmp_path}'\n{line}\n")
        (tmp_path / name).chmod(0o755)
    text = text.replace(sys.executable, str(tmp_path / "python"))
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7"}
    environment["SLURM_RESTART_COUNT"] = "1"
    process = subprocess.Popen(["bash", "-c", text], env=environment, start_new_session=True)
    until((tmp_path / "asked").is_file)
    os.killpg(process.pid, signal.SIGTERM)  # as SLURM does: to all of them
    assert process.wait(timeout=120) == 75
    (asked,) = (tmp_path / "asked").read_text().splitlines()
    assert asked.endswith(f"begin {runs[1]} train")  # a was done by the start before
    assert (tmp_path / "told").read_text().startswith("requeue 7\n")


def test_runs_side_by_side_all_heed_usr2_and_the_job_is_queued_again_once(tmp_path: Path):
    runs = [tmp_path / name for name in "abcd"]
    for run in runs:
        (run / "logs").mkdir(parents=True)
    text = render(job(*runs, in_turn=4), profile(train={"side_by_side": 2}))
    assert "--overlap" in text
    shell = {  # both steps of the first pair are at work before one gets the signal
        "srun": """trap 'touch "$run.saved"; exit 0' USR2
for run; do :; done; touch "$run.works"
until [ -f "$run.saved" ]; do /bin/sleep 0.05; done""",
        "squeue": "echo RUNNING",
        "scontrol": 'echo "$@" >> told',
        "sleep": "exit 0",
        "python": f"""for word; do last=$before; before=$word; done
echo "${{last##*/}} $*" >> '{tmp_path}/asked'
case "$*" in *" end "*) exit 75 ;; esac""",
    }
    for name, line in shell.items():
        (tmp_path / name).write_text(f"#!/bin/bash\ncd '{tmp_path}'\n{line}\n")
        (tmp_path / name).chmod(0o755)
    text = text.replace(sys.executable, str(tmp_path / "python"))
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7"}
    process = subprocess.Popen(["bash", "-c", text], env=environment)
    until(lambda: all((tmp_path / f"{name}.works").is_file() for name in "ab"))
    until(lambda: heeds(process.pid, signal.SIGUSR2))  # steps may be quicker than their script
    process.send_signal(signal.SIGUSR2)
    assert process.wait(timeout=120) == 75
    assert sorted(path.name for path in tmp_path.glob("*.saved")) == ["a.saved", "b.saved"]
    ends = [line for line in (tmp_path / "asked").read_text().splitlines() if " end " in line]
    assert sorted(line[0] for line in ends) == ["a", "b"]
    assert all("--by-slurm" in line for line in ends)
    assert (tmp_path / "told").read_text() == "requeue 7\n"


def test_a_slot_of_a_search_without_a_trial_is_passed_over(tmp_path: Path):
    slots = [tmp_path / "rounds" / name for name in "01"]
    for slot, name in zip(slots, ("idle", "trial"), strict=True):
        (tmp_path / name / "logs").mkdir(parents=True)
        slot.parent.mkdir(exist_ok=True)
        slot.symlink_to(tmp_path / name)
    (tmp_path / "trial" / "config.yaml").touch()
    (tmp_path / "python").write_text(f"#!/bin/bash\necho \"$*\" >> '{tmp_path}/asked'\nexit 3\n")
    (tmp_path / "python").chmod(0o755)
    of_slots = job(*slots, in_turn=2)
    works = tuple(replace(work, is_slot=True) for work in of_slots.works)
    text = render(replace(of_slots, works=works), profile())
    text = text.replace(sys.executable, str(tmp_path / "python"))
    ended = subprocess.run(["bash", "-c", text], env={"SLURM_JOB_ID": "7"}, check=False)
    assert ended.returncode == 0
    (asked,) = (tmp_path / "asked").read_text().splitlines()
    assert asked.endswith(f"begin {tmp_path / 'trial'} train")


def test_so_many_of_an_array_run_at_once(tmp_path: Path):
    array = job(tmp_path / "a", tmp_path / "b", max_running=1)
    assert options(render(array, profile()))["array"] == "0-1%1"


def test_variables_of_the_profile_and_of_the_job(tmp_path: Path):
    given = profile(
        environment={"HF_HOME": "/a b"},
        setup=["MODULE=loaded"],
        train={"cpus_per_task": 3, "setup": ["MODULE=$MODULE-twice"]},
        watchdog_minutes=2,
    )
    then = 'echo "$HF_HOME, $MODULE, $OMP_NUM_THREADS, $CARDAMAGE_WATCHDOG_S, $ACCELERATE_USE_CPU"'
    text = render(job(WEIRD), given)
    assert run_body(text, tmp_path, then) == "/a b, loaded-twice, 3, 120, true\n"
    assert run_body(text, tmp_path, "echo $OMP_NUM_THREADS", OMP_NUM_THREADS="1") == "1\n"
    on_gpus = render(job(WEIRD), profile(train={"gpus_per_node": 2}))
    assert "ACCELERATE_USE_CPU" not in on_gpus


def test_parts_of_testing_have_markers_and_logs_of_their_own(tmp_path: Path):
    works = tuple(
        Work(tmp_path, f"test.{i}", ("test", "--part", '"$SLURM_ARRAY_TASK_ID/2"'))
        for i in range(2)
    )
    parts = BatchJob("x", "test", works, tmp_path / "code", tmp_path / "slurm", "test-parts")
    text = render(parts, profile())
    assert options(text)["output"] == f"{tmp_path}/logs/test.%a.log"
    assert parts.links() == {}
    environment = {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "1"}
    assert run_body(text, tmp_path, "echo $stage", **environment) == "test.1\n"
    then = 'printf "%s " "${command[@]}"'
    assert run_body(text, tmp_path, then, **environment).split() == [
        "test",
        str(tmp_path),
        "--part",
        "1/2",
    ]


@pytest.mark.parametrize("runtime", ["apptainer", "pyxis"])
def test_stages_run_in_a_container_and_slurms_commands_outside(tmp_path: Path, runtime: str):
    container = {
        "runtime": runtime,
        "image": "/images/car damage.sif",
        "mounts": ["/data:/data"],
        "options": ["--nv"] if runtime == "apptainer" else ["--no-container-mount-home"],
        "python": "/opt/python",
    }
    text = render(job(Path("/runs/x")), profile(container=container))
    binds = ["/runs:/runs", f"{Path.cwd()}:{Path.cwd()}", "/data:/data"]
    python = ["env", "PYTHONPATH=/runs/x/code/abc", "/opt/python", "-P", "-u"]
    step, once, inside = (
        run_body(text, tmp_path, f'printf "%s\\n" "${{{name}[@]}}"').splitlines()
        for name in ("step", "once", "python")
    )
    if runtime == "apptainer":
        mounts = [word for bind in binds for word in ("--bind", bind)]
        image = ["apptainer", "exec", "--nv", *mounts, "/images/car damage.sif"]
        assert inside == [*image, *python]
        assert once == [""]
    else:
        options = [
            "--container-image=/images/car damage.sif",
            f"--container-mounts={','.join(binds)}",
            f"--container-workdir={Path.cwd()}",
            "--no-container-mount-home",
        ]
        assert inside == python
        assert once == ["srun", "--nodes=1", "--ntasks=1", "--overlap", *options]
        assert step[-4:] == options
    assert "said=$(scontrol requeue" in text


def test_bash_understands_the_script():
    text = render(job(WEIRD), profile())
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_a_job_submitted_inside_a_job_inherits_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen = tmp_path / "seen"
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(f"#!/bin/sh\nenv > '{seen}'\necho Submitted batch job 9\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def inherited(**asked: object) -> set[str]:
        executor = StageExecutor(job(tmp_path / "run"), profile(train=asked))
        assert executor.queue() == "9"
        return {line.partition("=")[0] for line in seen.read_text().splitlines()}

    given = {"SLURM_JOB_ID": "7", "SLURM_CONF": "/etc/slurm.conf", "CUDA_VISIBLE_DEVICES": "1"}
    for name, value in {**given, "RANK": "3", "SUBMITIT_EXECUTOR": "slurm"}.items():
        monkeypatch.setenv(name, value)
    assert {*given, "RANK", "SUBMITIT_EXECUTOR"} & inherited() == {"SLURM_CONF"}
    monkeypatch.delenv("SLURM_JOB_ID")
    monkeypatch.setenv("SBATCH_ACCOUNT", "thesis")
    assert "SBATCH_ACCOUNT" in inherited()
    assert "SBATCH_ACCOUNT" not in inherited(account="other")


QUEUE = """\
21 afterok:7(unfulfilled)
22_1 afterok:7(unfulfilled)
23 afterok:17(unfulfilled),afterany:7(unfulfilled)
24 (null)
"""
ARRAYS = """\
31_0 aftercorr:12_*(unfulfilled)
31_1 aftercorr:12_*(unfulfilled)
32 afterany:12_*(unfulfilled),afterany:13_*(unfulfilled)
33_1 afterok:12_1(unfulfilled)
"""


@pytest.mark.parametrize(
    ("queue", "element", "expected"),
    [
        (QUEUE, {}, ["21 afterok:99", "22_1 afterok:99", "23 afterok:17,afterany:99"]),
        (
            ARRAYS,
            {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "1"},
            [
                "31_1 afterok:99_1",
                "32 afterany:12_*,afterany:99_1,afterany:13_*",
                "33_1 afterok:99_1",
            ],
        ),
    ],
)
def test_what_waits_for_a_job_waits_for_the_one_that_takes_its_place(
    tmp_path: Path, queue: str, element: dict[str, str], expected: list[str]
):
    # SLURM's own commands do this in tests/slurm; here its answers are given, to have them all.
    roots = [tmp_path / name for name in ("a b", "c")]
    for root in roots:
        (root / "slurm").mkdir(parents=True)
    works = (Work(roots[0], "pack", ("pack",), (roots[1],)),)
    if element:
        works = (Work(tmp_path / "first", "pack", ("pack",)), *works)
    text = render(replace(job(roots[0], stage="pack"), works=works), profile())
    shell = {
        "squeue": f"cat <<'END'\n{queue}END",
        "sbatch": "echo 99",
        "scontrol": 'echo "${2#JobId=} ${3#Dependency=}" >> told',
    }
    for name, line in shell.items():
        (tmp_path / name).write_text(f"#!/bin/bash\ncd '{tmp_path}'\n{line}\n")
        (tmp_path / name).chmod(0o755)
    run_body(text, tmp_path, "(resubmit)\ntrue", **element)
    assert (tmp_path / "told").read_text().splitlines() == expected
    old, new = ("12_1", "99_1") if element else ("7", "99")
    for root in roots:
        assert (root / "slurm" / "resubmitted").read_text() == f"{old} {new}\n"


@pytest.mark.parametrize(
    ("excluded", "fits", "expected"),
    [("", 0, "n7"), ("(null)", 0, "n7"), ("n1,n2", 0, "n1,n2,n7"), ("n1", 1, None)],
)
def test_a_node_to_avoid_joins_those_of_the_profile_where_enough_are_left(
    tmp_path: Path, excluded: str, fits: int, expected: str | None
):
    shell = {
        "squeue": f"echo '{excluded}'",
        "sbatch": f"exit {fits}",
        "scontrol": 'echo "$@" >> told',
        "sleep": "exit 0",
    }
    for name, line in shell.items():
        (tmp_path / name).write_text(f"#!/bin/bash\ncd '{tmp_path}'\n{line}\n")
        (tmp_path / name).chmod(0o755)
    run_body(render(job(tmp_path / "run"), profile()), tmp_path, "requeue n7")
    told = (tmp_path / "told").read_text().splitlines()
    update = [] if expected is None else [f"update JobId=7 ExcNodeList={expected}"]
    assert told == ["requeue 7", *update]


def test_a_controller_that_is_away_is_asked_again(tmp_path: Path):
    shell = {
        "squeue": "[ -f away ] && { rm away; exit 1; }; echo RUNNING",
        "scontrol": "echo x >> tried; [ $(wc -l < tried) -ge 3 ] || "
        '{ echo "Unable to contact slurm controller (connect failure)" >&2; exit 1; }',
        "sleep": "exit 0",
    }
    for name, line in shell.items():
        (tmp_path / name).write_text(f"#!/bin/bash\ncd '{tmp_path}'\n{line}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "away").touch()
    text = render(job(tmp_path / "run"), profile())
    printed = run_body(text, tmp_path, "state; ask_requeue && echo asked", SQUEUE_FORMAT="%i")
    assert printed.splitlines() == ["RUNNING", "asked"]
    assert (tmp_path / "tried").read_text() == "x\n" * 3
