-- Some of it needs a table to itself: who writes there must not wait behind us. Should it end here, run it again.
SET LOCAL lock_timeout = '500ms';
