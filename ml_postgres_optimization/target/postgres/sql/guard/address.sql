-- Where this server listens on its own machine, and who we are.
SELECT /* genesis-pg */
    split_part(current_setting('unix_socket_directories'), ',', 1) AS folder,
    current_setting('port') AS port,
    current_database() AS database,
    session_user AS role
