"""Change stores of graphs into those that older versions wrote."""

import json
from pathlib import Path
from zlib import crc32

import numpy as np


def make_format_6(store: Path) -> None:
    """Keep one hash of each crystal, and count warnings by kind instead of listing them."""
    fingerprint = store / "fingerprint.npy"
    np.save(fingerprint, np.load(fingerprint)[:, 0])
    (store / "warnings.json").write_text('{"Defaulting to P#.": [3, "a"]}')
    meta = json.loads((store / "meta.json").read_text())
    for name in ("fingerprint.npy", "warnings.json"):
        meta["crc32"][name] = crc32((store / name).read_bytes())
    (store / "meta.json").write_text(json.dumps(meta | {"format": 6}))
