"""Questions, sentences and texts: their readers, and the datasets, batches and metrics made from them."""
