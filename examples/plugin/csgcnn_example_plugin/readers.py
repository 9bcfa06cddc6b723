"""A data format, which implements `csgcnn.crystals.datasets.DatasetReader`."""

from collections.abc import Iterator
from pathlib import Path

from csgcnn.crystals.records import ReadOptions, Record
from csgcnn.errors import UserError


class VaspRuns:
    """Read a folder with one folder per calculation, each with CONTCAR and energy.txt (eV).

    The name of the folder of a calculation is the id of its record.
    """

    name = "folder of VASP calculations"
    version = "1"

    def matches(self, path: Path) -> bool:
        """Return whether a folder has calculations below it."""
        return path.is_dir() and any(path.glob("*/CONTCAR"))

    def read(self, path: Path, options: ReadOptions) -> Iterator[Record]:
        """Return an iterator of the records, sorted by id."""
        for structure in sorted(path.glob("*/CONTCAR")):
            file = structure.with_name("energy.txt")
            try:
                energy = float(file.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise UserError(f"{file}: expected an energy in eV ({error})") from error
            yield Record(structure.parent.name, structure, {"energy": energy})

    def files(self, path: Path, options: ReadOptions) -> Iterator[Path]:
        """Return an iterator of the files that determine the records."""
        for structure in sorted(path.glob("*/CONTCAR")):
            yield structure
            if (file := structure.with_name("energy.txt")).exists():
                yield file
