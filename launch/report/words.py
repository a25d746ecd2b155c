"""The fixed words of the page in the languages that it speaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

Say = Callable[[str], str]

KOREAN: Mapping[str, str] = {
    "A finished model.": "모델이 완성되었습니다.",
    "A finished model, but not as good as asked for.": "모델은 완성되었지만 요구한 품질에 미치지 못했습니다.",
    "All stages are done.": "모든 단계가 끝났습니다.",
    "No finished model.": "완성된 모델이 없습니다.",
    "Not over yet.": "아직 끝나지 않았습니다.",
    "gates passed": "개 게이트 통과",
    "stages sealed": "개 단계 봉인됨",
    "Better": "나아진 것",
    "Worse": "나빠진 것",
    "No change shown": "변화가 확인되지 않은 것",
    "nothing shown": "확인된 것 없음",
    "Next": "다음에 할 일",
    "What changed": "무엇이 달라졌나",
    "The night": "지난밤",
    "Curves": "학습 곡선",
    "Answers": "답변",
    "Data": "데이터",
    "Stages": "단계",
    "Failures": "실패와 그 증거",
    "Configuration": "설정",
    "Once more": "다시 실행하기",
    "metric": "지표",
    "before": "이전",
    "now": "지금",
    "change": "변화",
    "examples": "예제 수",
    "gate": "게이트",
    "passed": "통과",
    "missed": "미달",
    "undecided": "판정 불가",
    "too few": "너무 적음",
    "stage": "단계",
    "state": "상태",
    "job": "작업",
    "nodes": "노드",
    "step": "스텝",
    "loss": "손실",
    "elapsed": "걸린 시간",
    "GPU-hours": "GPU 시간",
    "waiting": "선행 단계 대기",
    "queued": "큐 대기",
    "starting": "시작",
    "working": "작업",
    "saving": "저장",
    "made again": "다시 학습",
    "ending": "마무리",
    "goodput": "유효 작업 비율",
    "of the time of the allocations was work that was kept": "할당된 시간 중 결과로 남은 작업의 비율",
    "in the queue while nothing ran": "아무 작업도 돌지 않은 채 큐에서 보낸 시간",
    "cost": "비용",
    "all": "전체",
    "worse": "나빠짐",
    "better": "나아짐",
    "asked": "질문",
    "reference": "정답",
    "light or dark": "밝게 / 어둡게",
    "print": "인쇄",
    "An interval holds what chance explains of these examples. Another training run (another seed) may differ more.":
        "구간은 이 예제들에서 우연으로 설명되는 범위입니다. 다른 시드로 다시 학습하면 더 달라질 수 있습니다.",
    "Changes against the run before": "직전 실행과 달라진 점",
    "no other run of this pipeline in the workspace": "작업 공간에 이 파이프라인의 다른 실행이 없습니다",
    "the same files as in run": "다음 실행과 같은 파일:",
    "pipeline": "파이프라인",
    "profile": "프로파일",
    "validation": "검증",
    "learning rate": "학습률",
    "tokens a second": "초당 토큰",
    "No evaluation has measured anything.": "평가된 것이 없습니다.",
    "rows kept": "남은 행",
    "the card": "데이터 카드",
    "to run it again": "다시 실행하려면",
    "what is in the store is not made again": "저장소에 있는 결과는 다시 만들지 않습니다",
    "versions": "버전",
    "shown": "표시",
    "of": "/",
}  # fmt: skip
LANGUAGES = ("en", "ko")


def speaker(language: str) -> Say:
    """What says a fixed text of the page in a language. Raises KeyError: it has no such text."""
    if language == "ko":
        return lambda text: KOREAN[text]
    return lambda text: text
