"""For type checkers: where the names that `__init__.py` loads lazily are defined."""

from genzoo.evaluation.comparison.comparing import compare as compare
from genzoo.evaluation.comparison.page import Comparison as Comparison
from genzoo.evaluation.evaluator import evaluate as evaluate
from genzoo.evaluation.evaluator import feature_space as feature_space
from genzoo.evaluation.features.feature_space import FeatureSpace as FeatureSpace
from genzoo.evaluation.likelihood import evaluate_likelihood as evaluate_likelihood
from genzoo.evaluation.report.rendering import report_rows as report_rows
from genzoo.evaluation.report.report_file import read_report as read_report
from genzoo.evaluation.report.report_file import write_report as write_report
from genzoo.evaluation.report.schema import Report as Report
from genzoo.evaluation.report.schema import figures_of as figures_of
