"""What is measured on results and masks: intervals, overlaps, and other plain numbers."""
