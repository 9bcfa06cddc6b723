"""`csgcnn learning-curve` as a function, for scripts and notebooks."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csgcnn.commands.arguments import compose_settings, dataset_keys, full_keys, names
from csgcnn.commands.job import Job
from csgcnn.commands.learning_curve import learning_curve as run_learning_curve
from csgcnn.commands.reporting import reported
from csgcnn.config.compose import to_overrides
from csgcnn.config.paths import claim_directory
from csgcnn.config.plugins import plugins_loaded
from csgcnn.config.settings.commands import COMMANDS
from csgcnn.config.validate import validate
from csgcnn.errors import UserError
from csgcnn.io import writing

if TYPE_CHECKING:
    import pandas as pd

COMMAND = "learning-curve"


def learning_curve(
    dataset: "str | Path | pd.DataFrame | None" = None,
    target: str | Sequence[str] | None = None,
    sizes: Sequence[int | str] = (50, 100, 200, 400, "all"),
    repeats: int = 3,
    *,
    folder: str | Path | None = None,
    verbose: bool = True,
    **settings: Any,
) -> dict[str, Any]:
    """Measure test errors against the number of training crystals, as `csgcnn learning-curve` does.

    Args:
        dataset: Option of the group `dataset` (by default "dielectric"), a data file or folder, or
            a DataFrame with a column of structures and columns of targets.
        target: Column to predict, or several, of which the first one is measured.
        sizes: Numbers of training crystals; "all" is the training part.
        repeats: Times that the data are divided and trained on.
        folder: Folder of the runs; those that are there are resumed. By default a new one in
            `runs/`.
        verbose: Whether to print what the command prints.
        **settings: Keys and groups of the command line, as for `csgcnn.train`.

    Returns:
        The content of summary.json: `sizes`, `runs`, and `power_law`, or None with the reason in
        `contradiction`.

    Raises:
        UserError: The data or the settings cannot be used.
        KeyboardInterrupt: The command was interrupted; with the same folder it resumes.

    Examples:
        >>> curve = csgcnn.learning_curve("dielectric", sizes=[50, 100, 200, "all"], folder="curve")
        >>> curve["power_law"]["extrapolated"]
    """
    home = Path(folder or claim_directory(f"runs/{datetime.now():%Y-%m-%d/%H-%M-%S}_{COMMAND}"))
    home = home.expanduser()
    with writing(home):
        home.mkdir(parents=True, exist_ok=True)
    targets = [target] if isinstance(target, str) else target
    given = settings if targets is None else settings | {"target": targets}
    keys = full_keys(given | dataset_keys(dataset, home, given))
    keys |= {"sizes": list(sizes), "repeats": repeats}
    cfg = compose_settings(COMMAND, keys)
    with plugins_loaded(cfg.plugins), reported(verbose, home / f"{COMMAND}.log"):
        validate(cfg, COMMANDS[COMMAND], names(keys))
        try:
            return run_learning_curve(cfg, Job(home, to_overrides(keys), recipe=cfg.recipe))
        except SystemExit as stop:
            message = f"the command was stopped; with folder={str(home)!r} it resumes"
            kind = KeyboardInterrupt if stop.code == 130 else UserError
            raise kind(message) from None
