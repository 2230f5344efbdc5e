"""Reports: the numbers of `tfprune.measure` as a text table, a plot, and an HTML page."""

from tfprune.report.result import Report, report

__all__ = ["Report", "report"]
