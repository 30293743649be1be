"""A real SLURM on this one machine, from Debian's packages, for the tests.

Two nodes of eight CPUs and two pretended GPUs each, accounting in MariaDB, preemption between
partitions, and limits small enough to run into. It has a folder, ports and a ``slurm.conf`` of its
own, so it meets no other SLURM::

    eval "$(python -m tests.helpers.cluster start)"    # installs what is missing, starts, exports
    sinfo
    python -m tests.helpers.cluster stop               # ends every process, removes the folder

Starting a cluster that runs does nothing; what is left of one that was killed, or was started with
other settings, is removed first. Node names do not resolve, as on some real sites.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.helpers.cluster_files import DATABASE_PORT, configuration, lay_out

FOLDER = Path(tempfile.gettempdir()) / "cardamage-slurm"
LOCK = FOLDER.with_suffix(".lock")
"""Held by whoever starts or stops the cluster, and by a test session for as long as it lasts."""

PACKAGES = ("slurm-wlm", "slurmdbd", "munge", "mariadb-server")
PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sbatch")
NODES = ("n0", "n1")
MARK = "CARDAMAGE_TEST_DAEMON"
"""An environment variable that tells this cluster's daemons, and which one, from all others."""

DAEMONS = {name: name for name in ("munged", "mariadbd", "slurmdbd", "slurmctld")}
DAEMONS |= dict.fromkeys(NODES, "slurmd")
"""The program of each daemon."""

_KEEPERS = ("munged", "mariadbd", "slurmctld")  # without one of them a cluster is made anew
_SEARCH_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"


class ClusterError(Exception):
    """The cluster cannot be started here; the message is one line."""


