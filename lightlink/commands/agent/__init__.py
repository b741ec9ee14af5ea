"""The agent: takes commands, runs them, stores how they ended."""
