"""The flow: `Poller` turns answers of CI into transitions and deliveries, `Dispatcher` sends, `Pruner` forgets."""
