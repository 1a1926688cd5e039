"""What runs at the consumer: an agent that supervises one training child, and always does what its owner says first."""
