# %% [markdown]
# # 3. Direct preference optimization (DPO)
#
# DPO aligns a model with preferences: of two answers to a prompt, the chosen one is to become more likely against the rejected
# one, measured against a fixed reference, the model at the start. No reward model is needed, which makes it simpler and more
# stable than RLHF. The loss is `-log(sigmoid(beta * margin))`, where the margin is how much more the model prefers the chosen answer
# than the reference does ([Rafailov et al. 2023](https://arxiv.org/abs/2305.18290)).
#
# The steps: preferences, configure, train, convert, measure preferences. Here European Portuguese is preferred to Brazilian.
# %% [markdown] lang="ko"
# # 3. 직접 선호도 최적화 (DPO)
#
# DPO는 모델을 선호도에 정렬합니다. 한 프롬프트의 두 답 중에서 선호하는 답(chosen)이 거부된 답(rejected)보다 더 그럴듯해지도록, 고정된
# 참조 모델(시작할 때의 모델)을 기준으로 학습합니다. 보상 모델이 필요 없어 RLHF보다 간단하고 안정적입니다. 손실은
# `-log(sigmoid(beta * margin))`이고, margin은 모델이 참조 모델보다 선호하는 답을 얼마나 더 선호하는지입니다
# ([Rafailov et al. 2023](https://arxiv.org/abs/2305.18290)).
#
# 단계: 선호도 데이터 수집, DPO 구성, 학습 실행, 모델 변환, 선호도 평가. 여기서는 브라질 포르투갈어보다 유럽 포르투갈어를 선호합니다.
# %%
import json
import math
from pathlib import Path

from common import IS_REAL, PIPELINES, draw, shown, table, thirds

import overnight

chain = overnight.pipeline(PIPELINES / "dpo.yaml")
print("fetched:", ", ".join(chain.fetch()))
# %% [markdown]
# ## Configure
#
# With NeMo-RL: `run_dpo.py policy.optimizer.kwargs.lr=5.0e-6 dpo.reference_policy_kl_penalty=0.1 ...`. Here `lr` and `beta` of the stage;
# `backend: nemo_rl` hands them to NeMo-RL. So small a model in so few steps needs a higher rate than the guide's 5e-6.
# %% [markdown] lang="ko"
# ## DPO 구성
#
# NeMo-RL에서는 `run_dpo.py policy.optimizer.kwargs.lr=5.0e-6 dpo.reference_policy_kl_penalty=0.1 ...`입니다. 여기서는 단계의 `lr`과
# `beta`이고, `backend: nemo_rl`을 적으면 NeMo-RL로 전달됩니다. 이렇게 작은 모델을 몇 단계만 학습하려면 가이드의 5e-6보다 높은 학습률이
# 필요합니다.
# %%
settings = chain.plan(cluster="local").stages["dpo"].settings
table(("setting", "value"), [(name, settings[name]) for name in ("steps", "lr", "batch_size", "beta")])
# %% [markdown]
# ## Train
# %% [markdown] lang="ko"
# ## 학습 실행
# %%
run = chain.run(on_change=print)
# %% [markdown]
# ## Preferences
# %% [markdown] lang="ko"
# ## 선호도 데이터
# %%
lines = Path(run.stages["prefs"].path, "train.jsonl").read_text(encoding="utf-8").splitlines()
rows = [json.loads(line) for line in lines[:4]]
table(("prompt", "chosen", "rejected"), [(row["prompt"], row["chosen"], row["rejected"]) for row in rows])
# %% [markdown]
# ## Convert
#
# NeMo-RL writes checkpoints of its own form, and its guide converts them by `convert_dcp_to_hf.py`. Overnight inserts that stage (`dpo-hf`)
# where the next stage reads another format. Here the trainer writes a Hugging Face directory, and nothing has to be converted;
# the base model, which came as GGUF, was converted at the beginning (`base-hf`).
# %% [markdown] lang="ko"
# ## 모델 변환
#
# NeMo-RL은 자신의 형식으로 체크포인트를 쓰고, `convert_dcp_to_hf.py`로 변환합니다. Overnight는 다음 단계가 다른 형식을 읽을 때 변환 단계
# (`dpo-hf`)를 스스로 넣습니다. 여기서는 학습기가 Hugging Face 디렉터리를 쓰므로 변환할 것이 없습니다. GGUF로 받은 기본 모델은 처음에
# 변환되었습니다 (`base-hf`).
# %%
made = run.model
print(f"{made.stage}: {made.format}, {made.bytes / 1e6:.1f} MB, sha256 {made.content[:16]}")
assert made.stage == "dpo"
# %% [markdown]
# ## Preferences measured
#
# Accuracy: how often the chosen answer is more likely than the rejected one, on pairs that were not trained on. And whether the
# translations themselves suffered: a change whose interval holds 0 is undecided, not zero.
# %% [markdown] lang="ko"
# ## 선호도 평가
#
# accuracy는 학습에 쓰지 않은 쌍에서 선호하는 답이 거부된 답보다 더 그럴듯한 비율입니다. 번역 자체가 나빠졌는지도 봅니다. 구간이 0을 포함하는
# 변화는 0이 아니라 미결정(undecided)입니다.
# %%
curve = run.curve("dpo")
reward = "reward_margin" if IS_REAL else "loss"
draw({"dpo": curve}, reward)
# %%
before, after = run.evaluations["before-dpo"], run.evaluations["eval-dpo"]
compared = []
for name, new in after.items():
    old = before[name]
    compared.append((name, f"{old.value:.4g}", f"{new.value:.4g}", shown(old, new), new.n, new.verdict or ""))
