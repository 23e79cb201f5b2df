"""What is wrong with an installation, looked at part by part: no part stops the rest, none uses the network."""

from lampbench.doctor._examine import examine
from lampbench.doctor._report import Finding, Problem, Report, Section

__all__ = ["Finding", "Problem", "Report", "Section", "examine"]
