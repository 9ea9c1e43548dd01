"""Data beyond bars: order books, trades, funding, liquidations, options, events and news, as known at a bar's close.

`contract` says what each kind is; `files` reads and validates, `alignment` brings to the bars' closes, `reading` does
so for the pipeline and for a running loop; `order_book` rebuilds quotes from single orders.
"""