class Cluster:
    """The cluster of one folder: its daemons are found by their mark, whoever started them."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs in its environment to use the cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def is_running(self, daemons: Iterable[str] = DAEMONS) -> bool:
        """Whether daemons run, all by default, with the settings of this file."""
        try:
            found = (self.folder / "slurm.conf").read_text()
        except FileNotFoundError:
            return False
        is_current = found == configuration(self.folder, NODES)
        return is_current and all(self._main_process(daemon) for daemon in daemons)

    def start(self) -> None:
        """Install what is missing, start every daemon that does not run, make every node usable.

        Raises:
            ClusterError: it cannot run here, or a daemon does not come up.
        """
        if not self.is_running(_KEEPERS):
            install()
            self.stop()
            lay_out(self.folder, NODES)
            self._start_munged()
            self._start_mariadbd()
            self.start_slurmdbd()
            self._start_slurmctld()
        elif not self._main_process("slurmdbd"):
            self.start_slurmdbd()
        for node in NODES:  # one that runs may have been drained
            self.start_node(node)

    def stop(self) -> None:
        """End every process of the cluster, its jobs' included, and remove its folder."""
        for node in NODES:
            self.kill_node(node)
        for daemon in ("slurmctld", "slurmdbd", "mariadbd", "munged"):
            _kill(self.processes(daemon))
        _kill(self._orphans())
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill_node(self, node: str) -> None:
        """Let a node fail as if its power went: slurmd, step daemons and tasks die at once."""
        daemons = self.processes(node)
        tasks = [child for daemon in daemons for child in _descendants(daemon)]
        _kill([*daemons, *tasks])

    def start_node(self, node: str) -> None:
        """Start a node's slurmd and wait until SLURM would give it jobs."""
        self._daemon(node, ["slurmd", "-D", "-N", node])

        def usable() -> bool:
            state = self.output("sinfo", "-h", "-n", node, "-o", "%T")
            if "drain" in state:
                self.output("scontrol", "update", f"nodename={node}", "state=resume")
            if any(word in state for word in ("drain", "down", "*")):
                return False
            # A controller that was just started shows nodes as idle before it has heard of them.
            return self._succeeds("srun", "--test-only", f"--nodelist={node}", "true")

        self._wait(usable, node)

    def stop_slurmdbd(self) -> None:
        """Let accounting fail: sacct and sacctmgr end with an error, jobs go on."""
        _kill(self.processes("slurmdbd"))

    def start_slurmdbd(self) -> None:
        """Start accounting and wait until it answers; slurmctld reconnects by itself."""
        self._daemon("slurmdbd", ["slurmdbd", "-D"])
        self._wait(lambda: self._succeeds("sacctmgr", "-n", "list", "cluster"), "slurmdbd")

    def processes(self, daemon: str) -> list[psutil.Process]:
        """The living processes of one daemon; a node's are its slurmd and its step daemons.

        Step daemons overwrite their environment with their title, but stay in slurmd's folder.
        """
        mark, home = f"{self.folder}:{daemon}", str(self._home(daemon))
        return [
            process
            for process in psutil.process_iter()
            if (_environ(process).get(MARK) == mark or _cwd(process) == home) and _is_alive(process)
        ]

    def _orphans(self) -> list[psutil.Process]:
        """What jobs left behind whose step daemon was killed."""
        conf = self.environment["SLURM_CONF"]
        found = ((process, _environ(process)) for process in psutil.process_iter())
        return [p for p, its in found if its.get("SLURM_CONF") == conf and "SLURM_JOB_ID" in its]

    def _home(self, daemon: str) -> Path:
        return self.folder / "home" / daemon

    def _main_process(self, daemon: str) -> bool:
        """Whether a daemon itself runs: step daemons outlive their slurmd."""
        return any(p.name() == DAEMONS[daemon] for p in self.processes(daemon))

    def output(self, *command: str) -> str:
        """What a SLURM command prints on standard output; nothing when it fails."""
        return self._run(command).stdout.strip()

    def _succeeds(self, *command: str) -> bool:
        return self._run(command).returncode == 0

    def _run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command, env=self._own(), capture_output=True, text=True, timeout=20, check=False
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 124, "", "timed out")

    def _own(self) -> dict[str, str]:
        keep = ("HOME", "LANG", "USER")
        kept = {name: os.environ[name] for name in keep if name in os.environ}
        return {**kept, "PATH": _SEARCH_PATH, **self.environment}

    def _start_munged(self) -> None:
        munge = self.folder / "munge"
        options = {"socket": "socket", "key-file": "key", "pid-file": "pid", "seed-file": "seed"}
        command = ["munged", "--foreground", *(f"--{k}={munge / v}" for k, v in options.items())]
        self._daemon("munged", command, user="munge")
        self._wait(lambda: self._succeeds("munge", "-n", "-S", f"{munge / 'socket'}"), "munged")

    def _start_mariadbd(self) -> None:
        data = self.folder / "database"
        if not (data / "mysql").is_dir():
            install = ["mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={data}"]
            done = subprocess.run(
                [*install, "--skip-test-db", "--auth-root-authentication-method=socket"],
                env=self._own(), capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                raise ClusterError(f"mariadb-install-db failed: {_last_line(done.stdout)}")
        command = ["mariadbd", "--no-defaults", "--user=mysql", f"--datadir={data}"]
        command += [f"--socket={data / 'socket'}", f"--pid-file={data / 'pid'}"]
        command += ["--bind-address=127.0.0.1", f"--port={DATABASE_PORT}"]
        command += ["--innodb-flush-log-at-trx-commit=0", "--innodb-lock-wait-timeout=900"]
        self._daemon("mariadbd", [*command, f"--init-file={self.folder / 'database.sql'}"])
        self._wait(lambda: _answers(DATABASE_PORT), "mariadbd")

    def _start_slurmctld(self) -> None:
        # The cluster has to be known to accounting first, or sacct stays empty.
        user = subprocess.check_output(["id", "-un"], text=True).strip()
        few = ["qos", "few", "MaxSubmitJobsPerUser=2"]  # a queue that is soon full
        some = ["qos", "some", "MaxSubmitJobsPerUser=8"]
        person = ["user", user, "account=lab"]
        for what in (["cluster", "cardamage"], ["account", "lab"], few, some, person):
            self._run(["sacctmgr", "-i", "add", *what])
        self._run(["sacctmgr", "-i", "modify", "user", user, "set", "qos=normal,few,some"])
        self._daemon("slurmctld", ["slurmctld", "-D"])
        self._wait(lambda: "UP" in self.output("scontrol", "ping"), "slurmctld")

    def _daemon(self, name: str, command: Sequence[str], user: str | None = None) -> None:
        """Start a daemon that outlives this program, holds none of its files, is not its child."""
        if self._main_process(name):
            return
        self._home(name).mkdir(parents=True, exist_ok=True)
        with (self.folder / "log" / f"{name}.log").open("ab") as log:
            subprocess.run(
                ["/bin/sh", "-c", '"$@" >&2 </dev/null & ', "sh", *command],
                env={**self._own(), MARK: f"{self.folder}:{name}"},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
                cwd=self._home(name), start_new_session=True, check=True,
                user=user, group=user, extra_groups=None if user is None else [],
            )  # fmt: skip

    def _wait(self, ready: Callable[[], bool], name: str, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not ready():
            if time.monotonic() > deadline:
                log = self.folder / "log" / f"{name}.log"
                raise ClusterError(f"{name} did not come up: {_last_line(log.read_text())} ({log})")
            time.sleep(0.2)


def install() -> None:
    """Install the packages that are missing.

    Raises:
        ClusterError: this system cannot have them.
    """
    missing = [program for program in PROGRAMS if not shutil.which(program, path=_SEARCH_PATH)]
    if not missing:
        return
    if not shutil.which("apt-get") or not Path("/etc/debian_version").exists():
        raise ClusterError(f"{missing[0]} is not installed, and this system is not Debian")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "PATH": _SEARCH_PATH}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(
            ["apt-get", *command],
            env=quiet, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise ClusterError(f"apt-get {command[0]} failed: {_last_line(done.stderr)}")


def _environ(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def _cwd(process: psutil.Process) -> str:
    try:
        return process.cwd()
    except (psutil.Error, OSError):
        return ""


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    deadline = time.monotonic() + 10
    while any(_is_alive(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it printed nothing"


@contextmanager
def taking_turns() -> Iterator[None]:
    """Hold :data:`LOCK`, of which there is one whichever copy of the tests this is.

    Raises:
        ClusterError: this user cannot have a cluster.
    """
    if os.geteuid() != 0:
        raise ClusterError("a SLURM for the tests is started by root only")
    with LOCK.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def running() -> Iterator[Cluster]:
    """The cluster, started and held as by :func:`taking_turns`; one that ran before goes on.

    Raises:
        ClusterError: it cannot be started.
    """
    with taking_turns():
        cluster = Cluster()
        was_running = cluster.is_running()
        cluster.start()
        try:
            yield cluster
        finally:
            if not was_running:
                cluster.stop()


def main() -> None:
    """Start or stop the cluster, or print what to export."""
    parser = argparse.ArgumentParser(description="A real SLURM on this machine, for the tests.")
    parser.add_argument("action", choices=["start", "stop", "env"])
    action = parser.parse_args().action
    cluster = Cluster()
    try:
        if action == "start" and not cluster.is_running():
            with taking_turns():
                cluster.start()
        elif action == "stop":
            with taking_turns():
                cluster.stop()
    except ClusterError as error:
        sys.exit(f"error: {error}")
    if action != "stop":
        for name, value in cluster.environment.items():
            print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    main()
