"""The text of a new profile: every value with a comment that says what it was read from, or that it was guessed."""

from __future__ import annotations

import json
import re
import textwrap
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from launch.config.profile_fields import GpuForm, GpuRequest
from launch.site import choose
from launch.site.choose import Choice
from launch.site.cluster_info import ClusterInfo, NodeGroup, PartitionFacts
from launch.site.storage import StorageArea
from launch.slurm import ask

WIDTH = 118
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./+-]*\Z")
_WORDS = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")
_MODULES = re.compile(
    r"(?:^|/)(?:python|cuda|rocm|pytorch|apptainer|singularity|conda|miniforge|nccl)[^/]*", re.IGNORECASE
)
_MAX_MODULES = 12


@dataclass(frozen=True)
class Tools:
    """Executables on PATH, interfaces of the login node, and the ``gpu_request`` that ``sbatch --test-only`` accepted
    (None: it accepted none, or was not asked)."""

    executables: dict[str, str] = field(default_factory=dict)
    fast_interfaces: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()
    gpu_request: GpuRequest | None = None
    gpu_why: str = ""


@dataclass(frozen=True)
class NewProfile:
    """Everything that the text depends on."""

    name: str
    facts: ClusterInfo
    choice: Choice
    places: Sequence[StorageArea]
    groups: Collection[str]
    tools: Tools
    devcluster: bool
    where: str
    python: str


def scalar(value: str) -> str:
    """Text as YAML: quoted where it could be taken for something else."""
    return value if _PLAIN.match(value) and value.lower() not in _WORDS else json.dumps(value, ensure_ascii=False)


def render(new: NewProfile) -> str:
    """The whole file."""
    lines = [*_head(new), f"name: {new.name}", "executor: slurm"]
    if new.devcluster:
        lines += _set("devcluster: true", "SLURM_CONF is that of `overnight cluster up`")
    lines += ["", *_workspace(new), "", *_partitions(new), "", *_queue(new), "", *_requests(new), "", *_resources(new)]
    lines += ["", *_containers(new), "", *_environments(new), "", *_network(new), "", *_going_on(new)]
    return "\n".join(lines) + "\n"


def _comment(text: str, indent: str = "") -> list[str]:
    text = ask.plain(text)
    return [f"{indent}# {line}" for line in textwrap.wrap(text, WIDTH - len(indent) - 2, break_long_words=False)]


def _set(text: str, why: str) -> list[str]:
    """A line with its comment behind it, or above it where that would be too long."""
    if not why:
        return [text]
    if len(text) + len(why) + 4 <= WIDTH:
        return [f"{text}  # {why}"]
    indent = text[: len(text) - len(text.lstrip())]
    return [*_comment(why, indent), text]


def _off(text: str, why: str) -> list[str]:
    """A line that is not in force, for the user to take the ``#`` away."""
    return [*_comment(f"{why}:"), f"# {text}"]


def _head(new: NewProfile) -> list[str]:
    facts = new.facts
    version = facts.config.get("SLURM_VERSION", "of unknown version")
    when = time.strftime("%Y-%m-%d")
    lines = _comment(
        f"The cluster {facts.cluster or '?'} (Slurm {version}) as user {facts.user} saw it from {new.where} on {when}; "
        "written by `overnight profile init`."
    )
    lines += ["#"]
    lines += _comment(
        "Behind each value: the command that it was read from, or `guessed` and from what. Then: "
        f"overnight profile check {new.name}; overnight profile test {new.name}"
    )
    missing = [f"{command}: {problem}" for command, problem in facts.unknown.items()]
    missing += [f"df {place.path}: {place.problem}" for place in new.places if place.problem]
    if not facts.has_accounting and facts.config:
        missing.append("accounts, QOS and their limits: this cluster keeps no accounting for its users to read")
    if missing:
        lines += ["#", "# Not found out:"]
        for entry in missing:
            lines += [f"#   {line}" for line in textwrap.wrap(entry, WIDTH - 4, break_long_words=False)]
    return [*lines, ""]


