"""The web app: layout, handlers, previews and theme around `onellm.Chat`."""
