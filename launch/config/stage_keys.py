"""What every stage of a pipeline can be told."""

from typing import Any

from launch.config.fields import RESOURCE_KEYS, Amount, ModuleName, ResourceKeys


def with_options(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings in which ``options`` stand beside the other keys."""
    options = settings.pop("options", {})
    return {**settings, **options}


class StageKeys(ResourceKeys):
    """Resources of its job, how it is submitted, and its seed."""

    executor: ModuleName | None = None
    seed: Amount | None = None

    def settings(self) -> dict[str, Any]:
        """The settings with defaults, as plain JSON, without keys about the cluster. The ``options`` of a back end (and
        of a task) are beside the other keys: a back end has one kind of setting."""
        left_out = {*RESOURCE_KEYS, "executor"}
        return with_options({key: value for key, value in self.plain().items() if key not in left_out})
