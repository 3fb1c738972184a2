"""The report of one evaluation: a self-contained page, and its content as JSON."""

from rcmnet_jax.report.write import ReportOptions as ReportOptions
from rcmnet_jax.report.write import write_report as write_report
