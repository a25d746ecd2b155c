# %% [markdown]
# # 1. Continued pre-training (CPT)
#
# CPT gives an existing model new knowledge of a domain: it goes on with what pre-training did, on texts of the domain.
# [ChipNeMo](https://arxiv.org/abs/2311.00176) did so for chip design, and then fine-tuned. The steps: collect texts, JSONL,
# tokenise, configure, train, measure what was gained, and what was forgotten.
#
# Here SmolLM2-135M learns European Portuguese from the message catalogues of web frameworks, on two CPU cores. So short a
# training shows the method, not a good model. With `OVERNIGHT_NOTEBOOKS=toy` the same cells train a character model on other
# texts within seconds.
# %% [markdown] lang="ko"
# # 1. 지속적 사전 학습 (CPT)
#
# CPT는 사전 학습된 모델에 새로운 도메인 지식을 주입합니다. 도메인 텍스트로 사전 학습을 이어 가는 것입니다.
# [ChipNeMo](https://arxiv.org/abs/2311.00176)는 칩 설계 도메인에 이 방법을 쓴 뒤 파인튜닝했습니다. 단계: 도메인 텍스트 수집,
# JSONL 형식 변환, 토큰화, CPT 구성, 학습 실행, 지식 습득 평가. 여기에 무엇을 잊었는지도 측정합니다.
#
# 여기서는 SmolLM2-135M이 웹 프레임워크의 메시지 카탈로그로 유럽 포르투갈어를 CPU 코어 두 개에서 배웁니다. 이렇게 짧은 학습은
# 방법을 보여 줄 뿐 좋은 모델을 만들지는 않습니다. `OVERNIGHT_NOTEBOOKS=toy`로 실행하면 같은 셀이 문자 모델을 다른 텍스트로 몇 초
# 안에 학습합니다.
# %%
import json
from pathlib import Path

from common import IS_REAL, PIPELINES, draw, draw_intervals, shown, table, thirds

import overnight

