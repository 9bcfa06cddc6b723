"""Keys of the section `plot`: the figures of a run or an evaluation."""

from dataclasses import dataclass
from typing import Any

from csgcnn.config.settings.setting import setting


@dataclass(slots=True)
class PlotSettings:
    """Describe the files of the figures."""

    format: Any = setting(
        "png",
        "File formats of the figures, one or a list.",
        choices=("png", "pdf", "svg"),
        effect="execution",
    )
    width: float = setting(
        85.0,
        "Width of a figure; several panels share it from 120 mm on, below they stand in a column.",
        unit="mm",
        at_least=50,
        at_most=500,
        effect="execution",
    )
    reference_label: str = setting(
        "reference",
        "Name of the known values on the axes of figures, such as DFT or experiment.",
        effect="execution",
        verbatim=True,
    )

    @property
    def formats(self) -> list[str]:
        """The formats as a list."""
        return [self.format] if isinstance(self.format, str) else [*self.format]
