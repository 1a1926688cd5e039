"""The doors: the only asynchronous room. Each handler authenticates, parses strictly, hands a verb to the writer and awaits its commit."""
