"""What the supervisor sees to: each duty is one module with one pass, which the supervisor repeats and tests call."""
