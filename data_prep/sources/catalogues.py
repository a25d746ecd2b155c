"""Messages of gettext catalogues, read straight out of wheels: nothing is installed or run."""

from __future__ import annotations

import itertools
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import Any, cast

from data_prep.common import text
from data_prep.common.errors import DataError

_CATALOGUE = re.compile(
    r"(?P<folder>(?:.*/)?)(?P<locale>[A-Za-z]{2,3}(?:[_-][A-Za-z]+)?)/LC_MESSAGES/(?P<domain>[^/]+)\.(?P<suffix>po|mo)\Z"
)
_CHARSET = re.compile(rb"charset=([\w.-]+)")
# Zope's catalogues have ids such as "label_title" as msgid and the English text in a comment.
_DEFAULT = re.compile(r'Default:\s*"(?P<text>.*)"\s*\Z', re.DOTALL)
_SYMBOL = re.compile(r"[a-z][a-z0-9]*(?:[_.:]+[A-Za-z0-9]+)+_*\Z")


@dataclass(frozen=True)
class CatalogueMessage:
    """One message (of a plural: one form) in the locales that were asked for.

    Attributes:
        catalogue: ``project/folder/domain``.
        position: place in the catalogue, for an order in which neighbours belong together.
        texts: locale as asked for -> cleaned text; untranslated locales are missing.
        flaw: why no target locale translates it (``fuzzy``, ``obsolete``, ``untranslated``), or None.
    """

    catalogue: str
    position: int
    context: str
    ident: str
    form: int
    source: str
    texts: dict[str, str]
    flaw: str | None

    @property
    def name(self) -> str:
        return f"{self.catalogue}\0{self.context}\0{self.ident}\0{self.form}"


@dataclass(frozen=True)
class Wheel:
    """A wheel and what its METADATA says. ``files``: catalogue -> locale (lower case, ``_``) -> name in the zip."""

    path: Path
    project: str
    version: str
    licence: str
    files: dict[str, dict[str, str]]


def _licence(headers: Any) -> str:
    """Licence as the wheel states it: expression, else classifiers, else the first line of the free text."""
    if expression := headers.get("License-Expression"):
        return str(expression).strip()
    stated = [entry for entry in headers.get_all("Classifier", []) if entry.startswith("License ::")]
    classifiers = [entry.split("::")[-1].strip() for entry in stated]
    free = str(headers.get("License") or "").strip().splitlines()
    return ", ".join(classifiers) or (free[0].strip() if free else "") or "not stated"