def _workspace(new: NewProfile) -> list[str]:
    from launch.site import storage

    lines = ["# -- Where runs and results lie: a directory that all nodes see"]
    best = storage.best(list(new.places))
    for place in new.places:
        if place is not best and not place.problem:
            words = _place(place) + ("" if place.writable else ", not writable")
            lines += _comment(f"${place.variable} is {place.path}: {words}")
    if best is None:
        return [*lines, *_off("workspace: /path/on/a/shared/file/system", "No writable directory was found; fill in")]
    why = f"guessed: ${best.variable}, {_place(best)}"
    if not best.is_shared:
        why += "; not of a kind that nodes usually share: `overnight profile test` tries it"
    lines += _set(f"workspace: {scalar(best.path.rstrip('/') + '/overnight')}", why)
    limited = [place for place in new.places if place.quota is not None]
    lines += ["file_systems:"] if limited else []
    for place in limited:
        used = f"`{place.quota_from}`: {place.used / 2**40:.2f} of {(place.quota or 0) / 2**40:.2f} TiB are used"
        value = f"{{path: {scalar(place.path)}, quota: {(place.quota or 0) >> 20}M}}"
        lines += _set(f"  {place.variable.lower()}: {value}", used)
    return lines


def _place(place: StorageArea) -> str:
    return f"{place.kind or 'unknown file system'}, {place.free / 1e12:.1f} TB free"


def _partitions(new: NewProfile) -> list[str]:
    lines = ["# -- Partitions: `scontrol show partition` and `sinfo`; the plan refuses what goes beyond these limits"]
    refused = {each.name: choose.refusal(each, new.facts, new.groups) for each in new.facts.partitions}
    for name, why in refused.items():
        lines += _comment(f"{name}: not for you, it {why}") if why else []
    usable = [each for each in new.facts.partitions if not refused[each.name]]
    if not usable:
        return [*lines, *_off('partitions: {NAME: {max_time: "1-00:00:00", gpus: 8}}', "None could be read; fill in")]
    return [*lines, "partitions:", *(line for each in usable for line in _partition(each))]


def _partition(each: PartitionFacts) -> list[str]:
    words = [f"{each.nodes} node{'s' if each.nodes != 1 else ''}", "the default one" if each.is_default else ""]
    lines = _set(f"  {scalar(each.name)}:", ", ".join(word for word in words if word))
    values: list[tuple[str, str, str]] = []
    if each.max_time:
        values.append(("max_time", json.dumps(each.max_time), ""))
    else:
        lines += _comment("no time limit", "    ")
    if each.max_nodes is not None or each.nodes:
        known = min(number for number in (each.max_nodes, each.nodes) if number)
        values.append(("max_nodes", str(known), "" if each.max_nodes else "all that there are"))
    main = each.main
    if main is not None:
        values += _node(each, main)
    if each.preemptible:
        values.append(("preemptible", "true", "jobs here may be put back into the queue for others"))
    if each.exclusive:
        values.append(("exclusive", "true", "OverSubscribe=EXCLUSIVE: whole nodes whatever is asked for"))
    for key, value, why in values:
        lines += _set(f"    {key}: {value}", why)
    return lines


def _node(each: PartitionFacts, main: NodeGroup) -> Iterable[tuple[str, str, str]]:
    threads = "" if main.threads_per_core == 1 else f"hardware threads, {main.threads_per_core} a core"
    kinds = len({(group.cpus, group.gpus, group.gpu_model) for group in each.groups})
    others = f"of {main.nodes} nodes; there are {kinds} kinds" if kinds > 1 else ""
    yield "cpus", str(main.cpus), ", ".join(word for word in (threads, others) if word)
    yield "memory", f"{min(main.memory_mb, each.max_memory_mb or main.memory_mb)}M", ""
    yield "gpus", str(main.gpus), ""
    if main.gpu_model:
        yield "gpu_model", scalar(main.gpu_model), "as in the site's GRES"
    if main.features:
        yield "features", f"[{', '.join(map(scalar, main.features))}]", ""


