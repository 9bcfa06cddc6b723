"""JSON files read value by value: only one record of a long list is in memory at a time."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from csgcnn.crystals.text_files import ONE_STRUCTURE, UNBOUNDED, TextLimits, text_pieces
from csgcnn.errors import StructureError, UserError, one_line

# The escape of half a character, which JSON can hold but UTF-8 cannot; a pair of them is valid.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SPACE = re.compile(r"[ \t\n\r]*")
# What may follow a value. A number at the end of the text read so far may continue.
_ENDS = frozenset(" \t\n\r,:]}")


class JsonStream:
    """Read a JSON file step by step: `peek` and `skip` find punctuation, `value` values.

    Every method raises UserError, which names the file, where it cannot be read or is not JSON.

    Args:
        path: The file; it may be gzip-compressed.
        limits: Bounds on the whole file.
        max_value_bytes: Largest length of one value.
    """

    def __init__(
        self,
        path: Path,
        limits: TextLimits = UNBOUNDED,
        max_value_bytes: float = ONE_STRUCTURE.max_bytes,
    ) -> None:
        self.path = path
        self._pieces = text_pieces(path, limits)
        self._max_value_bytes = max_value_bytes
        # The text at hand, the position in it, and the number of characters before it.
        self._text, self._at, self._n_before = "", 0, 0
        self._start = ""
        self._scan = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """Return the next character that is not white space; "" at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_more():
                return ""

    def skip(self, *expected: str) -> str:
        """Skip and return one of the expected characters; "" stands for the end."""
        found = self.peek()
        if found not in expected:
            wanted = " or ".join(expected) or "the end"
            raise self.malformed(f"expected {wanted} at character {self._position}")
        self._at += len(found)
        return found

    def value(self) -> Any:
        """Return the next value."""
        self.peek()
        while True:
            try:
                value, end = self._scan(self._text, self._at)
                is_whole = end < len(self._text) and self._text[end] in _ENDS
                failure = None
            except json.JSONDecodeError as error:
                is_whole, failure = False, f"{error.msg} at character {self._n_before + error.pos}"
            except (ValueError, RecursionError) as error:
                raise self.malformed(one_line(error)) from None
            may_grow = len(self._text) - self._at <= self._max_value_bytes
            if not is_whole and may_grow and self._read_more():
                continue
            if failure:
                raise self.malformed(failure)
            if _SURROGATE.search(self._text, self._at, end):
                value = json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))
            self._at = end
            return value

    def items(self) -> Iterator[Any]:
        """Yield the values of a list."""
        self.skip("[")
        is_over = self.peek() == "]" and bool(self.skip("]"))
        while not is_over:
            yield self.value()
            is_over = self.skip(",", "]") == "]"

    def entries(self) -> Iterator[str]:
        """Yield the keys of an object; the caller reads the `value` of each before the next."""
        self.skip("{")
        is_over = self.peek() == "}" and bool(self.skip("}"))
        while not is_over:
            key = self.value()
            if not isinstance(key, str):
                raise self.malformed("the key of an object is no text")
            self.skip(":")
            yield key
            is_over = self.skip(",", "}") == "}"

    def end(self) -> None:
        """Check that nothing follows."""
        self.skip("")

    def malformed(self, reason: str) -> UserError:
        """Return the error for a file that is not JSON."""
        return UserError(f"{self.path}: not valid JSON ({reason}); it starts with {self._start!r}")

    @property
    def _position(self) -> int:
        return self._n_before + self._at

    def _read_more(self) -> bool:
        """Read on, at least as many characters as are unread, so that the total time is linear."""
        rest, wanted = self._text[self._at :], len(self._text) - self._at
        more: list[str] = []
        try:
            for piece in self._pieces:
                more.append(piece)
                wanted -= len(piece)
                if wanted < 0:
                    break
        except StructureError as error:
            raise UserError(f"{self.path}: {error}") from None
        self._n_before, self._at = self._position, 0
        self._text = "".join([rest, *more])
        self._start = self._start or self._text[:30]
        return len(self._text) > len(rest)
