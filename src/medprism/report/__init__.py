"""`report`: what runs have shown, in one HTML file."""

from medprism.report.page import report

__all__ = ["report"]
