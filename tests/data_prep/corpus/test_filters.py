"""What each filter of a corpus must keep, and what it must drop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("tests.support.prepared", exc_type=ImportError)

from data_prep.corpus import clean
from data_prep.corpus.recipe import Quality
from data_prep.dedup.overlap import Overlap
from data_prep.dedup.shingles import words
from tests.support.prepared import document, make, write_lines

ALL = {"validation": 0, "test": 0}
THAI = "ภาษาไทยเป็นภาษาที่ไม่มีการเว้นวรรคระหว่างคำและประโยคนี้เขียนขึ้นเพื่อทดสอบตัวกรองคุณภาพของข้อความ"
KHMER = "ភាសាខ្មែរជាភាសាដែលមិនមានចន្លោះរវាងពាក្យហើយប្រយោគនេះត្រូវបានសរសេរសម្រាប់ការសាកល្បង"
BURMESE = "မြန်မာဘာသာစကားသည်စကားလုံးများကြားတွင်နေရာလွတ်မရှိပါဤဝါကျသည်စမ်းသပ်ရန်ဖြစ်သည်"
CHINESE = "这是一个没有空格的句子它只是为了检查过滤器会不会把中文文本当作太短的文本而丢掉因此这里还要再写几个字让它至少有六十个字那么长"
JAPANESE = "これは空白のない文章でありフィルターが短すぎると見なして捨てないことを確かめるためのものでありもう少しだけ長く書いておく必要がある"
HINDI = " ".join(["हिन्दी में यह एक साधारण वाक्य है जो यह देखने के लिए लिखा गया है कि अक्षर कितने हैं।"] * 2)

PYTHON = """\
def f(a, b):
    for i in range(a):
        x = b[i]
        if x > 0 and x != a:
            b[i] = x - 1
        # go on
    return b, a
"""
C = """\
#include <stdio.h>

int main(int c, char **v) {
    int i, n = 0;
    for (i = 1; i < c; i++) {
        n += v[i][0] == 'x';
    }
    printf("%d\\n", n);
    return n > 0 ? 0 : 1;
}
"""
JAVASCRIPT = """\
const f = (a, b) => a + b;
let x = f(1, 2);
if (x === 3) {
  console.log(`x is ${x}`);
}
for (const k of [1, 2, 3]) {
  x = f(x, k);
}
export { f, x };
"""
LONG_NAMES = "\n".join(
    f"configurationRegistrationService{n} = applicationContextFactoryProvider.createConfigurationService(defaultValue)"
    for n in range(9)
)
HTML = "\n".join(f"<a id='a{n}' b='c'><b>x</b> <i>y</i> <u>z</u></a>" for n in range(9))


@pytest.mark.parametrize("text", [THAI, KHMER, BURMESE, CHINESE, JAPANESE, HINDI])
def test_scripts_without_spaces_and_with_marks_are_kept(text: str) -> None:
    assert clean.quality_flaw(text, Quality()) is None


@pytest.mark.parametrize("text", [THAI[:40], KHMER[:30], BURMESE[:30], CHINESE[:20], "สวัสดี"])
def test_a_few_words_of_such_a_script_are_dropped(text: str) -> None:
    assert clean.quality_flaw(text, Quality()) == "too_few_words"


@pytest.mark.parametrize("text", [PYTHON, C, JAVASCRIPT, LONG_NAMES, HTML])
def test_code_is_kept(text: str) -> None:
    assert clean.is_code(text)
    assert clean.quality_flaw(text, Quality()) is None


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ("a b c d e f g h i j k l m n o p q r s t u v w x y z", "odd_word_length"),
        ("\n".join(["a b c d e f g h i j k", "l m n o p q r s t u v", "w x y z a b c d e f g"]), "odd_word_length"),
        (" ".join(["pneumonoultramicroscopicsilicovolcanoconiosis"] * 25), "odd_word_length"),
        ("1 2 3 4 5 6 7 8 9 0 " * 5, "few_letters"),
        ("\n".join(f"{document(n, 12)} # # # #" for n in range(3)), "many_symbols"),
    ],
)
def test_what_is_no_code_is_dropped(text: str, flaw: str) -> None:
    assert not clean.is_code(text)
    assert clean.quality_flaw(text, Quality()) == flaw


def test_headings_of_markdown_are_no_symbols() -> None:
    page = "\n\n".join(f"### {document(n, 2)}\n\n{document(n + 100, 6)}" for n in range(9))
    assert clean.quality_flaw(page, Quality()) is None
    assert clean.quality_flaw(page.replace("### ", "#a #b #c "), Quality()) == "many_symbols"


def test_a_line_of_any_length_is_judged_at_once() -> None:
    assert clean.is_code("\n".join(["f(" * 1_000_000] * 3))
    assert not clean.is_code("\n".join(["so on " * 400_000] * 3))


def test_prose_with_a_call_in_it_is_no_code() -> None:
    text = "\n".join([*(document(n, 15) for n in range(6)), "x = f(1)", "print(x)"])
    assert not clean.is_code(text)


SUM = "Compute 12 + 30 + 4 and then tell me the result"


@pytest.mark.parametrize(
    "other",
    [
        SUM.replace("+", "*"),
        SUM.replace("+", "/"),
        SUM.replace("+ 30", "+ -30"),
        SUM.replace("12 +", "12 <"),
        SUM.replace("12", "13"),
    ],
)
def test_another_operator_is_another_question(other: str) -> None:
    tests = Overlap([SUM])
    assert tests.hits(words([other, f"{document(1)} {other} {document(2)}"])).tolist() == [0, 0]


@pytest.mark.parametrize(
    "same", [SUM.upper(), SUM + ".", SUM.replace(" + ", "+"), SUM.replace(" ", "\n"), f'He said: "{SUM}!"']
)
def test_the_same_question_is_found_however_it_is_written(same: str) -> None:
    tests = Overlap([SUM])
    assert (tests.hits(words([same, f"{document(1)} {same} {document(2)}"])) > 0).all()


def test_documents_that_differ_in_operators_are_not_duplicates(tmp_path: Path) -> None:
    lines = [" ".join(f"{n + k} {sign} {n * k + 1} = x{k}" for k in range(30)) for n in range(3) for sign in "+*<"]
    source = write_lines(tmp_path / "in.jsonl", [{"text": line} for line in lines])
    make("corpus", [source], tmp_path / "out", split=ALL, quality=False)
    assert json.loads((tmp_path / "out/card.json").read_text())["dropped"] == {}
