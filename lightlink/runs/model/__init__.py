"""What a plan is, what a run may do next, and what is stored of both. Pure: no clock, no network."""
