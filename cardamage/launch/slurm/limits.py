"""How many jobs a person may still submit, by the limits of accounts and qualities of service."""

import getpass
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from cardamage.errors import ConfigError, UserError
from cardamage.launch.planning.profiles import SlurmProfile
from cardamage.launch.slurm.batch_job import BatchJob, asked_for
from cardamage.launch.watching.client import ask, defaults_of_user

_TIMEOUT_S = 30.0
_NORMAL = "normal"  # the quality of service of those that have no other


class Limit(NamedTuple):
    """A limit on jobs that wait or run: ``used`` of the ``most`` are there."""

    name: str
    most: int
    used: int


@dataclass(frozen=True)
class Limits:
    """What holds for jobs by the account, by the quality of service, and by the partition's own.

    An account has the limits of the accounts above it, too.
    """

    accounts: Mapping[str, tuple[Limit, ...]] = field(default_factory=dict)
    qualities: Mapping[str, tuple[Limit, ...]] = field(default_factory=dict)
    default_account: str = ""
    default_qualities: Mapping[str, str] = field(default_factory=dict)
    partition_qualities: Mapping[str, str] = field(default_factory=dict)

    def exceeded(self, jobs: Iterable[BatchJob], profile: SlurmProfile) -> tuple[Limit, int] | None:
        """The first limit that jobs would exceed, and how many of them count; None when they fit.

        An element of an array counts as a job.
        """
        wanted: Counter[Limit] = Counter()
        for job in jobs:
            wanted.update(dict.fromkeys(self._of(job, profile), job.elements))
        for limit, count in wanted.items():
            if limit.used + count > limit.most:
                return limit, count
        return None

    def _of(self, job: BatchJob, profile: SlurmProfile) -> Iterator[Limit]:
        asked, own = asked_for(job, profile), defaults_of_user()
        account = asked.account or own.get("SBATCH_ACCOUNT") or self.default_account
        quality = asked.qos or own.get("SBATCH_QOS")
        qualities = {quality or self.default_qualities.get(account, _NORMAL)}
        partition = asked.partition or own.get("SBATCH_PARTITION") or ""
        qualities.update(self.partition_qualities.get(name, "") for name in partition.split(","))
        yield from self.accounts.get(account, ())
        for name in sorted(qualities):
            yield from self.qualities.get(name, ())


def ask_limits(partition_qualities: Mapping[str, str]) -> Limits:
    """The limits that hold for this user; none where nobody tells.

    Limits, and how far they are used, are of ``scontrol show assoc_mgr``; but those of a quality of
    service per user are there only once it was used, and so are of accounting.
    """
    user = getpass.getuser()
    questions = (
        ("scontrol", "show", "assoc_mgr", f"users={user}", "flags=assoc,qos"),
        ("sacctmgr", "-nP", "show", "qos", "format=Name,GrpSubmit,MaxSubmitPU"),
        ("sacctmgr", "-nP", "show", "assoc", "where", f"user={user}", "format=Account,DefaultQOS"),
    )
    try:
        with ThreadPoolExecutor(len(questions)) as threads:  # accounting answers slowly
            shown, named, of_user = threads.map(lambda words: _lines(*words), questions)
    except UserError:
        return Limits()
    accounts, default = _accounts("\n".join(shown), user)
    return Limits(
        accounts=accounts,
        qualities=_qualities("\n".join(shown), named),
        default_account=default,
        default_qualities={
            account: quality
            for account, _, quality in (line.partition("|") for line in of_user)
            if quality
        },
        partition_qualities=partition_qualities,
    )


def too_many(limit: Limit, count: int, *, is_search: bool) -> ConfigError:
    """The error of a submission that no number of runs per job makes fit."""
    left = max(0, limit.most - limit.used)
    fewer = (
        "search in fewer rounds, with a higher parallel or fewer rungs"
        if is_search
        else "submit fewer runs at a time"
    )
    return ConfigError(
        f"{limit.name} is {limit.most}, of which {limit.used} jobs are queued or running; this "
        f"submission needs at least {count} more, and {left} may be submitted; wait for some to "
        f"end, {fewer}, or set another account or qos in the profile"
    )


def _lines(*command: str) -> list[str]:
    return ask(*command, timeout_s=_TIMEOUT_S).stdout.splitlines()


def _accounts(shown: str, user: str) -> tuple[dict[str, tuple[Limit, ...]], str]:
    """The limits of this user's jobs by account, and the default account."""
    of_user: dict[str, list[Limit]] = {}
    of_all: dict[str, tuple[list[Limit], str]] = {}
    default = ""
    for text in shown.partition("QOS Records")[0].split("ClusterName=")[1:]:
        account, name = _word("Account", text), _word("UserName", text).partition("(")[0]
        found = list(_limits(text, f"account {account}", "GrpSubmitJobs"))
        if not name:
            of_all[account] = found, _word("ParentAccount", text).partition("(")[0]
        elif name == user:
            own = f"you in account {account}"
            found = list(_limits(text, own, "MaxSubmitJobs", "GrpSubmitJobs"))
            of_user.setdefault(account, []).extend(found)
            default = account if _word("DefAssoc", text) == "Yes" else default
    for account, limits in of_user.items():
        above = account
        while above in of_all:
            found, above = of_all[above]
            limits.extend(found)
    return {account: tuple(limits) for account, limits in of_user.items()}, default


def _qualities(shown: str, named: Iterable[str]) -> dict[str, tuple[Limit, ...]]:
    """The limits of each quality of service, and how far this user has come."""
    blocks = {
        text.partition("(")[0]: text for text in shown.partition("QOS Records")[2].split("QOS=")[1:]
    }
    found = {}
    for line in named:
        name, group, per_user = (*line.split("|"), "", "")[:3]
        block = blocks.get(name, "")
        limits = (
            ("GrpSubmitJobs", group, _used("GrpSubmitJobs", block)),
            ("MaxSubmitJobsPerUser", per_user, _used("MaxSubmitJobsPU", block)),
        )
        found[name] = tuple(
            Limit(f"{kind} of qos {name}", int(most), used)
            for kind, most, used in limits
            if most.isdecimal()
        )
    return found


def _limits(text: str, whose: str, *kinds: str) -> Iterator[Limit]:
    for kind in kinds:
        if found := re.search(rf"\b{kind}=(\d+)\((\d+)\)", text):
            yield Limit(f"{kind} of {whose}", int(found[1]), int(found[2]))


def _used(kind: str, text: str) -> int:
    found = re.search(rf"\b{kind}=\w+\((\d+)\)", text)
    return int(found[1]) if found else 0


def _word(key: str, text: str) -> str:
    found = re.search(rf"\b{key}=(\S*)", text)
    return found[1] if found else ""
