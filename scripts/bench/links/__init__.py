"""Long and slow links, and several machines behind them."""
