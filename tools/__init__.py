"""What developers run: a real server and browser, and the screenshots."""
