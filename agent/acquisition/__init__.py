"""What is worth asking a person: "dense-uncertain". Factors of each answer to a score, and a batch chosen by it."""