def open_wheel(path: Path) -> Wheel:
    """A wheel with its list of files.

    Raises:
        DataError: not a zip file, or without METADATA.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            metadata = [name for name in names if name.count("/") == 1 and name.endswith(".dist-info/METADATA")]
            if not metadata:
                raise DataError("is not a wheel: no .dist-info/METADATA", path)
            headers = HeaderParser().parsestr(archive.read(metadata[0]).decode("utf-8", errors="replace"))
    except (zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"is not a readable wheel: {error}", path) from error
    project = str(headers.get("Name") or path.name.split("-")[0])
    found: dict[str, dict[str, str]] = {}
    for name in sorted(names, reverse=True):  # .po comes before .mo and wins
        if match := _CATALOGUE.match(name):
            catalogue = f"{project}/{match['folder']}{match['domain']}"
            found.setdefault(catalogue, {}).setdefault(_canonical(match["locale"]), name)
    return Wheel(path, project, str(headers.get("Version") or ""), _licence(headers), found)


def _canonical(locale: str) -> str:
    return locale.replace("-", "_").lower()


@dataclass(frozen=True)
class _Entry:
    source: str
    text: str
    flaw: str | None
    position: int


def _forms(entry: Any) -> Iterator[tuple[int, str, str]]:
    """(form, source text, translation) of an entry; of plurals the first and the last form, which every language has:
    they are what the English singular and plural say."""
    if not entry.msgid_plural:
        yield 0, entry.msgid, entry.msgstr
        return
    forms = {int(number): value for number, value in entry.msgstr_plural.items()}
    yield 0, entry.msgid, forms.get(0, "")
    yield 1, entry.msgid_plural, forms[max(forms)] if len(forms) > 1 else ""


def _english(entry: Any, source: str) -> str:
    """English text of an entry; empty where it has only a symbolic id."""
    if default := _DEFAULT.search(entry.comment or ""):
        return default["text"].replace('\\"', '"')
    return "" if _SYMBOL.match(source) else source


def _parse(archive: zipfile.ZipFile, name: str, place: str) -> Any:
    import polib

    try:
        raw = archive.read(name)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"cannot be unpacked: {error}", place) from error
    charset = _CHARSET.search(raw)
    encoding = charset[1].decode() if charset and charset[1] != b"CHARSET" else "utf-8"
    try:
        if name.endswith(".mo"):
            return polib.mofile(cast(str, raw), encoding=encoding)  # takes bytes, too; its stubs do not say so
        return polib.pofile(raw.decode(encoding))
    except (UnicodeDecodeError, LookupError) as error:
        raise DataError(f"is not {encoding}: {error}", place) from error
    except (OSError, ValueError, IndexError) as error:
        line = re.search(r"\(line (\d+)\)|line (\d+)", str(error))
        number = int(line[1] or line[2]) if line else None
        raise DataError(f"is not a gettext catalogue: {error}", place, number) from error


def _entries(archive: zipfile.ZipFile, name: str, place: str) -> dict[tuple[str, str, int], _Entry]:
    found: dict[tuple[str, str, int], _Entry] = {}
    for position, entry in enumerate(_parse(archive, name, place)):
        if not entry.msgid:
            continue
        for form, source, translation in _forms(entry):
            cleaned = text.clean(translation)
            flaw = None if cleaned else "untranslated"
            if entry.obsolete or "fuzzy" in entry.flags:
                flaw = "obsolete" if entry.obsolete else "fuzzy"
            own = (entry.msgctxt or "", entry.msgid, form)
            if own not in found or found[own].flaw:  # an obsolete entry may repeat a current one
                found[own] = _Entry(text.clean(_english(entry, source)), cleaned, flaw, position)
    return found


def messages(
    wheels: list[Wheel],
    target: tuple[str, ...],
    contrast: tuple[str, ...],
    progress: Callable[[int, int], None] = lambda step, total: None,
) -> Iterator[CatalogueMessage]:
    """Messages of all catalogues that have at least one target locale, in an order that only contents decide.

    Raises:
        DataError: an unreadable catalogue, named as ``wheel!file``.
    """
    projects = sorted(wheel.project for wheel in wheels)
    for first, second in itertools.pairwise(projects):
        if first == second:
            raise DataError(f"the source holds two wheels of {first}: one version only", wheels[0].path.parent)
    wanted = [(locale, _canonical(locale)) for locale in dict.fromkeys((*target, *contrast))]
    goals = {_canonical(locale) for locale in target}
    jobs = sorted(
        ((name, wheel) for wheel in wheels for name, files in wheel.files.items() if goals & files.keys()),
        key=lambda job: job[0],
    )
    for step, (catalogue, wheel) in enumerate(jobs):
        progress(step, len(jobs))
        read: dict[str, dict[tuple[str, str, int], _Entry]] = {}
        with zipfile.ZipFile(wheel.path) as archive:
            for locale, canonical in wanted:
                if name := wheel.files[catalogue].get(canonical):
                    read[locale] = _entries(archive, name, f"{wheel.path}!{name}")
        yield from _joined(catalogue, read, target)
    progress(len(jobs), len(jobs))


def _joined(
    catalogue: str, read: dict[str, dict[tuple[str, str, int], _Entry]], target: tuple[str, ...]
) -> Iterator[CatalogueMessage]:
    """Join the locales of one catalogue by (context, msgid, form); the order is that of the first target locale."""
    goals = [read[locale] for locale in target if locale in read]
    order: dict[tuple[str, str, int], tuple[int, int]] = {}
    for rank, entries in enumerate(goals):
        for own, entry in entries.items():
            order.setdefault(own, (rank, entry.position))
    ranked = sorted(order, key=lambda own: (order[own], own))
    for position, own in enumerate(ranked):
        found = {locale: entries[own] for locale, entries in read.items() if own in entries}
        texts = {locale: entry.text for locale, entry in found.items() if entry.flaw is None}
        flaw = None
        if not any(locale in texts for locale in target):
            flaw = next(entry.flaw for locale, entry in found.items() if locale in target)
        source = next((entry.source for entry in found.values() if entry.source), "")
        context, ident, form = own
        yield CatalogueMessage(catalogue, position, context, ident, form, source, texts, flaw)
