"""The web console: the page and its assets, and the browser sessions.

It has no data of its own: its page calls the HTTP API, and what it shows live comes from `lightlink.http.views.events`.
"""
