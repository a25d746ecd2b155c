from __future__ import annotations

from pathlib import Path

import polib
import pytest

from data_prep.common.errors import DataError
from data_prep.sources import catalogues
from data_prep.sources.catalogues import CatalogueMessage
from jobs.core.verdict import FailureClass, classify
from tests.support.catalogues import HEADER, po, write_wheel

TARGET, CONTRAST = ("pt_PT", "pt"), ("pt_BR",)


def read(
    directory: Path, target: tuple[str, ...] = TARGET, contrast: tuple[str, ...] = CONTRAST
) -> list[CatalogueMessage]:
    wheels = [catalogues.open_wheel(path) for path in directory.glob("*.whl")]
    return list(catalogues.messages(wheels, target, contrast))


def one(tmp_path: Path, text: str, locale: str = "pt_PT", suffix: str = "po") -> dict[str, CatalogueMessage]:
    content = (HEADER + "\n" + text).encode()
    write_wheel(tmp_path, "app", {f"app/locale/{locale}/LC_MESSAGES/django.{suffix}": content})
    return {message.source or message.ident: message for message in read(tmp_path)}


def test_locales_are_joined_by_context_and_id(tmp_path: Path) -> None:
    folder = "app/locale/{}/LC_MESSAGES/django.po"
    write_wheel(
        tmp_path,
        "app",
        {
            folder.format("pt_PT"): po({"Close the mug": "Fechar a caneca", "Only here": "Só aqui"}),
            folder.format("pt-BR"): po({"Close the mug": "Feche a caneca", "Not asked for": "Sem pedido"}),
        },
    )
    found = read(tmp_path)
    assert [(message.source, message.texts) for message in found] == [
        ("Close the mug", {"pt_PT": "Fechar a caneca", "pt_BR": "Feche a caneca"}),
        ("Only here", {"pt_PT": "Só aqui"}),
    ]
    assert found[0].catalogue == "app/app/locale/django"


def test_first_locale_that_translates_a_message_wins(tmp_path: Path) -> None:
    folder = "app/locale/{}/LC_MESSAGES/django.po"
    write_wheel(
        tmp_path,
        "app",
        {
            folder.format("pt_PT"): po({"Red": "Encarnado", "Blue": ""}),
            folder.format("pt"): po({"Red": "Vermelho", "Blue": "Azul"}),
        },
    )
    found = {message.source: message for message in read(tmp_path)}
    assert found["Red"].texts == {"pt_PT": "Encarnado", "pt": "Vermelho"}
    assert found["Blue"].texts == {"pt": "Azul"}
    assert found["Blue"].flaw is None


def test_unusable_entries_say_why(tmp_path: Path) -> None:
    found = one(
        tmp_path,
        '#, fuzzy\nmsgid "Maybe"\nmsgstr "Talvez"\n\nmsgid "Later"\nmsgstr ""\n\n#~ msgid "Gone"\n#~ msgstr "Já foi"\n',
    )
    assert {name: message.flaw for name, message in found.items()} == {
        "Maybe": "fuzzy",
        "Later": "untranslated",
        "Gone": "obsolete",
    }


def test_plural_gives_first_and_last_form(tmp_path: Path) -> None:
    found = one(
        tmp_path,
        'msgid "one mug"\nmsgid_plural "many mugs"\nmsgstr[0] "uma caneca"\nmsgstr[1] "milhões"\nmsgstr[2] "canecas"\n',
    )
    assert found["one mug"].texts == {"pt_PT": "uma caneca"}
    assert found["many mugs"].texts == {"pt_PT": "canecas"}


def test_symbolic_ids_take_the_default_from_the_comment(tmp_path: Path) -> None:
    found = one(
        tmp_path,
        '#. Default: "A \\"good\\" mug"\nmsgid "label_mug"\nmsgstr "Boa caneca"\n\nmsgid "label_tea"\nmsgstr "Chá"\n\n'
        'msgid "read-only"\nmsgstr "só leitura"\n\nmsgid "tea"\nmsgstr "chá"\n',
    )
    assert found['A "good" mug'].texts == {"pt_PT": "Boa caneca"}
    assert found["label_tea"].source == ""
    assert found["tea"].source == "tea"
    assert found["read-only"].source == "read-only"


def test_compiled_catalogue_where_no_source_ships(tmp_path: Path) -> None:
    catalogue = polib.pofile(po({"Close the mug": "Fechar a caneca"}).decode())
    catalogue.append(polib.POEntry(msgctxt="verb", msgid="Close", msgstr="Fechar"))
    write_wheel(tmp_path, "app", {"app/locale/pt/LC_MESSAGES/app.mo": catalogue.to_binary()})
    assert {(message.context, message.source): message.texts for message in read(tmp_path)} == {
        ("", "Close the mug"): {"pt": "Fechar a caneca"},
        ("verb", "Close"): {"pt": "Fechar"},
    }


def test_white_space_and_composition_are_normalised(tmp_path: Path) -> None:
    found = one(tmp_path, 'msgid "Two\\n lines"\nmsgstr "  Duas\\n\\tlinhas e um sótão "\n')
    assert found["Two lines"].texts == {"pt_PT": "Duas linhas e um sótão"}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ("License-Expression: BSD-3-Clause", "BSD-3-Clause"),
        ("License: see file\nClassifier: License :: OSI Approved :: MIT License", "MIT License"),
        ("License: Apache-2.0", "Apache-2.0"),
        ("Summary: none", "not stated"),
    ],
)
def test_licence_of_a_wheel(tmp_path: Path, headers: str, expected: str) -> None:
    assert catalogues.open_wheel(write_wheel(tmp_path, "app", {}, licence=headers)).licence == expected


def test_damaged_wheels_are_named(tmp_path: Path) -> None:
    path = write_wheel(tmp_path, "app", {"app/locale/pt/LC_MESSAGES/app.po": po({"Red": "Vermelho"})})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"app-1\.0-py3-none-any\.whl: is not a readable wheel") as caught:
        read(tmp_path)
    assert classify(caught.value) is FailureClass.DATA_ERROR


def test_damaged_member_is_named(tmp_path: Path) -> None:
    path = write_wheel(tmp_path, "app", {"app/locale/pt/LC_MESSAGES/app.po": po({"Red": "Vermelho" * 50})})
    content = bytearray(path.read_bytes())
    content[70] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"any\.whl!app/locale/pt/LC_MESSAGES/app\.po: cannot be unpacked"):
        read(tmp_path)


def test_syntax_error_has_its_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"django\.po:5: is not a gettext catalogue"):
        one(tmp_path, 'msgid "Red"\nmsgtsr "Vermelho"\n')


def test_wrong_encoding_is_an_error(tmp_path: Path) -> None:
    content = HEADER.encode() + '\nmsgid "Attic"\nmsgstr "sótão"\n'.encode("latin-1")
    write_wheel(tmp_path, "app", {"app/locale/pt/LC_MESSAGES/app.po": content})
    with pytest.raises(DataError, match=r"app\.po: is not UTF-8"):
        read(tmp_path)


def test_two_versions_of_a_project_are_refused(tmp_path: Path) -> None:
    for version in ("1.0", "2.0"):
        write_wheel(tmp_path, "app", {"app/locale/pt/LC_MESSAGES/app.po": po({"Red": "Vermelho"})}, version)
    with pytest.raises(DataError, match="two wheels of app"):
        read(tmp_path)
