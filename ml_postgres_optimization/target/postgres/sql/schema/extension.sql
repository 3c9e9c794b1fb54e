CREATE EXTENSION IF NOT EXISTS {name} SCHEMA public /* genesis-pg */
