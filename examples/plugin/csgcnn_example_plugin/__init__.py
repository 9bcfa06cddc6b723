"""Example plugin of csgcnn. Importing it registers its data format and its metric."""

from csgcnn.crystals.datasets import register_reader
from csgcnn.evaluation.metrics import register_metric
from csgcnn_example_plugin.metrics import MEDIAN_ABSOLUTE_ERROR
from csgcnn_example_plugin.readers import VaspRuns

register_reader(VaspRuns())
register_metric(MEDIAN_ABSOLUTE_ERROR)
