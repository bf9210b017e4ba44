"""What happens on the page: one group of event handlers a file."""
