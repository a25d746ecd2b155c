# %% [markdown]
# # 2. Supervised fine-tuning (SFT)
#
# SFT teaches a task by pairs of input and output: a language, the terms of a field, a style, a way to reason. The steps: pairs,
# splits, configure, train, measure the task.
#
# Here the model of the first notebook learns to translate interface messages into European Portuguese. Its stages are in the
# store already, so that only SFT runs. With `OVERNIGHT_NOTEBOOKS=toy` a character model learns the past tense instead.
# %% [markdown] lang="ko"
# # 2. 지도 미세 조정 (SFT)
#
# SFT는 입력-출력 쌍으로 작업을 가르칩니다. 언어 적응, 도메인 전문성, 문체 제어, 추론 능력이 목표입니다. 단계: 입력-출력 쌍 준비,
# 데이터 분할, SFT 구성, 학습 실행, 작업 성능 평가.
#
# 여기서는 첫 번째 노트북의 모델이 인터페이스 메시지를 유럽 포르투갈어로 번역하는 법을 배웁니다. 앞 단계는 이미 저장소에 있으므로
# SFT만 실행됩니다. `OVERNIGHT_NOTEBOOKS=toy`에서는 문자 모델이 과거 시제를 배웁니다.
# %%
import json
from pathlib import Path

from common import IS_REAL, PIPELINES, draw, masked, shown, table, thirds

import overnight

chain = overnight.pipeline(PIPELINES / "sft.yaml")
print("fetched:", ", ".join(chain.fetch()))
# %% [markdown]
# ## Configure
#
# In a NeMo recipe: `sft = llm.llama32_3b.finetune_recipe(...)`, `sft.data = FineTuningDataModule(dataset_root=...)`,
# `sft.trainer.max_steps = 20`, `sft.optim.config.lr = 2e-4`, `del sft.peft` (all weights are trained). Here:
# %% [markdown] lang="ko"
# ## SFT 구성
#
# NeMo 레시피에서는 `sft = llm.llama32_3b.finetune_recipe(...)`, `sft.data = FineTuningDataModule(dataset_root=...)`,
# `sft.trainer.max_steps = 20`, `sft.optim.config.lr = 2e-4`, `del sft.peft`(전체 미세 조정)입니다. 여기서는:
# %%
plan = chain.plan(cluster="local")
settings = plan.stages["sft"].settings
table(("setting", "value"), [(name, settings[name]) for name in ("steps", "lr", "batch_size")])
# %%
table(("stage", "kind", "state"), [(one.name, one.kind, one.state) for one in plan.stages.values()])
# %% [markdown]
# ## Train
# %% [markdown] lang="ko"
# ## 학습 실행
# %%
run = chain.run(on_change=print)
# %% [markdown]
# ## Pairs and splits
#
# No text stands in two splits; equal texts go together. Of a pair only what is green counts for the loss: the model learns to
# answer, not to ask. `overnight data inspect` shows the same token by token, as the trainer sees it.
# %% [markdown] lang="ko"
# ## 입력-출력 쌍과 분할
#
# 같은 텍스트가 두 분할에 들어가지 않습니다. 쌍에서 초록색 부분만 손실에 들어갑니다. 모델은 질문이 아니라 답을 배웁니다.
# `overnight data inspect`는 학습기가 보는 그대로 토큰마다 보여 줍니다.
# %%
output = Path(run.stages["pairs"].path)
splits = {}
for split in ("train", "validation", "test"):
    lines = (output / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    splits[split] = [json.loads(line) for line in lines]
table(("split", "pairs"), [(name, len(rows)) for name, rows in splits.items()])
# %%
pair = splits["train"][0]
masked(pair["prompt"], pair["completion"])
# %%
seen = {row["prompt"] for row in splits["train"]}
assert not seen & {row["prompt"] for row in splits["test"]}, "no question of the test was trained on"
# %% [markdown]
# ## Task performance
# %% [markdown] lang="ko"
# ## 작업 성능 평가
# %%
curve = run.curve("sft")
draw({"sft": curve})
# %%
before, after = run.evaluations["before-sft"], run.evaluations["eval-sft"]
rows = []
for name, new in after.items():
    old = before[name]
    rows.append((name, f"{old.value:.4g}", f"{new.value:.4g}", shown(old, new), new.n, new.verdict or ""))
table(("metric", "before", "after", "the change", "examples", "gate"), rows)
# %%
first, last = thirds(curve)
assert last < first, "the loss of training fell"
answer_loss = "answers.answer_loss" if IS_REAL else "answers.loss"
assert shown(before[answer_loss], after[answer_loss]) == "fell", "unseen reference answers became more likely"
if IS_REAL:
    chrf = after["translation.chrf"]
    assert shown(before["translation.chrf"], chrf) == "rose", "translations came nearer to the references"
    print(chrf)
# %% [markdown]
# Numbers do not show what changed. The answers do; those that got better, then those that got worse. (The character model
# writes no answers.)
# %% [markdown] lang="ko"
# 숫자만으로는 무엇이 바뀌었는지 보이지 않습니다. 답을 봅니다. 좋아진 답, 나빠진 답의 순서입니다. (문자 모델은 답을 쓰지 않습니다.)
# %%
if IS_REAL:
    samples = run.samples("eval-sft", "translation")
    chosen = [*reversed(samples.changed("better")[-4:]), *samples.changed("worse")[:3]]
    print(f"{len(samples.changed('better'))} better, {len(samples.changed('worse'))} worse of {len(samples)}")
else:
    chosen = []
table(
    ("", "reference", "before", "after"),
    [(one.moved, one.reference, (one.before or "")[:80], one.answer[:80]) for one in chosen],
)
# %% [markdown]
# ## Cross-lingual transfer
#
# What is learned in one language often shows in another: SFT on Spanish maths improves English maths. To measure it, add an
# evaluation of the other language with `compare_to`, as `english` in the first notebook. A model of this size does no maths, so
# it is not tried here.
#
# Next: [03_direct_preference_optimization_alignment](03_direct_preference_optimization_alignment.ipynb).
# %% [markdown] lang="ko"
# ## 교차 언어 전이
#
# 한 언어로 배운 것은 다른 언어에서도 나타날 수 있습니다. 스페인어 수학 문제로 SFT를 하면 영어 수학 성능도 좋아집니다. 측정하려면 첫 번째
# 노트북의 `english`처럼 다른 언어의 평가를 `compare_to`와 함께 추가합니다. 이 크기의 모델은 수학을 하지 못하므로 여기서는 시도하지
# 않습니다.
#
# 다음: [03_direct_preference_optimization_alignment](03_direct_preference_optimization_alignment.ko.ipynb).
