"""Durable things: records as rows (`sql`), the one writer (`writer`), and content-addressed files (`blobs`)."""
