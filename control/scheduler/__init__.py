"""The scheduler: missions that start by themselves, each due time once, however many schedulers run."""
