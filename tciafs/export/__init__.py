"""Plain copies of what a mount shows, as the retriever would have left them: in folders, or in archives."""
