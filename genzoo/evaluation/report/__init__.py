"""What an evaluation reports: one section per question."""
