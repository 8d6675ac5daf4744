"""What is there, how fast it can leave, and whether that is before the deadline."""

from migrate.plan.forecast import Forecast, StageTime, forecast
from migrate.plan.survey import SourcePlan, measure_write, survey

__all__ = ["Forecast", "SourcePlan", "StageTime", "forecast", "measure_write", "survey"]
