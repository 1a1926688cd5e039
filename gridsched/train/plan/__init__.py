"""A program as a list of kernel calls: shapes, gradients, buffers and their order are worked out once, here."""
