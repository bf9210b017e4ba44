"""What the page shows, as HTML and as updates of components."""
