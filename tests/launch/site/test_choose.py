"""What is concluded from a site's answers: partition, account, QOS, constraint."""

from __future__ import annotations

from launch.site import choose
from tests.support.site_answers import CONFIG, nodes, partition, site


def test_a_queue_that_is_a_qos_and_nodes_that_are_told_apart_by_features() -> None:
    found = site(
        partitions=partition("regular", "UNLIMITED", default="YES"),
        nodes=nodes(
            ("regular*", 1500, 128, "gpu:a100:4", "a100,gpu,ss11"), ("regular*", 3000, 256, "(null)", "cpu,milan,ss11")
        ),
        associations="Big One|m1||debug,regular,preempt|debug||5|||\nBig One|m2||regular|||||\nelsewhere|m3||x||||||\n",
        user="me|m1\n",
        qos="debug|00:30:00||||||\nregular|2-00:00:00|||||\npreempt|2-00:00:00|||||\n",
    )
    choice = choose.choose(found, {"users"})
    assert choice.partition is not None
    assert choice.partition.value == "regular"
    assert (choice.constraint and choice.constraint.value, choice.data_constraint and choice.data_constraint.value) == (
        "gpu",
        "cpu",
    )
    assert choice.qos is not None
    assert choice.qos.value == "regular", "debug, the default one, is too short; preempt may be taken away"
    assert "at most 00:30:00" in choice.qos.why
    assert choice.account is not None
    assert choice.account.value == "m1"
    assert "m2" in choice.account.why
    assert "m3" not in choice.account.why, "another cluster's"
    assert choice.gpus == 4
    assert choice.seconds == 86400
    assert choice.queued is not None
    assert choice.queued.value == "5"


def test_a_small_cluster_without_accounting_and_partitions_that_are_not_for_us() -> None:
    found = site(
        config=CONFIG.format(kind="none"),
        partitions=partition("cpu", default="YES")
        + partition("gpu", "08:00:00")
        + partition("debug-gpu", "00:30:00")
        + partition("rich", groups="bosses")
        + partition("secret").replace("State", "Hidden=YES State"),
        nodes=nodes(
            ("cpu*", 40, 64, "(null)", "(null)"),
            ("gpu", 4, 32, "gpu:v100:2", "(null)"),
            ("debug-gpu", 4, 32, "gpu:v100:2", "(null)"),
            ("rich", 9, 64, "gpu:h100:8", "(null)"),
            ("secret", 9, 64, "gpu:h100:8", "(null)"),
        ),
        associations=None,
        user=None,
        qos=None,
    )
    choice = choose.choose(found, {"users"})
    assert choice.partition is not None
    assert choice.partition.value == "gpu"
    assert choice.data_partition is not None
    assert choice.data_partition.value == "cpu"
    assert (choice.account, choice.qos, choice.constraint) == (None, None, None)
    assert choice.seconds == 8 * 3600
    assert "associations" not in found.unknown, "a cluster without accounting is not silent"
    rich = found.partition("rich")
    assert rich is not None
    assert "bosses" in choose.refusal(rich, found, {"users"})
    assert choose.refusal(rich, found, {"bosses"}) == ""
