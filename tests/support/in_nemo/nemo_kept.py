"""What the tensors of a save belong to: ``python nemo_kept.py SAVE``; prints one JSON line, kind -> how many."""

from __future__ import annotations

import json
import sys
from collections import Counter

from torch.distributed.checkpoint import FileSystemReader

if __name__ == "__main__":
    names = FileSystemReader(f"{sys.argv[1]}/weights").read_metadata().state_dict_metadata
    kinds = {"optimizer": "optimizer.", "adapter": ".adapter."}
    print(json.dumps(Counter(next((kind for kind, part in kinds.items() if part in name), name) for name in names)))
