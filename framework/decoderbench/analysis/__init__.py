"""What the records and predictions of an experiment say, as pandas frames. No torch here."""

from decoderbench.analysis.report_data import Analysis, load_report

__all__ = ["Analysis", "load_report"]