def _queue(new: NewProfile) -> list[str]:
    choice, facts = new.choice, new.facts
    lines = ["# -- Options of every job"]
    for key, value in (("partition", choice.partition), ("account", choice.account), ("qos", choice.qos)):
        if value is not None:
            lines += _set(f"{key}: {scalar(value.value)}", value.why)
    if choice.qos is None and facts.associations:
        known = sorted({name for each in facts.associations for name in each.qos})
        words = ", ".join(f"{name} {choose.qos_words(facts.qos.get(name))}".strip() for name in known)
        lines += _off("qos: NAME", f"Without a QOS Slurm takes your default one. `sacctmgr` says that you have {words}")
    if choice.queued is not None:
        # With one job at a time nobody is left to submit the next: that is up to `overnight resume`.
        lines += _set(f"submission: rolling({max(2, int(choice.queued.value))})", choice.queued.why)
    return lines


def _requests(new: NewProfile) -> list[str]:
    tools, choice, facts = new.tools, new.choice, new.facts
    lines = ["# -- How GPUs, nodes and memory are asked for"]
    if choice.gpus:
        request = tools.gpu_request or choose.gpu_requests(facts, choice.node.gpu_model if choice.node else None)[0]
        model = f", model: {scalar(request.model)}" if request.model else ""
        lines += _set(f"gpu_request: {{form: {request.form.value}{model}}}", tools.gpu_why)
    else:
        lines += _set(f"gpu_request: {{form: {GpuForm.NONE.value}}}", "guessed: `sinfo` shows no GPUs")
    if facts.config and not facts.memory_counts:
        kind = facts.config.get("SelectTypeParameters", "?")
        lines += _set("mem: never", f"`scontrol show config`: SelectTypeParameters={kind} gives out no memory")
    return lines


