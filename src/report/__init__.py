"""The command `compare`, and its report: report.html, report.json and figures."""
