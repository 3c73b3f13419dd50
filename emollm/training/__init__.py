"""Fine-tuning: a plain loop that knows no Ray, and Ray Train around it."""