chain = overnight.pipeline(PIPELINES / "cpt.yaml")
# %% [markdown]
# ## Collect, JSONL, tokenise, configure
#
# One file says all of it. The stage `corpus` collects the texts, writes them as JSONL (`{"id", "text"}`) and splits them;
# `cpt` tokenises and trains. `english` is never trained on: it is what the model can do before, and may forget.
#
# In a NeMo recipe the same reads `llm.llama32_1b.pretrain_recipe(...)`, with `recipe.trainer.max_steps = 10`,
# `recipe.optim.config.lr = 3e-4`, `recipe.data = PreTrainingDataModule(...)`. With `backend: nemo` in the stage Overnight makes that
# recipe from the same keys (docs/backends.md).
# %% [markdown] lang="ko"
# ## 수집, JSONL, 토큰화, 구성
#
# 파일 하나에 모두 적습니다. `corpus` 단계는 텍스트를 모아 JSONL(`{"id", "text"}`)로 쓰고 나눕니다. `cpt`는 토큰화하고 학습합니다.
# `english`로는 학습하지 않습니다. 모델이 원래 할 수 있고 잊을 수 있는 것입니다.
#
# NeMo 레시피에서는 `llm.llama32_1b.pretrain_recipe(...)`와 `recipe.trainer.max_steps = 10`,
# `recipe.optim.config.lr = 3e-4`, `recipe.data = PreTrainingDataModule(...)`로 씁니다. 단계에 `backend: nemo`를 적으면 Overnight가 같은
# 키로 그 레시피를 만듭니다 (docs/backends.md).
# %%
text = chain.path.read_text(encoding="utf-8")
print(text[text.index("stages:") :])
# %% [markdown]
# What was downloaded is pinned and verified; jobs need no network. The plan shows what would run, and what is there already.
# %% [markdown] lang="ko"
# 내려받은 것은 버전이 고정되고 검증됩니다. 작업에는 네트워크가 필요 없습니다. 계획은 무엇이 실행되고 무엇이 이미 있는지 보여 줍니다.
# %%
print("fetched:", ", ".join(chain.fetch()))
plan = chain.plan(cluster="local")
table(
    ("stage", "kind", "waits for", "state"),
    [(one.name, one.kind, ", ".join(one.parents), one.state) for one in plan.stages.values()],
)
# %% [markdown]
# ## Train
#
# Each stage ends with a seal: the digest of every file. A stage that is sealed already is not run again.
# On a cluster the same chain is submitted with `chain.submit(cluster=...)`.
# %% [markdown] lang="ko"
# ## 학습 실행
#
# 각 단계는 봉인(seal)으로 끝납니다. 모든 파일의 다이제스트입니다. 이미 봉인된 단계는 다시 실행하지 않습니다.
# 클러스터에서는 같은 체인을 `chain.submit(cluster=...)`로 제출합니다.
# %%
run = chain.run(on_change=print)
# %%
rows = Path(run.stages["corpus"].path, "train.jsonl").read_text(encoding="utf-8").splitlines()
table(("text",), [(json.loads(row)["text"],) for row in rows[:3]])
# %% [markdown]
# ## What was learned, and what was forgotten
#
# The loss of training falls. That says little: what counts are texts that the model has not seen. Each value has its 95 %
# interval, and a change counts only where its interval, over the same texts before and after, excludes 0.
# %% [markdown] lang="ko"
# ## 배운 것과 잊은 것
#
# 학습 손실은 줄어듭니다. 그것만으로는 부족합니다. 중요한 것은 모델이 보지 못한 텍스트입니다. 모든 값에는 95 % 신뢰 구간이 있고,
# 변화는 같은 텍스트로 전후를 비교한 구간이 0을 포함하지 않을 때만 인정합니다.
# %%
curve = run.curve("cpt")
draw({"cpt": curve})
# %%
metric = "bits_per_byte" if IS_REAL else "loss"
before, after = run.evaluations["baseline"], run.evaluations["eval-cpt"]
pairs = {name: (before[f"{name}.{metric}"], after[f"{name}.{metric}"]) for name in ("portuguese", "english")}
table(
    ("texts", metric, "after", "change was"),
    [(name, f"{old.value:.3f}", f"{new.value:.3f}", shown(old, new)) for name, (old, new) in pairs.items()],
)
# %%
draw_intervals([one for pair in pairs.values() for one in pair])
# %% [markdown]
# The claims of this notebook. If one did not hold, the notebook would end here.
# %% [markdown] lang="ko"
# 이 노트북의 주장입니다. 하나라도 성립하지 않으면 노트북은 여기서 멈춥니다.
# %%
first, last = thirds(curve)
assert last < first, "the loss of training fell"
assert shown(*pairs["portuguese"]) == "fell", "unseen texts of the domain became more likely"
forgetting = shown(*pairs["english"])
print({
    "rose": "English became less likely: forgetting is shown. Remedies: a lower learning rate, fewer steps, SFT afterwards.",
    "fell": "English became more likely as well: no forgetting is shown.",
    "undecided": "So few English texts show neither forgetting nor the opposite.",
}[forgetting])  # fmt: skip
# %% [markdown]
# ## CPT or RAG?
#
# | | CPT | RAG |
# | --- | --- | --- |
# | knowledge | in the weights | found outside |
# | latency | low | search, and a longer prompt |
# | data | millions of tokens | little |
# | update | train again | at once |
# | cost | training | low |
# | context | short | long |
#
# What a longer prompt costs can be measured: the same model, with and without 400 tokens of found text before the question.
# (Measured with the real model only; the search itself is not in it.)
# %% [markdown] lang="ko"
# ## CPT인가 RAG인가?
#
# | 측면 | CPT | RAG |
# | --- | --- | --- |
# | 지식 저장 | 모델 가중치 | 외부 검색 |
# | 지연 시간 | 낮음 | 높음 (검색, 긴 프롬프트) |
# | 데이터 | 수백만 토큰 | 적음 |
# | 업데이트 | 재학습 | 즉시 |
# | 비용 | 학습 비용 | 낮음 |
# | 컨텍스트 | 짧음 | 길음 |
#
# 긴 프롬프트의 비용은 측정할 수 있습니다. 같은 모델에, 질문 앞에 검색된 텍스트 400토큰이 있을 때와 없을 때입니다.
# (실제 모델로만 측정합니다. 검색 시간 자체는 들어 있지 않습니다.)
# %%
if IS_REAL:
    import statistics
    import time

    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(run.model.path).eval()

    def seconds(tokens: int) -> float:
        ids = torch.arange(100, 100 + tokens)[None]
        began = time.perf_counter()
        with torch.no_grad():
            model(ids)
        return time.perf_counter() - began

    seconds(20)
    latency = {tokens: statistics.median(seconds(tokens) for _ in range(5)) for tokens in (20, 420)}
    assert latency[420] > latency[20], "a longer prompt takes longer"
    for tokens, took in latency.items():
        print(f"prompt of {tokens} tokens: {1000 * took:.0f} ms until the first token")
else:
    print("not measured with the character model")
# %% [markdown]
# Next: [02_supervised_finetuning](02_supervised_finetuning.ipynb) goes on from this checkpoint.
# %% [markdown] lang="ko"
# 다음: [02_supervised_finetuning](02_supervised_finetuning.ko.ipynb)이 이 체크포인트에서 이어 갑니다.
