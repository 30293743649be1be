"""SLURM's commands as far as submitting goes: is it there, would it take a job, and submit it.

Every command has a time limit, runs in a clean environment and fails in one line.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cardamage.errors import CardamageError, ConfigError, UserError, did_you_mean
from launch.environment import clean

_TIMEOUT_S, _PING_S = 30, 10
_MAX_ARRAY_SIZE = 1001  # SLURM's default
_MINUTES = re.compile(r"(?:(\d+)-)?(\d+):(\d+):(\d+)")


@dataclass(frozen=True)
class Partition:
    """A partition.

    Attributes:
        name: its name.
        is_default: whether jobs that name none go there.
        max_minutes: the longest time limit of a job; None for any.
    """

    name: str
    is_default: bool
    max_minutes: int | None


@dataclass(frozen=True)
class Site:
    """What a cluster says of itself.

    Attributes:
        partitions: by name; empty when it is not known.
        max_array_size: an array's indices are below it.
    """

    partitions: Mapping[str, Partition]
    max_array_size: int = _MAX_ARRAY_SIZE


UNKNOWN_SITE = Site({})
"""Where there is no SLURM to ask: its own defaults."""


def is_installed() -> bool:
    """Whether jobs can be submitted from this machine."""
    return shutil.which("sbatch") is not None


def ping() -> None:
    """Ask whether SLURM's controller answers; other commands wait long for one that does not.

    Raises:
        UserError: it does not.
    """
    found = _ask("scontrol", "ping", timeout_s=_PING_S)
    if found.returncode != 0:
        raise UserError(
            f"SLURM does not answer ({_gist(found.stdout + found.stderr)}); try again later, or "
            f"run here with --cluster local"
        )


def site() -> Site:
    """What the cluster says of itself.

    Raises:
        UserError: it does not answer.
    """
    shown = _ask("scontrol", "show", "partition", "--oneliner")
    settings = _ask("scontrol", "show", "config")
    if shown.returncode or settings.returncode:
        raise UserError(f"SLURM does not answer: {_gist(shown.stderr + settings.stderr)}")
    partitions = {}
    for line in shown.stdout.splitlines():
        fields = dict(re.findall(r"(\w+)=(\S*)", line))
        if name := fields.get("PartitionName"):
            is_default = fields.get("Default") == "YES"
            partitions[name] = Partition(name, is_default, _minutes(fields.get("MaxTime", "")))
    size = re.search(r"^MaxArraySize\s*=\s*(\d+)", settings.stdout, re.MULTILINE)
    return Site(partitions, int(size[1]) if size else _MAX_ARRAY_SIZE)


def check_partition(site: Site, stage: str, partition: str | None, minutes: int) -> None:
    """Check what SLURM lets wait for ever: a time limit that no named partition has.

    Args:
        site: the cluster.
        stage: for the message.
        partition: names with commas between; None for the default one.
        minutes: the time limit.

    Raises:
        ConfigError: a partition is unknown, or the limit is too long for all.
    """
    names = partition.split(",") if partition else []
    for name in names:
        if name not in site.partitions:
            hint = did_you_mean(name, site.partitions)
            raise ConfigError(
                f'{stage}.partition: "{name}" is unknown{hint}; there are: '
                f"{', '.join(sorted(site.partitions))}"
            )
    chosen = [
        p for p in site.partitions.values() if p.name in names or (not names and p.is_default)
    ]
    limits = [p.max_minutes for p in chosen if p.max_minutes is not None]
    if chosen and len(limits) == len(chosen) and minutes > max(limits):
        raise ConfigError(
            f"{stage}.time_minutes: {minutes} is more than partition "
            f"{' or '.join(p.name for p in chosen)} allows, which is {max(limits)}; ask for less: "
            f"a job that reaches its limit saves and is queued again"
        )


def would_take(text: str, what: str, ignored: Iterable[str] = ()) -> None:
    """Ask SLURM whether it would take a batch script; nothing is queued.

    Args:
        text: the script, without dependencies.
        what: for the message: the stage, and what it asks for.
        ignored: variables of the environment that must not count.

    Raises:
        ConfigError: it would not.
    """
    found = _ask("sbatch", "--test-only", given=text, ignored=ignored)
    if found.returncode != 0:
        raise ConfigError(
            f"{what}: SLURM refuses it: {_gist(found.stderr)}; change the profile, and see `sinfo` "
            f"for what there is"
        )


def submit(script: Path, dependency: str | None, ignored: Iterable[str] = ()) -> str:
    """Submit a batch script; returns the job's id.

    Args:
        script: the file.
        dependency: what it waits for, as in ``afterok:12``.
        ignored: variables of the environment that must not count.

    Raises:
        UserError: SLURM refuses it.
    """
    options = [f"--dependency={dependency}"] if dependency else []
    found = _ask("sbatch", "--parsable", *options, str(script), ignored=ignored)
    if found.returncode != 0:
        raise UserError(
            f"SLURM refuses {script}: {_gist(found.stderr)}; nothing is queued: submit again when "
            f"there is place, or change the profile"
        )
    return found.stdout.strip().partition(";")[0]


def cancel(jobs: Iterable[str]) -> None:
    """Take jobs out of the queue, and end those that run.

    Raises:
        CardamageError: SLURM does not do it.
    """
    if wanted := list(jobs):
        found = _ask("scancel", *reversed(wanted))
        if found.returncode != 0:
            raise CardamageError(f"scancel {' '.join(wanted)} failed: {_gist(found.stderr)}")


def nodes_here(host: str) -> bool:
    """Whether a node of the cluster is this machine."""
    found = _ask("scontrol", "show", "nodes", "--oneliner")
    names = re.findall(r"\b(?:NodeHostName|NodeName)=(\S+)", found.stdout)
    return host in names or host.partition(".")[0] in names


def _ask(
    *command: str,
    given: str | None = None,
    ignored: Iterable[str] = (),
    timeout_s: int = _TIMEOUT_S,
) -> subprocess.CompletedProcess[str]:
    environment = clean(os.environ)
    for name in ignored:
        environment.pop(name, None)
    try:
        return subprocess.run(
            command,
            env=environment,
            input=given,
            stdin=None if given is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        raise UserError(
            f"{command[0]} is not on this machine's path; submit from a login node of the cluster, "
            f"or run here with --cluster local"
        ) from None
    except subprocess.TimeoutExpired as error:  # what it said has not been decoded
        said = f" ({_gist(error.stderr.decode(errors='replace'))})" if error.stderr else ""
        raise UserError(
            f"{command[0]} gave no answer within {timeout_s} s{said}; try again when SLURM is well"
        ) from None


def _minutes(text: str) -> int | None:
    """Minutes of SLURM's ``days-hours:minutes:seconds``; None when there is no limit."""
    found = _MINUTES.fullmatch(text)
    if found is None:
        return None
    days, hours, minutes, _ = (int(part or 0) for part in found.groups())
    return (days * 24 + hours) * 60 + minutes


def _gist(text: str) -> str:
    """The telling line of what a SLURM command complained."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "failure" in line] or lines or ["it gives no reason"]
    return re.sub(
        r"^\w+: (error: )?|allocation failure: |Batch job submission failed: ", "", telling[0]
    )
