"""Hostile checkpoints for `fuzz.py`: changed files of every format."""

import io
import json
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from mutations import Mutator, deep_recursion

from csgcnn.runs.checkpoint import METADATA, load_checkpoint, save_checkpoint
from csgcnn.runs.legacy_archives import load_legacy

# Files that versions with formats 1-3 wrote.
LEGACY = sorted((Path(__file__).parents[1] / "tests" / "runs").glob("format_[123].ckpt"))
# Errors of content that cannot be written.
UNWRITABLE = (AttributeError, RecursionError, TypeError, ValueError)


class HostileCheckpoints:
    """Make hostile checkpoints from real ones; `path` is one of format 4."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content = load_checkpoint(path)
        self.file = path.read_bytes()
        self.legacy_files = [file.read_bytes() for file in LEGACY]
        self.legacy_contents = [load_legacy(file, "checkpoint") for file in LEGACY]

    def write(self, mutator: Mutator, path: Path) -> None:
        """Write a file of format 4: changed bytes, changed header or changed content."""
        choice = mutator.rng.randrange(5)
        if choice == 0:
            path.write_bytes(mutator.bytes(self.file))
        elif choice < 3:
            path.write_bytes(self._with_changed_header(mutator))
        else:
            self._save(mutator, mutator.tree(self.content), path)

    def write_legacy(self, mutator: Mutator, path: Path) -> None:
        """Write a file of formats 1-3: changed bytes, changed members or changed content."""
        choice = mutator.rng.randrange(5)
        if choice == 0:
            path.write_bytes(mutator.bytes(mutator.rng.choice(self.legacy_files)))
        elif choice < 3:
            path.write_bytes(self._with_changed_member(mutator))
        else:
            content = mutator.tree(mutator.rng.choice(self.legacy_contents))
            self._torch_save(mutator, content, path)

    def _with_changed_header(self, mutator: Mutator) -> bytes:
        """Return the file with another header: its JSON description, names, shapes or offsets."""
        n_bytes = int.from_bytes(self.file[:8], "little")
        header = json.loads(self.file[8 : 8 + n_bytes])
        if mutator.rng.random() < 0.6:
            description = mutator.json(json.loads(header["__metadata__"][METADATA]))
            header["__metadata__"][METADATA] = description.decode()
            text = json.dumps(header).encode()
        else:
            text = mutator.json(header)
        if mutator.rng.random() < 0.3:
            text = mutator.bytes(text)
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text + self.file[8 + n_bytes :]

    def _with_changed_member(self, mutator: Mutator) -> bytes:
        """Return a zip archive with a changed member and valid checksums."""
        with zipfile.ZipFile(io.BytesIO(mutator.rng.choice(self.legacy_files))) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        is_pickle = [name for name in members if name.endswith("data.pkl")]
        name = mutator.rng.choice([*is_pickle * len(members), *members])
        members[name] = mutator.bytes(members[name])
        buffer = io.BytesIO()
        kinds = [*[zipfile.ZIP_STORED] * 5, zipfile.ZIP_DEFLATED]
        with zipfile.ZipFile(buffer, "w", mutator.rng.choice(kinds)) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return buffer.getvalue()

    def _save(self, mutator: Mutator, content: Any, path: Path) -> None:
        """Write content as format 4 or, if it holds other objects, as torch.save does."""
        with deep_recursion(), suppress(*UNWRITABLE):
            return save_checkpoint(content, path)
        return self._torch_save(mutator, content, path)

    @staticmethod
    def _torch_save(mutator: Mutator, content: Any, path: Path) -> None:
        is_zip = mutator.rng.random() < 0.7
        with deep_recursion():
            torch.save(content, path, _use_new_zipfile_serialization=is_zip)
