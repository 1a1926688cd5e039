"""`gridsched demo`: a real day of the grid, three real nodes, and somebody pulling plugs. Everything shown comes from the operator API."""
