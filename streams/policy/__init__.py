"""Policy engines over HTTP, and how they and the one in this process stand behind each other."""
