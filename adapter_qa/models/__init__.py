"""The base model, its adapters, fusion and head: options and saved folders, loading, building and saving."""
