"""Prints how often AutoModel's recipe counts the most memory anew when it reports a step: by itself, and under ours."""

from __future__ import annotations

import inspect
import json

import torch
from nemo_automodel.recipes.llm.train_ft import TrainFinetuneRecipeForNextTokenPrediction

from jobs.backends.automodel.train import Watched

does_it = "reset_peak_memory_stats" in inspect.getsource(TrainFinetuneRecipeForNextTokenPrediction.log_train_metrics)
calls: list[int] = []
torch.cuda.reset_peak_memory_stats = lambda: calls.append(1)
TrainFinetuneRecipeForNextTokenPrediction.log_train_metrics = lambda self, data: torch.cuda.reset_peak_memory_stats()
Watched.log_train_metrics(object.__new__(Watched), None)
ours = len(calls)
torch.cuda.reset_peak_memory_stats()
print(json.dumps({"does it": does_it, "under ours": ours, "afterwards": len(calls)}))
