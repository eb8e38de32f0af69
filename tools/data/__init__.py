"""Look after the data: copies, CSV files, made-up rows, new names, another database."""
