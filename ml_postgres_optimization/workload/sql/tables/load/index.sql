-- After the rows: building an index once is cheaper than growing it.
ALTER TABLE genesis_load.accounts ADD PRIMARY KEY (account_id);
ALTER TABLE genesis_load.operations ADD PRIMARY KEY (operation_id);
ALTER TABLE genesis_load.event_log ADD PRIMARY KEY (event_id);
CREATE INDEX operations_of_account ON genesis_load.operations (account_id, operation_id);
