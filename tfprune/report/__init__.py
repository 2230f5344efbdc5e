"""Reports: the numbers of `tfprune.report.measure` as a text table, a plot, and an HTML page."""

from tfprune.report.report import Report, report

__all__ = ["Report", "report"]
