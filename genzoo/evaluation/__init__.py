"""Evaluating trained models: likelihood with its error, kind and protocol; samples; and models beside each other."""

from genzoo.core.lazy import lazy_names

_HOMES = {
    "compare": "genzoo.evaluation.comparison.comparing",
    "Comparison": "genzoo.evaluation.comparison.page",
    "evaluate": "genzoo.evaluation.evaluator",
    "evaluate_likelihood": "genzoo.evaluation.likelihood",
    "feature_space": "genzoo.evaluation.evaluator",
    "FeatureSpace": "genzoo.evaluation.features.feature_space",
    "figures_of": "genzoo.evaluation.report.schema",
    "read_report": "genzoo.evaluation.report.report_file",
    "Report": "genzoo.evaluation.report.schema",
    "report_rows": "genzoo.evaluation.report.rendering",
    "write_report": "genzoo.evaluation.report.report_file",
}
"""Public name to the module that defines it, which is loaded when it is first used."""

__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
