"""Facts about the data of a run, and warnings of what may mislead."""

import logging
from typing import Any

from csgcnn.commands.prepare import Prepared
from csgcnn.data.dataset import label_warnings
from csgcnn.data.leakage import count_duplicates, shared_compositions
from csgcnn.errors import plural
from csgcnn.runs import pretrained

log = logging.getLogger(__name__)

SMALL = 3000  # crystals below which a kernel on site features is better than a network


def data_facts(data: Prepared) -> dict[str, Any]:
    """Log the data and warn of what may mislead; return the facts for metrics.json."""
    dataset, store, split = data.dataset, data.dataset.store, data.split
    sizes = ", ".join(f"{len(rows)} {part}" for part, rows in split.items())
    names = ", ".join(target.name for target in dataset.targets)
    log.info("%d crystals: %s; target %s", len(dataset.rows), sizes, names)
    if dataset.weights is not None:
        weights = dataset.weights[split["train"]]
        log.info(
            "the training loss is weighted (weights %.3g to %.3g); metrics are not",
            weights.min(),
            weights.max(),
        )
    if not len(split["val"]):
        log.info("no validation rows: all epochs are trained, and the last one is kept")
    if n_rejected := len(dataset.rejected):
        were = "record was" if n_rejected == 1 else "records were"
        log.warning("%d %s left out, see rejected.csv", n_rejected, were)
    for warning in label_warnings(dataset, split["train"]):
        log.warning("%s", warning)
    # What the kernel heads of recipe=small do not read.
    is_other = any(target.n_outputs > 1 for target in dataset.targets) or bool(dataset.inputs)
    if len(dataset.rows) < SMALL and not (store.settings.site_features or is_other):
        log.info("with fewer than %d crystals, recipe=small is more accurate in general", SMALL)
    uses_pretrained = any(name.startswith("pretrained ") for name in store.settings.site_features)
    if uses_pretrained and (n_known := pretrained.n_trained_on(store, split["test"])):
        log.warning(
            "%d test crystals were in the training set of the site features `pretrained`; "
            "the test errors are optimistic",
            n_known,
        )
    n_duplicates, example = count_duplicates(store, split)
    if example:
        pairs = f"{plural(n_duplicates, 'pair')} of identical structures"
        lie = "lies" if n_duplicates == 1 else "lie"
        log.warning("%s %s in different parts, e.g. %s and %s", pairs, lie, *example)
    return {
        "duplicates_across_splits": n_duplicates,
        "shared_compositions": shared_compositions(store, split),
    }
