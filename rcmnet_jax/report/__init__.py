"""The report of one evaluation: a page that stands by itself, and the same as JSON."""

from rcmnet_jax.report.write import ReportOptions as ReportOptions
from rcmnet_jax.report.write import write_report as write_report
