"""The landscape of a ticket: curvature, step sizes and connectivity at named points."""
