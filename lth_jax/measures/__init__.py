"""What is measured on results, masks and networks: intervals, overlaps, other plain numbers."""
