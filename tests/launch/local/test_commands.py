import os
import sys
from pathlib import Path

import pytest

from cardamage.errors import ConfigError
from cardamage.launch.local.commands import Command, count_gpus, local_commands
from cardamage.launch.planning.graph import RunPlan
from cardamage.launch.planning.plan import make_plan
from cardamage.launch.planning.profiles import PROFILES, LocalProfile, load_profile
from cardamage.runs.paths import STAGES
from cardamage.system.processes import count_cores

ACCELERATE = "--quiet --num_machines 1 --mixed_precision no --dynamo_backend no"


@pytest.fixture
def plan(fake) -> RunPlan:
    (made,) = make_plan([fake.config("one")], [], Path("runs"), STAGES).plans
    return made


@pytest.fixture(autouse=True)
def _threads_are_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def profile(**sections: dict[str, int | None]) -> LocalProfile:
    return LocalProfile.model_validate({"backend": "local", **sections})


def options(command: Command, module: str) -> str:
    """What stands between the launcher and the program."""
    assert command.arguments[:3] == (sys.executable, "-m", module)
    script = command.arguments.index("cardamage") - 1
    return " ".join(command.arguments[3:script])


def test_on_a_cpu_training_uses_every_core(plan: RunPlan, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    commands = local_commands(plan, profile())
    assert list(commands) == ["pack", "train", "test", "report"]
    assert commands["train"].environment == {"OMP_NUM_THREADS": str(count_cores())}
    for stage in ("train", "test"):
        assert commands[stage].arguments[:4] == (sys.executable, "-m", "cardamage", stage)
        assert commands[stage].keeps_status


def test_with_gpus_accelerate_counts_them(plan: RunPlan, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    train = local_commands(plan, profile())["train"]
    assert options(train, "accelerate.commands.launch") == (
        f"{ACCELERATE} --multi_gpu --main_process_port 0"
    )
    assert train.environment["OMP_NUM_THREADS"] == str(max(1, count_cores() // 2))
    assert not train.keeps_status


@pytest.mark.parametrize(("gpus", "processes"), [("0,3", 1), ("3", None)])
def test_one_process_needs_no_launcher(
    plan: RunPlan, monkeypatch: pytest.MonkeyPatch, gpus: str, processes: int | None
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    train = local_commands(plan, profile(train={"processes": processes}))["train"]
    assert train.arguments[1:4] == ("-m", "cardamage", "train")


def test_several_processes_on_a_cpu_go_through_torchrun(
    plan: RunPlan, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    commands = local_commands(plan, profile(train={"processes": 2}, test={"processes": 3}))
    for stage, processes in (("train", 2), ("test", 3)):
        expected = f"--standalone --nproc-per-node {processes}"
        assert options(commands[stage], "torch.distributed.run") == expected
        assert commands[stage].environment == {"ACCELERATE_USE_CPU": "true"}  # the user's 5 stands


def test_gpus_are_counted_without_torch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("HIP_VISIBLE_DEVICES", raising=False)
    assert count_gpus() == len(list(Path("/dev").glob("nvidia[0-9]*")))
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "1")
    assert count_gpus() == 1


def test_command_is_a_line_for_a_shell():
    command = Command(("python", "a file.py"), {"NAME": "two words"})
    assert str(command) == "NAME='two words' python 'a file.py'"


def test_every_shipped_profile_is_valid():
    for path in PROFILES.glob("*.yaml"):
        assert load_profile(path.stem) == load_profile(str(path))


def test_local_profile_leaves_the_number_of_processes_to_the_machine():
    assert load_profile("local").train.processes is None


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("backend: local\ntrain: {proceses: 2}", 'did you mean "processes"'),
        ("backend: local\ntrain: {processes: 0}", "train.processes: must be greater than"),
        ("backend: kubernetes", "backend: .*kubernetes.* is unknown.*allowed: local"),
        ("train: {processes: 2}", "backend: this key is required"),
    ],
)
def test_wrong_profile(tmp_path: Path, content: str, error: str):
    path = tmp_path / "site.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=f"{path}: .*{error}"):
        load_profile(str(path))


def test_unknown_profile_names_those_there_are():
    with pytest.raises(
        ConfigError, match=r'--cluster "locla" is unknown.*"local".*there are: .*local'
    ):
        load_profile("locla")
    with pytest.raises(ConfigError, match="there is no such config file"):
        load_profile(f"nowhere{os.sep}site.yaml")
