"""What OpenSIPS 3.4.18's modules export, read off the modules themselves: data, no code.

A module's lines: `int`, `str` and `both` are its parameters by type, `needs` the modules it cannot
load without (`sql`: any database driver), `fn` its script functions with their parameters (i int,
s string, v variable, r regular expression; ! literal only, ~ not expanded, ? may be left out) and
the kinds of route that may call them (* all, else q request, f failure, o onreply, b branch,
e error, l local, s startup, t timer, v event), `pv` its variables (= may be written), `tr` its
transformations.
"""

TEXT = """
core
 fn forward(s?)* send(s,s?)* setflag(s!)* resetflag(s!)* isflagset(s!)* setbflag(s!,i?)*
    resetbflag(s!,i?)* isbflagset(s!,i?)* sethost(s)* sethostport(s)* setuser(s)* setuserpass(s)*
    setport(s)* seturi(s)* prefix(s)* strip(i)* strip_tail(i)* append_branch(s?,s?)*
    remove_branch(i)* pv_printf(v,s)* revert_uri()* setdsturi(s)* resetdsturi()* isdsturiset()*
    force_rport()* add_local_rport()* force_tcp_alias(i?)* set_advertised_address(s)*
    set_advertised_port(s)* force_send_socket(s)* serialize_branches(i,i?)* next_branches()*
    use_blacklist(s)* unuse_blacklist(s)* check_blacklist_rule(s,s,i?,s?,s?)*
    add_blacklist_rule(s,s,i?,s?,s?,i?)* del_blacklist_rule(s,s,i?,s?,s?)* cache_store(s,s,s,i?)*
    cache_remove(s,s)* cache_fetch(s,s,v)* cache_counter_fetch(s,s,v)* cache_add(s,s,i,i,v?)*
    cache_sub(s,s,i,i,v?)* cache_raw_query(s,s,s~?)* raise_event(s,v?,v?)*
    subscribe_event(s,s,i?)* construct_uri(s,s?,s,s?,s?,v)* get_timestamp(v,v)*
    script_trace(i?,s~?,s!?)* is_myself(s,i?)* sr_check_status(s,s?)*
 pv avp= hdr hdr_name hdrcnt var= ai au ar adu ad an auth.nonce auth.resp auth.cnonce auth.opaque
    auth.alg auth.qop auth.nc aU Au bf branch= branch.flag= ci cl cs ct ct.fields cT dd= di dir
    dip dp= dP ds du= duri= err.class err.level err.info err.rcode err.rreason fd from.domain fn
    ft fu from fU from.user log_level= mb mf msg.flag= msg.is_request msg.type mi ml od op oP ou
    ouri oU path pd pn pp pu pU rb rc retcode rd= ruri.domain= re rm route route.name route.type
    rp= rP rr rs rt ru= ruri= ru_q= rU= ruri.user= src_ip socket_in socket_out= socket_out si sp
    td to.domain time tn tt tu to tU to.user Tf Ts Tsm TS ua C argv param cfg_line cfg_file
    xlog_level=
acc
 int early_media report_cancels detect_direction log_level service_type
 str log_facility aaa_url extra_fields leg_fields db_url db_table_acc db_table_missed_calls
    db_table_avp acc_method_column acc_from_tag_column acc_to_tag_column acc_callid_column
    acc_sip_code_column acc_sip_reason_column acc_time_column
 needs tm
 fn acc_log_request(s)qfbl acc_db_request(s,s)qfbl acc_aaa_request(s)qfbl acc_evi_request(s)qfbl
    do_accounting(s,s?,s?)qfbl drop_accounting(s?,s?)qfbl acc_new_leg()qfbl
    acc_load_ctx_from_dlg()* acc_unload_ctx_from_dlg()*
 pv acc_extra= acc_leg= acc_current_leg
auth
 int nonce_expire calculate_ha1 disable_nonce_check
 str secret rpid_prefix rpid_suffix realm_prefix rpid_avp username_spec password_spec
 needs signaling
 fn www_challenge(s,s?,s?)q proxy_challenge(s,s?,s?)q pv_www_authorize(s)q pv_proxy_authorize(s)q
    consume_credentials()q is_rpid_user_e164()q append_rpid_hf(s?,s?)qfb
auth_db
 int calculate_ha1 use_domain skip_version_check
 str db_url user_column domain_column password_column hash_column_sha256 hash_column_sha512t256
    uri_user_column uri_domain_column uri_uriuser_column load_credentials
 needs auth
 fn www_authorize(s,s)q proxy_authorize(s,s)q db_does_uri_exist(s,s)qfl db_is_to_authorized(s)q
    db_is_from_authorized(s)q db_get_auth_id(s,s,v,v)qfl
cachedb_local
 int cache_clean_period exec_threshold cluster_id enable_restart_persistency
 str cache_collections cachedb_url cluster_persistency
 fn cache_remove_chunk(s?,s)qfobls
cfgutils
 int initial_probability shv_hash_size lock_pool_size
 str hash_file shvset varset
 fn rand_set_prob(i)qfoblstv rand_reset_prob()qfoblstv rand_get_prob()qfoblstv
    rand_event(i?)qfoblstv sleep(i)qfoblstv usleep(i)qfoblstv abort()qfoblstv pkg_status()qfoblstv
    shm_status()qfoblstv set_count(v,v)qfoblstv set_select_weight(v)qfoblstv
    get_accurate_time(v,v,v?)qfoblstv ts_usec_delta(i,i,i,i,v?,v?)qfoblstv
    get_static_lock(s)qfoblstv check_time_rec(s,i?)* release_static_lock(s)qfoblstv
    get_dynamic_lock(s)qfoblstv release_dynamic_lock(s)qfoblstv strings_share_lock(s)qfoblstv
 pv RANDOM shv= ctime env
clusterer
 int enable_stats my_node_id ping_interval node_timeout ping_timeout seed_fallback_interval
    sync_timeout db_mode sync_packet_size dispatch_jobs
 str db_url db_table id_col cluster_id_col node_id_col url_col state_col no_ping_retries_col
    priority_col sip_addr_col flags_col description_col neighbor_node_info my_node_info
    sharing_tag
 fn cluster_broadcast_req(i,s,v?)qfoblv cluster_send_req(i,i,s,v?)qfoblv
    cluster_send_rpl(i,i,s,v)qfoblv cluster_check_addr(i,s,s?)qfoblv
 pv cluster.sh_tag=
db_mysql
 int timeout_interval exec_query_threshold max_db_retries max_db_queries ps_max_col_size use_tls
db_postgres
 int exec_query_threshold max_db_queries timeout use_tls
db_sqlite
 int alloc_limit
 str load_extension
db_text
 int db_mode
dialog
 int enable_stats hash_size log_profile_hash_size default_timeout options_ping_interval
    reinvite_ping_interval delete_delay dlg_match_mode db_mode db_update_period
    db_flush_vals_profiles timer_bulk_del_no race_condition_timeout profile_timeout
    dialog_replication_cluster profile_replication_cluster replicate_profiles_timer
    replicate_profiles_check replicate_profiles_buffer replicate_profiles_expire cluster_auto_sync
 str rr_param dlg_extra_hdrs db_url table_name dlg_id_column call_id_column from_uri_column
    from_tag_column to_uri_column to_tag_column state_column start_time_column timeout_column
    to_cseq_column from_cseq_column to_route_column from_route_column to_contact_column
    from_contact_column to_sock_column from_sock_column profiles_column vars_column sflags_column
    mflags_column flags_column profiles_with_value profiles_no_value cachedb_url
    profile_value_prefix profile_no_value_prefix profile_size_prefix
 needs tm
 fn create_dialog(s?)q set_dlg_profile(s,s?,i?)qfob unset_dlg_profile(s,s?)qfob
    is_in_profile(s,s?)qfob get_profile_size(s,s?,v)* set_dlg_flag(s!)qfobl
    test_and_set_dlg_flag(s!,i)qfobl reset_dlg_flag(s!)qfobl is_dlg_flag_set(s!)qfobl
    store_dlg_value(s,v)qfobl fetch_dlg_value(s,v)qfobl validate_dialog()q fix_route_dialog()q
    get_dialog_info(s,v,s,v,v)* get_dialog_vals(v,v,s)* get_dialogs_by_val(s,v,v,v)*
    get_dialogs_by_profile(s,s?,v,v)* match_dialog(s?)q set_dlg_sharing_tag(s)q
    load_dialog_ctx(s,s?)* unload_dialog_ctx()* dlg_on_timeout(s?)qfob dlg_on_answer(s?)qfob
    dlg_on_hangup(s?)qfob dlg_send_sequential(s,s,s?,s?,s?)*
 pv DLG_count DLG_lifetime DLG_status DLG_dir DLG_flags= dlg_val= DLG_did DLG_end_reason
    DLG_timeout= DLG_json DLG_ctx_json DLG_del_delay=
dialplan
 str partition db_url table_name dpid_col pr_col match_op_col match_exp_col match_flags_col
    subst_exp_col repl_exp_col attrs_col timerec_col disabled_col
 fn dp_translate(i,s,v?,v?,s?)qfblstv
dispatcher
 int ds_probing_threshhold ds_probing_threshold ds_ping_interval ds_ping_maxfwd ds_probing_mode
    persistent_state fetch_freeswitch_stats max_freeswitch_weight cluster_id
 str partition db_url table_name setid_col destination_col socket_col state_col weight_col
    priority_col attrs_col description_col probe_mode_col dst_avp grp_avp cnt_avp sock_avp
    attrs_avp script_attrs_avp algo_route hash_pvar setid_pvar pvar_algo_pattern ds_ping_method
    ds_ping_from options_reply_codes ds_probing_sock ds_probing_list ds_define_blacklist
    cluster_sharing_tag cluster_probing_mode
 needs sql
 fn ds_select_dst(i,i,s?,s?,i?)qfbl ds_select_domain(i,i,s?,s?,i?)qfbl ds_next_dst(s?)qf
    ds_next_domain(s?)qf ds_mark_dst(s?,s?)qf ds_is_in_list(s,i,i?,s?,i?,s?)qfobl
    ds_count(i,s,v,s?)qfbltv ds_push_script_attrs(s,s,i,i?,s?)* ds_get_script_attrs(s,i,s?,v)*
domain
 int db_mode
 str db_url domain_table domain_col attrs_col
 fn is_from_local(v?)qfbl is_uri_host_local(v?)qfbl is_domain_local(s,v?)qfbl
drouting
 int use_partitions use_domain force_dns default_group probing_interval persistent_state
    no_concurrent_reload cluster_id enable_restart_persistency
 str db_partitions_url db_partitions_table db_url drd_table drr_table drg_table drc_table
    drg_user_col drg_domain_col drg_grpid_col ruri_avp gw_id_avp gw_priprefix_avp gw_sock_avp
    rule_id_avp rule_prefix_avp carrier_id_avp define_blacklist probing_method probing_from
    probing_socket probing_reply_codes rule_tables_query partition_id_pvar cluster_sharing_tag
    cluster_probing_mode extra_prefix_chars extra_id_chars gw_socket_filter_mode
 needs sql
 fn do_routing(i?,s?,s?,v?,v?,v?,s?)* route_to_carrier(s,v?,v?,s?)* route_to_gw(s,v?,v?,s?)*
    use_next_gw(v?,v?,v?,s?)qfbl is_from_gw(i?,s?,v?,v?,s?)qfob goes_to_gw(i?,s?,v?,v?,s?)qfobl
    dr_is_gw(s,i?,s?,v?,v?,s?)* dr_disable(s?)qfobl dr_match(i,s?,s,v?,s?)qfobl
event_datagram
event_route
fraud_detection
 int use_utc_time
 str db_url table_name rid_col pid_col prefix_col start_h_col end_h_col days_col
    cpm_thresh_warn_col cpm_thresh_crit_col calldur_thresh_warn_col calldur_thresh_crit_col
    totalc_thresh_warn_col totalc_thresh_crit_col concalls_thresh_warn_col
    concalls_thresh_crit_col seqcalls_thresh_warn_col seqcalls_thresh_crit_col
 needs drouting dialog sql
 fn check_fraud(s,s,i)qo
httpd
 int port buf_size post_buf_size
 str ip tls_cert_file tls_key_file tls_ciphers
load_balancer
 int probing_interval probing_verbose cluster_id fetch_freeswitch_stats initial_freeswitch_load
 str db_url db_table probing_method probing_from probing_reply_codes lb_define_blacklist
    cluster_sharing_tag
 needs dialog sql
 fn lb_start(i,s,s?,v?)qfb load_balance(i,s,s?,v?)qfb lb_start_or_next(i,s,s?,v?)qfb
    lb_next(v?)qfb lb_reset()qfb lb_is_started()qfb lb_disable_dst()qfb
    lb_is_destination(s,i,i?,i?,v?)qfobl lb_count_call(s,i,i,s,i?)qfb
maxfwd
 int max_limit
 fn mf_process_maxfwd_header(i)q is_maxfwd_lt(i)qfb
mi_datagram
 int children_count socket_timeout unix_socket_mode pretty_printing
 str socket_name trace_destination trace_bwlist
 both unix_socket_group unix_socket_user
mi_fifo
 int fifo_mode pretty_printing
 str fifo_name reply_dir trace_destination trace_bwlist
 both fifo_group fifo_user
mi_http
 int pretty_printing
 str root trace_destination trace_bwlist
 needs httpd
nathelper
 int natping_interval ping_nated_only natping_tcp natping_partitions ping_threshold max_pings_lost
    cluster_id
 str nortpproxy_str received_avp force_socket sipping_ignore_rpl_codes sipping_from sipping_method
    sipping_bflag sipping_latency_flag remove_on_timeout_bflag natping_socket oldip_skip
    cluster_sharing_tag
 fn fix_nated_contact(s?)qobl fix_nated_sdp(s,s?,s?)qfobl nat_uac_test(s)qfobl
    fix_nated_register()q add_rcv_param(i?)q
options
 str accept accept_encoding accept_language support
 needs signaling
 fn options_reply()q
path
 int use_received enable_double_path
 fn add_path(s?)q add_path_received(s?)q
permissions
 int check_all_branches
 str default_allow_file default_deny_file allow_suffix deny_suffix partition db_url address_table
    ip_col proto_col pattern_col info_col grp_col mask_col port_col
 fn check_address(i,s,i,s,v?,s?,s?)qfblstv check_source_address(i,v?,s?,s?)qfbl
    get_source_group(v,s?)qfbl allow_routing(s?)qfl allow_register(s)qfl allow_uri(s,s)qfblstv
pike
 int sampling_time_unit reqs_density_per_unit remove_latency pike_log_level
 str check_route
 fn pike_check_req()q
prometheus
 int group_mode
 str root prefix delimiter group_prefix group_label statistics labels
 needs httpd
proto_bin
 int bin_port bin_send_timeout bin_max_msg_chunks bin_async bin_async_max_postponed_chunks
    bin_async_local_connect_timeout bin_async_local_write_timeout
proto_tcp
 int tcp_port tcp_send_timeout tcp_max_msg_chunks tcp_crlf_pingpong tcp_crlf_drop tcp_async
    tcp_async_max_postponed_chunks tcp_async_local_connect_timeout tcp_async_local_write_timeout
    tcp_parallel_handling trace_on
 str trace_destination trace_filter_route
proto_tls
 int tls_port tls_crlf_pingpong tls_crlf_drop tls_max_msg_chunks tls_send_timeout
    tls_handshake_timeout tls_async tls_async_max_postponed_chunks tls_async_local_connect_timeout
    tls_async_handshake_timeout trace_on cert_check_on_conn_reusage
 str trace_destination trace_filter_route
 needs tls_mgm
proto_udp
 int udp_port
proto_ws
 int ws_port ws_max_msg_chunks ws_send_timeout require_origin ws_handshake_timeout trace_on
 str ws_resource trace_destination trace_filter_route
proto_wss
 int wss_port wss_max_msg_chunks wss_send_timeout require_origin wss_handshake_timeout
    wss_tls_handshake_timeout trace_on cert_check_on_conn_reusage
 str wss_resource trace_destination trace_filter_route
ratelimit
 int timer_interval expire_time hash_size repl_buffer_threshold repl_timer_interval
    repl_timer_expire pipe_replication_cluster window_size slot_period limit_per_interval
 str default_algorithm cachedb_url db_prefix
 fn rl_check(s,i,s?)qfobeltv rl_dec_count(s)qfobeltv rl_reset_count(s)qfobeltv
 pv rl_count
registrar
 int default_expires default_q case_sensitive min_expires max_expires retry_after disable_gruu
    max_contacts max_username_len max_domain_len max_aor_len max_contact_len allow_dup_cseq
    expires_max_deviation pn_enable pn_pnsreg_interval pn_trigger_interval pn_skip_pn_interval
    pn_refresh_timeout pn_enable_purr
 str tcp_persistent_flag realm_prefix received_param received_avp sock_hdr_name mcontact_avp
    attr_avp gruu_secret pn_providers pn_ct_match_params
 needs usrloc signaling
 fn save(s!,s?,s?,s?)qo remove(s!,s,s?,s?,s?)qo remove_ip_port(s,i,s!,s?)* lookup(s!,s?,s?)qfo
    add_sock_hdr(s)qfobl is_registered(s!,s?)qfobl is_contact_registered(s!,s?,s?,s?)qfobl
    is_ip_registered(s!,s?,v,v?)qfobl
rr
 int append_fromtag enable_double_rr add_username enable_socket_mismatch_warning
 fn loose_route()q record_route(s?)qfb record_route_preset(s,s?)qfb add_rr_param(s)qfb
    check_route_param(r)q is_direction(s)q
 pv rr_params
rtpengine
 int rtpengine_disable_tout rtpengine_retr rtpengine_tout rtpengine_timer_interval
 str rtpengine_sock extra_id_pv setid_avp error_pv db_url db_table socket_column set_column
    notification_sock
 fn rtpengine_use_set(i)* rtpengine_start_recording(s?,v?)* rtpengine_stop_recording(s?,v?)*
    rtpengine_offer(s?,v?,v?,s?)* rtpengine_answer(s?,v?,v?,s?)* rtpengine_manage(s?,v?,v?,s?)*
    rtpengine_delete(s?,v?)* rtpengine_play_media(s,v?,v?)* rtpengine_stop_media(s?,v?)*
    rtpengine_block_media(s?,v?)* rtpengine_unblock_media(s?,v?)* rtpengine_block_dtmf(s?,v?)*
    rtpengine_unblock_dtmf(s?,v?)* rtpengine_start_forwarding(s?,v?)*
    rtpengine_stop_forwarding(s?,v?)* rtpengine_play_dtmf(s,s?,v?)*
 pv rtpstat rtpquery
signaling
 fn send_reply(i,s)qfe
 pv sig_local_totag
sipmsgops
 fn append_to_reply(s)qfbe append_hf(s,s?)qfobl insert_hf(s,s?)qfobl append_urihf(s,s)qfb
    remove_hf(s)qfobl remove_hf_re(r)qfobl remove_hf_glob(s)qfobl is_present_hf(s)qfobl
    append_time()qfbl is_method(s)qfobl has_body(s?)qfobl has_body_part(s?)qfobl
    is_privacy(s)qfobl remove_body_part(s?,s?)qfobl add_body_part(s,s,s?)qfobl
    get_updated_body_part(s?,v)qfobl codec_exists(s,s?)qfobl codec_exists_re(r)qfobl
    codec_delete(s,s?)qfobl codec_delete_re(r)qfobl codec_delete_except_re(r)qfobl
    codec_move_up(s,s?)qfobl codec_move_up_re(r)qfobl codec_move_down(s,s?)qfobl
    codec_move_down_re(r)qfobl is_audio_on_hold()qfobl sipmsg_validate(s?,v?)qfob
    change_reply_status(i,s)o stream_exists(r,r?)qfobl stream_delete(r,r?)qfobl
    list_hdr_has_option(s,s)qfobl list_hdr_add_option(s,s)qfobl list_hdr_remove_option(s,s)qfobl
    has_totag()qfobl ruri_has_param(s,s?)qfbl ruri_add_param(s)qfbl ruri_del_param(s)qfbl
    ruri_tel2sip()qfbl is_uri_user_e164(s)qfl get_glob_headers_values(s,v,v)qfobl
sl
 int enable_stats
 fn sl_send_reply(i,s)qe sl_reply_error()q
statistics
 str variable stat_groups stat_series_profile
 fn update_stat(s,i)qfoblstv reset_stat(s)qfoblstv stat_iter_init(s,s)qfoblstv
    stat_iter_next(v,v,s)qfoblstv update_stat_series(s,s,i)*
 pv stat=
status_report
 str script_sr_group
 fn sr_set_status(s,i,s?)* sr_add_report(s,s)*
tcp_mgm
 str db_url db_table id_col proto_col remote_addr_col remote_port_col local_addr_col
    local_port_col direction_col priority_col attrs_col connect_timeout_col con_lifetime_col
    msg_read_timeout_col send_threshold_col no_new_conn_col parallel_read_col alias_mode_col
    keepalive_col keepcount_col keepidle_col keepinterval_col
 needs sql
textops
 fn search(r)qfobl search_body(r)qfobl search_append(r,s)qfobl search_append_body(r,s)qfobl
    replace(r,s)qfobl replace_body(r,s)qfobl replace_all(r,s)qfobl replace_body_all(r,s)qfobl
    replace_body_atonce(r,s)qfobl subst(s~)qfobl subst_uri(s~)qfob subst_user(s~)qfob
    subst_body(s~)qfobl
tls_mgm
 str tls_library client_tls_domain_avp client_sip_domain_avp server_domain client_domain
    match_ip_address match_sip_domain tls_method verify_cert require_cert certificate private_key
    crl_check_all crl_dir ca_list ca_dir ciphers_list dh_params ec_curve db_url db_table
    domain_col match_ip_address_col match_sip_domain_col tls_method_col verify_cert_col
    require_cert_col certificate_col private_key_col crl_check_all_col crl_dir_col ca_list_col
    ca_dir_col ciphers_list_col dh_params_col ec_curve_col
 fn is_peer_verified()q load_tls_mgm()*
 pv tls_version tls_description tls_cipher_info tls_cipher_bits tls_peer_version tls_my_version
    tls_peer_serial tls_my_serial tls_peer_subject tls_peer_issuer tls_my_subject tls_my_issuer
    tls_peer_subject_cn tls_peer_issuer_cn tls_my_subject_cn tls_my_issuer_cn
    tls_peer_subject_locality tls_peer_issuer_locality tls_my_subject_locality
    tls_my_issuer_locality tls_peer_subject_country tls_peer_issuer_country tls_my_subject_country
    tls_my_issuer_country tls_peer_subject_state tls_peer_issuer_state tls_my_subject_state
    tls_my_issuer_state tls_peer_subject_organization tls_peer_issuer_organization
    tls_my_subject_organization tls_my_issuer_organization tls_peer_subject_unit
    tls_peer_issuer_unit tls_my_subject_unit tls_my_subject_serial tls_peer_subject_serial
    tls_my_issuer_unit tls_peer_san_email tls_my_san_email tls_peer_san_hostname
    tls_my_san_hostname tls_peer_san_uri tls_my_san_uri tls_peer_san_ip tls_my_san_ip
    tls_peer_verified tls_peer_revoked tls_peer_expired tls_peer_selfsigned tls_peer_notBefore
    tls_peer_notAfter
tls_openssl
 fn load_tls_openssl()*
tm
 int ruri_matching via1_matching fr_timeout fr_inv_timeout wt_timer delete_timer T1_timer T2_timer
    unix_tx_timeout restart_fr_on_each_reply enable_stats pass_provisional_replies syn_branch
    onreply_avp_mode disable_6xx_block timer_partitions auto_100trying tm_replication_cluster
    cluster_auto_cancel
 str tw_append minor_branch_flag cluster_param
 fn t_newtran()q t_reply(i,s)qf t_replicate(s,s?)qf t_relay(s?,s?)qf t_on_failure(s)qfobl
    t_on_reply(s)qfobl t_on_branch(s)qfob t_check_status(r)qfob t_write_req(s,s)qfb
    t_write_unix(s,s)qfb t_flush_flags()qb t_local_replied(s)qfob t_check_trans()qb
    t_was_cancelled()qfob t_cancel_branch(s?)o t_add_hdrs(s)q t_reply_with_body(i,s,s)qf
    t_new_request(s,s,s,s,s?,s?)* t_add_cancel_reason(s)q t_inject_branches(s,s?)qo
    t_wait_for_new_branches(i?)q t_wait_no_more_branches()qfob t_anycast_replicate()q
    t_reply_by_callid(i,s,s?,s?)q
 pv T_branch_idx T_reply_code T_ruri bavp= T_fr_timeout= T_fr_inv_timeout= T_id
topology_hiding
 int force_dialog
 str th_passed_contact_uri_params th_passed_contact_params th_callid_passwd th_callid_prefix
    th_contact_encode_passwd th_contact_encode_param th_contact_encode_scheme
 needs tm
 fn topology_hiding(s?)q topology_hiding_match(s?)q
 pv TH_callee_callid
uac
 int force_dialog
 str rr_from_store_param rr_to_store_param restore_mode restore_passwd
 needs tm
 fn uac_replace_from(s?,s)qfb uac_restore_from()qfb uac_replace_to(s?,s)qfb uac_restore_to()qfb
    uac_auth(s?)qfb
uac_auth
 str credential auth_username_avp auth_realm_avp auth_password_avp
uac_registrant
 int hash_size default_expires timer_interval enable_clustering
 str db_url table_name registrar_column proxy_column aor_column third_party_registrant_column
    username_column password_column binding_URI_column binding_params_column expiry_column
    forced_socket_column cluster_shtag_column state_column
 needs tm uac_auth
usrloc
 int timer_interval db_mode shared_pinging use_domain desc_time_order mi_dump_kv_store
    latency_event_min_us latency_event_min_us_delta matching_mode cseq_delay hash_size
    contact_refresh_timer location_cluster skip_replicated_db_ops max_contact_delete
    regen_broken_contactid
 str contact_id_column user_column domain_column contact_column expires_column q_column
    callid_column cseq_column flags_column cflags_column db_url cachedb_url working_mode_preset
    cluster_mode restart_persistency sql_write_mode pinging_mode user_agent_column received_column
    path_column socket_column methods_column sip_instance_column kv_store_column attr_column
    nat_bflag
"""
