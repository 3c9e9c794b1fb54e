SELECT /* genesis-pg */ pg_size_bytes(current_setting('shared_buffers'))
