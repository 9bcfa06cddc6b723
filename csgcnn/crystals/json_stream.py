"""JSON files read value by value: of a list of a million records, one is in memory at a time."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from csgcnn.crystals.structure_files import LARGEST_FILE, text_pieces
from csgcnn.errors import StructureError, UserError, one_line

_LONE_SURROGATE = re.compile(
    r"\\u[dD][89a-fA-F]"
)  # half a character, which can be read but not written: or a pair
_SPACE = re.compile(r"[ \t\n\r]*")
_ENDS = frozenset(
    " \t\n\r,:]}"
)  # what may follow a value: a number that ends with the text read may go on


class JsonStream:
    """A json file, gzip-compressed or not, of which `peek` and `skip` find the punctuation and `value` the values.

    Raises: UserError naming the file, from any method, where it cannot be read or is no valid json.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pieces = text_pieces(path)
        self._text, self._at, self._n_before = (
            "",
            0,
            0,
        )  # the text at hand, how far it is read, what came before it
        self._start = ""
        self._scan = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """The next character that is no space, "" at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_more():
                return ""

    def skip(self, *expected: str) -> str:
        """Pass one of the expected characters, and return it; "" stands for the end."""
        found = self.peek()
        if found not in expected:
            raise self.malformed(
                f"expected {' or '.join(expected) or 'the end'} at character {self._position}"
            )
        self._at += len(found)
        return found

    def value(self) -> Any:
        """The next value."""
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
            if not is_whole and len(self._text) - self._at <= LARGEST_FILE and self._read_more():
                continue
            if failure:
                raise self.malformed(failure)
            if _LONE_SURROGATE.search(self._text, self._at, end):
                value = json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))
            self._at = end
            return value

    def items(self) -> Iterator[Any]:
        """The values of a list."""
        self.skip("[")
        is_over = self.peek() == "]" and bool(self.skip("]"))
        while not is_over:
            yield self.value()
            is_over = self.skip(",", "]") == "]"

    def entries(self) -> Iterator[str]:
        """The keys of an object; whoever takes one reads its `value` before the next."""
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
        """What to raise."""
        return UserError(f"{self.path}: not valid JSON ({reason}); it starts with {self._start!r}")

    @property
    def _position(self) -> int:
        return self._n_before + self._at

    def _read_more(self) -> bool:
        """Append to the text at hand what follows, at least as much as there is, so that reading stays linear."""
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
