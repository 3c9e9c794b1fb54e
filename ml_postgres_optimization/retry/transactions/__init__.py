"""Transactions whose outcome is known."""

from ml_postgres_optimization.retry.transactions.transaction import OPERATION_KEYS_TABLE, Transaction, transaction

__all__ = ["OPERATION_KEYS_TABLE", "Transaction", "transaction"]
