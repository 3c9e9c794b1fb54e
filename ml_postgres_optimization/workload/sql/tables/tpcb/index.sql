ALTER TABLE genesis_tpcb.pgbench_branches ADD PRIMARY KEY (bid);
ALTER TABLE genesis_tpcb.pgbench_tellers ADD PRIMARY KEY (tid);
ALTER TABLE genesis_tpcb.pgbench_accounts ADD PRIMARY KEY (aid);
