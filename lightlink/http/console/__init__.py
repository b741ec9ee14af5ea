"""The web console: the page and its assets, and the browser sessions."""
