"""Which model suits a task, and what a job will take: measured or counted, never guessed."""
