"""A model file: the plan it carries (`plan`), how it is stored (`file`), how its plan is changed later (`edit`)."""