table(("metric", "before", "after", "the change", "examples", "gate"), compared)
# %%
first, last = thirds(curve, reward)
assert (last > first) == IS_REAL, "the margin of training rose, or its loss fell"
if IS_REAL:
    assert shown(before["preferences.margin"], after["preferences.margin"]) == "rose", "the margin grew on unseen pairs"
    print(after["preferences.accuracy"])
    print("translations:", shown(before["translation.chrf"], after["translation.chrf"]))
# %% [markdown]
# ## Beta
#
# A low beta allows the model to go far from the reference, a high one keeps it near. That is about where training ends, and not
# about its first steps: the gradient is proportional to beta, so that in few steps a *higher* beta moves the model more. Both are
# measured here, by the toy back end (a real model would take too long): the mean margin that the loss of training stands for, after
# 20 steps and after 400.
# %% [markdown] lang="ko"
# ## 베타
#
# 베타가 낮으면 모델이 참조 모델에서 멀리 갈 수 있고, 높으면 가까이 머뭅니다. 이것은 학습이 끝나는 곳의 이야기이고 처음 몇 단계의 이야기가
# 아닙니다. 기울기가 베타에 비례하므로 적은 단계에서는 베타가 *높을수록* 모델이 더 움직입니다. 여기서 둘 다 toy 백엔드로 측정합니다 (실제 모델은
# 너무 오래 걸립니다). 20단계와 400단계 뒤에 학습 손실이 뜻하는 평균 margin입니다.
# %%
toy = overnight.pipeline(PIPELINES.parent / "toy" / "dpo.yaml")
toy.fetch()
margins = {}
for steps in (20, 400):
    for beta in (0.05, 0.1, 0.5):
        swept = toy.set("stages.dpo.beta", beta).set("stages.dpo.steps", steps).run()
        loss = swept.curve("dpo").column("loss")[-1][1]
        margins[steps, beta] = -math.log(math.expm1(loss)) / beta
table(
    ("steps", "beta 0.05", "beta 0.1", "beta 0.5"),
    [(steps, *(f"{margins[steps, beta]:.2f}" for beta in (0.05, 0.1, 0.5))) for steps in (20, 400)],
)
# %%
assert margins[20, 0.05] < margins[20, 0.1] < margins[20, 0.5], "in few steps a higher beta moves the model more"
assert margins[400, 0.5] < margins[400, 0.1], "in many steps it keeps the model nearer to the reference"
# %% [markdown]
# Next: [fine_tuning_practice](fine_tuning_practice.ipynb), the whole chain at once.
# %% [markdown] lang="ko"
# 다음: [fine_tuning_practice](fine_tuning_practice.ko.ipynb), 전체 체인을 한 번에.
