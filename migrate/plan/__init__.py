"""What is there, how long its move takes, and whether that is before the deadline."""

from migrate.plan.forecast import Forecast, Interval, ReferenceClass, StageForecast, forecast
from migrate.plan.move_works import MoveRoute, move_works
from migrate.plan.survey import LocationRates, SourcePlan, measure_location, survey

__all__ = [
    "Forecast",
    "Interval",
    "LocationRates",
    "MoveRoute",
    "ReferenceClass",
    "SourcePlan",
    "StageForecast",
    "forecast",
    "measure_location",
    "move_works",
    "survey",
]
