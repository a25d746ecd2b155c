"""What the plan must know of the world: back ends as they are installed, digests of source files, what was fetched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.core.paths import Workspace
from jobs.core.spec import Source
from launch.base.errors import InputError
from launch.config.kinds import FETCHED, JUDGE
from launch.config.measuring import MeasuringStage
from launch.config.pipeline_file import PipelineFile
from launch.config.profile import Profile
from launch.config.references import OWN_BACKENDS, backends
from launch.config.stages import BenchmarkSource, DataStage, GettextSource, PathSource
from launch.inputs import fetch, hugging_face, user_code
from launch.inputs.digests import DigestCache, source_files
from launch.plan.backends import probe
from launch.plan.builder import back_ends_of, uses_code
from launch.plan.harness import harness_tasks
from launch.plan.model import BackEndFacts, Facts, FetchedFacts, data_paths
from launch.plan.probe_cache import ProbeCache


def gather(pipeline: PipelineFile, profile: Profile, workspace: Workspace) -> Facts:
    """What the plan depends on. Raises InputError: a source file or an environment is missing; with its line."""
    sources, fetched = _sources(pipeline, workspace), _fetched(pipeline, workspace)
    named = back_ends_of(pipeline.pipeline)
    code = None if pipeline.pipeline.code is None else pipeline.resolve(pipeline.pipeline.code)
    back_ends = probe(named, profile, code, pipeline.pipeline.secrets, ProbeCache(workspace.back_ends))
    _refuse_not_installed(pipeline, profile, back_ends)
    if (base := fetched.get(FETCHED)) is not None and base.format == "hf":
        _refuse_incomplete(pipeline, workspace, base, back_ends)
    digest = None
    own = sorted(set(named) - set(backends()) - set(OWN_BACKENDS))
    tasks = [vars(stage) for stage in pipeline.pipeline.stages.values() if isinstance(stage, MeasuringStage)]
    if code is not None and (own or any(map(uses_code, tasks))):
        # Of a back end that is the user's code, and of what it measures: any change of the code is another version.
        digest = user_code.digest(code, data_paths(sources.values(), fetched.values()))
        for name in own:
            versions = {**back_ends[name].versions, "code": digest}
            back_ends[name] = replace(back_ends[name], versions=versions)
    return Facts(
        back_ends=back_ends,
        sources=sources,
        fetched=fetched,
        core_python=profile.core_python,
        code=digest,
        tasks=harness_tasks(pipeline, profile, workspace),
        rubrics=_rubrics(pipeline),
    )


def _sources(pipeline: PipelineFile, workspace: Workspace) -> dict[str, tuple[Source, ...]]:
    cache = DigestCache(workspace.digests)
    found: dict[str, tuple[Source, ...]] = {}
    for name, stage in pipeline.pipeline.stages.items():
        if not isinstance(stage, DataStage):
            continue
        source = pipeline.pipeline.source_of(name)
        if not isinstance(source, PathSource):
            continue
        try:
            found[name] = tuple(cache.digest(path) for path in source_files(pipeline.resolve(source.path)))
        except InputError as error:
            named = stage.source in pipeline.pipeline.sources
            place = ("sources", stage.source, "path") if named else ("stages", name, "from")
            raise pipeline.error(place, error.message, error.hint) from error
        try:
            others = {file for path in _paths_in(stage.prepare) for file in source_files(Path(path))}
            others -= {Path(source.path) for source in found[name]}
            found[name] += tuple(cache.digest(file) for file in sorted(others))
        except InputError as error:
            raise pipeline.error(("stages", name, "prepare"), error.message, error.hint) from error
    cache.save()
    return found


def _rubrics(pipeline: PipelineFile) -> dict[str, str]:
    found = {}
    for name, judge in pipeline.pipeline.judges.items():
        if judge.rubric is None:
            continue
        try:
            found[name] = pipeline.resolve(judge.rubric).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise pipeline.error(("judges", name, "rubric"), f"{judge.rubric}: cannot be read: {error}") from error
        if not found[name].strip():
            raise pipeline.error(("judges", name, "rubric"), f"{judge.rubric} is empty")
    return found


def _refuse_not_installed(pipeline: PipelineFile, profile: Profile, back_ends: Mapping[str, BackEndFacts]) -> None:
    """Raises InputError: a back end lacks what it always needs, or a data stage what ``prepare`` needs. What is in
    images and modules cannot be seen here."""
    for name, facts in back_ends.items():
        lacking = sorted(facts.capabilities.needs - facts.versions.keys())
        if lacking and facts.versions.keys().isdisjoint(("image", "modules")):
            install = f"{facts.python} -m pip install 'overnight[{facts.capabilities.extra}]'; or "
            raise InputError(
                f"back end {name!r}: {', '.join(lacking)} is not installed in {facts.python}",
                hint=f"{install if facts.capabilities.extra else ''}set environments.{name}.venv in the profile "
                f"{profile.name!r}",
            )
    data = back_ends.get("data")
    if data is None or data.versions.get("tokenizers") != "missing":
        return
    for name, stage in pipeline.pipeline.stages.items():
        if isinstance(stage, DataStage) and stage.prepare is not None:
            text = f"needs the extra data, which {data.python} does not have"
            hint = f"{data.python} -m pip install 'overnight[data]'"
            raise pipeline.error(("stages", name, "prepare"), text, hint)


def _refuse_incomplete(
    pipeline: PipelineFile, workspace: Workspace, base: FetchedFacts, back_ends: Mapping[str, BackEndFacts]
) -> None:
    """Raises InputError: the base model lacks files that a back end reads with transformers. A model of a hub can be
    looked at once it is fetched."""
    if not any("transformers" in facts.capabilities.needs for facts in back_ends.values()):
        return
    here = pipeline.resolve(pipeline.pipeline.model.base)
    if base.fingerprint is not None and not here.is_dir():
        here = workspace.entry(fetch.KIND.value, base.fingerprint).output
    if here.is_dir() and (problem := hugging_face.problem(here)) is not None:
        text = f"{pipeline.pipeline.model.base}: {problem}"
        raise pipeline.error(("model", "base"), text, "a complete model has config.json, weights and tokenizer.json")


def _paths_in(prepare: dict[str, Any] | None) -> list[str]:
    """Files and directories that ``prepare`` names (made absolute by the command): they decide the result, too."""
    if prepare is None:
        return []
    found = [*prepare.get("evaluation", ()), *prepare.get("compare_with", ())]
    found += [entry["path"] for entry in prepare.get("replay", ())]
    if str(prepare.get("template", "")).endswith(".jinja"):
        found.append(prepare["template"])
    if prepare.get("tokenizer") not in (None, FETCHED):
        tokenizer = Path(prepare["tokenizer"])
        names = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
        found += [str(tokenizer / name) for name in names if name == names[0] or (tokenizer / name).is_file()]
        found += map(str, (tokenizer / "additional_chat_templates").glob("*.jinja"))
    return found


def fetch_items(pipeline: PipelineFile) -> dict[str, fetch.FetchItem]:
    """What ``overnight fetch`` brings for a pipeline, by name: ``base`` where a stage or a judge reads it, other
    judges, and the packages."""
    base = Path(pipeline.path).parent
    found: dict[str, fetch.FetchItem] = {}
    uses = [getattr(stage, "checkpoint", None) for stage in pipeline.pipeline.stages.values()]
    uses += [judge.model.checkpoint for judge in pipeline.pipeline.judges.values()]
    uses += [(getattr(stage, "prepare", None) or {}).get("tokenizer") for stage in pipeline.pipeline.stages.values()]
    if FETCHED in uses:
        try:
            found[FETCHED] = fetch.item(FETCHED, pipeline.pipeline.model.base, base=base)
        except InputError as error:
            raise pipeline.error(("model", "base"), error.message, error.hint) from error
    for name, judge in pipeline.pipeline.judges.items():
        if judge.model.base is not None:
            try:
                found[f"{JUDGE}{name}"] = fetch.item(f"{JUDGE}{name}", judge.model.base, base=base)
            except InputError as error:
                raise pipeline.error(("judges", name, "model", "base"), error.message, error.hint) from error
    for name, source in pipeline.pipeline.sources.items():
        if isinstance(source, GettextSource):
            found[name] = fetch.item(name, source.packages, base=base)
        elif isinstance(source, BenchmarkSource):
            try:
                found[name] = fetch.item(name, source.origin, base=base, form=fetch.BENCHMARK)
            except InputError as error:
                raise pipeline.error(("sources", name, "from"), error.message, error.hint) from error
    return found


def _fetched(pipeline: PipelineFile, workspace: Workspace) -> dict[str, FetchedFacts]:
    pins = fetch.read_pins(workspace)
    found: dict[str, FetchedFacts] = {}
    for name, item in fetch_items(pipeline).items():
        fingerprint = item.fingerprint(pins)
        present = workspace.entry(fetch.KIND.value, fingerprint).seal.exists()
        found[name] = FetchedFacts(name, item.request, item.format, fingerprint, present)
    return found
