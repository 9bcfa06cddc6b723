import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoint_files import FORMAT_1, Content

from csgcnn.runs.checkpoint import load_checkpoint


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Memory for 512 MB more than now; no message below is about the lack of it."""
    statm = Path("/proc/self/statm")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if statm.exists():
        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture
def content() -> Content:
    return load_checkpoint(FORMAT_1)
