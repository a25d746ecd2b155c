"""What an error of a Slurm command means: no answer, or a refusal, and of what.

The patterns are messages of Slurm's ``slurm_strerror`` and of its clients, 22.05 to 24.11.
"""

from __future__ import annotations

import re

from launch.slurm import reasons
from launch.slurm.options import ACCOUNTS, OPTIONS, Refusal

#: The controller, the database or the network did not answer; the request may or may not have been carried out.
SILENCE = (
    "Unable to contact slurm controller",
    "Socket timed out",
    "Connection refused",
    "Connection reset",
    "Connection timed out",
    "Communication connection failure",
    "Transport endpoint is not connected",
    "Zero Bytes were transmitted or received",
    "Message send failure",
    "Message receive failure",
    "Unexpected message received",
    "controller in standby mode",
    "controller is in standby mode",
    "slurmctld not responding",
    "slurmctld is not responding",
    "slurmctl not responding",
    "slurmctl is not responding",
    "Resource temporarily unavailable",
    "temporarily unable to accept job",
    "job update not available right now",
    "Problem talking to the database",
    "RPC rate limit",
)
# Patterns stay texts: re compiles what a refusal needs, and a submission that is not refused needs none.
_SILENT = "(?i)" + "|".join(SILENCE)

#: "Munge encode failed: Failed to access ...: Connection refused" is about this machine, not about the controller.
_MUNGE = r"[Mm]unge (?:encode|decode) failed"

_FIRST = (
    Refusal(
        r"Could not establish a configuration source|DNS SRV lookup failed",
        "this machine does not know where Slurm's controller is",
        "run this on a login node of the cluster, or export SLURM_CONF=/path/to/slurm.conf",
    ),
    Refusal(r"[Mm]unge|authentication credential|Protocol authentication error", "Slurm does not accept who we are"),
)

#: Of options, the precise ones before the general.
_OF_OPTIONS = sorted(
    dict.fromkeys(refusal for row in OPTIONS.values() for refusal in row.refusals),
    key=lambda refusal: refusal.is_general,
)

_LAST = (
    Refusal(r"Invalid node name", "there is no such node", "sinfo -N"),
    Refusal(r"dependency problem|Job dependency", "a job that it depends on is not known to Slurm any more"),
    Refusal(
        r"unrecognized option|unknown option|invalid option",
        "this Slurm does not know an option that we pass",
        "remove it in the cluster profile",
    ),
    Refusal(r"Requested operation is presently disabled", "the site or the job's --no-requeue forbids this"),
    Refusal(r"Invalid job id", "Slurm does not know this job (any more)"),
    Refusal(r"no longer pending", "the job is not waiting any more"),
    Refusal(r"already (?:complet|finished)", "the job has already ended"),
    Refusal(r"Access/permission denied|Invalid user id|not permitted", "you may not do this"),
    Refusal(r"accounting storage is disabled", "this cluster keeps no accounting"),
)

#: Options that sbatch and srun themselves name: one that it does not know, or whose value it cannot read.
_NAMED = (
    r"(?i)(?:unrecognized|unknown|invalid) option '?--([a-z][a-z0-9-]*)"
    r"|(?:Invalid|unrecognized) --([a-z][a-z0-9-]*) (?:specification|argument)"
    r"|(?:for|parse) --([a-z][a-z0-9-]*)\b"
    r"|option '--([a-z][a-z0-9-]*)' doesn't allow"
    r"|Invalid (MPI) type"
)


#: Slurm's own reason; above it may stand lines of the site (job_submit plugins, filters), which speak of anything.
_FAILED = r"(?m)^.*(?:submission failed|allocation failure): (.+)$"
_PREFIX = r"^(?:sbatch|srun|salloc): (?:error: |warning: )?"


def site_words(stderr: str) -> str:
    """What a site's own filter said, where Slurm itself gives no reason ("Unspecified error"); else empty."""
    found = re.findall(_FAILED, stderr)
    if not found or not found[-1].startswith("Unspecified error"):
        return ""
    lines = (re.sub(_PREFIX, "", line.strip()) for line in stderr.splitlines() if not re.match(_FAILED, line))
    return "; ".join(line for line in lines if line.strip())


def _reasons(stderr: str) -> tuple[str, ...]:
    """Where to look for a reason, the surest first: Slurm's own line, then all; nothing where the site refused."""
    if site_words(stderr):
        return ()
    found = list(re.finditer(_FAILED, stderr))
    return (found[-1][0], stderr) if found else (stderr,)


def about(stderr: str) -> tuple[str, ...]:
    """Names of the options of sbatch or srun that a refusal may be about, without dashes; empty: of none."""
    named = tuple(next(filter(None, found)).lower() for found in re.findall(_NAMED, stderr))
    if named:
        return named
    each = ([one for one in _OF_OPTIONS if re.search(one.pattern, text)] for text in _reasons(stderr))
    found = next(filter(None, each), [])
    # "Memory ... can not be satisfied" is followed by a line about the node configuration: the precise one counts.
    precise = {refusal for refusal in found if not refusal.is_general} or set(found)
    return tuple(row.name for row in OPTIONS.values() if precise & {*row.refusals})


_POLICY = r"violates accounting/QOS policy|AccountingPolicy|policy \(job submit limit"


def is_silence(stderr: str) -> bool:
    """Whether this error means that nobody answered (so the outcome is open) rather than a refusal."""
    return re.search(_SILENT, stderr) is not None and re.search(_MUNGE, stderr) is None


def is_submit_limit(stderr: str) -> bool:
    """Whether too many jobs are in the queue for this one: later it may be accepted."""
    return re.search(r"(?:QOS|Assoc)(?:Max|Grp)SubmitJob", stderr) is not None


def explain(stderr: str) -> tuple[str, str | None]:
    """A refusal in plain words, and the next thing to try if there is one."""
    if site := site_words(stderr):
        return f"the site's own rules: {site}", "change what they name in profile or pipeline, then submit again"
    said = next(iter(_reasons(stderr)))
    limit = reasons.limit_in_words(stderr if re.search(_POLICY, said) else said)
    if limit:
        return f"a limit of the site is reached: {limit}", "wait until your other jobs are done, then: overnight resume"
    if re.search(_POLICY, stderr):
        return (
            "a limit of your account or QOS is reached (jobs, size or time; Slurm does not say which)",
            f"{ACCOUNTS}; then: overnight resume",
        )
    for text in _reasons(stderr):
        for refusal in (*_FIRST, *_OF_OPTIONS, *_LAST):
            if re.search(refusal.pattern, text):
                return refusal.meaning, refusal.hint
    lines = [line for line in stderr.splitlines() if line.strip()]
    return (lines[-1].strip() if lines else "it gave no reason"), None
