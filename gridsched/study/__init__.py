"""The studies behind ``gridsched evaluate``: what unreliable nodes, data, members and rules do to a model, measured on one machine."""
