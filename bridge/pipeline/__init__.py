"""The flow: `Poller` turns CI's answers into transitions and deliveries, `Dispatcher` sends, `Pruner` deletes."""
