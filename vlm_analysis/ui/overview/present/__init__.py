"""The presentation of a document over the whole window of the dashboard."""
