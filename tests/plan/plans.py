"""Surveys, work and reference classes with round numbers, for the tests of plans."""

from exporters.api import Estimate, Survey, SurveyItem
from migrate.plan.cost_model import Reference
from migrate.plan.forecast import ReferenceClass, Scenario
from migrate.plan.stage_work import StageWork
from migrate.plan.survey import SourcePlan

MODEL = Reference({"export": {"*": [0.0, 0.0, 0.0, 1.0]}, "compare": {"*": [0.0, 0.0, 0.0, 1.0]}}, [])
"""A byte takes a second."""


def source(name="app", *, size_bytes=1000, seconds=10.0, goes_on=False, kind="postgresql"):
    """A source of one table, whose sample says how many seconds it takes."""
    item = SurveyItem("t", "table", 5, size_bytes, exact=not goes_on)
    return SourcePlan(
        name,
        f"{kind}://host/{name}",
        Survey((item,), "server", goes_on=goes_on),
        Estimate(seconds, 1, 1, bundle_share=0.5),
    )


def work(name="app", seconds=100, stage="export", kind="postgresql"):
    """Work that the model says takes so many seconds."""
    return StageWork(stage, name, kind, 1, 1, seconds)


def sampled_only():
    """A model by which work takes what its sample says."""
    return Reference({f"{stage}, sampled": {"*": [0.0, 0.0]} for stage in ("export", "transfer")}, [])


def past(*ratios, weight=1.0, model=MODEL):
    """A reference class of moves that took so many times what the model says."""
    return ReferenceClass(model, [Scenario(weight, {}, {}, ratio) for ratio in ratios])
