"""Splits that the files have are kept, in every layout; what contradicts is refused with what to write."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

pytest.importorskip("tests.support.prepared", exc_type=ImportError)

from data_prep.build import build
from data_prep.common.errors import DataError
from data_prep.common.settings import SPLITS, Settings
from data_prep.prepared import sources_of
from tests.support.catalogues import source_of
from tests.support.prepared import document, make, write_lines

SIZES = {"train": 40, "validation": 7, "test": 9}


def rows(split: str) -> list[dict[str, str]]:
    return [
        {
            "prompt": f"{split} question {n}",
            "completion": document(crc32(f"{split} {n}".encode()) % 10**6, 12),
            "split": split,
        }
        for n in range(SIZES[split])
    ]


def bare(split: str) -> list[dict[str, str]]:
    return [{name: row[name] for name in ("prompt", "completion")} for row in rows(split)]


def parquet(path: Path, given: list[dict[str, str]]) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.Table.from_pylist(given), path)


def lines(path: Path, given: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_lines(path, given)


def _named(names: Mapping[str, str]) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        for split, name in names.items():
            (parquet if name.endswith(".parquet") else lines)(root / name, bare(split))

    return write


def _sharded(root: Path) -> None:
    for split in SPLITS:
        given = bare(split)
        for number in range(3):
            parquet(root / f"data/{split}-0000{number}-of-00003.parquet", given[number::3])


def _hub(root: Path) -> None:
    """Names of files that say nothing, or the wrong thing: the README knows."""
    parquet(root / "en/part-0.parquet", bare("train")[:20])
    parquet(root / "en/part-1.parquet", bare("train")[20:])
    parquet(root / "en/held.parquet", bare("validation"))
    lines(root / "train.jsonl", bare("test"))
    parquet(root / "de/part-0.parquet", [{"prompt": "never", "completion": "read"}])
    (root / "README.md").write_text(
        "---\nlicense: mit\nconfigs:\n- config_name: de\n  data_files: de/*.parquet\n"
        "- config_name: en\n  default: true\n  data_files:\n"
        "  - split: train\n    path: en/part-*.parquet\n  - split: validation\n    path: [en/held.parquet]\n"
        "  - {split: test, path: train.jsonl}\n---\n# A data set\n"
    )


def _saved(root: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.DatasetDict(
        {split: datasets.Dataset.from_list(bare(split)) for split in ("train", "validation", "test")}
    ).save_to_disk(str(root), num_shards={"train": 2, "validation": 1, "test": 1})
    (root / "train/cache-1234567890abcdef.arrow").write_bytes((root / "test/data-00000-of-00001.arrow").read_bytes())


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "files": _named({split: f"{split}.jsonl" for split in SPLITS}),
    "data": _named({split: f"data/{split}.jsonl" for split in SPLITS}),
    "other words": _named({"train": "training.jsonl", "validation": "dev.jsonl", "test": "eval.jsonl"}),
    "val": _named({"train": "train.parquet", "validation": "val.jsonl", "test": "test.parquet"}),
    "prefixes": _named({split: f"gsm8k_{split}.jsonl" for split in SPLITS}),
    "suffixes": _named({"train": "train_sft.jsonl", "validation": "valid-v1.1.jsonl", "test": "Test_sft.jsonl"}),
    "folders": _named({"train": "train/a.jsonl", "validation": "valid/a.jsonl", "test": "test/x/a.jsonl"}),
    "hashes": _named({split: f"{split}-00000-of-00001-a09b74b3ef9c3b56.parquet" for split in SPLITS}),
    "held out": _named({"train": "trainset.jsonl", "validation": "devset.jsonl", "test": "held_out.jsonl"}),
    "shards": _sharded,
    "README": _hub,
    "save_to_disk": _saved,
}


def found(output: Path) -> dict[str, set[str]]:
    return {
        split: {json.loads(line)["prompt"] for line in (output / f"{split}.jsonl").read_text().splitlines()}
        for split in SPLITS
    }


def wanted() -> dict[str, set[str]]:
    return {split: {row["prompt"] for row in bare(split)} for split in SPLITS}


def card(output: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((output / "card.json").read_text())
    assert facts["read"] == facts["kept"] + sum(facts["dropped"].values())
    return facts


def without_prepare(root: Path, output: Path, kind: str = "instructions", **split: Any) -> dict[str, int]:
    output.mkdir()
    settings = Settings.parse(kind, {"source": {"type": "path"}, "split": split})
    return build(settings, output, sources=tuple(source_of(Path(one.path)) for one in sources_of([root])))


@pytest.mark.parametrize("name", LAYOUTS)
def test_splits_that_are_there_are_kept(tmp_path: Path, name: str) -> None:
    root = tmp_path / "data set"
    LAYOUTS[name](root)
    make("instructions", [root], tmp_path / "out")
    assert found(tmp_path / "out") == wanted()
    facts = card(tmp_path / "out")
    how = {"README": "config en of README.md", "save_to_disk": "dataset_dict.json"}.get(name, "name")
    assert all(facts["splits_from"][split].endswith(f"by {how}") for split in SPLITS)
    assert "Where the splits come from" in (tmp_path / "out/card.html").read_text()
    without_prepare(root, tmp_path / "plain")
    assert found(tmp_path / "plain") == wanted()
    assert card(tmp_path / "plain")["splits_from"] == facts["splits_from"]


@pytest.mark.parametrize("name", LAYOUTS)
def test_splits_of_a_corpus_are_kept_however_it_is_cut(tmp_path: Path, name: str) -> None:
    root = tmp_path / "data set"
    LAYOUTS[name](root)
    for number, shard in enumerate((1 << 20, 300)):
        output = tmp_path / f"out{number}"
        make("corpus", [root], output, text_field="prompt", quality=False, near_duplicates=None, shard_bytes=shard)
        texts = {
            split: {json.loads(line)["text"] for line in (output / f"{split}.jsonl").read_text().splitlines()}
            for split in SPLITS
        }
        assert texts == wanted()
    assert (tmp_path / "out0/train.jsonl").read_bytes() == (tmp_path / "out1/train.jsonl").read_bytes()
    assert set(card(tmp_path / "out0")["splits_from"]) == set(SPLITS)


def test_files_about_the_data_are_no_rows_and_are_listed(tmp_path: Path) -> None:
    _saved(tmp_path / "saved")
    make("instructions", [tmp_path / "saved"], tmp_path / "out")
    left_out = {Path(path).name: why for path, why in card(tmp_path / "out")["left_out"].items()}
    assert left_out.pop("cache-1234567890abcdef.arrow") == "not named by state.json"
    assert left_out == dict.fromkeys(("dataset_dict.json", "dataset_info.json", "state.json"), "is about the data set")
    root = tmp_path / "hub"
    _named({"train": "train.jsonl"})(root)
    (root / "README.md").write_text("# no front matter")
    (root / "LICENSE").write_text("free")
    (root / "dataset_infos.json").write_text("{}")
    make("instructions", [root], tmp_path / "hub-out")
    assert {Path(path).name for path in card(tmp_path / "hub-out")["left_out"]} == {
        "README.md",
        "LICENSE",
        "dataset_infos.json",
    }


@pytest.mark.parametrize(("missing", "taken"), [("validation", "validation"), ("test", "test")])
def test_a_missing_split_is_taken_from_those_for_training_and_said(tmp_path: Path, missing: str, taken: str) -> None:
    root = tmp_path / "in"
    there = [split for split in SPLITS if split != missing]
    _named({split: f"{split}.jsonl" for split in there})(root)
    for output, run in (
        (tmp_path / "out", lambda to: make("instructions", [root], to, split={"validation": 0.2, "test": 0.2})),
        (tmp_path / "plain", lambda to: without_prepare(root, to, validation=0.2, test=0.2)),
    ):
        run(output)
        have = found(output)
        [kept] = [split for split in there if split != "train"]
        assert have[kept] == wanted()[kept]
        assert have["train"] | have[taken] == wanted()["train"]
        assert 2 <= len(have[taken]) <= 16
        assert card(output)["splits_from"][taken].startswith("20.0% of the rows for training, by ")


def test_a_missing_split_that_is_not_wanted_stays_empty(tmp_path: Path) -> None:
    _named({"train": "train.jsonl", "test": "test.jsonl"})(tmp_path / "in")
    make("instructions", [tmp_path / "in"], tmp_path / "out", split={"validation": 0, "test": 0.5})
    assert found(tmp_path / "out") == {**wanted(), "validation": set()}
    assert card(tmp_path / "out")["splits_from"]["validation"] == "none"


def test_all_files_are_poured_together_if_that_is_said(tmp_path: Path) -> None:
    _named({split: f"{split}.jsonl" for split in SPLITS})(tmp_path / "in")
    pool = {"existing": "pool", "validation": 0.3, "test": 0.3}
    make("instructions", [tmp_path / "in"], tmp_path / "out", split=pool)
    have = found(tmp_path / "out")
    assert set.union(*have.values()) == set.union(*wanted().values())
    assert have["train"] & wanted()["test"]
    assert card(tmp_path / "out")["splits_from"]["test"] == "30.0% of all rows, by prompt and conversation"


@pytest.mark.parametrize("names", [["one.jsonl", "two.jsonl"], ["test.jsonl"], ["train.jsonl", "train-more.jsonl"]])
def test_without_held_out_files_rows_are_split(tmp_path: Path, names: list[str]) -> None:
    for at, name in enumerate(names):
        lines(tmp_path / "in" / name, bare("train")[at :: len(names)])
    make("instructions", [tmp_path / "in"], tmp_path / "out", split={"validation": 0.3, "test": 0.3})
    have = found(tmp_path / "out")
    assert all(have.values())
    assert set.union(*have.values()) == wanted()["train"]


REFUSED: dict[str, tuple[dict[str, str], dict[str, Any], str]] = {
    "of no split": ({"train.jsonl": "train", "test.jsonl": "test", "more.jsonl": "train"}, {}, r"more\.jsonl: is of no split, but test\.jsonl is of the test split: name it .*split: \{existing: pool\}"),
    "no training": ({"data.jsonl": "train", "test.jsonl": "test"}, {}, r"test\.jsonl: is of the test split, but no file is of the train split: .*existing: pool"),
    "only held out": ({"dev.jsonl": "validation", "test.jsonl": "test"}, {}, "no file is of the train split"),
    "two splits": ({"test/train.jsonl": "train", "train/x.jsonl": "train"}, {}, r"test/train\.jsonl: is of two splits by the names of file and folder, test and train"),
    "a shard is missing": ({"train-00000-of-00003.jsonl": "train", "train-00002-of-00003.jsonl": "train"}, {}, r"train-00001-of-00003: is missing"),
    "two splits of a hub's files for training": (
        {"train_sft-00000-of-00001.jsonl": "train", "train_gen-00000-of-00001.jsonl": "train", "test_sft-00000-of-00001.jsonl": "test"}, {},
        r"is of the split train_sft, and other files are of train_gen: .* \{names: \{test: test_sft, train: train_gen\}\}",
    ),
    "no such split": ({"train.jsonl": "train", "test.jsonl": "test"}, {"names": {"train": "train_sft"}}, r"split\.names: there is no split train_sft; there are test, train"),
    "unknown setting": ({"train.jsonl": "train"}, {"existing": "pour"}, r"setting split\.existing: must be one of keep, pool"),
    "unknown name": ({"train.jsonl": "train"}, {"names": {"dev": "x"}}, r"setting split\.names\.dev: unknown; known: train"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_contradictions_are_refused_with_what_to_write(tmp_path: Path, name: str) -> None:
    files, split, says = REFUSED[name]
    for at, (file, of) in enumerate(files.items()):
        lines(tmp_path / "in" / file, [{**row, "prompt": f"{at} {row['prompt']}"} for row in bare(of)])
    with pytest.raises(DataError, match=says):
        make("instructions", [tmp_path / "in"], tmp_path / "out", split=split)
    with pytest.raises(DataError, match=says):
        without_prepare(tmp_path / "in", tmp_path / "plain", **split)


README: dict[str, tuple[str, dict[str, Any], str]] = {
    "several configs": ("configs:\n- {config_name: a, data_files: train.jsonl}\n- {config_name: b, data_files: test.jsonl}", {}, r"README\.md: has the configs a, b: choose one with split: \{config: a\}"),
    "no such config": ("configs:\n- {config_name: a, data_files: train.jsonl}", {"config": "c"}, r"README\.md: has the configs a, not c"),
    "no such file": ("configs:\n- {data_files: {train: train.jsonl, test: gone-*.jsonl}}", {}, r"README\.md: names gone-\*\.jsonl for the split test: there is no such file"),
    "no such split": ("configs:\n- {data_files: {train: train.jsonl, prompts: test.jsonl}}", {}, r"test\.jsonl: is of the split prompts, which is none of train, validation, test: .*names: \{train: prompts\}"),
    "two for training": ("configs:\n- {data_files: {train_sft: train.jsonl, train_gen: more.jsonl, test: test.jsonl}}", {}, r"train\.jsonl: is of the split train_sft, and other files are of train_gen: both would be the train split; choose with split: \{names: \{test: test, train: train_gen\}\}"),
    "outside": ("configs:\n- {data_files: {train: /etc/pass*}}", {}, r"names /etc/pass\*, which is not a path below it"),
}  # fmt: skip


@pytest.mark.parametrize("name", README)
def test_a_readme_that_does_not_fit_is_refused(tmp_path: Path, name: str) -> None:
    front, split, says = README[name]
    _named({"train": "train.jsonl", "test": "test.jsonl", "validation": "more.jsonl"})(tmp_path / "in")
    (tmp_path / "in/README.md").write_text(f"---\n{front}\n---\n")
    with pytest.raises(DataError, match=says):
        make("instructions", [tmp_path / "in"], tmp_path / "out", split=split)


def test_a_config_and_splits_are_chosen(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for name, split in {"a": "train", "b": "validation", "c": "test"}.items():
        lines(root / f"{name}.jsonl", bare(split))
    (root / "README.md").write_text(
        "---\nconfigs:\n- {config_name: default, data_files: a.jsonl}\n- config_name: chat\n  data_files:\n"
        "  - {split: train_sft, path: a.jsonl}\n  - {split: prompts, path: b.jsonl}\n"
        "  - {split: test_sft, path: c.jsonl}\n---\n"
    )
    names = {"train": ["train_sft"], "test": "prompts"}
    split = {"config": "chat", "names": names, "validation": 0, "test": 0}
    make("instructions", [root], tmp_path / "out", split=split)
    assert found(tmp_path / "out") == {**wanted(), "validation": set(), "test": wanted()["validation"]}
    left_out = {Path(path).name: why for path, why in card(tmp_path / "out")["left_out"].items()}
    assert left_out["c.jsonl"] == "the split test_sft is not in split.names"
    files = {"train": "sft/train_sft.jsonl", "validation": "gen/train_gen.jsonl", "test": "sft/test_sft.jsonl"}
    _named(files)(tmp_path / "by-name")
    names = {"train": "train_sft", "validation": "train_gen", "test": "test_sft"}
    make("instructions", [tmp_path / "by-name"], tmp_path / "named", split={"names": names})
    assert found(tmp_path / "named") == wanted()


def test_damaged_directories_of_datasets_are_refused(tmp_path: Path) -> None:
    _saved(tmp_path / "in")
    (tmp_path / "in/train/data-00001-of-00002.arrow").unlink()
    with pytest.raises(DataError, match=r"state\.json: names data-00001-of-00002\.arrow, which is missing"):
        make("instructions", [tmp_path / "in"], tmp_path / "out")
    (tmp_path / "in/test/state.json").unlink()
    with pytest.raises(DataError, match=r"dataset_dict\.json: names the split test, but test/state\.json is missing"):
        make("instructions", [tmp_path / "in"], tmp_path / "out2")


def test_texts_that_are_about_tests_are_no_split(tmp_path: Path) -> None:
    for name in ("test.md", "training guide.md", "evaluation.txt", "test/plan.md", "chapter.md"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(document(len(name), 60))
    none = {"validation": 0, "test": 0}
    assert make("corpus", [tmp_path / "in"], tmp_path / "out", split=none)["train"] == 5


@pytest.mark.parametrize("name", ["{}.txt", "wiki.{}.md", "{}/a.txt", "{}-00000-of-00001.html"])
def test_texts_that_are_splits_are_kept(tmp_path: Path, name: str) -> None:
    for split in SPLITS:
        path = tmp_path / "in" / name.format(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n\n".join(f"{split} {document(SIZES[split] + n, 60)}" for n in range(5)))
    cut = {} if name.endswith("html") else {"document_chars": 200}
    rows = make("corpus", [tmp_path / "in"], tmp_path / "kept", near_duplicates=None, **cut)
    assert set(rows.values()) == {5 if cut else 1}
    for split in SPLITS:
        made = [json.loads(line)["text"] for line in (tmp_path / f"kept/{split}.jsonl").read_text().splitlines()]
        assert all(text.startswith(f"{split} ") for text in made)
    if cut:
        without_prepare(tmp_path / "in", tmp_path / "plain", "corpus")
        for split in SPLITS:
            assert f"{split} " in (tmp_path / f"plain/{split}.jsonl").read_text()
    (tmp_path / "in/more.txt").write_text(document(77, 60))
    if name == "{}.txt":
        with pytest.raises(DataError, match=r"more\.txt: is of no split"):
            make("corpus", [tmp_path / "in"], tmp_path / "refused")


def test_replay_takes_what_is_for_training(tmp_path: Path) -> None:
    for split in ("train", "test"):
        texts = [{"text": f"{split} {document(n + len(split) * 1000, 40)}"} for n in range(60)]
        lines(tmp_path / "general" / f"{split}.jsonl", texts)
    source = write_lines(tmp_path / "in.jsonl", [{"text": document(n, 40)} for n in range(60)])
    replay = [{"path": str(tmp_path / "general"), "share": 0.4}]
    make("corpus", [source], tmp_path / "out", split={"validation": 0, "test": 0}, replay=replay)
    text = (tmp_path / "out/train.jsonl").read_text()
    assert '"train ' in text
    assert '"test ' not in text


def test_a_snapshot_of_the_hub_cache_is_read_through_its_links(tmp_path: Path) -> None:
    _named({split: f"blobs/{split}0123.parquet" for split in SPLITS})(tmp_path / "cache")
    data = tmp_path / "cache/snapshots/abc/data"
    data.mkdir(parents=True)
    for split in SPLITS:
        (data / f"{split}-00000-of-00001.parquet").symlink_to(f"../../../blobs/{split}0123.parquet")
    make("instructions", [tmp_path / "cache/snapshots/abc"], tmp_path / "out")
    assert found(tmp_path / "out") == wanted()
