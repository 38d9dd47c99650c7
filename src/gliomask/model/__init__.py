"""Model files: the plan (`plan`), reading and storing (`file`), and replacing the plan in a file (`edit`)."""
