"""The report of a comparison: report.html, report.json and figures."""
