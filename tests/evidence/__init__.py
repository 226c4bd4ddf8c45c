"""Long experiments whose figures the documentation quotes, one JSON object a bar."""
