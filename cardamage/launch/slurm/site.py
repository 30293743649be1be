"""What a SLURM cluster says of itself before a submission."""

import re
import shutil
from collections.abc import Mapping
from typing import NamedTuple

from cardamage.errors import CardamageError, ConfigError, UserError, did_you_mean
from cardamage.launch.slurm.limits import Limits, ask_limits
from cardamage.launch.watching import queue
from cardamage.launch.watching.client import ask, gist
from cardamage.system.console import log

TIMEOUT_S = 30.0
"""How long a question to SLURM may take."""


class Partition(NamedTuple):
    """A partition: jobs that name none go to the default; ``max_minutes`` is None for any."""

    name: str
    is_default: bool
    max_minutes: int | None


class Site(NamedTuple):
    """What a cluster says of itself: partitions by name; indices of arrays are below the size."""

    partitions: Mapping[str, Partition]
    max_array_size: int = 1001  # SLURM's default
    limits: Limits = Limits()


def site_or_defaults() -> Site:
    """What the cluster says of itself, for a dry run; SLURM's own defaults where nobody answers."""
    if shutil.which("sbatch"):
        try:
            return ask_site()
        except UserError as error:
            log.warning("%s; SLURM's own defaults are taken for the site's", error)
    return Site({})


def ask_site() -> Site:
    """What the cluster says of itself.

    Raises:
        UserError: it does not answer.
    """
    try:
        queue.ping()
    except CardamageError as error:
        raise UserError(f"{error}; try again later, or run here with --cluster local") from None
    shown = ask("scontrol", "show", "partition", "--oneliner", timeout_s=TIMEOUT_S)
    settings = ask("scontrol", "show", "config", timeout_s=TIMEOUT_S)
    if shown.returncode or settings.returncode:
        raise UserError(f"SLURM does not answer: {gist(shown.stderr + settings.stderr)}")
    partitions, qualities = {}, {}
    for line in shown.stdout.splitlines():
        fields = dict(re.findall(r"(\w+)=(\S*)", line))
        if name := fields.get("PartitionName"):
            is_default = fields.get("Default") == "YES"
            partitions[name] = Partition(name, is_default, _minutes(fields.get("MaxTime", "")))
            for meant in (name, "") if is_default else (name,):
                qualities[meant] = fields.get("QoS", "")
    size = re.search(r"^MaxArraySize\s*=\s*(\d+)", settings.stdout, re.MULTILINE)
    enforced = re.search(
        r"^AccountingStorageEnforce\s*=.*\b(limits|safe)\b", settings.stdout, re.MULTILINE
    )
    return Site(
        partitions,
        int(size[1]) if size else Site({}).max_array_size,
        ask_limits(qualities) if enforced else Limits(),
    )


def check_partition(site: Site, stage: str, partition: str | None, minutes: int) -> None:
    """Check what SLURM lets wait for ever: a time limit that no partition has.

    Of several partitions, with commas between, one has to have it; of none, the default one.

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
    known = site.partitions.values()
    chosen = [p for p in known if (p.name in names if names else p.is_default)]
    limits = [p.max_minutes for p in chosen if p.max_minutes is not None]
    if chosen and len(limits) == len(chosen) and minutes > max(limits):
        raise ConfigError(
            f"{stage}.time_minutes: {minutes} is more than partition "
            f"{' or '.join(p.name for p in chosen)} allows, which is {max(limits)}; ask for less: "
            f"a job that reaches its limit saves and is queued again"
        )


def _minutes(text: str) -> int | None:
    """Minutes of SLURM's ``days-hours:minutes:seconds``; None when there is no limit."""
    if found := re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):\d+", text):
        days, hours, minutes = (int(part or 0) for part in found.groups())
        return (days * 24 + hours) * 60 + minutes
    return None
