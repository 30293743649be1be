"""Runs made of fake stages: programs that behave as told, through the same stage protocol."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cardamage.config.loading import load
from cardamage.launch.watching.record import tagged
from cardamage.runs.directory import open_run
from cardamage.runs.paths import STAGES, RunPaths

CONFIG = """\
name: fake
data: {source: synthetic, classes: [scratch, dent], image_size: [32, 32]}
model: {name: segnet2}
optim: {name: adam}
train: {epochs: 2}
"""

FAKE_STAGE = '''\
"""A stage that behaves as told: fake_stage.py RUN STAGE BEHAVIOUR."""

import os, signal, subprocess, sys, time
from pathlib import Path

from cardamage.system.console import EventLog
from cardamage.errors import CardamageError, ConfigError, Stopped, run_program
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import running

run, stage, behaviour = RunPaths(Path(sys.argv[1])), sys.argv[2], sys.argv[3]
SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def main():
    if behaviour == "refuses early":
        raise ConfigError("batch_size is 0; give 1 or more")
    if behaviour == "crashes early":
        import no_such_module
    if behaviour == "never begins":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        print("here", flush=True)
        time.sleep(60)
    with running(run, stage) as output:
        print(f"{stage} at work", flush=True)
        match behaviour:
            case "works":
                events = EventLog(run.events)
                events.write("progress", stage=stage, done=1, total=2, unit="images",
                             per_second=4.0, seconds_left=30.0)
                events.write("epoch", stage=stage, epoch=1, epochs=2, val_miou=0.5)
                output["page"] = f"page of {stage}"
            case "refuses":
                raise ConfigError("the class is unknown; name another")
            case "fails":
                raise CardamageError("the disk is full")
            case "breaks":
                raise RuntimeError("a defect")
            case "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            case "waits":
                signal.signal(signal.SIGTERM, stop)
                time.sleep(60)
            case "is stubborn":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                subprocess.Popen(SLEEP, start_new_session=True)  # as torchrun starts its workers
                print("child started", flush=True)
                time.sleep(60)
            case "leaves a child":
                subprocess.Popen(SLEEP, start_new_session=True)
    print(f"{stage} at its end", flush=True)


def stop(number, frame):
    raise Stopped("saved after step 7; start again to go on")


run_program(main)
'''

DRIVER = '''\
"""Runs configs on fake stages: driver.py {stage: behaviour} CONFIG..."""

import json, signal, sys
from pathlib import Path

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup

from cardamage.system.console import console
from cardamage.errors import run_program
from cardamage.runs.paths import STAGES
from cardamage.runs.directory import open_run
from cardamage.launch.local.commands import Command
from cardamage.launch.local.backend import Launch, run_here
from cardamage.launch.planning.plan import make_plan
from cardamage.launch.watching.record import new_launch


def main():
    behaviours = json.loads(sys.argv[1])
    configs = [Path(text) for text in sys.argv[2:]]
    plans = make_plan(configs, [], Path("runs"), [s for s in STAGES if s in behaviours]).plans
    launches = []
    for plan in plans:
        open_run(plan.run, plan.experiment)
        commands = {stage: command_of(plan, stage, told) for stage, told in behaviours.items()}
        arguments = {stage: command.arguments for stage, command in commands.items()}
        record = new_launch("local", "local", sys.argv, arguments)
        launches.append(Launch(plan, commands, record))
    sys.exit(run_here(launches, console, lambda run, end: print(end[1], end[2])))


def command_of(plan, stage, behaviour):
    behaviour, _, launcher = behaviour.partition(" through ")
    arguments = (sys.executable, "fake_stage.py", str(plan.run.root), stage, behaviour)
    if not launcher:
        return Command(arguments)
    # A launcher that loses the exit status, as accelerate launch does.
    loses = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]) != 0)"
    return Command((sys.executable, "-c", loses, *arguments), keeps_status=False)


run_program(main)
'''


class FakeRun:
    """A run directory, and a launcher process that takes it through fake stages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = RunPaths(folder / "runs" / "fake")
        self.launcher: subprocess.Popen[str] | None = None
        (folder / "fake_stage.py").write_text(FAKE_STAGE)
        (folder / "driver.py").write_text(DRIVER)
        self.config("fake")

    def config(self, name: str) -> Path:
        """Write the config of a run called ``name``, and return its path."""
        path = self.folder / f"{name}.yaml"
        path.write_text(CONFIG.replace("name: fake", f"name: {name}"))
        return path

    def make(self) -> RunPaths:
        """The run directory, with nothing started."""
        open_run(self.run, load(self.config("fake")))
        return self.run

    def start(
        self,
        *,
        configs: tuple[str, ...] = ("fake",),
        terminal: int | None = None,
        **behaviours: str,
    ) -> None:
        """Start a launcher for the stages named; it goes on by itself."""
        self.launcher = subprocess.Popen(
            [
                sys.executable,
                "driver.py",
                json.dumps(behaviours),
                *map(str, map(self.config, configs)),
            ],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if terminal is None else terminal,
            text=True,
        )

    def end(self, timeout_s: float = 60) -> tuple[int, str, str]:
        """Wait for the launcher; its exit status, standard output and standard error."""
        assert self.launcher is not None
        out, err = self.launcher.communicate(timeout=timeout_s)
        return self.launcher.returncode, out, err

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the launcher."""
        assert self.launcher is not None
        self.launcher.send_signal(number)

    def launch(self, **behaviours: str) -> tuple[int, str, str]:
        """Start a launcher and wait for it."""
        self.start(**behaviours)
        return self.end()

    def states(self) -> dict[str, str]:
        """The state of every stage that has a marker."""
        markers = {stage: self.run.stage(stage) for stage in STAGES}
        return {
            stage: json.loads(path.read_text())["state"]
            for stage, path in markers.items()
            if path.is_file()
        }

    def await_log(self, stage: str, text: str) -> None:
        """Wait until a stage has printed ``text``."""
        log = self.run.log(stage)
        until(lambda: log.is_file() and text in log.read_text())


def until(condition: Callable[[], bool], timeout_s: float = 120) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeRun]:
    """A run of fake stages, in a folder whose name has a space in it."""
    folder = tmp_path / "a folder"
    folder.mkdir(exist_ok=True)
    made = FakeRun(folder)
    yield made
    if made.launcher and made.launcher.poll() is None:
        made.launcher.kill()
        made.launcher.communicate()
    for path in made.folder.glob("runs/*/launch.json"):
        for pid in tagged(json.loads(path.read_text())["tag"]):
            os.kill(pid, signal.SIGKILL)
