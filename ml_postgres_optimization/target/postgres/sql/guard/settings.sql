SELECT /* genesis-pg */
    set_config('client_connection_check_interval', '0', false),
    set_config('client_min_messages', 'notice', false)
