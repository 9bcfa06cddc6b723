"""The database of a hyperparameter search."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from csgcnn.errors import UserError

# name of the study in the database
STUDY = "csgcnn"
# seconds to wait while another process writes
BUSY_TIMEOUT = 60


def open_storage(folder: Path) -> RDBStorage:
    """Open the database study.db in the folder of a search."""
    url = f"sqlite:///file:{quote(os.path.abspath(folder / 'study.db'))}?uri=true"
    return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": BUSY_TIMEOUT}})


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Raise errors of the database as UserError within the block."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise UserError(f"{folder / 'study.db'} cannot be used: {reason}") from error
