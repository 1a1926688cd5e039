"""What people read and look at: tables, the picture of a day, a run in numbers, and whether it was worth it."""
