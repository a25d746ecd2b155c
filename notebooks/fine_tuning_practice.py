# %% [markdown]
# # Practice: the whole chain
#
# Set up, convert the model, baseline, CPT, SFT, DPO, final evaluation: one file, one submission, and an answer in the morning.
# This notebook goes through a night in seconds, with the toy back end, and breaks it on the way. At the end it opens the chain of the
# first three notebooks.
# %% [markdown] lang="ko"
# # 통합 실습: 전체 체인
#
# 환경 설정, 모델 변환, 기준 평가, CPT, SFT, DPO, 최종 평가: 파일 하나, 제출 한 번, 아침에 답 하나입니다. 이 노트북은 toy 백엔드로 하룻밤을
# 몇 초 안에 지나가며 도중에 일부러 고장을 냅니다. 끝에서는 앞의 세 노트북의 체인을 엽니다.
# %%
from common import PIPELINES, draw, shown, table

import overnight

chain = overnight.pipeline(PIPELINES.parent.parent / "pipelines" / "first_night.yaml")
print("fetched:", ", ".join(chain.fetch()))
# %% [markdown]
# ## Plan
#
# Before anything runs: the jobs, what each waits for, what is there already. `limits` says for what a submission would be refused.
# On a cluster: `chain.plan(cluster="NAME")`, with GPU-hours and memory.
# %% [markdown] lang="ko"
# ## 계획
#
# 실행하기 전에 작업, 각 작업이 기다리는 것, 이미 있는 것을 봅니다. `limits`는 제출이 거절될 이유입니다. 클러스터에서는
# `chain.plan(cluster="NAME")`이 GPU 시간과 메모리도 보여 줍니다.
# %%
plan = chain.plan(cluster="local")
assert plan.limits == ()
table(
    ("stage", "kind", "waits for"),
    [(one.name, one.kind, ", ".join(one.parents)) for one in plan.stages.values()],
)
# %% [markdown]
# A wrong value is refused at once, with its place and what to write.
# %% [markdown] lang="ko"
# 잘못된 값은 그 위치와 고칠 방법과 함께 바로 거절됩니다.
# %%
try:
    chain.set("stages.sft.learning_rate", 1e-5).plan()
except overnight.InputError as error:
    print(str(error).splitlines()[0])
else:
    raise AssertionError("a key that does not exist was accepted")
# %% [markdown]
# ## Run, and a failure in the night
#
# The SFT stage is made to end with an error at its third step, as code of your own may. The chain stops there: no stage starts on what is not sealed.
# %% [markdown] lang="ko"
# ## 실행, 그리고 밤중의 실패
#
# SFT 단계가 셋째 단계에서 오류로 끝나게 합니다. 체인은 거기서 멈춥니다. 봉인되지 않은 것 위에서는 어떤 단계도 시작하지 않습니다.
# %%
broken = chain.set("stages.sft.options", {"mishap": "code", "mishap_step": 3, "mishap_starts": 1})
try:
    broken.run(on_change=print)
except overnight.OvernightError as error:
    print(error)
run = overnight.open()
if not run.status().is_done:
    assert run.status().stage("sft").state is overnight.State.FAILED
print(run.status())
# %% [markdown]
# ## Repair
#
# `resume` keeps what is sealed and runs what is missing. (The mishap happens in the first start only.)
# %% [markdown] lang="ko"
# ## 복구
#
# `resume`은 봉인된 것을 유지하고 없는 것만 실행합니다. (이 고장은 첫 시작에서만 일어납니다.)
# %%
told: list[str] = []
run.resume(on_change=lambda stage: told.append(str(stage)))
print("\n".join(told))
assert run.status().is_done
assert "cpt: sealed already, reused" in told, "nothing was trained twice"
# %% [markdown]
# ## The morning
#
# On a cluster `run.wait(on_change=print)` follows it; the last job writes the page of the run by itself.
# %% [markdown] lang="ko"
# ## 아침
#
# 클러스터에서는 `run.wait(on_change=print)`로 따라갑니다. 실행 페이지는 마지막 작업이 스스로 씁니다.
# %%
draw({stage: run.curve(stage) for stage in ("cpt", "sft", "dpo")})
# %%
before, after = run.evaluations["baseline"]["perplexity.loss"], run.evaluations["final"]["perplexity.loss"]
print(before)
print(after)
assert shown(before, after) == "fell", "after the whole chain unseen texts are more likely than before"
# %%
page = run.report()
print(page.name, page.stat().st_size > 10_000)
print("the model:", run.model.stage, run.model.format, run.model.content[:16])
# %% [markdown]
# ## A change, compared
#
# What does not depend on it is found in the store. `compare` tells the difference of the files first, then of the numbers.
# %% [markdown] lang="ko"
# ## 변경과 비교
#
# 변경과 관계없는 것은 저장소에서 찾습니다. `compare`는 먼저 파일의 차이를, 다음에 수치의 차이를 보여 줍니다.
# %%
told.clear()
other = broken.set("stages.dpo.beta", 0.3).run(on_change=lambda stage: told.append(str(stage)))
assert "sft: sealed already, reused" in told
compared = overnight.compare(run, other)
print(compared.difference)
assert "beta: 0.3" in compared.difference
# %% [markdown]
# ## The chain of the notebooks
#
# The three notebooks before share one store. With their stages in it, their last pipeline runs in no time: every stage is found.
# %% [markdown] lang="ko"
# ## 노트북의 체인
#
# 앞의 세 노트북은 저장소 하나를 함께 씁니다. 그 단계들이 있으면 마지막 파이프라인은 바로 끝납니다. 모든 단계를 찾기 때문입니다.
# %%
last = overnight.pipeline(PIPELINES / "dpo.yaml")
states = {one.name: one.state for one in last.plan().stages.values()}
if set(states.values()) == {"sealed"}:
    whole = last.run()
    print(whole.evaluations["eval-dpo"])
    print("the model to take away:", whole.model.stage, f"{whole.model.bytes / 1e6:.1f} MB")
else:
    print("run the other notebooks first:", states)
# %% [markdown]
# The directory `run.model.path` is what you take away: with the real back ends a Hugging Face directory, for `transformers`, vLLM and others.
# Next: your own pipeline file, your cluster's profile (`overnight profile init`), `chain.submit(cluster=...)`.
# %% [markdown] lang="ko"
# 가져갈 것은 `run.model.path` 디렉터리입니다. 실제 백엔드에서는 `transformers`, vLLM 등이 읽는 Hugging Face 디렉터리입니다.
# 다음: 자신의 파이프라인 파일, 클러스터 프로필(`overnight profile init`), `chain.submit(cluster=...)`.
