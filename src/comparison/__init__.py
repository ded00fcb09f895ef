"""From runs to a verdict with error bars."""
