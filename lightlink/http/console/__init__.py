"""The web console: a page, its modules and its stylesheet, and the session of a browser that has logged in."""
