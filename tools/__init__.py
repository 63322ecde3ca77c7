"""Tools for developers: a real server and browser, and the screenshots."""
