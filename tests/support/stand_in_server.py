"""A small OpenAI-compatible server, started as a program: python stand_in_server.py --port N --checkpoint DIR.

``--how``: ``model`` answers by the model of the checkpoint (transformers' own generate), ``echo`` with the prompt in
capitals; ``dies`` ends before it listens, ``silent`` never listens; ``half`` ends at the sixth request. ``--pids FILE``:
where it writes the numbers of its processes, one of which has left its group.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Answer = Callable[[str, int], tuple[str, int]]
LAST = 6
"""The request at which ``half`` ends."""


def of_model(checkpoint: str) -> Answer:
    import threading

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    one_at_a_time = threading.Lock()

    def answer(prompt: str, most: int) -> tuple[str, int]:
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        with one_at_a_time, torch.no_grad():
            found = model.generate(**ids, max_new_tokens=most, do_sample=False)[0][ids["input_ids"].shape[1] :]
        return tokenizer.decode(found, skip_special_tokens=True), len(found)

    return answer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--how", default="model")
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--pids", type=Path, required=True)
    given = parser.parse_args()
    strays = [subprocess.Popen(["sleep", "600"]), subprocess.Popen(["sleep", "600"], start_new_session=True)]
    with given.pids.open("a") as stream:
        stream.writelines(f"{number}\n" for number in (os.getpid(), *(one.pid for one in strays)))
    print("loading the weights", flush=True)
    if given.how == "dies":
        sys.exit("there is no such kernel")
    if given.how == "silent":
        time.sleep(600)
    answer: Answer = of_model(given.checkpoint) if given.how == "model" else lambda prompt, most: (prompt.upper(), 1)
    asked: list[None] = []

    class Handler(BaseHTTPRequestHandler):
        def send(self, code: int, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def is_let_in(self) -> bool:
            is_ours = self.headers.get("Authorization") == f"Bearer {os.environ['VLLM_API_KEY']}"
            if not is_ours:
                self.send(401, {})
            return is_ours

        def do_GET(self) -> None:
            if self.is_let_in():
                self.send(200, {"data": [{"id": "the-model"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self.is_let_in():
                return
            asked.append(None)
            if given.how == "half" and len(asked) >= LAST:
                print("an illegal instruction", flush=True)
                os._exit(5)
            time.sleep(given.slow)
            text, tokens = answer(body["messages"][-1]["content"], body["max_tokens"])
            choice = {"message": {"content": text}, "finish_reason": "stop"}
            known = body["model"] == "the-model"
            self.send(200 if known else 404, {"choices": [choice], "usage": {"completion_tokens": tokens}})

        def log_message(self, *_: Any) -> None:
            pass

    ThreadingHTTPServer.request_queue_size = 128  # as tests.support.loopback, which cannot be imported here
    ThreadingHTTPServer(("127.0.0.1", given.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
