"""What a run says: tables, figures and one page, drawn from the store alone."""
