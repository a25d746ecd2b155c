"""What NeMo-RL prints, read line by line: a step has ended, with its loss; where set-up ended; what it trains on."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_METRIC = re.compile(r"^\s*• (?P<name>[A-Za-z_ ]+): (?P<value>[-+0-9.eEnaif]+)(?P<unit>s\b)?")
_BEGIN = "Taking a training step"
_RESULTS = "Training Results"
_TIME = "Total step time"
_NAMES = {
    "loss": "loss", "Loss": "loss", "preference_loss": "preference_loss", "accuracy": "rewards/accuracies",
    "rewards_chosen_mean": "rewards/chosen", "rewards_rejected_mean": "rewards/rejected",
}  # fmt: skip


_NAME = re.compile(r"'dataset_name': '([^']*)'")
_LOADED = re.compile(r"✓ Training (?:dataset|and validation datasets) loaded with (\d+) ")
_HUB = re.compile(r"nvidia/HelpSteer3|rajpurkar/squad")


@dataclass(frozen=True)
class Expected:
    """The data set that a run was told to train on: the name of its kind in NeMo-RL, its file, its rows."""

    name: str
    path: str
    rows: int

    def replaced(self, line: str) -> str | None:
        """What ``line`` shows of another data set, or None.

        NeMo-RL prints its whole configuration at the start, how many rows it has loaded, and what it fetches. A key
        that it does not know leaves the data set of the stock file in place, and the run ends with exit code 0.
        """
        for name in _NAME.findall(line):
            if name != self.name:
                return f"NeMo-RL takes the data set {name!r}, not {self.name} from {self.path}"
        loaded = _LOADED.search(line)
        if loaded is not None and int(loaded[1]) != self.rows:
            return f"NeMo-RL has loaded {loaded[1]} rows, {self.path} has {self.rows}"
        if _HUB.search(line) and self.path not in line:
            return f"NeMo-RL reads another data set than {self.path}: {line.strip()[:300]}"
        return None


@dataclass
class StepReader:
    """``feed`` returns the metrics of a step when its last line has come. ``setting_up`` ends with the first step."""

    step: int
    setting_up: bool = True
    _metrics: dict[str, float] = field(default_factory=dict)
    _within: bool = False

    def feed(self, line: str) -> dict[str, float] | None:
        """One line of output; None unless it ends a step (then ``step`` has been counted up)."""
        if _BEGIN in line:
            self.setting_up = False
        if _RESULTS in line:
            self._within, self._metrics = True, {}
            return None
        found = _METRIC.match(line) if self._within else None
        if found is None:
            return None
        name = found["name"].strip()
        try:
            value = float(found["value"])
        except ValueError:
            return None
        if name in _NAMES:
            self._metrics[_NAMES[name]] = value
        if name == _TIME:
            self._within = False
            self.step += 1
            return {**self._metrics, "step_seconds": value}
        return None
