"""The part of the file gate that all nodes do together: of large inputs the batch host compares the sizes alone."""

from __future__ import annotations

import time

from jobs.core import seal, shares
from jobs.core.shares import Node
from jobs.core.spec import Input, StageSpec
from jobs.lifecycle.gate import input_seal
from jobs.lifecycle.start import Start, event, notes


def read_together(spec: StageSpec, start: Start, node: Node) -> None:
    """Read this node's share of every input that the job has not verified yet; called on every rank before its work.

    The first rank waits for the answers of all nodes; the others meet it where their work begins.

    Raises:
        SealBroken: with the file at fault.
    """
    if not node.leads:
        return
    left, passed = ({note.get("role") for note in notes(spec, start, name)} for name in ("gate_by_nodes", "file_gate"))
    for role in sorted(spec.inputs.keys() & left - passed):
        _read(spec, start, node, role, spec.inputs[role])


def _read(spec: StageSpec, start: Start, node: Node, role: str, parent: Input) -> None:
    desk, topic = spec.stage_paths.ranks(start.job, start.restart), f"gate-{role}"
    began = time.monotonic()
    try:
        found = input_seal(parent)
        shares.check_share(parent.output, found, node)
    except seal.SealBroken as error:
        shares.answer(desk, topic, node, error)
        raise
    shares.answer(desk, topic, node, True)
    if not node.collects:
        return
    own = time.monotonic() - began
    shares.answers(desk, topic, node.count, shares.LEAST_SECONDS + shares.SLOWER * own)
    seconds = round(time.monotonic() - began, 3)
    facts = {"bytes": found.bytes, "seconds": seconds, "nodes": node.count, "seal": seal.digest_of(parent.paths.seal)}
    event(spec.stage_paths, start, "file_gate", role=role, parent=parent.stage, **facts)