def _resources(new: NewProfile) -> list[str]:
    choice, facts, node = new.choice, new.facts, new.choice.node
    lines = [
        "# -- Defaults of the kinds of jobs; a pipeline may say otherwise (resources:, or keys of a stage)",
        "resources:",
    ]
    hour = choose.time_text(min(3600, choice.seconds))
    small: dict[str, str] = {"time": json.dumps(hour)}
    if node is not None and node.cpus:
        cpus = min(4, node.cpus)
        small = {"cpus": str(cpus), **_memory(new, node, cpus / node.cpus), **small}
    lines += _set(f"  default: {_flow(small)}", "guessed")
    lines += _training(new)
    data = _data(new)
    if data:
        why = choice.data_partition or choice.data_constraint
        lines += _set(f"  data: {_flow(data)}", why.why if why is not None else "")
    if choice.gpus and node is not None:
        one = {"gpus_per_node": "1", "cpus": str(max(1, node.cpus // node.gpus)), **_memory(new, node, 1 / node.gpus)}
        if choice.constraint is not None:
            one["constraint"] = scalar(choice.constraint.value)
        for kind in ("evaluate", "convert"):
            lines += _set(f"  {kind}: {_flow(one)}", "guessed: one GPU and its share of a node")
    if facts.memory_counts and node is not None:
        lines += _comment('mem: "0" is all of a node\'s memory. Slurm gives out memory here (SelectTypeParameters).')
    return lines


def _training(new: NewProfile) -> list[str]:
    choice, node = new.choice, new.choice.node
    values: dict[str, str] = {}
    if node is not None:
        values["cpus"] = str(node.cpus)
        if node.gpus:
            values |= {"gpus_per_node": str(node.gpus), "processes_per_node": str(node.gpus)}
        if new.facts.memory_counts:
            partition = new.facts.partition(choice.partition.value) if choice.partition else None
            limit = partition.max_memory_mb if partition is not None else None
            values["mem"] = f"{limit}M" if limit else '"0"'
    values["time"] = json.dumps(choose.time_text(choice.seconds))
    if choice.constraint is not None:
        values["constraint"] = scalar(choice.constraint.value)
    why = f"whole nodes; time: {choice.time_why}"
    lines = _comment(f"constraint: {choice.constraint.why}", "  ") if choice.constraint is not None else []
    return [*lines, *_set(f"  training: {_flow(values)}", why)]


def _data(new: NewProfile) -> dict[str, str]:
    choice, facts = new.choice, new.facts
    values: dict[str, str] = {}
    if choice.data_partition is not None:
        values["partition"] = scalar(choice.data_partition.value)
        partition = facts.partition(choice.data_partition.value)
        node = partition.main if partition is not None else None
        if node is not None and node.cpus:
            cpus = min(8, node.cpus)
            values |= {"cpus": str(cpus), **_memory(new, node, cpus / node.cpus)}
    if choice.data_constraint is not None:
        values["constraint"] = scalar(choice.data_constraint.value)
    return values


def _memory(new: NewProfile, node: NodeGroup, share: float) -> dict[str, str]:
    if not new.facts.memory_counts:
        return {}
    return {"mem": f"{max(512, int(node.memory_mb * share * 0.95))}M"}


def _flow(values: dict[str, str]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in values.items()) + "}"


def _containers(new: NewProfile) -> list[str]:
    facts, tools = new.facts, new.tools
    lines = ["# -- Containers; which image is set per back end (environments) or per stage (image:)"]
    engine = "environment" in facts.srun_options
    for name in ("apptainer", "singularity", "enroot"):
        if name in tools.executables:
            lines += _comment(f"On this login node: {tools.executables[name]}")
    if "container-image" in facts.srun_options:
        return [*lines, *_set("containers: {runtime: pyxis}", "`srun --help` has --container-image")]
    if engine:
        return [*lines, *_set("containers: {runtime: container_engine}", "`srun --help` has --environment")]
    model = (new.choice.node.gpu_model or "").lower() if new.choice.node is not None else ""
    gpus = f", gpus: {'amd' if model.startswith('mi') else 'nvidia'}" if new.choice.gpus else ""
    for name in ("apptainer", "singularity"):
        if name in tools.executables:
            called = ", executable: singularity" if name == "singularity" else ""
            why = f"guessed: there is {name}; no option of pyxis in `srun --help`"
            return [*lines, *_set(f"containers: {{runtime: apptainer{called}{gpus}}}", why)]
    if facts.unknown.get("srun --help"):
        return [*lines, *_off("containers: {runtime: pyxis | apptainer}", "srun could not be asked; fill in")]
    return [*lines, *_set("containers: {runtime: none}", "no option of pyxis in `srun --help`, no apptainer on PATH")]


def _environments(new: NewProfile) -> list[str]:
    facts = new.facts
    lines = ["# -- Where each back end is installed; without an entry it is the Python that runs overnight"]
    lines += _comment(f"That is {new.python}, which the nodes must see at the same path.")
    if facts.module_system is not None:
        found = [name for name in facts.modules if _MODULES.search(name)]
        shown = ", ".join(found[:_MAX_MODULES]) + (", ..." if len(found) > _MAX_MODULES else "")
        lines += _comment(f"`module avail` ({facts.module_system}): {shown or 'nothing of Python, CUDA or containers'}")
    lines += [
        "# environments:",
        "#   nemo: {venv: /path/to/venv}",
        "#   nemo_rl: {image: /path/to/image.sqsh}",
        "#   trl: {modules: [NAME/VERSION], python: python3}",
    ]
    return lines


def _network(new: NewProfile) -> list[str]:
    tools = new.tools
    lines = ["# -- Network. NCCL and gloo find an interface by themselves, not always the fast one."]
    known = ", ".join((*tools.fast_interfaces, *tools.interfaces)) or "none but loop-back"
    lines += _comment(f"This login node has {known}; nodes may differ. `overnight profile test` looks there.")
    if tools.fast_interfaces:
        name = tools.fast_interfaces[0].rstrip("0123456789")
        first = tools.fast_interfaces[0]
        lines += _off(f"env: {{NCCL_SOCKET_IFNAME: {name}, GLOO_SOCKET_IFNAME: {first}}}", "Guessed from it")
    return lines


def _going_on(new: NewProfile) -> list[str]:
    config = new.facts.config
    lines = ["# -- How a stage goes on after its time limit"]
    may = config.get("JobRequeue")
    why = "guessed; `overnight profile test` tries it" + (f" (JobRequeue={may})" if may is not None else "")
    lines += _set("continuation: requeue", why)
    wait = config.get("KillWait")
    lines += _set('lead: "2:00"', "guessed: before its end a stage saves" + (f"; KillWait is {wait}" if wait else ""))
    return lines
