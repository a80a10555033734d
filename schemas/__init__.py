"""The contract with the world: topics, the envelope and every payload. Imports nothing of ours."""
