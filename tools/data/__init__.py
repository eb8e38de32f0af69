"""Look after the data: save, restore, reset, import, export, and made-up accounts."""
