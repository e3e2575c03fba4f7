"""The registry of sections: the one place where a question that evaluations ask is listed, in the order of tables."""

from collections.abc import Sequence

from genzoo.evaluation.report.ais_section import AISSection
from genzoo.evaluation.report.baselines_section import BaselinesSection
from genzoo.evaluation.report.classification_section import ClassificationSection
from genzoo.evaluation.report.cost_section import CostSection
from genzoo.evaluation.report.illustrations_section import IllustrationsSection
from genzoo.evaluation.report.latents_section import LatentsSection
from genzoo.evaluation.report.likelihood_section import LikelihoodSection
from genzoo.evaluation.report.modes_section import ModesSection
from genzoo.evaluation.report.ood_section import OODSection
from genzoo.evaluation.report.probe_sections import (
    FineTuningSection,
    MapSection,
    ProbesSection,
    SpaceSection,
)
from genzoo.evaluation.report.published_section import PublishedSection
from genzoo.evaluation.report.sample_sections import ClassesSection, MemorisationSection, QualitySection
from genzoo.evaluation.report.section import Section
from genzoo.evaluation.report.translation_section import TranslationSection

SECTIONS: Sequence[Section] = (
    ModesSection(),
    TranslationSection(),
    LikelihoodSection(),
    BaselinesSection(),
    LatentsSection(),
    ClassificationSection(),
    CostSection(),
    QualitySection(),
    PublishedSection(),
    MemorisationSection(),
    ClassesSection(),
    IllustrationsSection(),
    OODSection(),
    AISSection(),
    ProbesSection(),
    FineTuningSection(),
    SpaceSection(),
    MapSection(),
)
